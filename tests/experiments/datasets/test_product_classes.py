# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from monai_anomalyclip.data.datasets import make_datalist

Planted = Callable[[Path, str], dict[str, set[tuple[str, str | None, int, str]]]]
Picture = Callable[..., None]


@pytest.fixture
def mvtec(tmp_path: Path, planted: Planted) -> Path:
    planted(tmp_path, "mvtec")
    return tmp_path


def test_absent_classes_are_named(mvtec: Path) -> None:
    (note,) = make_datalist("mvtec", mvtec).notes
    assert note.startswith("13 of 15 classes are missing: cable, capsule, carpet")
    assert "bottle" not in note


def test_missing_and_spare_masks_are_named(mvtec: Path, picture: Picture) -> None:
    (mvtec / "bottle/ground_truth/broken_large/000_mask.png").unlink()
    picture(mvtec / "bottle/ground_truth/contamination/001_mask.png", mask=True)
    listing = make_datalist("mvtec", mvtec)
    assert listing.notes[1:] == (
        "bottle/test/broken_large: 1 of 1 anomalous images have no mask (000.png).",
        "bottle/test/contamination: 1 masks belong to no image (001_mask.png).",
    )
    assert listing.counts["testing"].anomalous == 3
    assert listing.counts["testing"].with_mask == 2
    for note in listing.notes:
        assert note in listing.report()


def test_folder_of_masks_that_is_missing(mvtec: Path) -> None:
    (mvtec / "bottle/ground_truth").rename(mvtec / "bottle/truth")
    listing = make_datalist("mvtec", mvtec)
    assert len(listing.notes) == 3
    assert all(entry.label is None for entry in listing.sections["testing"] if entry.class_name == "bottle")


def test_duplicate_stems_are_refused(mvtec: Path, picture: Picture) -> None:
    picture(mvtec / "bottle/test/broken_large/000.jpg")
    with pytest.raises(ValueError, match=r"In bottle/test/broken_large, 000\.jpg and 000\.png would share the mask"):
        make_datalist("mvtec", mvtec)


def test_masks_of_another_naming_are_refused(mvtec: Path) -> None:
    folder = mvtec / "bottle/ground_truth/broken_large"
    (folder / "000_mask.png").rename(folder / "first.png")
    with pytest.raises(ValueError, match=r"no image has a mask of its name \(images: 000\.png; masks: first\.png\)"):
        make_datalist("mvtec", mvtec)


def test_folder_names_of_another_case(mvtec: Path) -> None:
    before = make_datalist("mvtec", mvtec, split="original").counts
    (mvtec / "bottle/ground_truth").rename(mvtec / "bottle/Ground_Truth")
    (mvtec / "bottle/train").rename(mvtec / "bottle/Train")
    (mvtec / "bottle").rename(mvtec / "Bottle")
    listing = make_datalist("mvtec", mvtec, split="original")
    assert listing.counts == before
    assert {entry.class_name for entry in listing.sections["testing"]} == {"bottle", "metal_nut"}


def test_training_part_alone(tmp_path: Path, picture: Picture) -> None:
    picture(tmp_path / "bottle/train/good/000.png")
    (tmp_path / "bottle/test").mkdir()
    listing = make_datalist("mvtec", tmp_path, split="original")
    assert list(listing.sections) == ["training"]
    assert "here are 0 and 0" in listing.report()
    with pytest.raises(ValueError, match="There are no images of MVTec AD"):
        make_datalist("mvtec", tmp_path)
