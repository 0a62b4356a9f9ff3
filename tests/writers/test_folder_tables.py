# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from monai_anomalyclip.writers.finished import InputState, Slices
from monai_anomalyclip.writers.folder_tables import FolderTables
from monai_anomalyclip.writers.record import InputRecord, Model
from monai_anomalyclip.writers.tables import (
    INPUT_COLUMNS,
    SCORE_COLUMNS,
    RunDocument,
    check_table,
    made_with,
)

MADE = made_with(Model(backbone="tiny", backbone_sha256=None), {"threshold": 0.5}, "cpu")


def write(folder: Path, states: Iterable[InputState]) -> tuple[RunDocument, list[str]]:
    with FolderTables.writing(folder) as tables:
        for state in states:
            tables.add(state)
        return tables.finish(MADE, {"localizer series": 2})


def entry(name: str, kind: Any = "frame", scores: tuple[float, ...] = (0.123456789,)) -> InputState:
    """A finished input."""
    record = InputRecord(
        name=name, source="frame", kind=kind, frames=len(scores), scores=scores, threshold=0.3,
        anomaly_score=max(scores), map_max=0.25 * len(scores), anomalous_fraction=0.5,
    )  # fmt: skip
    slices = Slices(map_max=[0.25 * (index + 1) for index in range(len(scores))], area_fraction=[0.5] * len(scores))
    return InputState(name=name, state="finished", slices=slices, record=record)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_rows_of_all_kinds_of_inputs(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    reason = 'cut, "here" ä'
    record = InputRecord(name="b", source="frame", status="failed", reason=reason)
    failed = InputState(name="b", state="failed", record=record)
    write(
        path.parent,
        [
            entry("sub/a"),
            failed,
            InputState(name="k", state="unfinished"),
            entry("r").model_copy(update={"refused": "They differ."}),
            InputState(name="x", state="unfinished", refused="It was cut."),
            entry("v", "volume", (0.2, 0.1)),
            entry("c", "cine", (0.5,)),
        ],
    )
    lines = path.read_bytes().decode("utf-8").split("\n")
    assert lines[0] == ",".join(SCORE_COLUMNS)
    assert lines[1] == "sub/a,,,,0.123457,,0.25,0.5,0.3,ok,"
    rows = rows_of(path)
    assert [(row["name"], row["slice"], row["status"]) for row in rows] == [
        ("sub/a", "", "ok"), ("b", "", "failed"), ("k", "", "unfinished"), ("r", "", "failed"), ("x", "", "failed"),
        ("v", "0", "ok"), ("v", "1", "ok"), ("v", "all", "ok"), ("c", "0", "ok"), ("c", "all", "ok"),
    ]  # fmt: skip
    assert [rows[index]["reason"] for index in (1, 3, 4)] == [reason, "They differ.", "It was cut."]
    assert [row["anomaly_score"] for row in rows[5:8]] == ["0.2", "0.1", "0.2"]
    assert [row["map_max"] for row in rows[5:8]] == ["0.25", "0.5", "0.5"]
    assert tuple(rows[0]) == SCORE_COLUMNS
    assert path.stat().st_mode & 0o777 == 0o600


def test_inputs_are_ranked_by_score_margin_map_and_area(tmp_path: Path) -> None:
    path = tmp_path / "inputs.csv"

    def one(name: str, score: float, margin: float, map_max: float, **changed: Any) -> InputState:
        record = InputRecord(
            name=name, source="dicom", kind="volume", modality="CT", frames=2, scores=[score, 0.1], anomaly_score=score,
            score_margin=margin, map_max=map_max, threshold=0.5, threshold_source="the bundle",
            anomalous_fraction=0.25, anomalous_volume_ml=12.5, p_value=0.05, geometry={"verdict": "gaps"},
            warnings=["One.", "Two."],
            compared=[
                {"method": "anomalyclip", "score": margin, "p_value": 0.05, "k": 19, "smallest_p": 0.05},
                {"method": "reference", "score": 0.3, "p_value": 0.1, "k": 9, "smallest_p": 0.1},
            ],
            fused={"rule": "fisher", "score": 0.75},
            most_suspicious=[{"index": 1, "score": score, "instance_number": 9, "position_mm": -4.5}],
        )  # fmt: skip
        return InputState(name=name, state="finished", record=record.model_copy(update=changed))

    failed = InputState(
        name="f", state="failed", record=InputRecord(name="f", source="frame", status="failed", reason="It was cut.")
    )
    states = [
        failed, one("a", 0.9, 2.2, 0.1), one("b", 1.0, 18.0, 0.2), one("c", 1.0, 31.0, 0.1), one("d", 1.0, 18.0, 0.3),
        one("e", 1.0, 18.0, 0.3, anomalous_fraction=0.5), InputState(name="u", state="unfinished"), entry("p"),
    ]  # fmt: skip
    write(path.parent, states)
    rows = rows_of(path)
    assert tuple(rows[0]) == INPUT_COLUMNS
    assert [(row["rank"], row["name"]) for row in rows] == [
        ("1", "c"), ("2", "e"), ("3", "d"), ("4", "b"), ("5", "a"), ("6", "p"), ("", "f"), ("", "u"),
    ]  # fmt: skip
    assert rows[0] == {
        "rank": "1", "name": "c", "kind": "volume", "modality": "CT", "anomaly_score": "1", "score_margin": "31",
        "p_value": "0.05", "k": "19", "smallest_p": "0.05", "reference_score": "0.3", "reference_p_value": "0.1",
        "fused_score": "0.75", "slice": "1", "instance_number": "9", "position_mm": "-4.5",
        "anomalous_volume_ml": "12.5", "anomalous_fraction": "0.25", "threshold": "0.5",
        "threshold_source": "the bundle", "geometry": "gaps",
        "warnings": "One. | Two.", "status": "ok", "reason": "",
    }  # fmt: skip
    assert [(row["status"], row["reason"]) for row in rows[6:]] == [("failed", "It was cut."), ("unfinished", "")]
    check_table(path, INPUT_COLUMNS)
    with pytest.raises(ValueError, match=r"'inputs\.csv'.*choose another output folder"):
        check_table(path, SCORE_COLUMNS)


def test_slices_have_margin_and_place(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    state = entry("v", "volume", (0.2, 0.1))
    places = {"margin": (-1.5, -2.25), "instance_number": (7, None), "position_mm": (3.5, 1.0)}
    write(path.parent, [state.model_copy(update={"slices": state.slices.model_copy(update=places)})])
    rows = rows_of(path)
    assert [(row["score_margin"], row["instance_number"], row["position_mm"]) for row in rows] == [
        ("-1.5", "7", "3.5"), ("-2.25", "", "1"), ("", "", ""),
    ]  # fmt: skip


def test_the_table_is_replaced_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "scores.csv"
    write(path.parent, [entry("a"), entry("b")])
    write(path.parent, [entry("c")])
    assert [row["name"] for row in rows_of(path)] == ["c"]
    before = path.read_bytes()

    def broken(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", broken)
    with pytest.raises(OSError, match="disk full"):
        write(path.parent, [entry("d")])
    assert path.read_bytes() == before
    assert sorted(file.name for file in tmp_path.iterdir()) == ["inputs.csv", "results.json", "scores.csv"]


def test_the_streamed_document_is_the_one_that_is_made_at_once(tmp_path: Path) -> None:
    """To the byte, whatever texts and numbers are in it, none and several inputs."""
    reason = 'cut, "here"\n  ]}, [1,\n 2] ä'
    failed = InputRecord(name="b", source="nifti", status="failed", reason=reason)
    states = [
        entry("a", "volume", (0.2, 0.1)),
        InputState(name="b", state="failed", record=failed),
        entry("c"),
        InputState(name="d", state="unfinished"),
    ]
    for count in range(len(states) + 1):
        document, ranked = write(tmp_path, states[:count])
        records = [state.record for state in states[:count] if state.record is not None]
        whole = RunDocument.of(records, MADE, {"localizer series": 2})
        text = (tmp_path / "results.json").read_text(encoding="utf-8")
        assert text.replace(document.started, "now") == whole.to_json().replace(whole.started, "now")
        assert document.summary == whole.summary
        assert ranked == [name for name in ("a", "c") if name in {record.name for record in records}]
    assert json.loads(text)["inputs"][1]["reason"] == reason
    assert (tmp_path / "results.json").stat().st_mode & 0o777 == 0o600


def test_nothing_is_replaced_when_a_record_is_refused(tmp_path: Path) -> None:
    write(tmp_path, [entry("a")])
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def refused() -> None:
        with FolderTables.writing(tmp_path) as tables:
            tables.add(entry("b"))
            raise ValueError("another model")

    with pytest.raises(ValueError, match="another model"):
        refused()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
