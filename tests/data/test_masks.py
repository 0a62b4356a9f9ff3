# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from PIL import Image

from monai_anomalyclip.data import LoadInputd, LoadMaskd, UnreadableInputError, read_mask

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


def test_jpeg_ringing_is_not_anomaly(tmp_path: Path) -> None:
    circle = (np.hypot(*np.mgrid[-40:40, -40:40]) < 20.3).astype(np.uint8)
    path = save(tmp_path, circle * 255, "m.jpg")
    assert (np.asarray(Image.open(path)) > 0).sum() > 1.1 * circle.sum()  # the trap is there
    assert (read_mask(path) != circle).mean() < 0.005


@pytest.fixture
def image() -> MetaTensor:
    return MetaTensor(torch.zeros(3, 40, 50, dtype=torch.uint8), affine=torch.diag(torch.tensor([2.0, 2, 1, 1])))


def test_labels_are_completed(tmp_path: Path, image: MetaTensor) -> None:
    path = save(tmp_path, TRUTH * 255, "m.png")
    empty = save(tmp_path, TRUTH * 0, "e.png")
    load = LoadMaskd()

    item = load({"image": image, "label": path})
    assert (item["has_label"], item["image_label"]) == (1, 1)
    assert item["label"].dtype == torch.uint8
    assert item["label"].shape == (1, 40, 50)
    np.testing.assert_array_equal(item["label"][0], TRUTH)
    assert torch.equal(item["label"].affine, image.affine)
    item = load({"image": image, "label": empty})
    assert (item["has_label"], item["image_label"]) == (1, 0)
    for absent in ({}, {"label": None}, {"label": ""}):
        normal = load({"image": image, "image_label": 0, **absent})
        assert (normal["has_label"], normal["image_label"], int(normal["label"].sum())) == (1, 0, 0)
        unknown = load({"image": image, "image_label": 1, **absent})
        assert (unknown["has_label"], unknown["image_label"], int(unknown["label"].sum())) == (0, 1, 0)
        assert unknown["label"].shape == (1, 40, 50)


def test_contradictions_are_refused(tmp_path: Path, image: MetaTensor) -> None:
    path = save(tmp_path, TRUTH * 255, "m.png")
    small = save(tmp_path, TRUTH[:20] * 255, "s.png")
    load = LoadMaskd()
    with pytest.raises(ValueError, match=r"'m\.png' holds 300 anomalous pixels but image_label is 0"):
        load({"image": image, "label": path, "image_label": 0})
    with pytest.raises(ValueError, match="neither a mask"):
        load({"image": image})
    with pytest.raises(ValueError, match=r"size \(20, 50\) but its image has \(40, 50\)"):
        load({"image": image, "label": small})
    with pytest.raises(ValueError, match="Load the image"):
        load({"image": "a.png", "label": path})
    with pytest.raises(UnreadableInputError, match="no such file"):
        load({"image": image, "label": str(tmp_path / "absent.png")})
    with pytest.raises(ValueError, match="one mask"):
        LoadMaskd(keys=("label", "other"))


def test_volume_mask(tmp_path: Path) -> None:
    affine = np.diag([1.0, 2.0, 3.0, 1.0])
    labels = np.zeros((4, 5, 6), np.int16)
    labels[1:3, 2, 3] = 7
    nib.save(nib.Nifti1Image(np.ones((4, 5, 6), np.float32), affine), tmp_path / "v.nii.gz")
    nib.save(nib.Nifti1Image(labels, affine), tmp_path / "m.nii.gz")
    item = {"image": str(tmp_path / "v.nii.gz"), "label": str(tmp_path / "m.nii.gz")}
    mask = LoadMaskd()(LoadInputd()(item))["label"]
    np.testing.assert_array_equal(mask[0], labels > 0)
    np.testing.assert_array_equal(mask.affine, affine)


def test_volume_masks_of_another_place_are_refused(tmp_path: Path) -> None:
    """The same shape is no proof: a mask that was stored the other way round marks the wrong side."""
    affine = np.diag([1.0, 2.0, 3.0, 1.0])
    labels = np.zeros((4, 5, 6), np.int16)
    labels[3, 2, 3] = 1
    nib.save(nib.Nifti1Image(np.ones((4, 5, 6), np.float32), affine), tmp_path / "v.nii.gz")
    flipped, moved, close = affine.copy(), affine.copy(), affine.copy()
    flipped[0] = -1, 0, 0, 3  # world positions of the image's voxels, in the opposite order
    moved[2, 3] = 0.5
    close[2, 3] = 0.05
    load = LoadMaskd()
    image = LoadInputd()({"image": str(tmp_path / "v.nii.gz")})
    item = {**image, "label": str(tmp_path / "m.nii.gz")}
    for place, apart in ((flipped, "3"), (moved, "0.5")):
        nib.save(nib.Nifti1Image(labels, place), tmp_path / "m.nii.gz")
        with pytest.raises(ValueError, match=rf"'m\.nii\.gz' lies up to {apart} mm from its image"):
            load(item)
    unplaced = nib.Nifti1Image(labels, None)
    unplaced.header.set_zooms((1, 2, 3))
    for mask in (nib.Nifti1Image(labels, close), unplaced):
        nib.save(mask, tmp_path / "m.nii.gz")
        np.testing.assert_array_equal(load(item)["label"][0], labels)
    nib.save(nib.Nifti1Image(labels, moved), tmp_path / "m.nii.gz")
    load({**item, "image": image["image"].as_tensor()})  # an image without a place


def test_real_colour_coded_masks(real_data: Path) -> None:
    masks = sorted((real_data / "frames").glob("brain_*/masks/*.png"))
    assert len(masks) == 77
    for path in masks[::5]:
        mask = read_mask(path)
        assert mask.shape == (512, 512)
        assert 0 < mask.mean() < 0.1
        np.testing.assert_array_equal(mask, np.asarray(Image.open(path)).any(axis=-1))
