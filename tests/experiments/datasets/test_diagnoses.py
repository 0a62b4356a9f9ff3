# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from monai_anomalyclip.data.datasets import LayoutError, make_datalist

Planted = Callable[[Path, str], object]
Picture = Callable[..., None]


def test_head_ct_pairs_by_number(tmp_path: Path, planted: Planted, picture: Picture) -> None:
    planted(tmp_path, "headct")
    picture(tmp_path / "head_ct/head_ct/007.png")
    picture(tmp_path / "head_ct/head_ct/cover.png")
    (tmp_path / "labels.csv").write_text("\ufeffid, hemorrhage\n101, 0\n0,1\n55,1\n\n", encoding="utf-8")
    listing = make_datalist("headct", tmp_path)
    assert {entry.image.name: entry.image_label for entry in listing.sections["testing"]} == {
        "000.png": 1,
        "101.png": 0,
    }
    assert listing.notes == (
        "2 images are not in labels.csv and left out (007.png, cover.png).",
        "1 lines of labels.csv have no image (numbers 55).",
    )


@pytest.mark.parametrize(
    ("table", "match"),
    [("id,h\n0,yes\n", "number and a 0 or 1"), ("id,h\n0\n", "number"), ("id,h\n0,2\n", "holds 2 as")],
)
def test_wrong_table(tmp_path: Path, planted: Planted, table: str, match: str) -> None:
    planted(tmp_path, "headct")
    (tmp_path / "labels.csv").write_text(table)
    with pytest.raises(ValueError, match=match):
        make_datalist("headct", tmp_path)


def test_later_release_of_covid_has_lung_masks_that_are_no_anomalies(tmp_path: Path, picture: Picture) -> None:
    for name in ("COVID", "Normal", "Lung_Opacity"):
        picture(tmp_path / f"COVID-19_Radiography_Dataset/{name}/images/{name}-1.png")
        picture(tmp_path / f"COVID-19_Radiography_Dataset/{name}/masks/{name}-1.png", mask=True)
    entries = make_datalist("covid-19", tmp_path).sections["testing"]
    assert [(entry.image.name, entry.image_label, entry.label) for entry in entries] == [
        ("Normal-1.png", 0, None),
        ("COVID-1.png", 1, None),
    ]


def test_copy_of_brainmri_within(tmp_path: Path, picture: Picture) -> None:
    picture(tmp_path / "brain_tumor_dataset/no/1.jpg")
    picture(tmp_path / "brain_tumor_dataset/yes/2.JPG")
    assert len(make_datalist("brainmri", tmp_path).sections["testing"]) == 2


def test_one_empty_folder_is_not_the_data_set(tmp_path: Path, picture: Picture) -> None:
    picture(tmp_path / "no/1.jpg")
    (tmp_path / "yes").mkdir()
    with pytest.raises(LayoutError, match=r"expected folders no \(normal\) and yes \(anomalous\)"):
        make_datalist("br35h", tmp_path)
