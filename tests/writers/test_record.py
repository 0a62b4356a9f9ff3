# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from monai_anomalyclip.writers.record import InputRecord, json_text


def volume(**changed: Any) -> InputRecord:
    fields: dict[str, Any] = {
        "name": "001_ab12cd34",
        "source": "dicom",
        "kind": "volume",
        "modality": "CT",
        "files_used": 4,
        "frames": 4,
        "slice_axis": 2,
        "plane": "axial",
        "geometry": {
            "tilt_degrees": 7.0,
            "missing_slices": 0,
            "verdict": "gantry tilt",
            "spacing": (0.48828125, 0.5),
            "spacing_source": "Pixel Spacing",
            "slice_spacing": 5.0,
        },
        "transfer_syntaxes": ("Explicit VR Little Endian",),
        "intensity": {"preset": "ct-brain", "low": 0.0, "high": 80.0, "reason": "Body Part Examined is HEAD"},
        "scores": np.array([0.1, 0.25, np.float32(0.9), 0.3333333333]),
        "anomaly_score": np.float32(0.9),
        "map_max": torch.tensor(0.75),
        "most_suspicious": [{"score": 0.9, "index": 2}],
        "threshold": 0.5,
        "threshold_source": "default",
        "anomalous_fraction": 0.0125,
        "anomalous_volume_ml": 1 / 3,
        "timings": {"read_s": 0.12345, "score_s": 2, "write_s": 0.5},
        "warnings": ["The gantry was tilted: no NIfTI is written."],
        "outputs": ["001_ab12cd34/seg.dcm", "001_ab12cd34/overlay.png"],
    }
    return InputRecord(**{**fields, **changed})


def test_values_become_those_of_json_in_fixed_order() -> None:
    record = volume()
    assert record.scores == (0.1, 0.25, 0.9, 0.333333)
    assert (record.anomaly_score, record.map_max, record.anomalous_volume_ml) == (0.9, 0.75, 0.333333)
    assert record.timings is not None
    assert record.timings.model_dump() == {"read_s": 0.123, "score_s": 2, "write_s": 0.5}
    values = json.loads(json_text(record))
    names = """name source kind modality study status reason files_used frames slice_axis plane geometry
    transfer_syntaxes intensity split scores times anomaly_score score_margin p_value compared fused map_max
    most_suspicious threshold threshold_source
    anomalous_fraction anomalous_volume_ml timings warnings outputs"""
    assert list(values) == names.split()
    assert list(values["geometry"]) == [
        "verdict", "spacing", "spacing_source", "slice_spacing", "missing_slices", "tilt_degrees",
    ]  # fmt: skip
    assert list(values["most_suspicious"][0]) == ["index", "score", "margin", "instance_number", "position_mm"]
    assert values["geometry"]["spacing"] == [0.48828125, 0.5]
    assert (values["status"], values["outputs"][0]) == ("ok", "001_ab12cd34/seg.dcm")


def test_round_trip() -> None:
    failed = InputRecord(name="a/b", source="nifti", status="failed", reason="The file is truncated: Übersicht, 50 %.")
    cine = volume(kind="cine", times=[0, 0.04, 0.0812345678, 0.2], geometry=None, intensity=None, slice_axis=None)
    for record in (volume(), failed, cine):
        again = InputRecord.model_validate_json(json_text(record))
        assert again == record
        assert json_text(again) == json_text(record)
    assert cine.times[2] == 0.081235


def test_numbers_that_are_none_are_never_written_as_nan() -> None:
    record = volume(scores=[np.nan, np.inf, -np.inf, 0.5], map_max=float("nan"), most_suspicious=[])
    assert record.scores == (None, None, None, 0.5)
    text = json_text(record)
    assert "NaN" not in text
    assert "Infinity" not in text
    assert '"scores": [null, null, null, 0.5]' in text  # on one line
    assert record.map_max is None
    assert InputRecord.model_validate_json(text) == record


