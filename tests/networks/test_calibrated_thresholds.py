# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import pytest
import torch

from monai_anomalyclip.networks import (
    CalibratedThresholds,
    PromptCheckpoint,
    resolve_threshold,
    threshold_source,
    thresholds_path,
    write_prompts,
)


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "model.pt"
    path.write_bytes(b"prompts")
    return path


def calibrated(prompts: Path, **changes: object) -> Path:
    sha256 = hashlib.sha256(prompts.read_bytes()).hexdigest()
    thresholds = CalibratedThresholds(0.3125, 0.61, "best_f1", 40, sha256)
    path = thresholds_path(prompts)
    dataclasses.replace(thresholds, **changes).save(path)  # type: ignore[arg-type]
    return path


def test_form_of_the_file(prompts: Path) -> None:
    path = calibrated(prompts, prompts_sha256=None)
    assert path == prompts.with_name("model.thresholds.json")
    content = {"pixel_threshold": 0.3125, "image_threshold": 0.61, "method": "best_f1", "n": 40}
    assert json.loads(path.read_text()) == content
    assert {file.name for file in path.parent.iterdir()} == {"model.pt", path.name}  # nothing temporary
    assert CalibratedThresholds.load(path) == CalibratedThresholds(0.3125, 0.61, "best_f1", 40)


def test_float32_survives(prompts: Path) -> None:
    value = 0.10000000149011612  # the float32 next to 0.1
    assert CalibratedThresholds.load(calibrated(prompts, pixel_threshold=value)).pixel_threshold == value


def test_resolving(prompts: Path) -> None:
    assert resolve_threshold(0.25, prompts) == 0.25
    assert resolve_threshold("0.25", prompts) == 0.25
    assert resolve_threshold([0.25], prompts) == 0.25  # as MONAI Label sends it
    with pytest.raises(FileNotFoundError, match=r"'model.thresholds.json' beside the prompts 'model.pt'"):
        resolve_threshold("calibrated", prompts)
    calibrated(prompts)
    assert resolve_threshold("calibrated", prompts) == resolve_threshold(["calibrated"], prompts) == 0.3125
    assert resolve_threshold("calibrated", str(prompts), "image") == 0.61
    with pytest.raises(ValueError, match="must be a number or 'calibrated', got 'best'"):
        resolve_threshold("best", prompts)


def test_thresholds_of_other_prompts_are_refused(prompts: Path) -> None:
    calibrated(prompts)
    prompts.write_bytes(b"tuned again")
    with pytest.raises(ValueError, match=r"measured with other prompts than 'model\.pt'"):
        resolve_threshold("calibrated", prompts)
    calibrated(prompts, prompts_sha256=None)  # unknown: taken on trust
    assert resolve_threshold("calibrated", prompts) == 0.3125


def test_level_that_was_undefined(prompts: Path) -> None:
    path = calibrated(prompts, pixel_threshold=None)
    assert json.loads(path.read_text())["pixel_threshold"] is None
    assert resolve_threshold("calibrated", prompts, "image") == 0.61
    with pytest.raises(ValueError, match="no pixel threshold"):
        resolve_threshold("calibrated", prompts)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[1, 2]",
        '{"pixel_threshold": 0.5}',
        '{"pixel_threshold": NaN, "image_threshold": 0.5, "method": "fpr", "n": 3}',
        '{"pixel_threshold": true, "image_threshold": 0.5, "method": "fpr", "n": 3}',
        '{"pixel_threshold": "x", "image_threshold": 0.5, "method": "fpr", "n": 3}',
    ],
)
def test_damaged_files(text: str, prompts: Path) -> None:
    thresholds_path(prompts).write_text(text)
    with pytest.raises(ValueError, match=r"'model.thresholds.json' does not hold calibrated thresholds"):
        resolve_threshold("calibrated", prompts)


def test_where_a_threshold_came_from(prompts: Path) -> None:
    calibrated(prompts, method="fpr=0.05")
    assert threshold_source("calibrated", prompts) == "calibrated on 40 images (fpr=0.05)"
    assert threshold_source(["calibrated"], prompts) == "calibrated on 40 images (fpr=0.05)"
    for given in (0.5, "0.5", [0.5]):
        assert threshold_source(given, prompts) == "setting of the run"


def test_thresholds_hold_for_the_same_prompts_in_another_file(tmp_path: Path) -> None:
    context = torch.arange(24, dtype=torch.float32).reshape(1, 4, 6)
    saved = PromptCheckpoint(context, context + 1, (context[0],))
    thresholds = CalibratedThresholds(0.3125, 0.61, "best_f1", 40, saved.sha256)
    for name in ("model.pt", "other.pt", "third.safetensors"):
        write_prompts(saved, tmp_path / name)
        thresholds.save(thresholds_path(tmp_path / name))
        assert resolve_threshold("calibrated", tmp_path / name) == 0.3125
    assert (tmp_path / "model.pt").read_bytes() == (tmp_path / "other.pt").read_bytes()
    for changed in (
        PromptCheckpoint(context, context + 1, (context[0] + 1e-6,)),
        PromptCheckpoint(context + 1, context, (context[0],)),
        PromptCheckpoint(context, context + 1, ()),
    ):
        write_prompts(changed, tmp_path / "model.pt", overwrite=True)
        with pytest.raises(ValueError, match="measured with other prompts"):
            resolve_threshold("calibrated", tmp_path / "model.pt")
