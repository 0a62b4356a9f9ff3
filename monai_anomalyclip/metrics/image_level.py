# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""AUROC and average precision of the images' anomaly scores, by scikit-learn."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from monai.utils import convert_to_tensor
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import Tensor

from monai_anomalyclip.metrics.anomaly_metric import AnomalyMetric
from monai_anomalyclip.metrics.ranking import Ranking

__all__ = ["ImageAPMetric", "ImageAUROCMetric", "ImageMetric"]


class ImageMetric(AnomalyMetric):
    """A metric of image scores.

    Called as ``metric(y_pred=scores, y=labels)`` with scores (B,) or (B, 1) and labels of the same shape, 0 normal and
    1 anomalous, on any device, or with lists of tensors of one element.
    """

    _given: ClassVar[str] = "scores"

    def buffer_dtypes(self) -> tuple[torch.dtype, ...]:
        return (torch.float64, torch.bool)

    def ranked(self) -> Ranking:
        """The images in order of their scores.

        Raises:
            ValueError: nothing was given to the metric yet.
        """
        scores, labels = (tensor.numpy() for tensor in self.pooled())
        return Ranking(scores[~labels], scores[labels])

    def compute(self) -> tuple[float, str | None]:
        scores, labels = (tensor.numpy() for tensor in self.pooled())
        if labels.all() or not labels.any():
            return math.nan, "all images are of one class"
        if not np.isfinite(scores).all():
            return math.nan, "a score is not finite"
        return self.defined(scores, labels), None

    @abstractmethod
    def defined(self, scores: npt.NDArray[np.float64], labels: npt.NDArray[np.bool_]) -> float:
        """The value for finite scores (n,) and labels (n,) of both classes."""

    def _compute_tensor(self, y_pred: Tensor, y: Tensor | None = None, **kwargs: Any) -> list[Tensor]:
        if y is None or y_pred.shape != y.shape or y_pred.ndim not in (1, 2) or y_pred.shape[1:] not in ((), (1,)):
            shapes = tuple(y_pred.shape), None if y is None else tuple(y.shape)
            raise ValueError(f"Scores and labels must both have shape (B,) or (B, 1), got {shapes[0]} and {shapes[1]}.")
        scores, labels = (
            convert_to_tensor(tensor, track_meta=False).detach().flatten().cpu() for tensor in (y_pred, y)
        )
        if not ((labels == 0) | (labels == 1)).all():
            raise ValueError(f"Labels must be 0 (normal) or 1 (anomalous), got {sorted(set(labels.tolist()))}.")
        return [scores.double().clone(), labels.bool().clone()]  # not the caller's memory


class ImageAUROCMetric(ImageMetric):
    """Image-level AUROC (scikit-learn's definition); see :class:`ImageMetric` for the call.

    Example:
        >>> metric = ImageAUROCMetric()
        >>> _ = metric(y_pred=torch.tensor([0.2, 0.4, 0.9]), y=torch.tensor([0, 0, 1]))
        >>> float(metric.aggregate())
        1.0
    """

    title: ClassVar[str] = "Image AUROC"

    def defined(self, scores: npt.NDArray[np.float64], labels: npt.NDArray[np.bool_]) -> float:
        return float(roc_auc_score(labels, scores))


class ImageAPMetric(ImageMetric):
    """Image-level average precision (scikit-learn's definition); see :class:`ImageMetric` for the call.

    Example:
        >>> metric = ImageAPMetric()
        >>> _ = metric(y_pred=torch.tensor([0.2, 0.4, 0.9]), y=torch.tensor([0, 0, 1]))
        >>> float(metric.aggregate())
        1.0
    """

    title: ClassVar[str] = "Image AP"

    def defined(self, scores: npt.NDArray[np.float64], labels: npt.NDArray[np.bool_]) -> float:
        return float(average_precision_score(labels, scores))
