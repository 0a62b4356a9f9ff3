# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from monai_anomalyclip.data import load_datalist
from monai_anomalyclip.data.datasets import LayoutError, make_datalist, write_datalist

Picture = Callable[..., None]


def found(root: Path) -> dict[str, tuple[int, str | None]]:
    return {
        entry.image.relative_to(root).as_posix(): (
            entry.image_label,
            entry.label and entry.label.relative_to(root).as_posix(),
        )
        for entry in make_datalist("folder", root).sections["testing"]
    }


@pytest.mark.parametrize(("normal", "anomalous"), [("good", "bad"), ("Normal", "abnormal"), ("no", "yes")])
def test_folders_without_masks(tmp_path: Path, picture: Picture, normal: str, anomalous: str) -> None:
    picture(tmp_path / normal / "a.png")
    picture(tmp_path / anomalous / "a.PNG")
    picture(tmp_path / ".git" / "a.png")
    (tmp_path / anomalous / "notes.txt").touch()
    assert found(tmp_path) == {f"{normal}/a.png": (0, None), f"{anomalous}/a.PNG": (1, None)}
    assert make_datalist("folder", tmp_path).notes == ()


def test_folders_with_common_masks(tmp_path: Path, picture: Picture) -> None:
    for name in ("good/1.png", "good/7.png", "polyp/1.png", "ulcer/2.png", "ulcer/3.png"):
        picture(tmp_path / name)
    for name in ("1.png", "2_mask.png", "7.png", "9.png"):
        picture(tmp_path / "masks" / name, mask=True)
    assert found(tmp_path) == {
        "good/1.png": (0, None),
        "good/7.png": (0, None),
        "polyp/1.png": (1, "masks/1.png"),
        "ulcer/2.png": (1, "masks/2_mask.png"),
        "ulcer/3.png": (1, None),
    }
    assert make_datalist("folder", tmp_path).notes == (
        "the anomalous folders: 1 of 3 anomalous images have no mask (3.png).",
        "the anomalous folders: 1 masks belong to no image (9.png).",
    )


def test_folders_with_masks_of_the_same_name(tmp_path: Path, picture: Picture) -> None:
    for kind in ("polyp", "ulcer"):
        picture(tmp_path / kind / "1.png")
        picture(tmp_path / "ground_truth" / kind / "1.png", mask=True)
    picture(tmp_path / "healthy" / "1.png")
    assert found(tmp_path) == {
        "polyp/1.png": (1, "ground_truth/polyp/1.png"),
        "ulcer/1.png": (1, "ground_truth/ulcer/1.png"),
        "healthy/1.png": (0, None),
    }


def test_images_with_masks_tell_the_label(tmp_path: Path, picture: Picture) -> None:
    for number in range(3):
        picture(tmp_path / f"images/{number}.jpg")
    picture(tmp_path / "masks/0.png", mask=True)
    Image.fromarray(np.zeros((12, 16), np.uint8)).save(tmp_path / "masks/1_mask.png")
    picture(tmp_path / "masks/5.png", mask=True)
    assert found(tmp_path) == {"images/0.jpg": (1, "masks/0.png"), "images/1.jpg": (0, "masks/1_mask.png")}
    assert make_datalist("folder", tmp_path).notes == (
        "images: 1 images without a mask are left out (2.jpg).",
        "masks: 1 masks belong to no image (5.png).",
    )


@pytest.mark.parametrize("places", [("images", "masks"), ("good", "bad"), ("bad", "masks")])
def test_volumes_are_refused(tmp_path: Path, picture: Picture, places: tuple[str, str]) -> None:
    """Neither tuning nor evaluation reads them: better said here than there."""
    for folder in places:
        picture(tmp_path / folder / "a.png", mask=folder == "masks")
    make_datalist("folder", tmp_path)
    for folder in places:
        path = tmp_path / folder / "v.nii.gz"
        nib.save(nib.Nifti1Image(np.ones((3, 3, 3), np.int16), np.eye(4)), path)
        with pytest.raises(
            ValueError, match=r"^Volumes \(v\.nii\.gz\) cannot be listed.*slices as pictures.*MONAI Label"
        ):
            make_datalist("folder", tmp_path)
        path.unlink()


def test_folders_of_unknown_meaning_are_refused(tmp_path: Path, picture: Picture) -> None:
    picture(tmp_path / "cats/1.png")
    picture(tmp_path / "dogs/1.png")
    with pytest.raises(LayoutError, match=r"folders such as good and bad or normal and abnormal.*folders cats, dogs"):
        make_datalist("folder", tmp_path)


