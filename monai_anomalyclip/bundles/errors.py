# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The cause of a failed bundle run, repeated as the last line.

``python -m monai.bundle`` wraps every exception several times and ends with "Failed to evaluate ConfigExpression",
pages below the sentence that helps. Our configurations import this module; under that command, and only there, it
puts the cause last, and refuses names of folders that the command would change
(:mod:`~monai_anomalyclip.bundles.path_arguments`).
"""

from __future__ import annotations

import sys
from types import TracebackType

from monai_anomalyclip.bundles.path_arguments import check_path_arguments

__all__ = ["cause_of", "print_cause_last"]


def cause_of(error: BaseException) -> BaseException:
    """What MONAI's own exceptions ("Failed to ...") were raised from; any other exception is its own cause."""
    while isinstance(error, RuntimeError) and str(error).startswith("Failed to ") and error.__cause__ is not None:
        error = error.__cause__
    return error


def print_cause_last(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print the traceback as usual, then the exception that MONAI's own ("Failed to ...") were raised from."""
    sys.__excepthook__(kind, error, trace)
    if (cause := cause_of(error)) is not error:
        print(f"\n{type(cause).__name__}: {cause}", file=sys.stderr)


if getattr(sys.modules["__main__"].__spec__, "name", "").startswith("monai.bundle"):
    sys.excepthook = print_cause_last
    try:
        check_path_arguments(sys.argv)
    except ValueError as error:  # which MONAI would take for an import that failed, and go on
        raise SystemExit(f"error: {error}") from error
