# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import logging
from pathlib import Path, PurePath

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from monai_anomalyclip.data import InputCatalogue, load_input
from monai_anomalyclip.data.masks import mask_words

PICTURE = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)
MASK = np.zeros((20, 30), np.uint8)
MASK[5:9, 6:14] = 1


def save(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


@pytest.mark.parametrize(
    "name", ["a_mask.png", "a-Seg.png", "masks/a.png", "ground_truth/a.png", "a_overlay.png", "GT1.png"]
)
def test_names(name: str) -> None:
    assert mask_words(PurePath(name))


@pytest.mark.parametrize("name", ["unmasked.png", "maskara/a.png", "segovia.png", "a.png", "gtx/1.png", "heather.png"])
def test_names_that_only_begin_alike(name: str) -> None:
    assert not mask_words(PurePath(name))


def test_masks_beside_images_are_warned_of_and_can_be_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name, pixels in (("p1.png", PICTURE), ("p1_mask.png", MASK), ("Labels/p1.png", MASK)):
        save(tmp_path / name, pixels)
    assert len(InputCatalogue(tmp_path).sources) == 3
    (record,) = (record for record in caplog.records if record.levelno == logging.WARNING)
    assert "2 files have names as masks" in record.getMessage()
    assert "--exclude '*labels*' --exclude '*mask*'" in record.getMessage()
    assert "p1" not in record.getMessage()
    caplog.clear()
    assert len(InputCatalogue(tmp_path, exclude_patterns=["*labels*", "*mask*"]).sources) == 1
    assert not [record for record in caplog.records if record.levelno == logging.WARNING]


def test_a_folder_of_nothing_else_is_meant(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("mask1.png", "mask2.png"):
        save(tmp_path / name, MASK * 255)
    InputCatalogue(tmp_path)
    assert not [record for record in caplog.records if record.levelno == logging.WARNING]


def test_values(tmp_path: Path) -> None:
    """Of masks as they are written, and of images that have few values by their nature."""
    volume = np.stack([MASK * 3, MASK * 0, MASK], axis=2)
    ct = np.random.default_rng(1).integers(-1000, 1000, volume.shape)
    for name, values, told in (("seg", volume, True), ("binary", volume > 0, True), ("ct", ct, False)):
        nib.save(nib.Nifti1Image(values.astype(np.int16), np.eye(4)), tmp_path / f"{name}.nii.gz")
        assert ("no more values than a mask" in load_input(tmp_path / f"{name}.nii.gz").meta["notes"]) == told
    flat = np.full_like(MASK, 255)
    for number, (pixels, told) in enumerate(
        ((MASK, True), (MASK * 255, True), (MASK > 0, True), (PICTURE, False), (flat, False), (100 + MASK, False))
    ):
        notes = load_input(save(tmp_path / f"{number}.png", pixels)).meta["notes"]
        assert ("no more values than a mask" in notes) == told, number
