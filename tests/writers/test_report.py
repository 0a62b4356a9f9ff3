# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

import pytest

from monai_anomalyclip.writers.record import InputRecord
from monai_anomalyclip.writers.report import describe, duration

GEOMETRY: dict[str, Any] = {
    "verdict": "regular",
    "spacing": [0.48828125, 0.5],
    "spacing_source": "Pixel Spacing",
    "slice_spacing": 5.0,
    "missing_slices": 0,
    "tilt_degrees": 0.0,
}

PIXELS = "pixels 0.488 by 0.5 mm (Pixel Spacing)"


def volume(**changed: Any) -> InputRecord:
    fields: dict[str, Any] = {
        "name": "001_ab",
        "source": "dicom",
        "kind": "volume",
        "modality": "CT",
        "plane": "axial",
        "frames": 3,
        "scores": [0.1, 0.7, 0.6],
        "anomaly_score": 0.7,
        "most_suspicious": [{"index": 1, "score": 0.7}, {"index": 2, "score": 0.6}],
        "geometry": GEOMETRY,
    }
    return InputRecord(**{**fields, **changed})


def facts(**changed: Any) -> dict[str, tuple[str, str, bool]]:
    return {fact.name: (fact.text, fact.detail, fact.caution) for fact in describe(volume(**changed)).facts}


@pytest.mark.parametrize(
    ("changed", "what", "peak"),
    [
        ({}, "CT volume, 3 axial slices", "slice 1"),
        ({"modality": None, "source": "nifti"}, "NIfTI volume, 3 axial slices", "slice 1"),
        ({"kind": "cine", "modality": "US", "plane": "native"}, "US cine, 3 frames", "frame 1"),
        (
            {"kind": "cine", "source": "video", "modality": None, "plane": None, "times": [1, 31, 131]},
            "video, 3 frames, 2 min 10 s",
            "frame 1 (31.0 s)",
        ),
        (
            {"kind": "frame", "modality": "DX", "frames": 1, "scores": [0.1], "most_suspicious": []},
            "DX frame",
            "",
        ),
        ({"most_suspicious": []}, "CT volume, 3 axial slices", ""),
        (
            {"most_suspicious": [{"index": 2, "score": 0.7, "instance_number": 41, "position_mm": -12.25}]},
            "CT volume, 3 axial slices",
            "slice 2, no. 41, -12.2 mm",
        ),
        ({"most_suspicious": [{"index": 0, "instance_number": 7}]}, "CT volume, 3 axial slices", "slice 0, no. 7"),
    ],
)
def test_what_it_is(changed: dict[str, Any], what: str, peak: str) -> None:
    text = describe(volume(**changed))
    assert (text.what, text.peak.replace("\N{NO-BREAK SPACE}", " ")) == (what, peak)
    assert text.picture_title == {"D": "Input and overlay", "C": "Most suspicious slices"}.get(
        what[0], "Most suspicious slices" if "slices" in what else "Most suspicious frames"
    )


def test_scores() -> None:
    assert describe(volume()).score == "0.700"
    assert describe(volume(anomaly_score=None)).score == "-"
    found = {"method": "reference", "score": 0.3, "p_value": 0.25, "k": 3, "smallest_p": 0.25, "says": "Far off."}
    assert describe(volume(compared=[found])).compared == "p\N{NO-BREAK SPACE}0.25"
    assert "distance" not in describe(volume(compared=[found])).picture_title
    assert describe(volume(compared=[found], score_margin=1)).picture_title.endswith("right: distance to normals")
    assert describe(volume(compared=[found])).said == ("Distance to normals: Far off.",)
    both = describe(volume(compared=[{**found, "method": "anomalyclip", "p_value": 0.5}, found]))
    assert both.compared == "p\N{NO-BREAK SPACE}0.5, reference p\N{NO-BREAK SPACE}0.25"


@pytest.mark.parametrize(
    ("fraction", "millilitres", "text"),
    [
        (None, None, ""),
        (0.0, 0.0, "nothing"),
        (0.0123456, None, "1.2 %"),
        (0.0123456, 14.31, "1.2 %, 14.3 mL"),
        (3e-6, 0.01, "0.0003 %, 0.01 mL"),
        (1.0, 1234.0, "100 %, 1230 mL"),
    ],
)
def test_how_much_reaches_the_threshold(fraction: float | None, millilitres: float | None, text: str) -> None:
    assert describe(volume(anomalous_fraction=fraction, anomalous_volume_ml=millilitres)).above == text


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, ("regular", f"{PIXELS}, slices 5 mm apart", False)),
        ({"verdict": "gaps", "missing_slices": 2}, ("gaps, 2 slices missing", f"{PIXELS}, slices 5 mm apart", True)),
        ({"missing_slices": 1}, ("regular, 1 slice missing", f"{PIXELS}, slices 5 mm apart", True)),
        (
            {"verdict": "gantry tilt", "tilt_degrees": 17.46, "slice_spacing": None},
            ("gantry tilt, tilted by 17.5°", PIXELS, True),
        ),
        (
            {"verdict": "no position", "spacing": None, "spacing_source": None, "slice_spacing": None},
            ("no position", "pixel spacing unknown", True),
        ),
    ],
)
def test_geometry(changed: dict[str, Any], expected: tuple[str, str, bool]) -> None:
    assert facts(geometry={**GEOMETRY, **changed})["Geometry"] == expected


def test_other_facts() -> None:
    told = facts(
        geometry=None,
        intensity={"preset": "ct-brain", "low": 0.0, "high": 80.0, "reason": "It was requested."},
        threshold=0.5,
        threshold_source="default",
        map_max=0.91,
        anomalous_fraction=0.5,
        fused={"rule": "fisher", "score": 0.8},
        split="echo time 20",
        files_used=3,
        transfer_syntaxes=["RLE Lossless", "Explicit VR Little Endian"],
        timings={"read_s": 1, "score_s": 61.26, "write_s": 0.04},
    )
    assert told == {
        "Both scores fused": ("0.800", "rule: fisher", False),
        "Intensity": ("ct-brain, black at 0, white at 80", "It was requested.", False),
        "Threshold": ("map ≥ 0.5", "default", False),
        "At or above it": ("50 %", "highest value of the map 0.910", False),
        "Part of a series": ("echo time 20", "", False),
        "Read from": ("3 files", "RLE Lossless, Explicit VR Little Endian", False),
        "Time": ("1 min 2 s", "reading 1.0 s, scoring 61.3 s, writing 0.0 s", False),
    }
    picture = facts(intensity={"preset": "none", "low": None, "high": None, "reason": "A picture."}, files_used=1)
    assert picture["Intensity"] == ("none", "A picture.", False)
    assert picture["Read from"] == ("1 file", "", False)
    assert facts(geometry=None) == {}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (4.46, "4.5 s"),
        (59.96, "1 min 0 s"),
        (200.4, "3 min 20 s"),
        (3599.6, "1 h 0 min"),
        (7500, "2 h 5 min"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text
