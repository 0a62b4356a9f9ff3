# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import Dataset
from PIL import Image

from monai_anomalyclip.data import (
    FaultTolerantDataset,
    InputCatalogue,
    InputLoader,
    LoadInputd,
    input_loader,
    resolve_workers,
)
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


@pytest.mark.parametrize("workers", [0, 2])
def test_what_is_handed_on_is_what_is_read_to_the_last_bit(
    tmp_path: Path, phantoms: ModuleType, nifti_volume: Path, make_video: Callable[..., Any], workers: int
) -> None:
    numbers = np.random.default_rng(0)
    bytes_, floats = torch.uint8, torch.float32
    stored = {
        "picture": bytes_, "deep": bytes_, "ct": floats, "nifti": floats, "ultrasound": bytes_, "inverted": floats,
        "colour": bytes_, "video": bytes_,
    }  # fmt: skip
    folders = {name: tmp_path / name for name in stored}
    for folder in folders.values():
        folder.mkdir()
    Image.fromarray(numbers.integers(0, 256, (9, 7, 3), dtype=np.uint8)).save(folders["picture"] / "a.png")
    deep = numbers.integers(0, 65536, (9, 7), dtype=np.uint16)
    Image.fromarray(deep).save(folders["deep"] / "a.png")
    phantoms.make_series(folders["ct"], count=3)
    shutil.copy(nifti_volume, folders["nifti"])
    phantoms.make_cine(folders["ultrasound"], photometric="MONOCHROME2")
    phantoms.make_cine(folders["inverted"], photometric="MONOCHROME1")
    phantoms.make_cine(folders["colour"])
    make_video("a.mp4", n=3).path.rename(folders["video"] / "a.mp4")
    items = [item for folder in folders.values() for item in InputCatalogue(folder).items()]
    loader = InputLoader(FaultTolerantDataset(items, LoadInputd(eight_bit=True)), 2, workers)
    found = [item["image"] for batch in loader for item in batch]
    assert [image.dtype for image in found] == list(stored.values())
    for item, image in zip(items, found, strict=True):
        whole = item["image"].load()
        assert whole.dtype == torch.float32
        assert torch.equal(image / 255 if image.dtype == torch.uint8 else image, whole), item
        assert torch.equal(image.affine, whole.affine)
        assert image.meta["intensity"] == whole.meta["intensity"]


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
