# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""How far a work is that many parts share: what is missing, and how long the rest will take."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from monai_anomalyclip.atomic_file import write_atomically
from monai_anomalyclip.data.work_list import read_work_list
from monai_anomalyclip.writers.finished import DamagedRecordError
from monai_anomalyclip.writers.output_folder import OutputFolder
from monai_anomalyclip.writers.report import duration
from monai_anomalyclip.writers.tables import check_table, table_line

__all__ = ["MISSING_COLUMNS", "Progress", "progress_of", "seconds_left", "write_missing"]

MISSING_COLUMNS = ("name", "status", "reason")
_RECENT = 0.1  # share of the finished inputs that the present rate is taken from
_FEWEST = 5
_QUIET = 10.0  # times the usual gap without a result, after which nothing seems to run


@dataclass(frozen=True)
class Progress:
    """What is done of a work list.

    Args:
        inputs: number of inputs of the list.
        missing: names of those without a finished or failed record, in the order of the list.
        failed: reason by name.
        left: seconds that the rest will take at the present rate; None where that cannot be told.
    """

    inputs: int
    missing: tuple[str, ...]
    failed: dict[str, str]
    left: float | None

    def sentence(self) -> str:
        """All of it in a line."""
        done = self.inputs - len(self.missing) - len(self.failed)
        text = f"{done} of {self.inputs} inputs are done, {len(self.failed)} failed, {len(self.missing)} are missing."
        if not self.missing:
            return text
        if self.left is None:
            return f"{text} No part seems to be running: run those again that have not ended with status 0 or 3."
        return f"{text} At the present rate the rest takes {duration(self.left)}."


def progress_of(
    work_list: str | os.PathLike[str], folder: OutputFolder, finished: Sequence[datetime], now: datetime | None = None
) -> Progress:
    """Compare a work list with a folder of results.

    Args:
        work_list: see :mod:`monai_anomalyclip.data.work_list`.
        folder: the results.
        finished: when inputs were done.
        now: the time, by default that of the clock.

    Raises:
        ValueError: it is no work list.
    """
    header, units = read_work_list(work_list)
    missing, failed = [], {}
    for unit in units:
        for name in unit.names.values():
            state = None
            with contextlib.suppress(DamagedRecordError):
                state = folder.state(name)
            if state is None or state.state == "unfinished":
                missing.append(name)
            elif (record := state.shown()) is not None and record.status == "failed":
                failed[name] = record.reason
    left = seconds_left(finished, len(missing), now or datetime.now(timezone.utc))
    return Progress(header.inputs, tuple(missing), failed, left)


def seconds_left(finished: Sequence[datetime], missing: int, now: datetime) -> float | None:
    """Seconds that the rest takes at the rate of the last tenth of what is done; None when nothing seems to run.

    Args:
        finished: when inputs were done, in any order.
        missing: how many are not.
        now: the time.
    """
    times = sorted(finished)
    recent = times[-max(_FEWEST, int(len(times) * _RECENT)) :]
    if len(recent) < 2:
        return None
    gap = max((recent[-1] - recent[0]).total_seconds() / (len(recent) - 1), 1e-3)
    idle = (now - recent[-1]).total_seconds()
    if idle > max(_QUIET * gap, 60.0):
        return None
    return missing * gap


def write_missing(path: Path, progress: Progress) -> None:
    """Write what is missing and what failed as a table; it is replaced as a whole.

    Raises:
        ValueError: another file lies there.
    """
    check_table(path, MISSING_COLUMNS)
    rows = [{"name": name, "status": "missing"} for name in progress.missing]
    rows += [{"name": name, "status": "failed", "reason": reason} for name, reason in progress.failed.items()]
    text = ",".join(MISSING_COLUMNS) + "\n" + "".join(table_line(MISSING_COLUMNS, row) for row in rows)
    write_atomically(path, text.encode())
