# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import warnings
from types import ModuleType
from typing import Literal

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import Tensor

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


def maps_and_masks(batch: int = 5, levels: int | None = None) -> tuple[Tensor, Tensor]:
    """Random maps that lean towards the masks; ``levels`` rounds them, so that many pixels tie."""
    masks = (torch.rand(batch, 1, 9, 7) > 0.8).float()
    maps = (torch.rand(batch, 1, 9, 7) + 0.3 * masks).clamp(max=1)
    return (maps if levels is None else (maps * levels).round() / levels), masks


def by_pairs(maps: Tensor, masks: Tensor) -> float:
    """Probability that an abnormal pixel scores higher than a normal one; ties count half. All pairs, no sorting."""
    scores, abnormal = maps.flatten().double(), masks.flatten().bool()
    difference = scores[abnormal][:, None] - scores[~abnormal][None]
    return float(((difference > 0).double() + 0.5 * (difference == 0).double()).mean())


def computed(maps: Tensor, masks: Tensor, batch_size: int | None = None) -> Tensor:
    metric = PixelAUROCMetric()
    size = batch_size or len(maps)
    for start in range(0, len(maps), size):
        metric(y_pred=maps[start : start + size], y=masks[start : start + size])
    value = metric.aggregate()
    assert isinstance(value, Tensor)
    assert value.shape == ()
    return value


@pytest.mark.parametrize("levels", [None, 20, 2])
def test_probability_that_an_abnormal_pixel_scores_higher(levels: int | None) -> None:
    maps, masks = maps_and_masks(levels=levels)
    expected = by_pairs(maps, masks)
    assert float(computed(maps, masks)) == pytest.approx(expected, abs=1e-12)
    assert roc_auc_score(masks.flatten().numpy(), maps.flatten().numpy()) == pytest.approx(expected, abs=1e-12)
    assert 0.5 < expected < 1


@pytest.mark.parametrize("batch_size", [1, 2, 4])
def test_pixels_of_all_batches_are_pooled(batch_size: int) -> None:
    maps, masks = maps_and_masks()
    assert float(computed(maps, masks, batch_size)) == float(computed(maps, masks))
    per_image = np.mean([by_pairs(*pair) for pair in zip(maps, masks, strict=True)])
    assert float(computed(maps, masks)) != pytest.approx(per_image, abs=1e-6)


def test_known_values() -> None:
    mask = torch.tensor([0.0, 0, 1, 1]).reshape(1, 1, 2, 2)
    ranked = torch.tensor([0.1, 0.4, 0.35, 0.8]).reshape(1, 1, 2, 2)
    assert float(computed(ranked, mask)) == 0.75  # scikit-learn's own example
    assert float(computed(mask, mask)) == 1
    assert float(computed(1 - mask, mask)) == 0
    assert float(computed(torch.full_like(mask, 0.3), mask)) == 0.5


def test_recorded_metrics(data_dir: object) -> None:
    with np.load(f"{data_dir}/metrics.npz") as file:
        recorded = {key: file[key] for key in file.files}
    masks, maps = torch.tensor(recorded["masks"]), torch.tensor(recorded["maps"])
    value = computed(maps.reshape(-1, 1, *maps.shape[-2:]), masks.reshape(-1, 1, *masks.shape[-2:]), 2)
    assert float(value) == pytest.approx(float(recorded["pixel_auroc"]), abs=1e-9)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_auroc_of_one_class_is_undefined(value: float) -> None:
    metric = PixelAUROCMetric()
    metric(y_pred=torch.rand(2, 1, 4, 4), y=torch.full((2, 1, 4, 4), value))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert torch.isnan(metric.aggregate())
    assert [str(warning.message) for warning in caught] == [
        "Pixel AUROC is undefined (NaN): all pixels are of one class."
    ]


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_map_that_is_not_finite_is_undefined(value: float) -> None:
    maps, masks = maps_and_masks()
    maps[1, 0, 2, 2] = value
    with pytest.warns(UserWarning, match=r"undefined \(NaN\): a map has values that are not finite"):
        assert torch.isnan(computed(maps, masks))


def test_kinds_of_masks() -> None:
    maps, masks = maps_and_masks()
    expected = float(computed(maps, masks))
    for other in (masks.bool(), masks.to(torch.uint8), masks.long()):
        assert float(computed(maps, other)) == expected


def test_items_of_a_decollated_batch() -> None:
    maps, masks = maps_and_masks()
    metric = PixelAUROCMetric()
    metric(y_pred=list(maps), y=list(masks))
    assert float(metric.aggregate()) == float(computed(maps, masks))


def test_reset_forgets() -> None:
    maps, masks = maps_and_masks()
    metric = PixelAUROCMetric()
    metric(y_pred=1 - maps, y=masks)
    metric.reset()
    metric(y_pred=maps, y=masks)
    assert float(metric.aggregate()) == float(computed(maps, masks))


def test_gradients_are_not_kept() -> None:
    maps, masks = maps_and_masks()
    assert float(computed(maps.requires_grad_(), masks)) == pytest.approx(by_pairs(maps.detach(), masks), abs=1e-12)


@pytest.mark.parametrize("shape", [(2, 4, 4), (2, 2, 4, 4), (2, 1, 4, 5), (1, 1, 4, 4)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"must both have shape \(B, 1, H, W\), got \(2, 1, 4, 4\) and"):
        PixelAUROCMetric()(y_pred=torch.rand(2, 1, 4, 4), y=torch.zeros(shape))
    with pytest.raises(ValueError, match=r"must both have shape \(B, 1, H, W\)"):
        PixelAUROCMetric()(y_pred=torch.rand(2, 4, 4), y=torch.zeros(2, 4, 4))


def test_nothing_given() -> None:
    with pytest.raises(ValueError, match="No maps have been given"):
        PixelAUROCMetric().aggregate()
    with pytest.raises(ValueError, match=r"got \(1, 1, 4, 4\) and None"):
        PixelAUROCMetric()(y_pred=torch.rand(1, 1, 4, 4))
