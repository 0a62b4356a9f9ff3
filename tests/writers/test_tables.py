# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import platform
from datetime import datetime, timedelta, timezone
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import monai_anomalyclip
from monai_anomalyclip.writers.record import InputRecord, Model
from monai_anomalyclip.writers.tables import (
    SCORE_COLUMNS,
    RunDocument,
    check_table,
    made_with,
    results_schema,
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


def test_foreign_tables_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    check_table(path, SCORE_COLUMNS)  # there is none yet
    for content in (b"patient,score\nx,1\n", b"", b"\xff\xfe\0", b"name,slice\n"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"'scores\.csv'.*choose another output folder"):
            check_table(path, SCORE_COLUMNS)
        assert path.read_bytes() == content
    path.write_text(",".join(SCORE_COLUMNS) + "\n")
    check_table(path, SCORE_COLUMNS)
