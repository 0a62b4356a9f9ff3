# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Thresholds that a validation set suggests: highest F1, or a chosen false positive rate."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import numpy as np

from monai_anomalyclip.metrics.image_level import ImageMetric
from monai_anomalyclip.metrics.pixel_metric import PixelMetric
from monai_anomalyclip.metrics.ranking import Ranking

__all__ = ["ImageThresholdMetric", "PixelThresholdMetric", "best_f1_threshold", "threshold_at_fpr"]

Rule = Literal["best_f1", "fpr"]


def best_f1_threshold(ranking: Ranking) -> tuple[float, float]:
    """The threshold with the highest F1 of "anomalous when the score reaches it", and that F1.

    Every score is tried; of several equally good thresholds it is the highest.

    Args:
        ranking: finite, with at least one anomalous score.
    """
    threshold, best = math.nan, -1.0
    for group in ranking.groups():
        true = group.anomalous_above + group.anomalous
        f1 = 2 * true / (true + group.normal_above + group.normal_tied + ranking.n_anomalous)
        index = int(f1.argmax())
        if f1[index] > best:
            threshold, best = float(group.score[index]), float(f1[index])
    return threshold, best


def threshold_at_fpr(ranking: Ranking, fpr: float) -> float:
    """The lowest float32 that at most this share of the normal scores reaches.

    Args:
        ranking: finite, with at least one normal score.
        fpr: false positive rate, in [0, 1).
    """
    allowed = math.floor(fpr * ranking.n_normal + 1e-9)  # 0.29 * 100 is a little less than 29
    return float(np.nextafter(ranking.normal[ranking.n_normal - 1 - allowed], np.float32(np.inf)))


def _checked(rule: Rule, fpr: float) -> None:
    if rule not in ("best_f1", "fpr"):
        raise ValueError(f"rule={rule!r} is not one of 'best_f1', 'fpr'.")
    if not 0 <= fpr < 1:
        raise ValueError(f"fpr must lie in [0, 1), got {fpr}.")


def _threshold(ranking: Ranking, rule: Rule, fpr: float) -> float:
    return best_f1_threshold(ranking)[0] if rule == "best_f1" else threshold_at_fpr(ranking, fpr)


class PixelThresholdMetric(PixelMetric):
    """Threshold for anomaly maps ("anomalous where the map reaches it") over all pixels of a validation set.

    Args:
        rule: "best_f1", or "fpr": the lowest threshold at which at most ``fpr`` of the normal pixels are flagged.
        fpr: false positive rate, in [0, 1).

    Raises:
        ValueError: an unknown rule, or a rate out of range.

    Example:
        >>> metric = PixelThresholdMetric()
        >>> _ = metric(y_pred=torch.tensor([[[[0.25, 0.5], [0.5, 0.75]]]]), y=torch.tensor([[[[0, 0], [0, 1]]]]))
        >>> float(metric.aggregate())
        0.75
    """

    title: ClassVar[str] = "Pixel threshold"
    methods: ClassVar[tuple[str, ...]] = ("exact",)

    def __init__(self, rule: Rule = "best_f1", fpr: float = 0.05) -> None:
        _checked(rule, fpr)
        super().__init__()
        self.rule: Rule = rule
        self.fpr = fpr

    def compute(self) -> tuple[float, str | None]:
        ranked = self.ranked()
        undefined = self.undefined(ranked)
        assert isinstance(ranked, Ranking)
        return (math.nan, undefined) if undefined else (_threshold(ranked, self.rule, self.fpr), None)

    def error_bound(self) -> float:
        return 0.0


class ImageThresholdMetric(ImageMetric):
    """Threshold for anomaly scores ("anomalous when the score reaches it") over the images of a validation set.

    Args:
        rule: "best_f1", or "fpr": the lowest threshold that at most ``fpr`` of the normal images reach.
        fpr: false positive rate, in [0, 1).

    Raises:
        ValueError: an unknown rule, or a rate out of range.

    Example:
        >>> metric = ImageThresholdMetric()
        >>> _ = metric(y_pred=torch.tensor([0.25, 0.5, 0.75]), y=torch.tensor([0, 0, 1]))
        >>> float(metric.aggregate())
        0.75
    """

    title: ClassVar[str] = "Image threshold"

    def __init__(self, rule: Rule = "best_f1", fpr: float = 0.05) -> None:
        _checked(rule, fpr)
        super().__init__()
        self.rule: Rule = rule
        self.fpr = fpr

    def defined(self, scores: np.ndarray, labels: np.ndarray) -> float:
        # In float32, as the network gives them and as they will be compared.
        ranking = Ranking(scores[~labels].astype(np.float32), scores[labels].astype(np.float32))
        return _threshold(ranking, self.rule, self.fpr)
