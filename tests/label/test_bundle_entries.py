# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image

from monai_anomalyclip.data import LoadInputd, UnreadableInputError, load_input
from monai_anomalyclip.data.inputs import InputCatalogue
from monai_anomalyclip.demo.volumes import make_volume, write_nifti
from monai_anomalyclip.label.bundle_entries import (
    LabelledSlice,
    LoadLabelledd,
    is_handed_over,
    labelled_parts,
    tuning_dataset,
)

AFFINE = np.diag([-2.0, -2.0, 5.0, 1.0])
Pair = dict[str, str]


def entries(*pairs: dict[str, Any], **options: Any) -> list[dict[str, Any]]:
    """The loaded entries, without features: the network is not asked."""
    dataset = tuning_dataset(pairs, LoadLabelledd(), None, cache="off", **options)  # type: ignore[arg-type]
    return [dataset[index] for index in range(len(dataset))]


def write(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE) -> str:
    return str(write_nifti(path, array, affine))


@pytest.fixture
def volume(tmp_path: Path) -> tuple[np.ndarray, np.ndarray, Pair]:
    """A volume (12, 10, 40), its mask with an anomaly in slices 3 to 5, and their files."""
    image = np.random.default_rng(0).integers(1, 1000, (12, 10, 40)).astype(np.int16)
    mask = np.zeros(image.shape, np.uint8)
    mask[2:5, 7:9, 3:6] = 2
    files = {"image": write(tmp_path / "image.nii.gz", image), "label": write(tmp_path / "label.nii.gz", mask)}
    return image, mask, files


def test_numbered_entries_of_a_datalist_are_not_handed_over(volume: tuple[Any, Any, Pair]) -> None:
    assert is_handed_over([volume[2]])
    assert not is_handed_over([{**volume[2], "index": 0}])


def test_numbered_volumes_are_refused_as_such(volume: tuple[Any, Any, Pair]) -> None:
    with pytest.raises(UnreadableInputError, match=r"^'image\.nii\.gz' is a volume, but a datalist is of pictures: "):
        LoadLabelledd()({**volume[2], "index": 0})


def test_volume_becomes_its_slices(volume: tuple[np.ndarray, np.ndarray, Pair]) -> None:
    image, mask, files = volume
    loaded = entries(files)
    assert [entry["index"] for entry in loaded] == list(range(6))  # 3 anomalous ones and 3 of 37 normal ones
    assert sum(entry["image_label"] for entry in loaded) == 3
    first = next(entry for entry in loaded if entry["image_label"])
    # Axial rows run towards posterior and columns towards left: against both axes of this affine's RAS, as stored.
    np.testing.assert_array_equal(first["label"][0].numpy(), (mask[:, :, 3] > 0).T)
    low, high = np.percentile(image[image > image.min()], [0.5, 99.5])
    assert first["image"].min() >= 0
    assert first["image"].max() <= 1
    relation = np.corrcoef(first["image"][0].numpy().ravel(), np.clip(image[:, :, 3], low, high).T.ravel())[0, 1]
    assert relation > 0.999
    assert {entry["has_label"] for entry in loaded} == {1}


def test_slices_of_a_normal_study_are_normal(volume: tuple[np.ndarray, np.ndarray, Pair], tmp_path: Path) -> None:
    files = {**volume[2], "label": write(tmp_path / "normal.nii.gz", np.zeros((12, 10, 40), np.uint8))}
    loaded = entries(files)
    assert len(loaded) == 24
    assert not any(entry["image_label"] for entry in loaded)


def test_label_on_a_flipped_grid_finds_its_place(volume: tuple[np.ndarray, np.ndarray, Pair], tmp_path: Path) -> None:
    _, mask, files = volume
    flip = np.diag([1.0, 1.0, -1.0, 1.0])
    flip[2, 3] = mask.shape[2] - 1
    other = write(tmp_path / "flipped.nii.gz", mask[:, :, ::-1], AFFINE @ flip)
    for given, expected in zip(entries({**files, "label": other}), entries(files), strict=True):
        torch.testing.assert_close(given["label"], expected["label"])


def test_pictures_pass_beside_volumes(volume: tuple[np.ndarray, np.ndarray, Pair], tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 14, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "frame.png")
    Image.fromarray((pixels[..., 0] > 200).astype(np.uint8)).save(tmp_path / "mask.png")
    picture = {"image": str(tmp_path / "frame.png"), "label": str(tmp_path / "mask.png")}
    loaded = entries(picture, volume[2])
    np.testing.assert_array_equal(loaded[0]["image"].numpy(), pixels.transpose(2, 0, 1).astype(np.float32) / 255)
    np.testing.assert_array_equal(loaded[0]["label"][0].numpy(), pixels[..., 0] > 200)
    assert [entry["index"] for entry in loaded] == list(range(7))
    assert {entry["class"] for entry in loaded} == {"all"}


