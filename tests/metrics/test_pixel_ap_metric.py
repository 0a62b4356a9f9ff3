# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from types import ModuleType
from typing import Literal

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

from monai_anomalyclip.metrics import PixelAPMetric, PixelAUROCMetric

ORACLES = {PixelAPMetric: average_precision_score, PixelAUROCMetric: roc_auc_score}
KINDS = [PixelAPMetric, PixelAUROCMetric]


def given(kind: type, maps: np.ndarray, masks: np.ndarray, batch_size: int = 4, **options: object) -> PixelAPMetric:
    metric: PixelAPMetric = kind(**options)
    for start in range(0, len(maps), batch_size):
        part = slice(start, start + batch_size)
        metric(y_pred=torch.tensor(maps[part]), y=torch.tensor(masks[part]))
    return metric


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("levels", [None, 20, 2])
@pytest.mark.parametrize("batch_size", [1, 4, 9])
def test_value_of_scikit_learn(kind: type, levels: int | None, batch_size: int, brute: ModuleType) -> None:
    maps, masks = brute.random_maps(count=9, levels=levels)
    expected = ORACLES[kind](masks.ravel(), maps.ravel())
    assert float(given(kind, maps, masks, batch_size).aggregate()) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("method", ["exact", "histogram"])
def test_recorded_values(method: Literal["exact", "histogram"], recorded: dict[str, np.ndarray]) -> None:
    """The maps are float16, which the histogram's bins tell apart: no error."""
    maps, masks = recorded["maps"][:, None], recorded["masks"][:, None]
    for kind, name in ((PixelAPMetric, "pixel_ap"), (PixelAUROCMetric, "pixel_auroc")):
        found = float(given(kind, maps, masks, method=method).aggregate())
        assert found == pytest.approx(float(recorded[name]), abs=1e-9)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("bins", [2**16, 2**20])
def test_bound_of_the_histogram(kind: type, seed: int, bins: int, brute: ModuleType) -> None:
    maps, masks = brute.random_maps(count=40, seed=seed)
    if seed % 2:
        maps = 0.5 + maps / 100  # all in a few bins
    metric = given(kind, maps, masks, method="histogram", bins=bins)
    error = abs(float(metric.aggregate()) - ORACLES[kind](masks.ravel(), maps.ravel()))
    assert error <= metric.error_bound() + 1e-12
    if seed % 2 and bins == 2**16:
        assert error > 1e-5
    if bins == 2**20:
        assert metric.error_bound() < (0.06 if seed % 2 else 0.002)
    assert given(kind, maps, masks).error_bound() == 0


@pytest.mark.parametrize("kind", KINDS)
def test_bound_is_reached_by_tied_looking_scores(kind: type) -> None:
    """Everything in one bin: the histogram knows the share of anomalous pixels only."""
    mask = np.zeros((1, 1, 8, 8), np.uint8)
    mask[..., 0, 0] = 1
    scores = np.full(mask.shape, 0.5, np.float32)
    scores[..., 0, 0] += 2**-12
    metric = given(kind, scores, mask, method="histogram", bins=2**16)
    assert float(metric.aggregate()) == pytest.approx(1 / 64 if kind is PixelAPMetric else 0.5)
    assert metric.error_bound() == pytest.approx(1 - float(metric.aggregate()))
    assert float(given(kind, scores, mask).aggregate()) == 1


@pytest.mark.parametrize("fill", [0, 1])
def test_one_class_is_undefined(fill: int) -> None:
    metric = given(PixelAPMetric, np.random.default_rng(0).random((2, 1, 4, 4)), np.full((2, 1, 4, 4), fill))
    with pytest.warns(UserWarning, match=r"Pixel AP is undefined \(NaN\): all pixels are of one class"):
        assert torch.isnan(metric.aggregate())


def test_unknown_method() -> None:
    with pytest.raises(ValueError, match="'thresholds_200' is not one of 'exact', 'histogram'"):
        PixelAPMetric("thresholds_200")  # type: ignore[arg-type]
