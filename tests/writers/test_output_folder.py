# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from monai_anomalyclip.writers.folder_lock import FolderInUseError

from monai_anomalyclip import RESEARCH_USE_ONLY
from monai_anomalyclip.writers import InputRecord, RunDocument
from monai_anomalyclip.writers.output_folder import OutputFolder


def finished(name: str, score: float = 0.5) -> dict[str, Any]:
    """An entry of the journal for a picture."""
    record = InputRecord(
        name=name, source="frame", kind="frame", files_used=1, frames=1, scores=[score], anomaly_score=score,
        map_max=0.5, threshold=0.5, anomalous_fraction=0.0, outputs=[f"{name}_overlay.png"],
    )  # fmt: skip
    return {"name": name, "status": "ok", "record": record.as_dict(), "map_max": [0.5], "area_fraction": [0.0]}


def document_of(records: list[InputRecord]) -> RunDocument:
    return RunDocument(
        model={"backbone": "b", "backbone_sha256": "0" * 64, "prompts_sha256": None, "words": {}, "settings": {}},
        settings={},
        device="cpu",
        started=datetime(2026, 1, 2, tzinfo=timezone.utc),
        duration_s=1.0,
        skipped={},
        inputs=records,
    )


def test_a_new_folder_is_its_owners_alone_and_says_what_it_holds(tmp_path: Path) -> None:
    folder = OutputFolder(tmp_path / "deep" / "out")
    assert folder.path.stat().st_mode & 0o777 == 0o700
    assert [path.name for path in folder.path.iterdir()] == ["NOTICE.txt"]
    assert RESEARCH_USE_ONLY in (folder.path / "NOTICE.txt").read_text()
    assert folder.journal.entries == {}


def test_tables_hold_all_inputs_in_the_order_of_the_run(tmp_path: Path) -> None:
    folder = OutputFolder(tmp_path)
    for name in ("earlier", "removed", "b", "a"):
        folder.journal.add(finished(name))
    (tmp_path / "earlier_overlay.png").touch()
    folder.journal.add({"name": "cut", "status": "started"})
    folder.keep_picture("a", np.zeros((20, 30, 3), np.uint8))
    again = OutputFolder(tmp_path)
    names = ["a", "absent", "b", "cut"]
    records = again.records(names)
    assert [record.name for record in records] == ["a", "b", "earlier"]
    again.summarise(document_of(records), names)
    with (tmp_path / "scores.csv").open(newline="") as table:
        assert [(row["name"], row["status"]) for row in csv.DictReader(table)] == [
            ("a", "ok"), ("b", "ok"), ("cut", "started"), ("earlier", "ok"),
        ]  # fmt: skip
    assert RunDocument.read(tmp_path / "results.json").inputs == tuple(records)
    assert (tmp_path / "report.html").read_text().count("data:image/jpeg;base64,") == 1
    OutputFolder(tmp_path)  # knows its own files again


def test_files_of_inputs(tmp_path: Path) -> None:
    folder = OutputFolder(tmp_path)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.png").touch()
    assert folder.holds_all([])
    assert folder.holds_all(["sub/a.png", "NOTICE.txt"])
    assert not folder.holds_all(["sub/a.png", "sub/b.png"])
    assert folder.holds_any(["sub/a.png", "sub/b.png"])
    assert not folder.holds_any(["sub/b.png"])
    assert folder.relative([tmp_path / "sub" / "a.png"]) == ["sub/a.png"]
    folder.remove(["sub/a.png", "sub/b.png"])
    assert not (tmp_path / "sub" / "a.png").exists()
    with pytest.raises(ValueError, match="must be a relative path"):
        folder.remove(["../a.png"])


@pytest.mark.parametrize("name", ["scores.csv", "journal.jsonl", "results.json", "report.html", "NOTICE.txt"])
def test_files_of_another_program_are_not_touched(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("a,b\n")
    with pytest.raises(ValueError, match=f"{name}' in the output folder is not .* choose another output folder"):
        OutputFolder(tmp_path)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, "a,b\n")]


def test_it_is_held_until_it_is_released(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[Path] = []

    class Lock:
        def __init__(self, path: Path) -> None:
            if path in held:
                raise FolderInUseError("Another run is writing.")
            held.append(path)

        def release(self) -> None:
            held.clear()

    monkeypatch.setattr("monai_anomalyclip.writers.output_folder.FolderLock", Lock)
    folder = OutputFolder(tmp_path)
    folder.hold()
    assert held == [tmp_path]
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    with pytest.raises(FolderInUseError, match=r"Another run is writing\."):
        OutputFolder(tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before
    folder.release()
    folder.release()
    assert held == []
    folder.hold()
    assert held == [tmp_path]


def test_folders_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "out", Path("/proc/nothing")):
        with pytest.raises(OSError, match=r"Cannot write to the output folder .* choose another one"):
            OutputFolder(path)
