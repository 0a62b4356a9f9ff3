# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from monai_anomalyclip.data.datasets import make_datalist


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


def test_folder_of_masks_that_is_missing_is_said(dagm: Path) -> None:
    (dagm / "Class10/Test/Label").rename(dagm / "Class10/Test/Masks")
    listing = make_datalist("dagm", dagm)
    assert "Class10/Test: there is no folder Label, so that every image counts as normal." in listing.notes
    assert "9 of 10 classes" in listing.notes[0]
