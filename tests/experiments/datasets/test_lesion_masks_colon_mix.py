# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from monai_anomalyclip.data import load_datalist
from monai_anomalyclip.data.datasets import LayoutError, make_datalist, write_datalist

Picture = Callable[..., None]


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