def test_changed_label_is_read_anew(volume: tuple[np.ndarray, np.ndarray, Pair]) -> None:
    _, mask, files = volume
    assert sum(entry["image_label"] for entry in entries(files)) == 3
    nib.loadsave.save(nib.nifti1.Nifti1Image(np.zeros_like(mask), AFFINE), files["label"])
    assert sum(entry["image_label"] for entry in entries(files)) == 0


def test_volume_without_label_is_refused(volume: tuple[np.ndarray, np.ndarray, Pair]) -> None:
    with pytest.raises(ValueError, match=r"'image\.nii\.gz' has no label"):
        entries({"image": volume[2]["image"], "image_label": 0})


def test_nothing_to_tune_on_is_refused_where_it_is_required() -> None:
    assert entries() == []
    with pytest.raises(ValueError, match="save some labels first"):
        entries(required=True)


def test_a_slice_stands_for_the_file_of_its_volume(tmp_path: Path) -> None:
    (tmp_path / "x.nii").write_bytes(b"x")
    slices = [LabelledSlice(str(tmp_path / "x.nii"), index) for index in range(2)]
    assert Path(slices[0]).is_file()
    assert str(slices[0]) != str(slices[1])  # or the cache of features would take one for the other


def test_only_what_monai_label_asks_for_is_read_its_way(tmp_path: Path) -> None:
    phantom = make_volume("brain_mr", 0, size=32, slices=3)
    path = write(tmp_path / "brain.nii.gz", phantom.image, phantom.affine)
    load = LoadInputd("image", served_by="monai_anomalyclip.label.reading.read_image")
    torch.testing.assert_close(load({"image": path})["image"], load_input(path))
    (part,) = InputCatalogue(path).items()
    torch.testing.assert_close(load({"image": part["image"]})["image"], load_input(path))
    served = load({"image": path, "image_path": path})["image"]
    assert served.max() <= 1
    assert served.shape == (1, 32, 32, 3)


def test_parts_are_counted_and_bounded(volume: tuple[np.ndarray, np.ndarray, Pair], tmp_path: Path) -> None:
    everywhere = write(tmp_path / "many.nii.gz", np.ones((12, 10, 40), np.uint8))
    normal = write(tmp_path / "normal.nii.gz", np.zeros((12, 10, 40), np.uint8))
    image = volume[2]["image"]
    parts = labelled_parts([volume[2], {"image": image, "label": everywhere}, {"image": image, "label": normal}])
    assert (parts.images, parts.normal_images, parts.unreadable) == (3, 1, 0)
    assert parts.anomalous == 3 + 24
    assert len(parts.entries) == 6 + 24 + 24
    assert labelled_parts(parts.entries).entries == parts.entries


def test_unreadable_ones_are_left_out(
    volume: tuple[np.ndarray, np.ndarray, Pair], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "bad.nii.gz").write_bytes(b"nothing")
    bad = {**volume[2], "label": str(tmp_path / "bad.nii.gz")}
    assert len(entries(bad, volume[2])) == 6
    assert "A labelled image is left out: Cannot read the label 'bad.nii.gz'" in caplog.text
    with pytest.raises(ValueError, match=r"\(1 cannot be read\)"):
        entries(bad, required=True)


def test_preset_and_axis_reach_the_slices(volume: tuple[np.ndarray, np.ndarray, Pair]) -> None:
    image, _, files = volume
    (first, *_) = entries(files, preset="ct-bone", slice_axis=0)
    assert first["image"].shape == (1, 40, 10)
    index = 0  # 3 of the 12 slices along X are anomalous: 2 to 4; the normal ones begin with 0
    shown = np.clip((image[index] + 499.5) / 1799, 0, 1)  # PS3.3 C.11.2.1.2.1 for width 1800 and level 400
    np.testing.assert_allclose(np.sort(first["image"].numpy().ravel()), np.sort(shown.ravel()), atol=1e-3)


def test_tiny_mark_that_vanishes_at_the_networks_size_is_still_an_anomaly(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((1024, 1024), dtype=np.uint8)).save(tmp_path / "a.png")
    mask = np.zeros((1024, 1024), dtype=np.uint8)
    mask[501:503, 501:503] = 255
    Image.fromarray(mask).save(tmp_path / "a_label.png")
    (part,) = labelled_parts([{"image": tmp_path / "a.png", "label": tmp_path / "a_label.png"}]).entries
    loaded = LoadLabelledd(image_size=112)(part)
    assert (loaded["image_label"], loaded["has_label"]) == (1, 0)  # what is known is that there is one, not where
    loaded = LoadLabelledd(image_size=1024)(part)
    assert (loaded["image_label"], loaded["has_label"]) == (1, 1)
