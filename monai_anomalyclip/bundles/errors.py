# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The cause of a failed bundle run, repeated as the last line.

``python -m monai.bundle`` wraps every exception several times and ends with "Failed to evaluate ConfigExpression",
pages below the sentence that helps. Our configurations import this module; under that command, and only there, it
puts the cause last, and refuses names of files and folders that the command would change: Python Fire, by which MONAI
reads that line, makes 100000.0 of the folder ``1e5``, 1000 of ``1_000``, a list of ``[1]``, ``a`` of ``a#b``, and
nothing at all of ``None``. Another folder would be read or written, without a word.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Any

__all__ = [
    "cause_of",
    "check_path_arguments",
    "print_cause_last",
]


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


_SINGLE = ("bundle_root", "output_dir", "model_dir", "cache_dir", "datalist", "prompts", "model_file")
_SEVERAL = ("dataset_dir",)  # may also be a list of texts


def check_path_arguments(arguments: Sequence[str]) -> None:
    """Refuse a path that Python Fire would change.

    Args:
        arguments: the command line, such as ``sys.argv``.

    Raises:
        ValueError: a path would be changed; the message says how to write it.

    Example:
        >>> check_path_arguments(["run", "--dataset_dir", "./1e5", "--output_dir=results"])
        >>> check_path_arguments(["run", "--dataset_dir", "1e5"])
        Traceback (most recent call last):
        ...
        ValueError: --dataset_dir 1e5 would be read as 100000.0: write ./1e5
    """
    from fire.parser import DefaultParseValue  # MONAI needs it for that command alone

    for word, following in zip(arguments, [*arguments[1:], ""], strict=True):
        key, assigned, text = word.partition("=")
        name = key.lstrip("-").replace("-", "_")
        if not key.startswith("-") or name not in (*_SINGLE, *_SEVERAL):
            continue
        text = text if assigned else following
        value = DefaultParseValue(text)
        if value == text or _meant(value, text, name):
            continue
        raise ValueError(f"--{name} {text} would be read as {value!r}: write ./{text}")


def _meant(value: Any, text: str, name: str) -> bool:
    """Whether somebody wrote a text in quotes, or a list of several paths."""
    if isinstance(value, str):
        return text[:1] in ("'", '"')
    several = name in _SEVERAL and isinstance(value, list | tuple) and len(value) > 0
    return several and all(isinstance(part, str) for part in value)


if getattr(sys.modules["__main__"].__spec__, "name", "").startswith("monai.bundle"):
    sys.excepthook = print_cause_last
    try:
        check_path_arguments(sys.argv)
    except ValueError as error:  # which MONAI would take for an import that failed, and go on
        raise SystemExit(f"error: {error}") from error
