# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The record of a full-shot run: complete at every moment, and refused where the settings differ."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest

from monai_anomalyclip.experiments.fullshot import FullShotResults
from monai_anomalyclip.experiments.fullshot.evaluation import METRICS

SETTINGS = {"method": "patchcore", "image_size": 64, "weights_sha256": None}


def result(*values: float) -> dict[str, Any]:
    assert len(values) == len(METRICS) == 6
    return {"metrics": dict(zip(METRICS, values, strict=True)), "normal_images": 3}


@pytest.fixture
def written(tmp_path: Path) -> Path:
    results = FullShotResults(tmp_path / "run", SETTINGS)
    assert not (tmp_path / "run").exists()
    results.add("nut", result(0.5, 0.25, 1.0, 0.75, math.nan, math.nan))
    results.add("a|b, c", result(1.0, 0.75, 0.5, math.nan, math.nan, math.nan))
    return tmp_path / "run"


def test_files(written: Path) -> None:
    assert sorted(path.name for path in written.iterdir()) == [
        "fullshot.json",
        "metrics_per_class.csv",
        "metrics_per_class.md",
    ]
    content = json.loads((written / "fullshot.json").read_text())
    assert content["settings"] == SETTINGS
    assert list(content["classes"]) == ["nut", "a|b, c"]
    assert content["classes"]["nut"]["normal_images"] == 3
    assert content["classes"]["nut"]["metrics"]["pixel_aupro"] is None
    assert list(content["mean"].values()) == [0.75, 0.5, 0.75, 0.75, None, None]
    with (written / "metrics_per_class.csv").open() as table:
        rows = list(csv.reader(table))
    assert rows[0] == ["class", "image_auroc", "image_ap", "pixel_auroc", "pixel_ap", "pixel_aupro", "pixel_aupro_200"]
    assert rows[1:] == [
        ["a|b, c", "1.0", "0.75", "0.5", "nan", "nan", "nan"],
        ["nut", "0.5", "0.25", "1.0", "0.75", "nan", "nan"],
        ["mean", "0.75", "0.5", "0.75", "0.75", "nan", "nan"],
    ]


def test_markdown_is_in_per_cent(written: Path) -> None:
    lines = FullShotResults(written, SETTINGS).markdown().splitlines()
    assert lines[3] == "| nut | 50.0 | 25.0 | 100.0 | 75.0 | undefined | undefined |"


def test_reading_again_goes_on(written: Path) -> None:
    results = FullShotResults(written, SETTINGS)
    assert set(results.classes) == {"nut", "a|b, c"}
    results.add("pill", result(0.0, 0.0, 0.0, 0.0, 0.5, 0.5))
    mean = json.loads((written / "fullshot.json").read_text())["mean"]
    assert mean["image_auroc"] == pytest.approx(0.5)
    assert mean["pixel_ap"] == pytest.approx(0.375)
    assert mean["pixel_aupro"] == 0.5


def test_tables_that_a_killed_run_did_not_write_are_made_up_for(written: Path) -> None:
    expected = (written / "metrics_per_class.csv").read_text()
    (written / "metrics_per_class.csv").unlink()
    (written / "metrics_per_class.md").write_text("of the class before")
    assert "nut" in FullShotResults(written, SETTINGS).markdown()
    assert (written / "metrics_per_class.csv").read_text() == expected


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({**SETTINGS, "image_size": 96}, r"other settings \(image_size 64, not 96\): choose another output folder"),
        ({**SETTINGS, "epochs": 3}, r"\(epochs None, not 3\)"),
        ({"method": "patchcore", "image_size": 64, "weights_sha256": "ab"}, r"\(weights_sha256 None, not ab\)"),
    ],
)
def test_other_settings_are_refused(settings: dict[str, Any], message: str, written: Path) -> None:
    before = (written / "fullshot.json").read_bytes()
    with pytest.raises(ValueError, match=message):
        FullShotResults(written, settings)
    assert (written / "fullshot.json").read_bytes() == before


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"settings": {}, "classes": 3}', '{"settings": {}, "classes": {"nut": {}}}']
)
def test_a_damaged_record_is_told(content: str, written: Path) -> None:
    (written / "fullshot.json").write_text(content)
    with pytest.raises(ValueError, match=r"fullshot\.json' is damaged or of another version"):
        FullShotResults(written, SETTINGS)


def test_a_failed_write_leaves_what_was_there(written: Path) -> None:
    before = (written / "fullshot.json").read_bytes()
    with pytest.raises(TypeError):
        FullShotResults(written, SETTINGS).add("pill", {**result(0, 0, 0, 0, 0, 0), "fit": object()})
    assert (written / "fullshot.json").read_bytes() == before
    assert len(list(written.iterdir())) == 3
