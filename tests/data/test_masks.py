# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
from PIL import Image

from monai_anomalyclip.data import read_mask

TRUTH = np.zeros((40, 50), np.uint8)
TRUTH[5:20, 10:30] = 1


def save(tmp_path: Path, pixels: np.ndarray | Image.Image, name: str) -> str:
    (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(tmp_path / name)
    return str(tmp_path / name)


def test_every_way_to_write_a_mask(tmp_path: Path) -> None:
    palette = Image.fromarray(TRUTH * 3, mode="P")
    palette.putpalette([0, 0, 0, 1, 1, 1, 2, 2, 2, 0, 0, 1])
    blue = np.stack([TRUTH * 0, TRUTH * 0, TRUTH], axis=-1)
    transparent = np.dstack([np.full((40, 50, 3), 255, np.uint8), TRUTH * 255])
    forms = [TRUTH, TRUTH * 255, TRUTH.astype(bool), palette, blue, transparent, TRUTH.astype(np.uint16) * 2]
    for index, form in enumerate(forms):
        np.testing.assert_array_equal(read_mask(save(tmp_path, form, f"{index}.png")), TRUTH, err_msg=str(index))


def test_a_mask_of_a_volume(tmp_path: Path) -> None:
    """Any label is anomaly; what is no number is none."""
    labels = np.zeros((4, 5, 3), np.float32)
    labels[1, 2, 0], labels[3, 3, 1], labels[0, 0, 2] = 1, 7, np.nan
    nib.save(nib.Nifti1Image(labels, np.eye(4)), tmp_path / "m.nii.gz")  # type: ignore[attr-defined]
    found = read_mask(tmp_path / "m.nii.gz")
    assert found.dtype == np.uint8
    assert np.argwhere(found).tolist() == [[1, 2, 0], [3, 3, 1]]


def test_jpeg_ringing_is_not_anomaly(tmp_path: Path) -> None:
    circle = (np.hypot(*np.mgrid[-40:40, -40:40]) < 20.3).astype(np.uint8)
    path = save(tmp_path, circle * 255, "m.jpg")
    assert (np.asarray(Image.open(path)) > 0).sum() > 1.1 * circle.sum()  # the trap is there
    assert (read_mask(path) != circle).mean() < 0.005


def test_real_colour_coded_masks(real_data: Path) -> None:
    masks = sorted((real_data / "frames").glob("brain_*/masks/*.png"))
    assert len(masks) == 77
    for path in masks[::5]:
        mask = read_mask(path)
        assert mask.shape == (512, 512)
        assert 0 < mask.mean() < 0.1
        np.testing.assert_array_equal(mask, np.asarray(Image.open(path)).any(axis=-1))
