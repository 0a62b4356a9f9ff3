# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from monai_anomalyclip.data import load_datalist, read_mask
from monai_anomalyclip.data.datasets import LayoutError, make_datalist, write_datalist


@pytest.fixture
def visa(tmp_path: Path, planted: Callable[[Path, str], object]) -> Path:
    planted(tmp_path, "visa")
    return tmp_path


def append(root: Path, line: str) -> None:
    with (root / "split_csv/1cls.csv").open("a") as stream:
        stream.write(line + "\n")


def test_missing_files_are_named(visa: Path) -> None:
    (visa / "candle/Data/Masks/Anomaly/000.png").unlink()
    (visa / "pcb1/Data/Images/Anomaly/000.JPG").unlink()
    listing = make_datalist("visa", visa)
    assert listing.notes == (
        "1 pictures of split_csv/1cls.csv are missing (000.JPG).",
        "1 anomalous images have no mask (000.JPG).",
    )
    assert (listing.counts["testing"].anomalous, listing.counts["testing"].with_mask) == (1, 0)


def test_table_without_pictures(visa: Path) -> None:
    for picture in visa.rglob("*.JPG"):
        picture.unlink()
    with pytest.raises(LayoutError, match=r"expected the pictures that split_csv/1cls\.csv names"):
        make_datalist("visa", visa)


@pytest.mark.parametrize(
    ("line", "match"),
    [
        ("candle,test,strange,a.JPG,", "line 6: label 'strange' and split 'test' are not known"),
        ("candle,val,normal,a.JPG,", "line 6: label 'normal' and split 'val' are not known"),
        ("candle,test,normal,../a.JPG,", r"line 6: '\.\./a\.JPG' is no path inside the data set"),
        ("candle,test,anomaly,a.JPG,/etc/passwd", "'/etc/passwd' is no path inside the data set"),
        ("candle,test,normal,,", "'' is no path inside"),
    ],
)
def test_wrong_lines_are_refused(visa: Path, line: str, match: str) -> None:
    append(visa, line)
    with pytest.raises(ValueError, match=match):
        make_datalist("visa", visa)


def test_table_of_another_form(visa: Path) -> None:
    (visa / "split_csv/1cls.csv").write_text("object,part,image\n")
    with pytest.raises(ValueError, match=r"1cls\.csv has no column split, label, mask"):
        make_datalist("visa", visa)


RNG = np.random.default_rng(0)


