# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""A metric for each class of a data set, and its mean over classes."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Mapping, Sequence

import torch
from monai.metrics import Metric
from monai.utils import string_list_all_gather
from torch import Tensor

from monai_anomalyclip.metrics.anomaly_metric import AnomalyMetric

__all__ = ["PerClassMetric"]


class PerClassMetric(Metric):
    """Computes a metric on each class by itself and gives the mean, as the paper's tables do ("dataset-level, averaged
    over sub-datasets").

    A class for which the metric is undefined is left out of the mean and named in one warning.

    Args:
        metric: of which every class gets a copy.

    Example::

        metric = PerClassMetric(AUPROMetric())
        metric(y_pred=maps, y=masks, classes=["bottle", "cable"])
        mean, by_class = metric.aggregate(), metric.details()
    """

    def __init__(self, metric: AnomalyMetric) -> None:
        self.metric = metric
        self.metrics: dict[str, AnomalyMetric] = {}
        self._values: dict[str, float] = {}

    @property
    def title(self) -> str:
        return self.metric.title

    def reset(self) -> None:
        """Forget everything given so far."""
        self.metrics, self._values = {}, {}

    def __call__(self, y_pred: Tensor | Sequence[Tensor], y: Tensor | Sequence[Tensor], classes: Sequence[str]) -> None:
        """Add a batch, tensors or lists as the metric takes them, with the class of each item.

        Raises:
            ValueError: the numbers of items differ.
        """
        if not len(y_pred) == len(y) == len(classes):
            raise ValueError(f"{len(y_pred)} predictions, {len(y)} targets and {len(classes)} classes do not fit.")
        for name in dict.fromkeys(classes):
            own = [index for index, other in enumerate(classes) if other == name]
            self._of(name)([y_pred[index] for index in own], [y[index] for index in own])

    def aggregate(self) -> Tensor:
        """The mean over the classes of all processes for which the metric is defined, else NaN; a float64 tensor.

        Raises:
            ValueError: nothing was given to the metric yet.
        """
        names = sorted({name for name in string_list_all_gather(list(self.metrics)) if name})
        if not names:
            raise ValueError("No items have been given to the metric yet.")
        results = {name: self._of(name).compute() for name in names}
        self._values = {name: value for name, (value, _) in results.items()}
        undefined = [f"{name} ({reason})" for name, (_, reason) in results.items() if reason is not None]
        if undefined:
            warnings.warn(
                f"{self.title} is undefined (NaN) for {len(undefined)} of {len(names)} classes, which the mean leaves "
                f"out: {', '.join(undefined)}.",
                stacklevel=2,
            )
        defined = [value for value, reason in results.values() if reason is None]
        return torch.tensor(sum(defined) / len(defined) if defined else math.nan, dtype=torch.float64)

    def details(self) -> Mapping[str, float]:
        """The value of each class, sorted by name, once the metric is aggregated."""
        return self._values

    def _of(self, name: str) -> AnomalyMetric:
        if name not in self.metrics:
            self.metrics[name] = copy.deepcopy(self.metric)
            self.metrics[name].reset()
        return self.metrics[name]
