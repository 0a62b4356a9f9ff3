# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""What the anomaly metrics have in common: pooled over batches and processes, undefined values, one value per class."""

from __future__ import annotations

import copy
import math
import warnings
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import ignite.distributed as idist
import torch
from monai.metrics import CumulativeIterationMetric, Metric
from monai.utils import evenly_divisible_all_gather, string_list_all_gather
from torch import Tensor

__all__ = ["AnomalyMetric", "PerClassMetric", "higher_unless_nan"]


class AnomalyMetric(CumulativeIterationMetric):
    """A metric over all items of a data set, not a mean over batches or images.

    ``_compute_tensor`` turns a batch into one-dimensional tensors on the CPU, of a length that may differ from call to
    call. They are joined, over all processes, when the metric is aggregated; a process without items takes part.

    A value that is undefined (one class only, no region, scores that are not finite) is NaN, with one warning.
    """

    title: ClassVar[str]
    _given: ClassVar[str] = "maps"
    _buffers: list[list[Tensor]] | None
    _synced_tensors: list[Tensor] | None

    def __init__(self) -> None:
        super().__init__()
        self._dtypes: tuple[torch.dtype, ...] = self.buffer_dtypes()

    @abstractmethod
    def buffer_dtypes(self) -> tuple[torch.dtype, ...]:
        """Types of what ``_compute_tensor`` returns, for a process that has nothing to return."""

    @abstractmethod
    def compute(self) -> tuple[float, str | None]:
        """The value, and, when it is NaN, why it is undefined (None where it is defined).

        Raises:
            ValueError: nothing was given to the metric yet.
        """

    def aggregate(self) -> Tensor:
        """The value over everything given since the last reset, a float64 tensor without dimensions.

        NaN with one warning where it is undefined.

        Raises:
            ValueError: nothing was given to the metric yet.
        """
        value, undefined = self.compute()
        if undefined is not None:
            warnings.warn(f"{self.title} is undefined (NaN): {undefined}.", stacklevel=2)
        return torch.tensor(value, dtype=torch.float64)

    def details(self) -> Mapping[str, float]:
        """Values beside the main one, by name, once the metric is aggregated."""
        return {}

    def extend(self, *data: Any) -> None:
        """Add the one-dimensional tensors of a batch to the buffers."""
        if self._buffers is None:
            self._buffers = [[] for _ in self._dtypes]
        for chunks, values in zip(self._buffers, data, strict=True):
            chunks.append(values)
        self._synced = False

    def pooled(self) -> list[Tensor]:
        """The joined buffers of all processes, not copied: what is done to them is done to the metric.

        Raises:
            ValueError: nothing was given to the metric yet.
        """
        self._sync()
        if self._synced_tensors is None or not any(len(tensor) for tensor in self._synced_tensors):
            raise ValueError(f"No {self._given} have been given to the metric yet.")
        return list(self._synced_tensors)

    def _sync(self) -> None:
        if self._synced or (self._buffers is None and idist.get_world_size() == 1):
            return
        buffers = self._buffers or [[] for _ in self._dtypes]
        for index, dtype in enumerate(self._dtypes):
            # In the chunks' place, which are thereby freed.
            buffers[index] = [self._join(buffers[index], dtype)]
        self._buffers = buffers
        self._synced_tensors = [own for (own,) in buffers]
        if idist.get_world_size() > 1:
            gathered = [evenly_divisible_all_gather(own, concat=False) for (own,) in buffers]
            self._synced_tensors = [self._join(parts, parts[0].dtype) for parts in gathered]
        self._synced = True

    def _join(self, chunks: list[Tensor], dtype: torch.dtype) -> Tensor:
        if len(chunks) == 1:
            return chunks[0]
        return torch.cat(chunks) if chunks else torch.empty(0, dtype=dtype)


def higher_unless_nan(current: float, best: float) -> bool:
    """Whether a metric beats the best so far; NaN never does, and is beaten by every number.

    For ``metric_cmp_fn`` of MONAI's engines, whose default takes an undefined first value for unbeatable. In a
    configuration: ``"metric_cmp_fn": "$monai_anomalyclip.metrics.higher_unless_nan"``.
    """
    return not math.isnan(current) and (math.isnan(best) or current > best)


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
