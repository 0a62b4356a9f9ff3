# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""On which device, in which numbers and how many images at once the network computes, and with which processes."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TypeVar

import torch
from torch import Tensor

__all__ = [
    "PRECISIONS",
    "FittingBatches",
    "autocast",
    "check_precision",
    "default_device",
    "local_device",
    "resolve_precision",
    "start_process_group",
    "stop_process_group",
]

PRECISIONS = ("auto", "float32", "bfloat16", "float16")
_TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_AMPERE = (8, 0)  # the first compute capability with bfloat16 matrix units


def check_precision(precision: str) -> None:
    """Refuse what is no precision.

    Raises:
        ValueError: it is not one of :data:`PRECISIONS`.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision='{precision}' is not one of {', '.join(PRECISIONS)}.")


def resolve_precision(precision: str, device: torch.device | str) -> str:
    """The name of the type that matrices are multiplied in on a device.

    "auto" is bfloat16 on GPUs that have units for it (compute capability 8.0 and later), float16 on older ones,
    bfloat16 on CPUs with matrix units for it (AMX), and float32 elsewhere: other CPUs are slower in bfloat16, some of
    those with AVX-512 BF16, too (benchmarks/notes.md). The choice depends on the hardware alone, never on a timing, so
    that a run can be repeated.

    Args:
        precision: one of :data:`PRECISIONS`.
        device: where the network is.

    Raises:
        ValueError: for an unknown precision.
    """
    check_precision(precision)
    if precision != "auto":
        return precision
    place = torch.device(device)
    if place.type == "cuda":
        capable = torch.cuda.get_device_capability(place) >= _AMPERE
        return "bfloat16" if capable else "float16"
    return "bfloat16" if place.type == "cpu" and _cpu_has_bfloat16() else "float32"


def autocast(precision: str, device: torch.device | str) -> AbstractContextManager[object]:
    """A context in which matrices are multiplied in the given precision; weights and residual stream stay as they are.

    Args:
        precision: one of :data:`PRECISIONS`.
        device: where the network is.
    """
    dtype = _TYPES[resolve_precision(precision, device)]
    return torch.autocast(torch.device(device).type, dtype, enabled=dtype != torch.float32)


def _cpu_has_bfloat16() -> bool:
    # Private in torch, and absent from builds for other processors.
    check = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return check is not None and bool(check())


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


def default_device() -> torch.device:
    """The first GPU, or the CPU where there is none."""
    return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")


def local_device() -> torch.device:
    """The GPU of this process under ``torchrun`` (``LOCAL_RANK``), or the CPU where there is none."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device(f"cuda:{int(os.environ.get('LOCAL_RANK', 0))}")


def start_process_group(device: torch.device) -> None:
    """Join the processes that ``torchrun`` started: over NCCL on GPUs, over Gloo on CPUs.

    Raises:
        RuntimeError: when the process was not started by ``torchrun``.
    """
    if "RANK" not in os.environ:
        raise RuntimeError(
            "The multi-GPU configuration must be started by torchrun, e.g. torchrun --nproc_per_node=2 -m "
            "monai.bundle ..."
        )
    if torch.distributed.is_initialized():
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    torch.distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")


def stop_process_group() -> None:
    """Leave the processes together: none goes while another still waits for it."""
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