def test_folders_without_pictures(tmp_path: Path) -> None:
    (tmp_path / "good").mkdir()
    with pytest.raises(LayoutError, match="There are no images of own data"):
        make_datalist("folder", tmp_path)


@pytest.mark.parametrize(("name", "number"), [("brain_mri_tumour_41", 41), ("skin_lesion_3", 3)])
def test_real_pictures(real_data: Path, tmp_path: Path, name: str, number: int) -> None:
    listing = make_datalist("folder", real_data / "frames" / name)
    entries = listing.sections["testing"]
    assert len(entries) == number
    assert listing.notes == ()
    for entry in entries:
        assert entry.label is not None
        assert entry.label.stem in (entry.image.stem, f"{entry.image.stem}_segmentation")
        assert entry.image_label == np.asarray(Image.open(entry.label)).any()
        assert entry.class_name == name
    write_datalist(listing, tmp_path / "datalist.json")


@pytest.mark.parametrize("part", ["tuning", "Testing", "val"])
def test_the_class_is_no_part_of_a_split(tmp_path: Path, picture: Picture, part: str) -> None:
    picture(tmp_path / "colon" / part / "good" / "1.png")
    picture(tmp_path / "colon" / part / "bad" / "2.png")
    listing = make_datalist("folder", tmp_path / "colon" / part)
    assert {entry.class_name for entry in listing.sections["testing"]} == {"colon"}


HEADER = "image,label,image_label,class\n"


@pytest.fixture
def folder(tmp_path: Path, picture: Callable[..., None]) -> Path:
    root = tmp_path / "own"
    for name in ("a.png", "b.png", "c d.png"):
        picture(root / name)
    picture(root / "masks/x.png", mask=True)
    return root


def write(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    (folder / "list.csv").write_text(text, encoding=encoding)
    return folder / "list.csv"


def test_table(folder: Path) -> None:
    table = write(folder, HEADER + "a.png,,0,lung\n\nb.png,masks/x.png,,colon\nc d.png,masks/x.png,1,\n", "utf-8-sig")
    file = write_datalist(make_datalist("folder", table, split="validation"), folder.parent / "lists/d.json")
    items = load_datalist(file, "validation")
    assert [Path(item["image"]).resolve() for item in items] == [folder / n for n in ("a.png", "b.png", "c d.png")]
    mask = folder / "masks/x.png"
    assert [item.get("label") and Path(item["label"]).resolve() for item in items] == [None, mask, mask]
    assert [(item["image_label"], item["class"]) for item in items] == [(0, "lung"), (1, "colon"), (1, "own")]


def test_empty_mask_says_normal(folder: Path) -> None:
    Image.fromarray(np.zeros((12, 16), np.uint8)).save(folder / "masks/empty.png")
    (entry,) = make_datalist("folder", write(folder, HEADER + "a.png,masks/empty.png,,\n")).sections["testing"]
    assert entry.image_label == 0
    assert entry.label == folder / "masks/empty.png"


def test_table_of_a_spreadsheet_with_semicolons_and_few_columns(folder: Path) -> None:
    listing = make_datalist("folder", write(folder, "image_label;image\n0;a.png\n1;b.png\n"))
    assert [(entry.image.name, entry.image_label) for entry in listing.sections["testing"]] == [
        ("a.png", 0),
        ("b.png", 1),
    ]


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "no column 'image'"),
        ("path,label\na.png,\n", "no column 'image'"),
        (HEADER, "names no image"),
        (HEADER + ",,0,\n", "line 2: there is no image"),
        (HEADER + "a.png,,0,\ngone.png,,1,\n", "line 3: there is no file 'gone.png'"),
        (HEADER + "a.png,masks/y.png,1,\n", "line 2: there is no file 'y.png'"),
        (HEADER + "a.png,,2,\n", "line 2: image_label is '2', not 0 or 1"),
        (HEADER + "a.png,,normal,\n", "image_label is 'normal'"),
        (HEADER + "a.png,,,\n", "give image_label, label"),
        (HEADER + "a.png,,0,\nb.png,,1,\na.png,,0,\n", "line 4: a.png is already in line 2"),
    ],
)
def test_wrong_lines_are_refused(folder: Path, text: str, match: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=match):
        make_datalist("folder", write(folder, text))


def test_other_files_are_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"a\.png is no table"):
        make_datalist("folder", folder / "a.png")


@pytest.mark.parametrize("line", ["v.nii,,0,", "a.png,v.nii,,"])
def test_volumes_in_a_table_are_refused(folder: Path, line: str) -> None:
    (folder / "v.nii").write_bytes(b"")
    with pytest.raises(ValueError, match=r", line 2: volumes \(v\.nii\) cannot be listed"):
        make_datalist("folder", write(folder, f"{HEADER}{line}\n"))
