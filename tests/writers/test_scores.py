# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import Any

import pytest

from monai_anomalyclip.writers.scores import SCORE_COLUMNS, check_score_table, write_score_table


def entry(name: str, kind: str = "frame", scores: tuple[float, ...] = (0.123456789,)) -> dict[str, Any]:
    """An entry of the journal for a finished input."""
    return {
        "name": name,
        "status": "ok",
        "map_max": [0.25 * (index + 1) for index in range(len(scores))],
        "area_fraction": [0.5] * len(scores),
        "record": {
            "kind": kind,
            "scores": list(scores),
            "threshold": 0.3,
            "anomaly_score": max(scores),
            "map_max": 0.25 * len(scores),
            "anomalous_fraction": 0.5,
        },
    }


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_rows_of_all_kinds_of_inputs(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    reason = 'cut, "here" ä'
    failed = {"name": "b", "status": "failed", "record": {"reason": reason}}
    write_score_table(
        path,
        [
            entry("sub/a"),
            failed,
            {"name": "k", "status": "started", "claimed": True},
            entry("v", "volume", (0.2, 0.1)),
            entry("c", "cine", (0.5,)),
        ],
    )
    lines = path.read_bytes().decode("utf-8").split("\n")
    assert lines[0] == "name,slice,anomaly_score,map_max,area_fraction,threshold,status,reason"
    assert lines[1] == "sub/a,,0.123457,0.25,0.5,0.3,ok,"
    rows = rows_of(path)
    assert [(row["name"], row["slice"], row["status"]) for row in rows] == [
        ("sub/a", "", "ok"), ("b", "", "failed"), ("k", "", "started"),
        ("v", "0", "ok"), ("v", "1", "ok"), ("v", "all", "ok"), ("c", "0", "ok"), ("c", "all", "ok"),
    ]  # fmt: skip
    assert rows[1]["reason"] == reason
    assert [row["anomaly_score"] for row in rows[3:6]] == ["0.2", "0.1", "0.2"]
    assert [row["map_max"] for row in rows[3:6]] == ["0.25", "0.5", "0.5"]
    assert tuple(rows[0]) == SCORE_COLUMNS
    assert path.stat().st_mode & 0o777 == 0o600


def test_the_table_is_replaced_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "scores.csv"
    write_score_table(path, [entry("a"), entry("b")])
    write_score_table(path, [entry("c")])
    assert [row["name"] for row in rows_of(path)] == ["c"]
    before = path.read_bytes()

    def broken(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", broken)
    with pytest.raises(OSError, match="disk full"):
        write_score_table(path, [entry("d")])
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("scores.csv", before)]


def test_foreign_tables_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    check_score_table(path)  # there is none yet
    for content in (b"patient,score\nx,1\n", b"", b"\xff\xfe\0", b"name,slice\n"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"'scores\.csv'.*choose another output folder"):
            check_score_table(path)
        assert path.read_bytes() == content
    write_score_table(path, [])
    check_score_table(path)
    assert rows_of(path) == []
