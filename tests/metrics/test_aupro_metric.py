# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from monai_anomalyclip.metrics import AUPROMetric

Method = Literal["exact", "thresholds_200", "histogram"]


def value(maps: Any, masks: Any, batch_size: int | None = None, **options: Any) -> float:
    metric = AUPROMetric(**options)
    size = batch_size or len(maps)
    for start in range(0, len(maps), size):
        part = slice(start, start + size)
        metric(y_pred=torch.as_tensor(maps[part]), y=torch.as_tensor(masks[part]))
    result = metric.aggregate()
    assert isinstance(result, Tensor)
    assert result.shape == ()
    assert result.dtype == torch.float64
    return float(result)


@pytest.mark.parametrize("limit", [0.01, 0.3, 1.0])
@pytest.mark.parametrize("levels", [None, 50, 6, 1])
def test_every_threshold_by_brute_force(levels: int | None, limit: float, brute: ModuleType) -> None:
    maps, masks = brute.random_maps(levels=levels)
    expected = brute.aupro(maps, masks, limit)
    assert 0 < expected < 1
    assert value(maps, masks, fpr_limit=limit) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("seed", range(40))
def test_tiny_maps_of_every_kind(seed: int, brute: ModuleType) -> None:
    """Masks without form, so that regions touch by corners, with few levels, so that most pixels tie."""
    random = np.random.default_rng(seed)
    shape = (2, 1, *random.integers(1, 7, 2))
    masks = (random.random(shape) < random.uniform(0.1, 0.8)).astype(np.uint8)
    masks.flat[0], masks.flat[-1] = 0, 1
    maps = random.integers(0, random.integers(2, 9), shape).astype(np.float32)
    limit = float(random.uniform(0.05, 1))
    assert value(maps, masks, fpr_limit=limit) == pytest.approx(brute.aupro(maps, masks, limit), abs=1e-12)


def test_recorded_value_of_the_published_definition(recorded: dict[str, np.ndarray]) -> None:
    maps, masks = recorded["maps"][:, None], recorded["masks"][:, None]
    found = value(maps, masks, 5, method="thresholds_200")
    assert found == pytest.approx(float(recorded["pixel_aupro_200_thresholds"]), abs=1e-9)
    assert abs(value(maps, masks) - found) > 0.005  # what the definitions differ by, on these maps


@pytest.mark.parametrize("power", [0.3, 1.0, 4.0])
def test_published_loop(power: float, brute: ModuleType, published_loop: Callable[..., float]) -> None:
    maps, masks = brute.random_maps(count=9, seed=3)
    maps **= np.float32(power)
    expected = published_loop(masks[:, 0], maps[:, 0])
    assert value(maps, masks, 2, method="thresholds_200") == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("rescale", "keeps_order"),
    [
        (np.square, True),
        (np.sqrt, True),
        (lambda x: 1 / (1 + np.exp(-3 * x)), True),
        (lambda x: 100 * x - 7, True),
        (lambda x: -x, False),
    ],
)
def test_monotone_rescaling(rescale: Callable[[np.ndarray], np.ndarray], keeps_order: bool, brute: ModuleType) -> None:
    maps, masks = brute.random_maps(levels=40)
    rescaled = rescale(maps.astype(np.float64)).astype(np.float32)
    assert (value(rescaled, masks) == value(maps, masks)) is keeps_order


def test_published_definition_depends_on_the_scale(brute: ModuleType) -> None:
    maps, masks = brute.random_maps(count=30, seed=2)
    exact, published = (
        [value(maps**power, masks, method=method) for power in (1, 12)] for method in ("exact", "thresholds_200")
    )
    assert exact[0] == pytest.approx(exact[1], abs=1e-12)
    assert abs(published[0] - published[1]) > 0.01


