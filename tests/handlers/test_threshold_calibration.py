# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from ignite.engine import Engine
from sklearn.metrics import f1_score
from torch import Tensor

from monai_anomalyclip.handlers import ThresholdCalibration
from monai_anomalyclip.networks import CalibratedThresholds, resolve_threshold


def batches() -> list[dict[str, Tensor]]:
    made = []
    for size in (4, 4, 2):
        masks = torch.zeros(size, 1, 6, 6)
        masks[::2, :, 2:4, 1:4] = 1
        maps = (torch.rand(size, 1, 6, 6) + 0.3 * masks).clamp(max=0.99)
        made.append({"maps": maps, "masks": masks, "scores": maps.amax((1, 2, 3)), "labels": masks.amax((1, 2, 3))})
    return made


def calibrate(prompts: Path, data: list[dict[str, Tensor]], **options: Any) -> dict[str, float]:
    engine = Engine(lambda _, batch: batch)
    ThresholdCalibration(
        prompts, lambda out: (out["maps"], out["masks"]), lambda out: (out["scores"], out["labels"]), **options
    ).attach(engine)
    metrics: dict[str, float] = engine.run(data).metrics
    return metrics


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "model.pt"
    path.write_bytes(b"prompts")
    return path


def test_best_f1(prompts: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = batches()
    with caplog.at_level(logging.INFO, logger="monai_anomalyclip"):
        metrics = calibrate(prompts, data)
    saved = CalibratedThresholds.load(prompts.with_name("model.thresholds.json"))
    assert (saved.pixel_threshold, saved.image_threshold) == (metrics["pixel_threshold"], metrics["image_threshold"])
    assert (saved.method, saved.n) == ("best_f1", 10)
    assert saved.prompts_sha256 == hashlib.sha256(b"prompts").hexdigest()
    assert resolve_threshold("calibrated", prompts) == saved.pixel_threshold
    for given, wanted, threshold in (
        ("maps", "masks", saved.pixel_threshold),
        ("scores", "labels", saved.image_threshold),
    ):
        values, labels = (torch.cat([batch[key].flatten() for batch in data]) for key in (given, wanted))
        best = max(f1_score(labels, values >= value) for value in values.unique())
        assert f1_score(labels, values >= threshold) == pytest.approx(best, abs=1e-12)
    assert f"image {saved.image_threshold:.4f}; written to model.thresholds.json" in caplog.text
    assert str(prompts.parent) not in caplog.text


@pytest.mark.parametrize("fpr", [0.1, 0.5])
def test_false_positive_rate(fpr: float, prompts: Path) -> None:
    data = batches()
    metrics = calibrate(prompts, data, rule="fpr", fpr=fpr)
    assert CalibratedThresholds.load(prompts.with_name("model.thresholds.json")).method == f"fpr={fpr}"
    for given, wanted, name in (("maps", "masks", "pixel_threshold"), ("scores", "labels", "image_threshold")):
        values, labels = (torch.cat([batch[key].flatten() for batch in data]) for key in (given, wanted))
        normal = values[labels == 0]
        assert (normal >= metrics[name]).sum() == int(fpr * len(normal))


@pytest.mark.filterwarnings("ignore:.*is undefined")
def test_undefined_is_written_as_null(prompts: Path) -> None:
    data = batches()
    for batch in data:
        batch["masks"].zero_()
    calibrate(prompts, data)
    saved = CalibratedThresholds.load(prompts.with_name("model.thresholds.json"))
    assert saved.pixel_threshold is None
    assert saved.image_threshold is not None


def test_rate_that_no_threshold_keeps_is_written_as_null(prompts: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = batches()
    for batch in data:
        batch["maps"][batch["masks"] == 0] = 1.0
    calibrate(prompts, data, rule="fpr", fpr=0.05)
    saved = CalibratedThresholds.load(prompts.with_name("model.thresholds.json"))
    assert saved.pixel_threshold is None
    assert saved.image_threshold is not None
    assert "there is no pixel threshold" in caplog.text


def test_method_that_learns_nothing(tmp_path: Path) -> None:
    absent = tmp_path / "models" / "winclip" / "model.pt"
    metrics = calibrate(absent, batches())
    assert resolve_threshold("calibrated", absent) == metrics["pixel_threshold"]


def test_other_processes_write_nothing(prompts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ignite.distributed.get_rank", lambda: 1)
    assert set(calibrate(prompts, batches())) == {"pixel_threshold", "image_threshold"}
    assert [path.name for path in prompts.parent.iterdir()] == ["model.pt"]


def test_unknown_rule(prompts: Path) -> None:
    rule: Literal["best_f1", "fpr"] = "otsu"  # type: ignore[assignment]
    with pytest.raises(ValueError, match="'otsu'"):
        calibrate(prompts, batches(), rule=rule)
