# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from PIL import Image
from torch import Tensor

from monai_anomalyclip.handlers import AUPRO, CurvePlots, ImageAUROC, PixelAP, PixelAUROC


def batches() -> list[dict[str, Any]]:
    masks = torch.zeros(8, 1, 12, 12)
    masks[1::2, :, 3:6, 2:8] = 1
    maps = torch.rand(8, 1, 12, 12) + 0.5 * masks
    names = ["bottle", "bottle", "cable", "cable"] * 2
    return [{"maps": maps[part], "masks": masks[part], "class": names[part]} for part in (slice(0, 4), slice(4, 8))]


def maps(output: dict[str, Any]) -> tuple[Tensor, Tensor]:
    return output["maps"], output["masks"]


def run(output_dir: Path, handlers: dict[str, Any], data: list[dict[str, Any]]) -> dict[str, float]:
    engine = Engine(lambda _, batch: batch)
    for name, handler in handlers.items():
        handler.attach(engine, name)
    CurvePlots(output_dir, handlers).attach(engine)
    metrics: dict[str, float] = engine.run(data).metrics
    return metrics


@pytest.mark.parametrize("method", ["exact", "histogram"])
def test_a_picture_for_each_metric(method: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: dict[str, Any] = {}

    def plot(path: Path, curves: Any, kind: str, **options: Any) -> None:
        drawn[path.name] = (curves, kind, options)

    handlers = {
        "image_auroc": ImageAUROC(lambda out: (out["maps"].amax((1, 2, 3)), out["masks"].amax((1, 2, 3)))),
        "pixel_auroc": PixelAUROC(maps, lambda batch: batch["class"], method),
        "pixel_aupro": AUPRO(maps, lambda batch: batch["class"], method),
    }
    data = batches()
    metrics = run(tmp_path / "plots", dict(handlers), data)
    for name in handlers:
        with Image.open(tmp_path / "plots" / f"{name}_curve.png") as picture:
            assert np.asarray(picture.convert("L")).std() > 5
    monkeypatch.setattr("monai_anomalyclip.handlers.curve_plots.plot_curves", plot)
    run(tmp_path / "plots", dict(handlers), data)
    curves, kind, options = drawn["pixel_aupro_curve.png"]
    assert (kind, options["fpr_limit"]) == ("PRO", 0.3)
    assert list(curves) == [f"{name} ({metrics[f'pixel_aupro/{name}']:.3f})" for name in ("bottle", "cable")]
    assert f"{metrics['pixel_aupro']:.3f}" in options["title"]
    curves, kind, options = drawn["pixel_auroc_curve.png"]
    assert (kind, options["fpr_limit"]) == ("ROC", None)
    for name in ("bottle", "cable"):
        x, y = curves[f"{name} ({metrics[f'pixel_auroc/{name}']:.3f})"]
        area = float((np.diff(x) * (y[1:] + y[:-1]) / 2).sum())
        assert area == pytest.approx(metrics[f"pixel_auroc/{name}"], abs=1e-3)
    assert list(drawn["image_auroc_curve.png"][0]) == [f"Image AUROC ({metrics['image_auroc']:.3f})"]


@pytest.mark.filterwarnings("ignore:.*is undefined")
def test_undefined_metrics_have_no_curve(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = batches()
    for batch in data:
        batch["masks"].zero_()
    run(tmp_path, {"pixel_aupro": AUPRO(maps)}, data)
    assert not list(tmp_path.iterdir())
    assert "pixel_aupro is undefined, so it has no curve." in caplog.text


def test_other_processes_draw_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ignite.distributed.get_rank", lambda: 1)
    run(tmp_path, {"pixel_aupro": AUPRO(maps)}, batches())
    assert not list(tmp_path.iterdir())


def test_metrics_without_such_a_curve_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'pixel_ap' \(PixelAPMetric\) is not the area of a ROC or PRO curve"):
        CurvePlots(tmp_path, {"pixel_ap": PixelAP(classes=lambda batch: batch)})
