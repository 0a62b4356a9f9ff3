# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""A batch that does not fit into a device's memory goes through in parts."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

__all__ = ["FittingBatches"]

logger = logging.getLogger(__name__)

_Result = TypeVar("_Result")


class FittingBatches:
    """Shows batches to a function, as many images at once as the device has memory for.

    Where memory does not suffice the number is halved for good.

    Args:
        size: how many images at once to begin with; None for whole batches.

    Example:
        >>> FittingBatches(2)(len, torch.zeros(5, 3, 8, 8))
        [2, 2, 1]
    """

    def __init__(self, size: int | None = None) -> None:
        self._size = size

    def __call__(self, function: Callable[[Tensor], _Result], batch: Tensor) -> list[_Result]:
        """What the function gives for each part of the batch.

        Raises:
            torch.OutOfMemoryError: a single image does not fit.
        """
        while True:
            fitting = len(batch) if self._size is None else min(self._size, len(batch))
            try:
                return [function(part) for part in torch.split(batch, fitting)]
            except torch.OutOfMemoryError:
                if fitting == 1:
                    raise
            self._size = fitting // 2
            logger.warning("%d images at once do not fit into the device's memory: %d now.", fitting, self._size)
            if batch.device.type == "cuda":
                torch.cuda.empty_cache()
