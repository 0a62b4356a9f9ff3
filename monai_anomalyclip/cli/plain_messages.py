# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""What a command's user sees: warnings and logs as plain sentences, tables, and what a folder of results holds."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from monai_anomalyclip import RESEARCH_USE_ONLY

if TYPE_CHECKING:
    from monai_anomalyclip.writers.record import InputRecord
    from monai_anomalyclip.writers.tables import RunDocument

__all__ = ["EXIT_STATUS", "INPUTS_FAILED", "damaged_files", "plain_messages", "show_summary", "text_table"]

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


def show_summary(document: RunDocument, output: Path, report: bool = True) -> int:
    """Print what a folder of results holds and what was left out; how many of the files left out are damaged.

    Args:
        document: the results.
        output: their folder.
        report: whether there is a report.
    """
    from monai_anomalyclip.writers.report import archive_place
    from monai_anomalyclip.writers.tables import ranked_records

    compared = any(record.compared for record in document.inputs)
    rows: list[tuple[str, ...]] = [
        ("input", "slices", "geometry", "score", "margin", *(["p"] if compared else []), "top slice", "status")
    ]
    failed = [record for record in document.inputs if record.status != "ok"]
    for record in [*ranked_records(document.inputs), *failed]:
        top = record.most_suspicious[0] if record.most_suspicious and record.kind != "frame" else None
        place = archive_place(top).replace("\N{NO-BREAK SPACE}", " ") if top else ""
        rows.append(
            (
                record.name,
                str(record.frames or ""),
                record.geometry.verdict if record.geometry else "",
                "" if record.anomaly_score is None else f"{record.anomaly_score:.3f}",
                "" if record.score_margin is None else f"{record.score_margin:.2f}",
                *([_p_values(record)] if compared else []),
                "" if top is None else f"{top.index} ({place})" if place else str(top.index),
                record.status if record.status == "ok" else f"{record.status}: {record.reason}",
            )
        )
    print(text_table(rows))
    if (more := document.summary.inputs - len(document.inputs)) > 0:
        print(f"... and {more} more, see {output / 'inputs.csv'}")
    skipped: Mapping[str, int] = document.skipped
    for reason, count in skipped.items():
        print(f"left out: {count} x {reason}")
    where = f"Report: {output / 'report.html'}" if report else f"Tables: monai-anomalyclip merge {output}"
    said = f"{RESEARCH_USE_ONLY} {document.model.caution}".strip()
    print(f"\nScores are not calibrated: they rank images. {where}\n{said}")
    return damaged_files(skipped)


def _p_values(record: InputRecord) -> str:
    """Of each way of scoring among normals."""
    found = [one for one in record.compared if one.p_value is not None]
    named = len(record.compared) > 1
    return ", ".join(f"{one.p_value:.2g}{f' ({one.method})' if named else ''}" for one in found)
