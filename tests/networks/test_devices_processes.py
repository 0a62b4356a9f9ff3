# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
import torch

from monai_anomalyclip.networks import default_device, local_device, start_process_group

CPU = torch.device("cpu")


@pytest.fixture
def one_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The environment of ``torchrun --nproc_per_node=1``; the process group is destroyed afterwards."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for name, value in {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}.items():
        monkeypatch.setenv(name, value)
    yield
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def test_cpu_where_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert default_device() == local_device() == CPU


def test_gpu_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert default_device() == torch.device("cuda:0")
    assert local_device() == torch.device("cuda:3")


def test_gpu_without_torchrun_is_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert local_device() == torch.device("cuda:0")  # so that start_process_group can say what is wrong


def test_without_torchrun_the_sentence_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(RuntimeError, match=r"started by torchrun.*--nproc_per_node"):
        start_process_group(CPU)
    assert not torch.distributed.is_initialized()


@pytest.mark.usefixtures("one_process")
def test_group_is_started_once() -> None:
    start_process_group(CPU)
    assert torch.distributed.get_backend() == "gloo"
    start_process_group(CPU)
    total = torch.tensor([2.0])
    torch.distributed.all_reduce(total)
    assert total.item() == 2


@pytest.mark.usefixtures("one_process")
def test_gpus_talk_over_nccl(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[object] = []
    monkeypatch.setattr(torch.cuda, "set_device", calls.append)
    monkeypatch.setattr(torch.distributed, "init_process_group", calls.append)
    start_process_group(torch.device("cuda:1"))
    assert calls == [torch.device("cuda:1"), "nccl"]
