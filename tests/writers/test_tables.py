# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
import json
import os
import platform
from datetime import datetime, timedelta, timezone
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import monai_anomalyclip
from monai_anomalyclip.writers.finished import InputState, Slices
from monai_anomalyclip.writers.record import InputRecord, Model
from monai_anomalyclip.writers.tables import (
    INPUT_COLUMNS,
    SCORE_COLUMNS,
    RunDocument,
    check_table,
    made_with,
    results_schema,
    write_input_table,
    write_score_table,
)

SCHEMA = json.loads((resources.files("monai_anomalyclip.writers") / "results.schema.json").read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)

CT = InputRecord(
    name="001_ab12cd34",
    source="dicom",
    kind="volume",
    modality="CT",
    files_used=2,
    frames=2,
    slice_axis=2,
    plane="axial",
    geometry={
        "verdict": "regular",
        "spacing": [0.5, 0.5],
        "spacing_source": "Pixel Spacing",
        "slice_spacing": 5.0,
        "missing_slices": 0,
        "tilt_degrees": 0.0,
    },
    transfer_syntaxes=["Explicit VR Little Endian"],
    intensity={"preset": "ct-brain", "low": 0, "high": 80, "reason": "chosen by option"},
    scores=[0.2, 0.6],
    anomaly_score=0.6,
    map_max=0.7,
    most_suspicious=[{"index": 1, "score": 0.6}],
    threshold=0.5,
    threshold_source="default",
    anomalous_fraction=0.01,
    anomalous_volume_ml=1.25,
    timings={"read_s": 0.1, "score_s": 0.2, "write_s": 0.3},
    outputs=["001_ab12cd34/seg.dcm"],
)
CLIP = InputRecord(
    name="video/clip", source="video", kind="cine", frames=3, scores=[0.1, 0.2, None], times=[0, 0.04, 0.1]
)
FAILED = InputRecord(name="b", source="nifti", status="failed", reason="The file is truncated.")


def document(**changed: Any) -> RunDocument:
    fields: dict[str, Any] = {
        "model": {
            "settings": {"image_size": 518, "feature_layers": (6, 12), "temperature": 0.07},
            "words": {"normal": ["object"], "abnormal": ["damaged object"]},
            "prompts_sha256": None,
            "backbone_sha256": "0f" * 32,
            "backbone": "ViT-L-14-336-quickgelu",
        },
        "settings": {"threshold": 0.5, "preset": "auto", "formats": ["seg", "png"], "limit": float("inf")},
        "device": "cpu",
        "started": datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=timezone(timedelta(hours=2))),
        "skipped": {"not DICOM": 3, "localizer": 1},
        "inputs": [CT, CLIP, FAILED],
    }
    fields |= changed
    made = made_with(Model(**fields["model"]), fields["settings"], fields["device"])
    return RunDocument.of(fields["inputs"], made, fields["skipped"], fields["started"])


def test_document_holds_what_a_reader_needs_in_fixed_order() -> None:
    values = json.loads(document().to_json())
    names = "schema_version research_use tool versions model settings device started duration_s summary skipped inputs"
    assert list(values) == names.split()
    assert values["research_use"] == monai_anomalyclip.RESEARCH_USE_ONLY
    assert values["tool"] == {"name": "monai_anomalyclip", "version": monai_anomalyclip.__version__}
    assert values["versions"]["python"] == platform.python_version()
    assert values["versions"]["open_clip"] == metadata.version("open_clip_torch")
    assert list(values["model"]) == ["backbone", "backbone_sha256", "prompts_sha256", "words", "settings"]
    assert values["started"] == "2026-01-02T01:04:05+00:00"
    assert values["duration_s"] == 0.6  # of the one that has timings
    assert values["summary"] == {"inputs": 3, "ok": 2, "failed": 1, "skipped_files": 4}
    assert list(values["settings"]) == ["formats", "limit", "preset", "threshold"]
    assert values["settings"]["limit"] is None
    assert [record["name"] for record in values["inputs"]] == ["001_ab12cd34", "video/clip", "b"]


def test_absent_libraries_have_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", version)
    assert set(document().versions.values()) == {platform.python_version(), None}


