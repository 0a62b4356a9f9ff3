# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""What the hardware decides: device, type of numbers, images at once, processes, and who multiplies on a CPU.

PyTorch multiplies float32 matrices by MKL, which leaves AVX-512 unused on AMD's processors; oneDNN, which PyTorch
carries, too, takes half the time there (benchmarks/notes.md). It is used where no gradient is recorded, nothing is
traced and autocast is off. The choice depends on the hardware and on sizes alone, so that a run can be repeated.
"""

from __future__ import annotations

import functools
import logging
import os
import platform
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from threading import Barrier
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "PRECISIONS",
    "FittingBatches",
    "attention",
    "autocast",
    "check_precision",
    "default_device",
    "linear",
    "local_device",
    "onednn_applies",
    "onednn_product",
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


def linear(tokens: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """What ``torch.nn.functional.linear`` computes, up to rounding.

    Args:
        tokens: shape (..., inputs).
        weight: shape (outputs, inputs).
        bias: shape (outputs,), or None.

    Returns:
        shape (..., outputs).
    """
    if onednn_applies(tokens):
        return onednn_product(tokens, weight, bias)
    return F.linear(tokens, weight, bias)


_LEAST_TOKENS = 500  # below, handing heads to threads takes as long as it saves
_MOST_THREADS = 16  # above, they would wait for Python's lock
_SCORES = 2**20  # held at once by a thread: 4 MiB


def attention(query: Tensor, key: Tensor, value: Tensor, *, causal: bool = False) -> Tensor:
    """What ``torch.nn.functional.scaled_dot_product_attention`` computes, up to rounding.

    Where oneDNN is the faster one, each thread takes whole heads, so that no product waits for another thread: two
    thirds of the time for ViT-L/14 at 518 on two cores (benchmarks/notes.md).

    Args:
        query: shape (B, heads, M, D).
        key: shape (B, heads, N, D).
        value: as ``key``.
        causal: whether a token sees only itself and those before it.

    Returns:
        shape (B, heads, M, D).
    """
    batch, heads, rows, width = query.shape
    threads = torch.get_num_threads()
    if causal or not onednn_applies(query) or rows < _LEAST_TOKENS or threads > min(batch * heads, _MOST_THREADS):
        return F.scaled_dot_product_attention(query, key, value, is_causal=causal)
    mixed = query.new_empty(batch, rows, heads, width).transpose(1, 2)  # in memory as the next layer reads it
    todo = iter([(query[b, h], key[b, h], value[b, h], mixed[b, h]) for b in range(batch) for h in range(heads)])
    if threads == 1:
        _mix_heads(todo)
    else:
        pool = _head_threads(threads, os.getpid())
        for taken in [pool.submit(_mix_heads, todo) for _ in range(threads)]:
            taken.result()
    return mixed


@torch.inference_mode()
def _mix_heads(todo: Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]) -> None:
    """Write the attention of one head after the other, until none is left."""
    for query, key, value, mixed in todo:
        scaled = key * key.shape[1] ** -0.5
        turned = value.contiguous().t().contiguous()  # in one step it takes eight times as long: rows lie far apart
        rows = max(_SCORES // len(key), 1)
        for part, target in zip(torch.split(query, rows), torch.split(mixed, rows), strict=True):
            scores = onednn_product(part, scaled, None)
            torch.softmax(scores, dim=-1, out=scores)  # fetching memory for a new tensor takes longer than a softmax
            target.copy_(onednn_product(scores, turned, None))


@functools.lru_cache(maxsize=1)
def _head_threads(threads: int, process: int) -> ThreadPoolExecutor:
    """Threads that share their products with no other. A forked process, which has none of them, makes its own."""
    started = Barrier(threads + 1)

    def begin() -> None:
        torch.set_num_threads(1)
        started.wait()

    pool = ThreadPoolExecutor(threads, "attention", begin)
    for _ in range(threads):
        pool.submit(int)
    started.wait()
    torch.set_num_threads(threads)  # for threads that start later: they take the number that was set last
    return pool


def onednn_product(tokens: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The linear layer by oneDNN, for tensors that :func:`onednn_applies` to; the weight is contiguous.

    Args:
        tokens: shape (..., inputs).
        weight: shape (outputs, inputs).
        bias: shape (outputs,), or None.

    Returns:
        shape (..., outputs).
    """
    computed: Tensor = torch.ops.mkldnn._linear_pointwise(tokens, weight, bias, "none", [], "")
    return computed


def onednn_applies(tokens: Tensor) -> bool:
    """Whether oneDNN can multiply these tokens here and now, and is the faster one."""
    return (
        tokens.dtype == torch.float32
        and tokens.device.type == "cpu"
        and not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and not torch.is_autocast_enabled("cpu")
        and bool(torch.backends.mkldnn.enabled)
        and _onednn_is_faster()
    )


@functools.cache
def _onednn_is_faster() -> bool:
    # The operator is private in torch: it is what torch.compile makes of linear layers.
    known = torch._C._has_mkldnn and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return known and torch._C.has_mkl and torch.backends.cpu.get_cpu_capability() == "AVX512" and _is_amd()


def _is_amd() -> bool:
    described = platform.processor()  # names the maker on Windows
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        described += cpuinfo.read_text(encoding="utf-8", errors="replace")
    return "AuthenticAMD" in described
