# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""What a command's user sees of warnings and logs: one sentence, without the place in the code."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

__all__ = ["EXIT_STATUS", "INPUTS_FAILED", "damaged_files", "plain_messages", "text_table"]

INPUTS_FAILED = 3
"""Exit status when all was done but for some inputs that failed for good: doing it again gives the same."""

EXIT_STATUS = """Exit status:
  0        all well
  1        the command failed, or an input failed for a reason that may pass (such as a full disk): run it again
  2        the command was used wrongly
  3        done, but some inputs failed for good or some files are damaged: running it again changes nothing
  130      interrupted (143, 129: by SIGTERM, SIGHUP): run it again
"""


@contextmanager
def plain_messages(verbose: bool) -> Iterator[None]:
    """Within the block show the log and warnings as plain sentences, without what other libraries say of the inside.

    Settings are those of before afterwards: a command may be one step of a longer program, a notebook for example.
    Where the program has a log of its own (the root logger has a handler), the messages go there.

    Args:
        verbose: show the whole log and the libraries' messages, too, not only warnings.
    """
    # It, too, reports the exception that ends the command.
    levels = {} if verbose else {"ignite": logging.CRITICAL}
    # MONAI warns that there is no logging.conf, which is meant. A level would not do: it sets its own when imported.
    workflows = logging.getLogger("monai.bundle.workflows")
    before = {name: logging.getLogger(name).level for name in levels}
    formatted = warnings.formatwarning
    with warnings.catch_warnings(), _log_shown(verbose):
        # The bundle was named on the command line, as a program would be.
        warnings.filterwarnings("ignore", message="parsing config_file", category=UserWarning)
        if not verbose:
            warnings.formatwarning = lambda message, *_: f"warning: {message}\n"
        try:
            workflows.addFilter(_is_error)
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)
            yield
        finally:
            workflows.removeFilter(_is_error)
            warnings.formatwarning = formatted
            for name, level in before.items():
                logging.getLogger(name).setLevel(level)


def _is_error(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR


@contextmanager
def _log_shown(verbose: bool) -> Iterator[None]:
    root = logging.getLogger()
    if root.handlers:
        yield
        return
    handler, level = logging.StreamHandler(), root.level
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S"))
    root.addHandler(handler)
    root.setLevel(logging.INFO if verbose else logging.WARNING)
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(level)


def text_table(rows: Sequence[Sequence[str]]) -> str:
    """Align columns by spaces; the first row is the heading and gets a line below it.

    Raises:
        ValueError: rows have different lengths.
    """
    if len({len(row) for row in rows}) > 1:
        raise ValueError(f"Rows have {sorted({len(row) for row in rows})} columns: they must all have the same number.")
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


# As monai_anomalyclip.data.dicom.series.DAMAGED, which is slow to import.
_DAMAGED = ("damaged header", "damaged pixels", "deflated too large", "header too large", "too large", "unreadable")


def damaged_files(left_out: Mapping[str, int]) -> int:
    """How many files are damaged, cannot be opened, claim more than can be read, or hold images that are not read.

    Args:
        left_out: number of files and series by reason, as :meth:`monai_anomalyclip.data.InputCatalogue.left_out` gives.
    """
    return sum(count for code, count in left_out.items() if code in _DAMAGED or code.endswith(", not read"))
