# Copyright (c) monai_anomalyclip authors
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#     http://www.apache.org/licenses/LICENSE-2.0
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
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
