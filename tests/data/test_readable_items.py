# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.transforms import Compose, SelectItemsd
from PIL import Image

from monai_anomalyclip.data import LoadFramed, LoadMaskd, ReadableItems, UnreadableItem, UnreadableItemsError

READ = Compose([LoadFramed("image"), LoadMaskd("label"), SelectItemsd(["image", "label", "index", "class"])])


@pytest.fixture
def entries(tmp_path: Path) -> list[dict[str, Any]]:
    """Eight entries; 2 is cut short, 3 is missing, 5 has a mask of another size."""
    folder = tmp_path / "DOE^JANE"
    folder.mkdir()
    data: list[dict[str, Any]] = []
    for index in range(8):
        path = folder / f"picture{index}.png"
        Image.fromarray(np.full((20, 30, 3), index, np.uint8)).save(path)
        data.append({"image": str(path), "image_label": 0, "class": "bottle"})
    cut = folder / "picture2.png"
    cut.write_bytes(cut.read_bytes()[:60])
    (folder / "picture3.png").unlink()
    Image.fromarray(np.ones((9, 9), np.uint8)).save(folder / "mask5.png")
    data[5] |= {"label": str(folder / "mask5.png"), "image_label": 1}
    return data


def test_what_cannot_be_read_is_left_out_and_named(
    entries: list[dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    items = ReadableItems(entries, READ, skip=True, progress=False)
    assert [item["index"] for item in items.readable] == [0, 1, 4, 6, 7]
    assert [item["image"] for item in items.readable] == [entries[index]["image"] for index in (0, 1, 4, 6, 7)]
    assert [(item.index, item.file) for item in items.unreadable] == [
        (2, "picture2.png"),
        (3, "picture3.png"),
        (5, "picture5.png"),
    ]
    assert "mask5.png" in items.unreadable[2].reason
    assert "3 of 8 images cannot be read: entry 2, picture2.png (" in caplog.text
    assert "DOE" not in caplog.text
    with pytest.raises(UnreadableItemsError, match=r"3 of 8 images cannot be read: entry 2.*done, without them"):
        items.raise_for_unreadable()


def test_unless_told_otherwise_they_are_an_error(entries: list[dict[str, Any]]) -> None:
    with pytest.raises(UnreadableItemsError, match=r"entry 2.*entry 3.*entry 5.*--skip_unreadable True") as caught:
        ReadableItems(entries, READ, progress=False)
    assert "DOE" not in str(caught.value)


def test_nothing_readable_is_always_an_error(entries: list[dict[str, Any]]) -> None:
    with pytest.raises(UnreadableItemsError, match="2 of 2 images cannot be read"):
        ReadableItems(entries[2:4], READ, skip=True, progress=False)


def test_good_entries_pass(entries: list[dict[str, Any]], caplog: pytest.LogCaptureFixture) -> None:
    items = ReadableItems(entries[:2], READ, progress=False)
    assert items.readable == [{**entry, "index": index} for index, entry in enumerate(entries[:2])]
    assert items.unreadable == []
    items.raise_for_unreadable()
    assert not caplog.records
    empty = ReadableItems([], READ, progress=False)
    assert (empty.readable, empty.unreadable) == ([], [])


def test_classes_are_completed(entries: list[dict[str, Any]]) -> None:
    good = [entries[index] for index in (0, 1, 4)]
    for value in (None, ""):
        given = [good[0], {**good[1], "class": 7}, {**good[2], "class": value}]
        items = ReadableItems(given, READ, progress=False)
        assert [item["class"] for item in items.readable] == ["bottle", "7", "without class"]
    for entry in good:
        del entry["class"]
    assert {item["class"] for item in ReadableItems(good, READ, progress=False).readable} == {"all"}


def test_many_are_counted(entries: list[dict[str, Any]]) -> None:
    with pytest.raises(UnreadableItemsError, match=r"30 of 31 images .*; and 10 more\."):
        ReadableItems([entries[0], *[entries[3]] * 30], READ, progress=False)


def test_fewer_images_than_processes_are_refused(
    entries: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process without an image would never reach the others, which wait for its metrics."""
    monkeypatch.setattr("ignite.distributed.get_world_size", lambda: 3)
    monkeypatch.setattr("ignite.distributed.all_gather", lambda found: [found])
    with pytest.raises(ValueError, match=r"2 images are too few for 3 processes.*start at most 2"):
        ReadableItems(entries[:2], READ, progress=False)
    assert ReadableItems([], READ, progress=False).readable == []


def _one_of_two(entries: list[dict[str, Any]], folder: Path, rank: int) -> None:
    torch.set_num_threads(1)  # a forked process cannot use the threads that its parent started
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder / 'store'}", rank=rank, world_size=2)
    read: list[int] = []

    def transform(entry: Any) -> Any:
        read.append(entry["index"])
        return READ(entry)

    items = ReadableItems(entries, transform, skip=True, progress=False)
    assert sorted(read) == list(range(rank, 8, 2))
    assert [item.index for item in items.unreadable] == [2, 3, 5]
    assert [item["index"] for item in items.readable] == [0, 1, 4, 6, 7]
    with pytest.raises(UnreadableItemsError):
        items.raise_for_unreadable()
    torch.distributed.destroy_process_group()


def test_two_processes_share_the_reading(entries: list[dict[str, Any]], tmp_path: Path) -> None:
    run: Callable[..., None] = _one_of_two
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=run, args=(entries, tmp_path, rank), daemon=True) for rank in (0, 1)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]


def test_text_of_an_item() -> None:
    assert str(UnreadableItem(3, "a.png", "it is empty")) == "entry 3, a.png (it is empty)"
