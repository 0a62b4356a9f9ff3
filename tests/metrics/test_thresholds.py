# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score

from monai_anomalyclip.metrics import ImageThresholdMetric, PixelThresholdMetric


def found(metric: PixelThresholdMetric | ImageThresholdMetric, scores: np.ndarray, labels: np.ndarray) -> float:
    for start in range(0, len(scores), 4):
        metric(y_pred=torch.tensor(scores[start : start + 4]), y=torch.tensor(labels[start : start + 4]))
    return float(metric.aggregate())


def image_scores(levels: int | None, count: int = 60) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, count)
    scores = random.random(count) + 0.4 * labels
    return (scores if levels is None else np.round(scores * levels) / levels).astype(np.float32), labels


@pytest.mark.parametrize("levels", [None, 9])
def test_best_f1_of_all_thresholds(levels: int | None, brute: ModuleType) -> None:
    for metric, (scores, labels) in (
        (PixelThresholdMetric(), brute.random_maps(4, 8, 8, levels)),
        (ImageThresholdMetric(), image_scores(levels)),
    ):
        threshold = np.float32(found(metric, scores, labels))
        tried = {t: f1_score(labels.ravel(), scores.ravel() >= t) for t in np.unique(scores)}
        assert tried[threshold] == pytest.approx(max(tried.values()), abs=1e-12)
        assert 0.2 < tried[threshold] < 1


@pytest.mark.parametrize("fpr", [0.0, 0.05, 0.29, 0.999])
@pytest.mark.parametrize("levels", [None, 9])
def test_lowest_threshold_at_a_false_positive_rate(levels: int | None, fpr: float, brute: ModuleType) -> None:
    for metric, (scores, labels) in (
        (PixelThresholdMetric("fpr", fpr), brute.random_maps(levels=levels)),
        (ImageThresholdMetric("fpr", fpr), image_scores(levels)),
    ):
        normal = scores[labels == 0]
        threshold = found(metric, scores, labels)
        # Compared as inference does it: a float32 tensor with a Python number.
        reached = (torch.tensor(normal) >= threshold).double().mean()
        assert reached <= fpr
        lower = float(np.nextafter(np.float32(threshold), np.float32(-np.inf)))
        assert (torch.tensor(normal) >= lower).double().mean() > fpr


def test_round_rates_are_not_lost_to_rounding() -> None:
    """0.29 of 100 images are 29, though 0.29 * 100 is a little less."""
    scores = np.arange(101, dtype=np.float32)
    threshold = found(ImageThresholdMetric("fpr", 0.29), scores, (scores == 100).astype(int))
    assert (scores[:100] >= threshold).sum() == 29


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_is_undefined(label: int) -> None:
    with pytest.warns(UserWarning, match=r"Image threshold is undefined \(NaN\): all images are of one class"):
        assert np.isnan(found(ImageThresholdMetric(), np.ones(3, np.float32), np.full(3, label)))
    with pytest.warns(UserWarning, match=r"Pixel threshold is undefined \(NaN\): all pixels are of one class"):
        assert np.isnan(found(PixelThresholdMetric("fpr"), np.ones((1, 1, 3, 3)), np.full((1, 1, 3, 3), label)))


def test_all_pixels_count_so_that_there_is_no_error() -> None:
    assert PixelThresholdMetric().error_bound() == 0


@pytest.mark.parametrize("kind", [PixelThresholdMetric, ImageThresholdMetric])
def test_arguments(kind: type) -> None:
    with pytest.raises(ValueError, match="rule='otsu' is not one of 'best_f1', 'fpr'"):
        kind("otsu")
    for fpr in (-0.1, 1.0):
        with pytest.raises(ValueError, match=r"fpr must lie in \[0, 1\)"):
            kind("fpr", fpr)
