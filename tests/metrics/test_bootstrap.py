# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from types import ModuleType
from typing import Any, Literal

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

from monai_anomalyclip.metrics import bootstrap_maps, bootstrap_scores

ORACLES: dict[str, Any] = {"auroc": roc_auc_score, "ap": average_precision_score}


def draws(count: int, resamples: int, seed: int) -> list[np.ndarray]:
    """The images of each resample, drawn as documented (multinomial counts of a seeded generator, 64 at a time)."""
    random = np.random.default_rng(seed)
    drawn = []
    for start in range(0, resamples, 64):
        weights = random.multinomial(count, np.full(count, 1 / count), size=min(64, resamples - start))
        drawn += [np.repeat(np.arange(count), row) for row in weights]
    return drawn


@pytest.mark.parametrize("metric", ["auroc", "ap"])
@pytest.mark.parametrize("levels", [None, 5])
def test_image_metrics_by_resampling_one_by_one(metric: Literal["auroc", "ap"], levels: int | None) -> None:
    random = np.random.default_rng(1)
    labels = random.integers(0, 2, 25)
    scores = random.random(25) + 0.3 * labels
    scores = scores if levels is None else np.round(scores * levels)
    interval = bootstrap_scores(scores, labels, metric, resamples=100, level=0.9, seed=7)
    values = [ORACLES[metric](labels[own], scores[own]) for own in draws(25, 100, 7)]
    assert interval.value == pytest.approx(ORACLES[metric](labels, scores), abs=1e-12)
    assert (interval.low, interval.high) == pytest.approx(tuple(np.quantile(values, [0.05, 0.95])), abs=1e-12)
    assert (interval.level, interval.resamples) == (0.9, 100)
    assert interval.low < interval.value < interval.high


@pytest.mark.parametrize("metric", ["auroc", "ap", "aupro"])
def test_pixel_metrics_by_resampling_one_by_one(metric: Literal["auroc", "ap", "aupro"], brute: ModuleType) -> None:
    maps, masks = brute.random_maps(count=8, levels=12)
    interval = bootstrap_maps(torch.tensor(maps), torch.tensor(masks), metric, resamples=70, seed=3)
    oracle = brute.aupro if metric == "aupro" else lambda x, y: ORACLES[metric](y.ravel(), x.ravel())
    values = [oracle(maps[own], masks[own]) for own in draws(8, 70, 3)]
    assert interval.value == pytest.approx(oracle(maps, masks), abs=1e-12)
    assert (interval.low, interval.high) == pytest.approx(tuple(np.quantile(values, [0.025, 0.975])), abs=1e-12)


@pytest.mark.parametrize("metric", ["auroc", "ap"])
def test_mean_over_classes_resamples_each_by_itself(metric: Literal["auroc", "ap"], brute: ModuleType) -> None:
    labels = np.array([0, 1] * 10)
    scores = np.random.default_rng(1).random(20) + 0.3 * labels
    classes = ["b"] * 12 + ["a"] * 8
    interval = bootstrap_scores(scores, labels, metric, classes=classes, resamples=40, seed=2)
    random, means = np.random.default_rng(2), np.zeros(40)
    for own in (slice(12, 20), slice(0, 12)):  # a, then b
        count = own.stop - own.start
        for number, weights in enumerate(random.multinomial(count, np.full(count, 1 / count), size=40)):
            drawn = np.repeat(np.arange(count), weights)
            means[number] += ORACLES[metric](labels[own][drawn], scores[own][drawn]) / 2
    value = np.mean([ORACLES[metric](labels[own], scores[own]) for own in (slice(12, 20), slice(0, 12))])
    assert interval.value == pytest.approx(value, abs=1e-12)
    assert (interval.low, interval.high) == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])), abs=1e-12)
    # One class is all images; a class of normal images alone is left out.
    assert bootstrap_scores(scores, labels, metric, classes=["x"] * 20) == bootstrap_scores(scores, labels, metric)
    more = bootstrap_scores([*scores, 0.5], [*labels, 0], metric, classes=[*classes, "c"], resamples=40, seed=2)
    assert (more.value, more.low, more.high) == (interval.value, interval.low, interval.high)
    maps, masks = (torch.tensor(array) for array in brute.random_maps(count=6))
    pixels = bootstrap_maps(maps, masks, "auroc", classes=list("xxyyyy"), resamples=5)
    own = [roc_auc_score(masks[part].flatten(), maps[part].flatten()) for part in (slice(0, 2), slice(2, 6))]
    assert pixels.value == pytest.approx(np.mean(own), abs=1e-12)


def test_bins_make_little_difference(brute: ModuleType) -> None:
    maps, masks = brute.random_maps(count=12, height=40, width=40)
    assert len(np.unique(maps)) > 15000
    for metric in ("auroc", "ap", "aupro"):
        exact, binned = (
            bootstrap_maps(list(torch.tensor(maps)), list(torch.tensor(masks)), metric, resamples=100, bins=bins)  # type: ignore[arg-type]
            for bins in (10**5, 2048)
        )
        for name in ("value", "low", "high"):
            assert getattr(binned, name) == pytest.approx(getattr(exact, name), abs=2e-3)


def test_seed_decides(brute: ModuleType) -> None:
    maps, masks = (torch.tensor(array) for array in brute.random_maps())
    first, again, other = (bootstrap_maps(maps, masks, resamples=50, seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert (first.low, first.high) != (other.low, other.high)
    assert first.value == other.value


def test_resamples_of_one_class_are_left_out() -> None:
    interval = bootstrap_scores([0.1, 0.2, 0.9], [0, 0, 1], resamples=200)
    without = sum(2 not in own or set(own) == {2} for own in draws(3, 200, 0))
    assert interval.resamples == 200 - without < 200
    assert interval.low == interval.value == interval.high == 1


def test_one_class_has_no_interval() -> None:
    interval = bootstrap_scores([0.1, 0.2], [1, 1], "ap", resamples=20)
    assert np.isnan([interval.value, interval.low, interval.high]).all()
    assert interval.resamples == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"metric": "dice"}, "metric='dice' is not one of 'auroc', 'ap', 'aupro'"),
        ({"level": 1.0}, r"level in \(0, 1\)"),
        ({"resamples": 0}, "resamples be at least 1"),
        ({"fpr_limit": 0.0}, r"fpr_limit must lie in \(0, 1\]"),
        ({"bins": 1}, "bins must be at least 2"),
    ],
)
def test_arguments(options: dict[str, Any], said: str, brute: ModuleType) -> None:
    maps, masks = (torch.tensor(array) for array in brute.random_maps())
    with pytest.raises(ValueError, match=said):
        bootstrap_maps(maps, masks, **options)


def test_arrays_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match=r"got \(3,\) and \(2,\)"):
        bootstrap_scores([1, 2, 3], [0, 1])
    with pytest.raises(ValueError, match="Not all of the scores are finite"):
        bootstrap_scores([1, np.nan], [0, 1])
    with pytest.raises(ValueError, match="no images"):
        bootstrap_scores([], [])
    with pytest.raises(ValueError, match="2 images and 1 classes do not fit"):
        bootstrap_scores([1, 2], [0, 1], classes=["a"])
