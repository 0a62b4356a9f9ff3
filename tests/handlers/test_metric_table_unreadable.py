# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
from ignite.engine import Engine

from monai_anomalyclip.data import ReadableItems
from monai_anomalyclip.handlers import UnreadableTable


def read(entry: Any) -> Any:
    if "bad" in entry["image"]:
        raise ValueError('a "comma", and a quote')
    return entry


def run(folder: Path, names: list[str]) -> None:
    items = ReadableItems([{"image": f"/data/{name}"} for name in names], read, skip=True, progress=False)
    seen: list[bool] = []
    engine = Engine(lambda _, batch: seen.append((folder / "unreadable.csv").exists()))
    UnreadableTable(folder, items).attach(engine)
    engine.run([0])
    assert seen == [bool(items.unreadable)]  # there from the start


def test_rows_and_removal(tmp_path: Path) -> None:
    run(tmp_path / "new", ["a.png", "bad1.png", "b.png", "bad2.png"])
    with (tmp_path / "new" / "unreadable.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    reason = 'ValueError: a "comma", and a quote'
    assert rows == [["index", "file", "reason"], ["1", "bad1.png", reason], ["3", "bad2.png", reason]]
    run(tmp_path / "new", ["a.png"])
    assert list((tmp_path / "new").iterdir()) == []


def test_other_processes_write_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    items = ReadableItems([{"image": "bad.png"}, {"image": "a.png"}], read, skip=True, progress=False)
    monkeypatch.setattr("ignite.distributed.get_rank", lambda: 1)
    UnreadableTable(tmp_path, items)(Engine(lambda _, batch: None))
    assert list(tmp_path.iterdir()) == []