def test_documents_are_as_the_schema_says() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    VALIDATOR.validate(json.loads(document().to_json()))
    VALIDATOR.validate(json.loads(document(inputs=[], skipped={}, settings={}).to_json()))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("schema_version",), "1.1"),
        (("research_use",), "For diagnosis."),
        (("patient",), "Doe"),
        (("started",), "2026-01-02T01:04:05"),
        (("model", "backbone_sha256"), "abc"),
        (("skipped", "x"), -1),
        (("inputs", 0, "patient"), "Doe"),
        (("inputs", 0, "status"), "done"),
        (("inputs", 0, "scores"), []),
        (("inputs", 0, "scores", 0), "high"),
        (("inputs", 0, "outputs", 0), "/data/seg.dcm"),
        (("inputs", 0, "outputs", 0), "../seg.dcm"),
        (("inputs", 0, "geometry", "spacing"), [1.0]),
        (("inputs", 0, "kind"), None),
        (("inputs", 2, "reason"), ""),
    ],
)
def test_schema_refuses_other_documents(path: tuple[Any, ...], value: Any) -> None:
    values = json.loads(document().to_json())
    place = values
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    assert not VALIDATOR.is_valid(values)


def test_the_schema_is_made_from_the_models() -> None:
    """After a change write the text that results_schema() gives into the file."""
    assert (resources.files("monai_anomalyclip.writers") / "results.schema.json").read_text() == results_schema()


def test_round_trip_by_file(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text("old")
    broken = InputRecord(name="c", source="frame", status="failed", reason="Cannot read 'Kopf-\udc80ü.png'.")
    original = document(inputs=[CT, broken])
    original.write(path)
    assert RunDocument.read(path) == original
    assert path.read_bytes().decode("utf-8").count("Kopf-\\\\udc80ü") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["results.json"]
    assert path.stat().st_mode & 0o777 == 0o600
    content = path.read_bytes()
    RunDocument.read(path).write(path)
    assert path.read_bytes() == content


def test_strict_reading() -> None:
    values = json.loads(document().to_json())
    for changed, message in (
        ({"schema_version": "1.0"}, r"do not have the schema version 2\.0 that this program reads"),
        ({"summary": {**values["summary"], "failed": 0}}, "they were changed"),
        ({"patient": "Doe"}, r"patient: Extra inputs are not permitted"),
        ({"inputs": [{**values["inputs"][0], "x": 1}]}, r"inputs\.0\.x: Extra inputs are not permitted"),
        ({"inputs": []}, "they were changed"),
    ):
        with pytest.raises(ValueError, match=message):
            RunDocument.from_json(json.dumps({**values, **changed}))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"inputs": [CT, CT]}, "two inputs are called '001_ab12cd34'"),
        ({"settings": {"weights": "/models/clip.pt"}}, r"settings\n.* holds an absolute path"),
        ({"settings": {"/models/clip.pt": 1}}, r"settings\n.* holds an absolute path"),
        ({"skipped": {"1.2.840.10008.5.1": 1}}, "(?s)skipped.* holds"),
        ({"device": "C:\\gpu"}, r"device\n.* holds"),
        ({"model": {"backbone": "x"}}, "backbone_sha256\n  Field required"),
    ],
)
def test_bad_documents(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        document(**changed)


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
    write_score_table(
        path,
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
    write_input_table(path, states)
    rows = rows_of(path)
    assert tuple(rows[0]) == INPUT_COLUMNS
    assert [(row["rank"], row["name"]) for row in rows] == [
        ("1", "c"), ("2", "e"), ("3", "d"), ("4", "b"), ("5", "a"), ("6", "p"), ("", "f"), ("", "u"),
    ]  # fmt: skip
    assert rows[0] == {
        "rank": "1", "name": "c", "kind": "volume", "modality": "CT", "anomaly_score": "1", "score_margin": "31",
        "p_value": "0.05", "slice": "1", "instance_number": "9", "position_mm": "-4.5", "anomalous_volume_ml": "12.5",
        "anomalous_fraction": "0.25", "threshold": "0.5", "threshold_source": "the bundle", "geometry": "gaps",
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
    write_score_table(path, [state.model_copy(update={"slices": state.slices.model_copy(update=places)})])
    rows = rows_of(path)
    assert [(row["score_margin"], row["instance_number"], row["position_mm"]) for row in rows] == [
        ("-1.5", "7", "3.5"), ("-2.25", "", "1"), ("", "", ""),
    ]  # fmt: skip


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
    check_table(path, SCORE_COLUMNS)  # there is none yet
    for content in (b"patient,score\nx,1\n", b"", b"\xff\xfe\0", b"name,slice\n"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"'scores\.csv'.*choose another output folder"):
            check_table(path, SCORE_COLUMNS)
        assert path.read_bytes() == content
    write_score_table(path, [])
    check_table(path, SCORE_COLUMNS)
    assert rows_of(path) == []