def part(folder: Path, number: int, height: int, defect: tuple[int, int] | None) -> np.ndarray:
    """A gray picture 20 wide and its mask with a defect in the given rows, as KolektorSDD stores them."""
    folder.mkdir(parents=True, exist_ok=True)
    blocks = RNG.integers(0, 256, (height // 10 + 1, 2), dtype=np.uint8)
    gray = blocks.repeat(10, axis=0).repeat(10, axis=1)[:height]
    Image.fromarray(gray).save(folder / f"Part{number}.jpg", quality=95)
    mask = np.zeros((height, 20), np.uint8)
    if defect:
        mask[defect[0] : defect[1], 4:9] = 255
    Image.fromarray(mask).save(folder / f"Part{number}_label.bmp")
    return mask


@pytest.fixture
def sdd(tmp_path: Path) -> dict[str, np.ndarray]:
    root = tmp_path / "sdd"
    return {
        "kos01_Part0": part(root / "kos01", 0, 50, None),
        "kos01_Part1": part(root / "kos01", 1, 51, (3, 6)),
        "kos02_Part0": part(root / "kos02", 0, 50, (40, 50)),
        "kos02_Part1": part(root / "kos02", 1, 50, (20, 30)),
    }


def test_tall_pictures_become_two_halves_each(sdd: dict[str, np.ndarray], tmp_path: Path) -> None:
    listing = make_datalist("sdd", tmp_path / "sdd")
    assert list((tmp_path / "sdd").rglob("*.png")) == []  # looking writes nothing
    file = write_datalist(listing, tmp_path / "lists" / "sdd.json")
    items = load_datalist(file, "testing")
    assert len(items) == 8
    rebuilt: dict[str, list[np.ndarray]] = {}
    for item in items:
        image = np.asarray(Image.open(item["image"]))
        mask = read_mask(item["label"]) if item.get("label") else np.zeros(image.shape[:2], np.uint8)
        assert item["image_label"] == mask.any()
        assert bool(item.get("label")) == mask.any()
        assert item["class"] == "electrical commutators"
        key = Path(item["image"]).stem[: len("kos01_Part0")]
        rebuilt.setdefault(key, []).append(np.dstack([image, mask]))
    for key, mask in sdd.items():
        upper, lower = rebuilt[key]
        whole = np.asarray(Image.open(tmp_path / "sdd" / key[:5] / f"{key[6:]}.jpg").convert("RGB"))
        assert abs(len(upper) - len(lower)) <= 1
        np.testing.assert_array_equal(np.concatenate([upper, lower])[..., :3], whole)
        np.testing.assert_array_equal(np.concatenate([upper, lower])[..., 3], mask > 0)
    counts = json.loads(file.read_text())["counts"]["testing"]
    assert counts == {"normal": 4, "anomalous": 4, "with_mask": 4}


def test_missing_masks_are_named(sdd: dict[str, np.ndarray], tmp_path: Path) -> None:
    (tmp_path / "sdd/kos01/Part0_label.bmp").unlink()
    (tmp_path / "sdd/kos02/Part1.jpg").unlink()
    listing = make_datalist("sdd", tmp_path / "sdd")
    assert listing.notes == (
        "kos01: 1 images without a mask are left out (Part0.jpg).",
        "kos02: 1 masks belong to no image (Part1_label.bmp).",
    )
    assert len(listing.sections["testing"]) == 4


def test_copy_of_the_papers_authors_is_read_as_it_is(tmp_path: Path) -> None:
    root = tmp_path / "electrical commutators"
    for name in ("train/good/a.png", "test/good/b.png", "test/defect/c.png", "ground_truth/defect/c.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((6, 6), 9, np.uint8)).save(root / name)
    entries = make_datalist("sdd", tmp_path).sections["testing"]
    assert [(entry.image.name, entry.image_label, entry.rows) for entry in entries] == [
        ("c.png", 1, None),
        ("b.png", 0, None),
    ]


def test_wrong_folder(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    with pytest.raises(ValueError, match=r"expected folders kos01, kos02, .*; it holds the folders train"):
        make_datalist("sdd", tmp_path)


@pytest.fixture
def dagm(tmp_path: Path, planted: Callable[[Path, str], object]) -> Path:
    planted(tmp_path, "dagm")
    return tmp_path


def test_lost_mask_does_not_make_an_image_normal(dagm: Path) -> None:
    label = dagm / "Class10/Test/Label"
    (label / "Labels.txt").write_text("1\n1\t0\t0001.PNG\t0\t0\n576\t1\t0576.PNG\t0\t0576_label.PNG\n")
    before = make_datalist("dagm", dagm)
    (label / "0576_label.PNG").unlink()
    after = make_datalist("dagm", dagm)
    assert [(entry.image.name, entry.image_label) for entry in after.sections["testing"]] == [
        ("0001.PNG", 0),
        ("0576.PNG", 1),
    ]
    assert after.sections["testing"][1].label is None
    assert before.sections["testing"][1].label == label / "0576_label.PNG"
    assert after.notes == (*before.notes, "Class10/Test: 1 anomalous images have no mask (0576.PNG).")


def test_mask_of_no_image_is_said(dagm: Path) -> None:
    label = dagm / "Class10/Test/Label"
    (label / "0777_label.PNG").write_bytes((label / "0576_label.PNG").read_bytes())
    assert "Class10/Test: 1 masks belong to no image (0777_label.PNG)." in make_datalist("dagm", dagm).notes


def test_folder_of_masks_that_is_missing_is_said(dagm: Path) -> None:
    (dagm / "Class10/Test/Label").rename(dagm / "Class10/Test/Masks")
    listing = make_datalist("dagm", dagm)
    assert "Class10/Test: there is no folder Label, so that every image counts as normal." in listing.notes
    assert "9 of 10 classes" in listing.notes[0]
