# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Which device a process computes on, and how several processes find each other."""

from __future__ import annotations

import os

import torch

__all__ = ["default_device", "local_device", "start_process_group", "stop_process_group"]


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