@pytest.mark.parametrize("method", ["exact", "histogram", "thresholds_200"])
def test_order_of_images_and_batches(method: Method, brute: ModuleType) -> None:
    maps, masks = brute.random_maps(count=7)
    whole = value(maps, masks, method=method)
    for batch_size in (1, 3):
        assert value(maps, masks, batch_size, method=method) == pytest.approx(whole, abs=1e-14)
    assert value(maps[::-1].copy(), masks[::-1].copy(), 2, method=method) == pytest.approx(whole, abs=1e-14)


@pytest.mark.parametrize("method", ["exact", "histogram"])
@pytest.mark.parametrize("limit", [0.1, 0.3, 1.0])
def test_analytic_values(method: Method, limit: float, brute: ModuleType) -> None:
    _, masks = brute.random_maps()
    options: dict[str, Any] = {"method": method, "fpr_limit": limit}
    assert value(np.full(masks.shape, 0.7, np.float32), masks, **options) == pytest.approx(limit / 2, abs=1e-12)
    assert value(masks.astype(np.float32), masks, **options) == 1
    inverted = value(1 - masks.astype(np.float32), masks, **options)
    assert inverted == 0 if limit < 1 else inverted == pytest.approx(0, abs=1e-12)


def test_ramp_whose_area_is_known() -> None:
    """One region, of which half the pixels lie above all normal ones and half below: overlap 1/2 at every rate."""
    mask = np.zeros((1, 1, 4, 10), np.uint8)
    mask[..., :2] = 1
    scores = np.linspace(0.2, 0.8, 40, dtype=np.float32).reshape(1, 1, 4, 10)
    scores[..., 0], scores[..., 1] = 0.9, 0.1
    assert value(scores, mask) == pytest.approx(0.5, abs=1e-12)


def test_every_region_counts_the_same() -> None:
    """A found region of one pixel and a lost one of 25: a half, though nearly all anomalous pixels are lost."""
    mask = np.zeros((1, 1, 20, 20), np.uint8)
    mask[..., 0, 0] = 1
    mask[..., 5:10, 5:10] = 1
    scores = np.full(mask.shape, 0.5, np.float32)
    scores[..., 0, 0], scores[..., 5:10, 5:10] = 1, 0
    assert value(scores, mask) == pytest.approx(0.5, abs=1e-12)


def test_regions_that_touch_by_a_corner_are_one() -> None:
    mask = np.zeros((1, 1, 12, 12), np.uint8)
    mask[..., 2, 2] = mask[..., 3, 3] = mask[..., 4, 4] = 1  # one region of three pixels
    mask[..., 9, 9] = 1  # another one
    scores = np.full(mask.shape, 0.5, np.float32)
    scores[..., 2, 2], scores[..., 3, 3], scores[..., 4, 4], scores[..., 9, 9] = 1, 0, 0, 0
    assert value(scores, mask) == pytest.approx((1 / 3 + 0) / 2, abs=1e-12)


def test_saturated_maps() -> None:
    """More than the limit's share of normal pixels at the maximum: defined, where the published definition is not."""
    random = np.random.default_rng(0)
    mask = np.zeros((1, 1, 30, 30), np.uint8)
    mask[..., 4:9, 4:9] = 1
    scores = np.where(random.random(mask.shape) < 0.5, 1, 0.2).astype(np.float32)
    scores[mask == 1] = 1
    saturated = (scores[mask == 0] == 1).mean()
    assert saturated > 0.3
    assert value(scores, mask) == pytest.approx(0.3 / saturated / 2, abs=1e-12)
    with pytest.warns(UserWarning, match="fewer than two of the 200 thresholds"):
        assert np.isnan(value(scores, mask, method="thresholds_200"))


@pytest.mark.parametrize("levels", [None, 3])
def test_half_precision_and_negative_scores(levels: int | None, brute: ModuleType) -> None:
    maps, masks = brute.random_maps(levels=levels)
    halves = (maps - 0.7).astype(np.float16)
    expected = brute.aupro(halves.astype(np.float32), masks)
    assert value(halves, masks) == pytest.approx(expected, abs=1e-12)
    assert value(torch.tensor(halves).bfloat16(), masks) == pytest.approx(
        brute.aupro(torch.tensor(halves).bfloat16().float().numpy(), masks), abs=1e-12
    )


