# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from monai_anomalyclip.data import load_datalist
from monai_anomalyclip.data.datasets import LayoutError, make_datalist, write_datalist

Picture = Callable[..., None]


@pytest.mark.parametrize("folder", ["PNG/", "TIF/", ""])
def test_copies_of_clinicdb(tmp_path: Path, picture: Picture, folder: str) -> None:
    names = ("images", "masks") if not folder else (f"{folder}Original", f"{folder}Ground Truth")
    for number in (1, 2, 10):
        picture(tmp_path / names[0] / f"{number}.png")
        picture(tmp_path / names[1] / f"{number}.png", mask=True)
    entries = make_datalist("cvc-clinicdb", tmp_path).sections["testing"]
    assert sorted((entry.image.name, entry.label.name) for entry in entries if entry.label) == [
        ("1.png", "1.png"),
        ("10.png", "10.png"),
        ("2.png", "2.png"),
    ]


def test_missing_masks_are_named_and_the_images_kept(tmp_path: Path, picture: Picture) -> None:
    for number in (1, 2, 3):
        picture(tmp_path / f"images/{number}.png")
    picture(tmp_path / "masks/2.png", mask=True)
    picture(tmp_path / "masks/9.png", mask=True)
    listing = make_datalist("cvc-colondb", tmp_path)
    assert {entry.image.name: entry.label and entry.label.name for entry in listing.sections["testing"]} == {
        "1.png": None,
        "2.png": "2.png",
        "3.png": None,
    }
    assert listing.notes == (
        "images: 2 of 3 anomalous images have no mask (1.png, 3.png).",
        "images: 1 masks belong to no image (9.png).",
    )


def test_images_alone_are_not_the_data_set(tmp_path: Path, picture: Picture) -> None:
    picture(tmp_path / "images/1.png")
    with pytest.raises(LayoutError, match="expected images with masks; it holds the folders images"):
        make_datalist("kvasir", tmp_path)
    (tmp_path / "masks").mkdir()
    assert make_datalist("kvasir", tmp_path).notes == ("images: 1 of 1 anomalous images have no mask (1.png).",)


def test_polyps_with_masks_and_normal_images_without(tmp_path: Path, picture: Picture) -> None:
    for number in range(1, 381):
        for folder in ("images", "masks"):
            picture(tmp_path / f"CVC-ColonDB/{folder}/{number}.png", mask=folder == "masks", size=(4, 4))
    for number in range(163):
        picture(tmp_path / f"Endo classification/n{number}.jpg", size=(4, 4))
    listing = make_datalist("colondb-endo", tmp_path)
    assert listing.difference_from_paper is None
    assert "These are the paper's numbers." in listing.report()
    items = load_datalist(write_datalist(listing, tmp_path / "datalist.json"), "training")
    assert [(item["image_label"], bool(item.get("label"))) for item in items] == [(1, True)] * 380 + [(0, False)] * 163
    assert {item["class"] for item in items} == {"colon"}


def test_both_parts_are_needed(tmp_path: Path, picture: Picture) -> None:
    picture(tmp_path / "CVC-ColonDB/images/1.png")
    picture(tmp_path / "CVC-ColonDB/masks/1.png", mask=True)
    expected = "expected CVC-ColonDB/images, CVC-ColonDB/masks and Endo classification/normal"
    with pytest.raises(LayoutError, match=expected):
        make_datalist("colondb-endo", tmp_path)
    picture(tmp_path / "Endo classification/polyps/1.jpg")
    with pytest.raises(LayoutError, match=expected):
        make_datalist("colondb-endo", tmp_path)
    picture(tmp_path / "Endo classification/normal/1.jpg")
    (note,) = make_datalist("colondb-endo", tmp_path).notes
    assert note == "Endo classification: only normal images are used, not polyps."
