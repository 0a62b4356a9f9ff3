# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""What the anomaly metrics have in common: pooling over batches and processes, and values that are undefined."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import ignite.distributed as idist
import torch
from monai.metrics import CumulativeIterationMetric
from monai.utils import evenly_divisible_all_gather
from torch import Tensor

__all__ = ["AnomalyMetric"]


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