@pytest.mark.parametrize("bins", [2**16, 2**18, 2**20])
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("limit", [0.05, 0.3, 1.0])
def test_bound_of_the_histogram(bins: int, seed: int, limit: float, brute: ModuleType) -> None:
    maps, masks = brute.random_maps(count=40, seed=seed)
    if seed % 2:
        maps = 0.5 + maps / 100  # all in a few bins: the error becomes visible
    metric = AUPROMetric("histogram", limit, bins=bins)
    metric(y_pred=torch.tensor(maps), y=torch.tensor(masks))
    error = abs(float(metric.aggregate()) - value(maps, masks, fpr_limit=limit))
    assert error <= metric.error_bound() + 1e-12
    if seed % 2 and bins == 2**16 and limit < 1:
        assert error > 1e-5
    if bins == 2**20:
        assert metric.error_bound() < (0.05 if seed % 2 else 0.002)


def test_bound_is_reached() -> None:
    """All scores in one bin, anomalous ones on top: the histogram says a half where the truth is one."""
    mask = np.zeros((1, 1, 8, 8), np.uint8)
    mask[..., :2, :] = 1
    scores = np.where(mask == 1, 0.5 + 2**-12, 0.5).astype(np.float32)
    metric = AUPROMetric("histogram", 1.0, bins=2**16)
    metric(y_pred=torch.tensor(scores), y=torch.tensor(mask))
    assert float(metric.aggregate()) == pytest.approx(0.5)
    assert metric.error_bound() == pytest.approx(0.5)
    assert value(scores, mask, fpr_limit=1.0) == 1


def test_bounds_of_the_other_methods(brute: ModuleType) -> None:
    maps, masks = map(torch.tensor, brute.random_maps())
    metric = AUPROMetric()
    metric(y_pred=maps, y=masks)
    assert metric.error_bound() == 0
    with pytest.raises(ValueError, match="another definition"):
        AUPROMetric("thresholds_200").error_bound()


def test_a_constant_map_has_no_published_value() -> None:
    metric = AUPROMetric("thresholds_200")
    metric(y_pred=torch.full((1, 1, 4, 4), 0.5), y=torch.eye(4)[None, None])
    with pytest.warns(UserWarning, match="fewer than two of the 200 thresholds differ in rate below 0.3"):
        assert torch.isnan(metric.aggregate())


@pytest.mark.parametrize("method", ["exact", "histogram", "thresholds_200"])
@pytest.mark.parametrize(("fill", "reason"), [(0, "no mask has an anomalous region"), (1, "there is no normal pixel")])
def test_undefined_is_nan_with_one_warning(method: Method, fill: int, reason: str) -> None:
    metric = AUPROMetric(method)
    metric(y_pred=torch.rand(2, 1, 4, 4), y=torch.full((2, 1, 4, 4), fill))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert torch.isnan(metric.aggregate())
    assert [str(warning.message) for warning in caught] == [f"AUPRO is undefined (NaN): {reason}."]


@pytest.mark.parametrize("method", ["exact", "histogram", "thresholds_200"])
def test_map_that_is_not_finite(method: Method, brute: ModuleType) -> None:
    maps, masks = brute.random_maps()
    maps[0, 0, 0, 0] = np.nan
    with pytest.warns(UserWarning, match="a map has values that are not finite"):
        assert np.isnan(value(maps, masks, method=method))


