# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from monai.data import Dataset

from monai_anomalyclip.data import InputLoader, input_loader, resolve_workers
from monai_anomalyclip.data.input_loader import picture_batches


def items(folder: Path, *kinds: str, size: int = 10) -> list[dict[str, Any]]:
    """Inputs of the given kinds, each with a file of `size` bytes, which takes no place on the disk."""
    found = []
    for number, kind in enumerate(kinds):
        path = folder / str(number)
        path.touch()
        os.truncate(path, size)
        source = SimpleNamespace(kind=kind, paths=(path,))
        found.append({"image": SimpleNamespace(source=source), "name": str(number)})
    return found


def test_neighbouring_pictures_are_batched_and_all_else_stands_alone(tmp_path: Path) -> None:
    kinds = ["frame"] * 5 + ["volume", "volume", "cine", "frame", "frame"]
    assert picture_batches(items(tmp_path, *kinds), 4) == [[0, 1, 2, 3], [4], [5], [6], [7], [8, 9]]
    assert picture_batches(items(tmp_path, *kinds), 1) == [[number] for number in range(10)]
    assert picture_batches([], 4) == []


def test_large_pictures_are_not_gathered(tmp_path: Path) -> None:
    pictures = items(tmp_path, "frame", "frame", "frame", "frame", size=2**24)
    assert picture_batches(pictures, 8) == [[0, 1], [2, 3]]
    assert picture_batches(items(tmp_path, "frame", "frame", size=2**26), 8) == [[0], [1]]


def test_a_file_that_is_gone_is_left_to_the_reader(tmp_path: Path) -> None:
    pictures = items(tmp_path, "frame", "frame")
    pictures[0]["image"].source.paths[0].unlink()
    assert picture_batches(pictures, 8) == [[0, 1]]


@pytest.mark.parametrize("workers", [0, 2])
def test_lists_come_in_order_and_uncollated(tmp_path: Path, workers: int) -> None:
    data = items(tmp_path, *["frame"] * 7)

    def load(item: dict[str, Any]) -> dict[str, Any]:
        number = int(item["name"])
        return {"name": item["name"], "image": torch.full((3, 2, 2 + number), number, dtype=torch.uint8)}

    loader = InputLoader(Dataset(data, load), batch_size=3, workers=workers)
    found = list(loader)
    assert [len(batch) for batch in found] == [3, 3, 1] == [len(indices) for indices in picture_batches(data, 3)]
    assert len(loader) == 3
    for number, item in enumerate(item for batch in found for item in batch):
        assert item["name"] == str(number)
        assert torch.equal(item["image"], torch.full((3, 2, 2 + number), number, dtype=torch.uint8))


def test_no_more_processes_than_lists(tmp_path: Path) -> None:
    data = items(tmp_path, "volume", "volume")
    assert InputLoader(Dataset(data), workers=5).num_workers == 2


@pytest.mark.parametrize(
    ("cores", "free", "expected"), [(2, 40, 0), (3, 40, 0), (4, 40, 2), (16, 40, 8), (64, 40, 8), (16, 20, 0)]
)
def test_auto_takes_half_of_many_cores(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cores: int, free: int, expected: int
) -> None:
    monkeypatch.setattr(input_loader.os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    monkeypatch.setattr(input_loader, "_SHARED", tmp_path)
    monkeypatch.setattr(input_loader.shutil, "disk_usage", lambda _: SimpleNamespace(free=2**free))
    assert resolve_workers("auto") == expected
    assert resolve_workers(3) == 3


@pytest.mark.parametrize("workers", [-1, "many", 1.5, True])
def test_workers_that_are_no_number(workers: Any) -> None:
    with pytest.raises(ValueError, match="workers must be a whole number of processes, or 'auto'"):
        resolve_workers(workers)
