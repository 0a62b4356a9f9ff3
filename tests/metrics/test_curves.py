# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import auc
from sklearn.metrics import roc_curve as roc_of_scikit_learn

from monai_anomalyclip.metrics import AUPROMetric, ImageAUROCMetric, PixelAUROCMetric, plot_curves, pro_curve, roc_curve


def pro_metric(maps: np.ndarray, masks: np.ndarray) -> AUPROMetric:
    metric = AUPROMetric()
    metric(torch.tensor(maps), torch.tensor(masks))
    return metric


@pytest.mark.parametrize("levels", [None, 8])
def test_points_of_the_roc_curve_are_those_of_scikit_learn(levels: int | None, brute: ModuleType) -> None:
    maps, masks = brute.random_maps(levels=levels)
    x, y = roc_curve(pro_metric(maps, masks).ranked())
    expected_x, expected_y, _ = roc_of_scikit_learn(masks.ravel(), maps.ravel(), drop_intermediate=False)
    assert (x[0], y[0], x[-1], y[-1]) == (0, 0, 1, 1)
    assert (np.diff(x) >= 0).all()
    assert (np.diff(y) >= 0).all()
    assert auc(x, y) == pytest.approx(auc(expected_x, expected_y), abs=1e-12)
    known = set(zip(expected_x.round(9), expected_y.round(9), strict=True))
    assert set(zip(x.round(9), y.round(9), strict=True)) <= known


@pytest.mark.parametrize("levels", [None, 8])
def test_area_under_the_pro_curve(levels: int | None, brute: ModuleType) -> None:
    maps, masks = brute.random_maps(levels=levels)
    x, y = pro_curve(pro_metric(maps, masks).ranked())
    assert auc(x, y) == pytest.approx(brute.aupro(maps, masks, 1.0), abs=1e-12)
    rates, overlaps, _ = brute.curves(maps, masks)
    assert np.interp(0.123, x, y) == pytest.approx(np.interp(0.123, rates, overlaps), abs=1e-12)


def test_long_curves_are_thinned(brute: ModuleType) -> None:
    _, masks = brute.random_maps(count=12)
    masks = masks.repeat(20, axis=0).repeat(4, axis=2).repeat(4, axis=3)
    maps = (np.random.default_rng(0).random(masks.shape) + 0.4 * masks).astype(np.float32)
    assert masks.sum() > 20000
    metric, roc, whole = pro_metric(maps, masks), PixelAUROCMetric(), AUPROMetric(fpr_limit=1.0)
    roc(torch.tensor(maps), torch.tensor(masks))
    whole(torch.tensor(maps), torch.tensor(masks))
    for (x, y), expected in (
        (pro_curve(metric.ranked()), float(whole.aggregate())),
        (roc_curve(metric.ranked()), float(roc.aggregate())),
    ):
        assert 1000 < len(x) <= 2002
        assert (x[0], y[0], x[-1], y[-1]) == (0, 0, 1, 1)
        assert auc(x, y) == pytest.approx(expected, abs=1e-3)


def test_image_scores_have_a_roc_curve_and_no_pro_curve() -> None:
    metric = ImageAUROCMetric()
    metric(torch.tensor([0.1, 0.4, 0.35, 0.8]), torch.tensor([0, 0, 1, 1]))
    x, y = roc_curve(metric.ranked())
    assert auc(x, y) == pytest.approx(0.75)
    with pytest.raises(ValueError, match="regions' areas"):
        pro_curve(metric.ranked())


@pytest.mark.parametrize(("count", "kind"), [(1, "ROC"), (2, "PRO"), (30, "PRO")])
def test_pictures(count: int, kind: str, tmp_path: Path) -> None:
    x = np.linspace(0, 1, 50)
    curves = {f"class {index}": (x, x ** (1 / (2 + index))) for index in range(count)}
    path = tmp_path / "curve.png"
    path.write_bytes(b"old")
    plot_curves(path, curves, kind, fpr_limit=0.3 if kind == "PRO" else None, title="Title")  # type: ignore[arg-type]
    assert [file.name for file in tmp_path.iterdir()] == ["curve.png"]
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        assert picture.height == 960
        assert (picture.width == 1280) == (count <= 3)
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    # The first curve's blue (matplotlib's C0) is drawn, and more so the longer curves are many.
    blue = (np.abs(pixels - np.array([31, 119, 180])).sum(axis=-1) < 30).sum()
    assert blue > 500


def test_no_curve(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no curves"):
        plot_curves(tmp_path / "curve.png", {})
    assert not list(tmp_path.iterdir())