@pytest.mark.parametrize("method", ["exact", "histogram", "thresholds_200"])
def test_images_of_different_size(method: Method, brute: ModuleType) -> None:
    """Lists and calls may mix sizes; padding an image with pixels of a mask cut off is no part of it."""
    first, second = brute.random_maps(2, 9, 17, seed=1), brute.random_maps(3, 21, 6, seed=2)
    metric = AUPROMetric(method)
    maps = [torch.tensor(item) for maps, _ in (first, second) for item in maps]
    masks = [torch.tensor(item) for _, masks in (first, second) for item in masks]
    metric(y_pred=maps[:3], y=masks[:3])
    metric(y_pred=torch.stack(maps[3:]), y=torch.stack(masks[3:]))
    one_picture = [
        np.concatenate([np.pad(item[0], ((0, 1), (0, 30 - item.shape[-1]))) for item in items])
        for items in (maps, masks)
    ]
    own = np.concatenate([np.pad(np.ones(item.shape[1:]), ((0, 1), (0, 30 - item.shape[-1]))) for item in maps]) == 1
    regions = brute.flood_fill(one_picture[1])
    rates, overlaps = [0.0], [0.0]
    for threshold in np.unique(one_picture[0][own])[::-1]:
        flagged = one_picture[0] >= threshold
        rates.append(flagged[own & (one_picture[1] == 0)].mean())
        overlaps.append(np.mean([flagged[region].mean() for region in regions]))
    grid = np.unique(np.append(rates, 0.3))
    grid = grid[grid <= 0.3]
    # The highest overlap at each rate, and the line between them: no scores tie, so the curve is a staircase.
    heights = np.array([max(y for x, y in zip(rates, overlaps, strict=True) if x <= at) for at in grid])
    expected = float((np.diff(grid) * heights[:-1]).sum() / 0.3)
    tolerance = {
        "exact": 1e-12,
        "histogram": metric.error_bound() if method == "histogram" else 0,
        "thresholds_200": 0.1,
    }
    assert float(metric.aggregate()) == pytest.approx(expected, abs=tolerance[method])


def test_aggregating_twice_and_going_on(brute: ModuleType) -> None:
    maps, masks = (torch.tensor(array) for array in brute.random_maps())
    for method in ("exact", "histogram"):
        metric = AUPROMetric(method)  # type: ignore[arg-type]
        metric(y_pred=maps[:4], y=masks[:4])
        first = float(metric.aggregate())
        assert float(metric.aggregate()) == first
        metric(y_pred=maps[4:], y=masks[4:])
        assert float(metric.aggregate()) == pytest.approx(value(maps, masks, method=method), abs=1e-14)
        metric.reset()
        metric(y_pred=maps[:4], y=masks[:4])
        assert float(metric.aggregate()) == first


def test_inputs_are_left_alone(brute: ModuleType) -> None:
    maps, masks = (torch.tensor(array) for array in brute.random_maps())
    before = maps.clone(), masks.clone()
    for method in AUPROMetric.methods:
        value(maps, masks, 2, method=method)
    assert torch.equal(maps, before[0])
    assert torch.equal(masks, before[1])


def test_tensors_on_a_gpu(brute: ModuleType, accelerator: str) -> None:
    maps, masks = (torch.tensor(array) for array in brute.random_maps())
    for method in AUPROMetric.methods:
        there = value(maps.float().to(accelerator), masks.to(accelerator), 2, method=method)
        assert there == value(maps.float(), masks, 2, method=method)


def test_arguments() -> None:
    with pytest.raises(ValueError, match="method='quick' is not one of 'exact', 'thresholds_200', 'histogram'"):
        AUPROMetric("quick")  # type: ignore[arg-type]
    for limit in (0.0, 1.1, -1.0):
        with pytest.raises(ValueError, match=r"fpr_limit must lie in \(0, 1\]"):
            AUPROMetric(fpr_limit=limit)
    with pytest.raises(ValueError, match="not 1000"):
        AUPROMetric("histogram", bins=1000)
    with pytest.raises(ValueError, match="No maps have been given"):
        AUPROMetric().aggregate()
    with pytest.raises(ValueError, match="No maps have been given"):
        AUPROMetric("histogram").aggregate()
