# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from monai.data import load_decathlon_datalist

from monai_anomalyclip.data import load_datalist
from monai_anomalyclip.data.datasets import DataSetListing, make_datalist, write_datalist


@pytest.fixture
def root(tmp_path: Path, planted: Callable[[Path, str], object]) -> Path:
    planted(tmp_path / "data" / "tn3k", "tn3k")
    return tmp_path / "data" / "tn3k"


@pytest.fixture
def listing(root: Path) -> DataSetListing:
    return make_datalist("tn3k", root, split="original")


def test_content(listing: DataSetListing, root: Path) -> None:
    content = json.loads(write_datalist(listing, root / "datalist.json").read_text())
    assert content["name"] == "TN3K"
    assert "haifangong" in content["reference"]
    assert "not verified" in content["licence"]
    assert content["split"] == "original"
    assert content["counts"] == {
        section: {"normal": 0, "anomalous": 1, "with_mask": 1} for section in ("training", "testing")
    }
    assert content["notes"][0].startswith("The paper has 0 normal and 614 anomalous images of TN3K, here are 0 and 1:")
    assert content["testing"] == [
        {"image": "test-image/0000.jpg", "label": "test-mask/0000.jpg", "image_label": 1, "class": "thyroid"}
    ]


def test_monai_reads_it_as_we_do(listing: DataSetListing, root: Path) -> None:
    file = write_datalist(listing, root / "datalist.json")
    for section in ("training", "testing"):
        assert load_decathlon_datalist(file, True, section) == load_datalist(file, section)


def test_nothing_is_overwritten_without_being_told(listing: DataSetListing, tmp_path: Path) -> None:
    file = tmp_path / "a" / "b" / "list.json"
    assert write_datalist(listing, str(file)) == file
    file.write_text("mine")
    with pytest.raises(FileExistsError, match=r"exists already.*--overwrite"):
        write_datalist(listing, file)
    assert file.read_text() == "mine"
    write_datalist(listing, file, overwrite=True)
    assert load_datalist(file, "testing")
    with pytest.raises(IsADirectoryError, match="is a folder: give the name"):
        write_datalist(listing, file.parent, overwrite=True)


def test_failure_leaves_the_old_file(listing: DataSetListing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_datalist(listing, tmp_path / "list.json")
    before = file.read_bytes()

    def full(path: Path, text: str, **_: object) -> None:
        path.write_bytes(text[:20].encode())
        raise OSError("disk full")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="disk full"):
        write_datalist(listing, file, overwrite=True)
    assert file.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "list.json"]


@pytest.mark.parametrize("place", ["data/tn3k", "data", "lists", "."])
def test_list_and_data_move_together(listing: DataSetListing, tmp_path: Path, place: str) -> None:
    file = write_datalist(listing, tmp_path / place / "list.json")
    assert load_datalist(file, "testing")[0]["image"].endswith("0000.jpg")
    moved = tmp_path.parent / f"{tmp_path.name}_moved"
    shutil.move(tmp_path, moved)
    try:
        item = load_datalist(moved / place / "list.json", "testing")[0]
        assert Path(item["image"]).resolve() == (moved / "data/tn3k/test-image/0000.jpg").resolve()
    finally:
        shutil.move(moved, tmp_path)


def test_relative_folders_and_links(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = write_datalist(make_datalist("tn3k", "data/tn3k"), "list.json")
    assert json.loads(file.read_text())["testing"][0]["image"] == "data/tn3k/test-image/0000.jpg"
    os.symlink(root, tmp_path / "link")
    file = write_datalist(make_datalist("tn3k", "link"), "linked.json")
    assert json.loads(file.read_text())["testing"][0]["image"] == "link/test-image/0000.jpg"
    os.symlink(tmp_path / "data", tmp_path / "other")
    file = write_datalist(make_datalist("tn3k", "link"), "other/deep.json")
    assert load_datalist(file, "testing")

    def other_drive(*_: object) -> str:
        raise ValueError("path is on mount 'D:', start on mount 'C:'")

    monkeypatch.setattr(os.path, "relpath", other_drive)
    file = write_datalist(make_datalist("tn3k", "data/tn3k"), "lists/far.json")
    assert json.loads(file.read_text())["testing"][0]["image"] == str(root.resolve() / "test-image/0000.jpg")
