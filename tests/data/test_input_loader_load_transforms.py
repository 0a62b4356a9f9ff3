# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose
from PIL import Image

from monai_anomalyclip.data import (
    FaultTolerantDataset,
    InputPart,
    LoadFramed,
    LoadInputd,
    LoadMaskd,
    UnreadableInputError,
)
from monai_anomalyclip.data.sources import FrameSource

TRUTH = np.zeros((40, 50), np.uint8)
TRUTH[5:20, 10:30] = 1


def save(tmp_path: Path, pixels: np.ndarray | Image.Image, name: str) -> str:
    (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(tmp_path / name)
    return str(tmp_path / name)


def test_load_framed_gives_a_metatensor(tmp_path: Path) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    path = save(tmp_path, rgb, "a.png")
    image = LoadFramed("image")({"image": str(path), "other": 1})["image"]
    assert image.dtype == torch.uint8
    assert image.shape == (3, 20, 30)
    np.testing.assert_array_equal(image.permute(1, 2, 0).numpy(), rgb)
    assert image.meta["filename_or_obj"] == str(path)
    assert image.meta["kind"] == "frame"
    np.testing.assert_array_equal(image.affine, np.eye(4))
    np.testing.assert_array_equal(image.meta["spatial_shape"], (20, 30))


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


def bad_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "Doe  John 1970"
    folder.mkdir()
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(folder / "good.png")
    (folder / "cut.png").write_bytes((folder / "good.png").read_bytes()[:60])
    (folder / "text.nii.gz").write_text("text")
    return folder


def test_bad_items_carry_the_reason_and_good_ones_go_on(tmp_path: Path) -> None:
    folder = bad_folder(tmp_path)
    data = [{"image": str(folder / name), "name": name[:3]} for name in ("good.png", "cut.png", "text.nii.gz")]
    items = FaultTolerantDataset(data, Compose([LoadInputd()]))
    assert items[0]["image"].shape == (3, 40, 40)
    assert "error" not in items[0]
    for index in (1, 2):
        item = items[index]
        assert set(item) == {"name", "part", "error", "may_pass"}
        assert (item["name"], item["part"]) == (data[index]["name"], 0)
        assert item["error"].startswith(f"Cannot read '{Path(data[index]['image']).name}': ")
        assert "applying transform" not in item["error"]
        assert "Doe" not in item["error"]
        assert "\n" not in item["error"]
    assert [("error" in item) for item in items[0:3]] == [False, True, True]


def test_parts_of_a_film_keep_their_number() -> None:
    data = [{"image": InputPart(FrameSource(Path("a"), "a")), "name": "x", "part": part} for part in range(3)]
    items = FaultTolerantDataset(data, Compose([LoadInputd()]))
    assert [(item["name"], item["part"]) for item in items] == [("x", 0), ("x", 1), ("x", 2)]
    assert "no such file" in items[0]["error"]
