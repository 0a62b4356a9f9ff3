# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Linear layers of the frozen encoder, by the library that is fast on this processor."""

from __future__ import annotations

import functools
import platform
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["linear"]


def linear(tokens: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """What ``torch.nn.functional.linear`` computes, up to rounding.

    PyTorch multiplies float32 matrices by MKL, which leaves AVX-512 unused on AMD's processors; oneDNN, which PyTorch
    carries, too, takes half the time there (benchmarks/notes.md). It is used where no gradient is recorded, nothing is
    traced and autocast is off. The choice depends on the hardware alone, so that a run can be repeated.

    Args:
        tokens: shape (..., inputs).
        weight: shape (outputs, inputs).
        bias: shape (outputs,), or None.

    Returns:
        shape (..., outputs).
    """
    if (
        tokens.dtype == torch.float32
        and tokens.device.type == "cpu"
        and not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and not torch.is_autocast_enabled("cpu")
        and torch.backends.mkldnn.enabled
        and _onednn_is_faster()
    ):
        product: Tensor = torch.ops.mkldnn._linear_pointwise(tokens, weight, bias, "none", [], "")
        return product
    return F.linear(tokens, weight, bias)


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