def test_a_record_cannot_be_changed() -> None:
    record = volume()
    assert record.geometry is not None
    for part, name in ((record, "frames"), (record.geometry, "missing_slices")):
        with pytest.raises(ValueError, match="frozen"):
            setattr(part, name, 5)


@pytest.mark.parametrize("place", ["/data/seg.dcm", "../seg.dcm", "a/../../b", "C:/x", "C:\\x", "~/x", "", "a b", ".x"])
def test_outputs_and_names_are_plain_and_relative(place: str) -> None:
    for changed in ({"outputs": ["ok.png", place]}, {"name": place}):
        with pytest.raises(ValueError, match="should match pattern") as caught:
            volume(**changed)
        assert len(place) < 3 or place not in str(caught.value).replace("https://errors.pydantic.dev", "")


@pytest.mark.parametrize("text", ["cannot open /data/DOE^JOHN/1", "series 1.2.840.113619.2.5.17", r"C:\scans\doe"])
@pytest.mark.parametrize("name", ["reason", "warnings", "modality", "split", "intensity", "transfer_syntaxes"])
def test_paths_and_uids_are_refused_in_any_text(name: str, text: str) -> None:
    value: Any = {"warnings": ["fine", text], "transfer_syntaxes": [text]}.get(name, text)
    if name == "intensity":
        value = {"preset": "ct-brain", "low": 0, "high": 1, "reason": text}
    with pytest.raises(ValueError, match=rf"(?s){name}.* holds an absolute path or a UID") as caught:
        volume(**{name: value})
    assert text not in str(caught.value)


def test_names_that_their_files_gave_may_be_numbers_with_dots() -> None:
    """Results of NIfTI files and frames are called after their files, whatever those are called."""
    assert volume(name="1.2.840.10008.1", outputs=["1.2.840.10008.1_map.nii.gz"]).name == "1.2.840.10008.1"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"status": "done"}, "Input should be 'ok' or 'failed'"),
        ({"source": "pdf"}, "Input should be 'dicom', 'nifti', 'frame' or 'video'"),
        ({"kind": "slice"}, "Input should be"),
        ({"kind": None}, "needs a kind"),
        ({"status": "failed"}, "needs a reason"),
        ({"scores": [0.1]}, "one score per frame, got 'volume' and 1 scores for 4 frames"),
        ({"frames": 0, "scores": [], "most_suspicious": []}, "one score per frame"),
        ({"times": [0.0]}, "needs a time per frame, got 1 for 4 frames"),
        ({"times": [0.0, 1.0, float("nan"), 2.0]}, "should be a valid number"),
        ({"most_suspicious": [{"index": 4, "score": 1.0}]}, r"most suspicious ones are \[4\]"),
        ({"most_suspicious": [{"score": 1}]}, "most_suspicious.0.index\n  Field required"),
        ({"geometry": {"spacing": None}}, "geometry.verdict\n  Field required"),
        ({"intensity": ["ct-brain"]}, "intensity"),
        ({"warnings": [3]}, "warnings.0\n  Input should be a valid string"),
        ({"timings": {"rest_s": 2}}, "timings.rest_s\n  Extra inputs are not permitted"),
        ({"patient": "Doe"}, "patient\n  Extra inputs are not permitted"),
        ({"frames": "four"}, "frames\n  Input should be a valid integer"),
        ({"files_used": -1}, "files_used\n  Input should be greater than or equal to 0"),
    ],
)
def test_contradictions_are_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        volume(**changed)


@given(st.lists(st.one_of(st.floats(), st.integers(-(2**53), 2**53)), min_size=1, max_size=30), st.text(max_size=20))
def test_any_numbers_and_texts_survive(scores: list[float], text: str) -> None:
    text = text.replace("/", "").replace("\\", "").replace(".", "")
    record = volume(frames=len(scores), scores=scores, most_suspicious=[], split=text + " [ 1,\n 2 ]")
    again = InputRecord.model_validate_json(json_text(record))
    assert again == record
    for before, after in zip(scores, again.scores, strict=True):
        assert after is None if not np.isfinite(before) else after == round(before, 6)
