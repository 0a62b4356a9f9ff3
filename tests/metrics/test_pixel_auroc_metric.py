# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from monai_anomalyclip.metrics import PixelAUROCMetric


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
def test_one_class_is_undefined(value: float) -> None:
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
