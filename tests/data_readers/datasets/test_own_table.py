# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from monai_anomalyclip.data import load_datalist
from monai_anomalyclip.data.datasets import make_datalist, write_datalist

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
def test_volumes_are_refused(folder: Path, line: str) -> None:
    (folder / "v.nii").write_bytes(b"")
    with pytest.raises(ValueError, match=r", line 2: volumes \(v\.nii\) cannot be listed"):
        make_datalist("folder", write(folder, f"{HEADER}{line}\n"))
