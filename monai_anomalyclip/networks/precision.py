# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""In which numbers the network computes: chosen by what the device really does faster."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch

__all__ = ["PRECISIONS", "autocast", "check_precision", "resolve_precision"]

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
