# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from monai_anomalyclip.data.datasets import LayoutError, make_datalist


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
