# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from monai_anomalyclip.data.work_list import WorkUnit, write_work_list
from monai_anomalyclip.scale.progress import MISSING_COLUMNS, Progress, progress_of, seconds_left, write_missing
from monai_anomalyclip.writers import InputRecord, InputState, OutputFolder

START = datetime(2026, 1, 1, tzinfo=timezone.utc)


def after(*seconds: float) -> list[datetime]:
    return [START + timedelta(seconds=each) for each in seconds]


@pytest.mark.parametrize(
    ("finished", "now", "expected"),
    [
        ([0, 2, 4, 6, 8], 9, 40.0),
        ([8, 0, 4, 2, 6], 9, 40.0),
        ([*range(100), *(99 + 3 * step for step in range(1, 12))], 133, 60.0),  # the rate of the last tenth
        ([0], 1, None),
        ([], 1, None),
        ([0, 2, 4, 6, 8], 8 + 61, None),  # nothing for a minute, thirty times the usual gap
        ([0, 60, 120, 180, 240], 240 + 599, 1200.0),
        ([5, 5, 5], 6, 0.02),  # all at once
    ],
)
def test_time_left(finished: list[float], now: float, expected: float | None) -> None:
    left = seconds_left(after(*finished), 20, after(now)[0])
    assert left == (None if expected is None else pytest.approx(expected))


def test_what_is_missing_and_what_failed(tmp_path: Path) -> None:
    folder = OutputFolder(tmp_path / "out")
    names = ("done", "failed", "cut", "absent", "unfinished")
    write_work_list(
        tmp_path / "work.jsonl",
        [WorkUnit(f"{n:016x}", "frame", ("a",), {"0": name}) for n, name in enumerate(names)],
        {},
    )
    record = InputRecord(name="done", source="frame", kind="frame", frames=1, scores=(0.5,))
    folder.put(InputState(name="done", state="finished", record=record))
    bad = InputRecord(name="failed", source="frame", status="failed", reason="It is cut.")
    folder.put(InputState(name="failed", state="failed", record=bad))
    folder.put(InputState(name="unfinished", state="unfinished"))
    (tmp_path / "out" / "cut_record.json").write_text("{")
    progress = progress_of(tmp_path / "work.jsonl", folder, after(0, 1, 2), after(3)[0])
    assert progress == Progress(5, ("cut", "absent", "unfinished"), {"failed": "It is cut."}, 3.0)
    assert progress.sentence().startswith("1 of 5 inputs are done, 1 failed, 3 are missing. At the present rate")
    path = tmp_path / "out" / "missing.csv"
    write_missing(path, progress)
    assert path.read_text().splitlines() == [
        ",".join(MISSING_COLUMNS), "cut,missing,", "absent,missing,", "unfinished,missing,", "failed,failed,It is cut.",
    ]  # fmt: skip
    write_missing(path, Progress(5, (), {}, None))
    assert path.read_text().splitlines() == [",".join(MISSING_COLUMNS)]
    path.write_text("my own\n")
    with pytest.raises(ValueError, match=r"'missing\.csv'"):
        write_missing(path, progress)
    assert "No part seems to be running" in Progress(5, ("a",), {}, None).sentence()
