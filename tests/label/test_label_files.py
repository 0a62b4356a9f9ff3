# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from monai.data.meta_tensor import MetaTensor
from PIL import Image

from monai_anomalyclip.data.errors import UnreadableInputError
from monai_anomalyclip.label.label_files import is_empty_label, labelled_slices, read_label, representative_slices

AFFINE = np.array([[-0.5, 0, 0, 7], [0, -0.8, 0, 5], [0, 0, 3, -2], [0, 0, 0, 1.0]])
MASK = np.random.default_rng(0).random((6, 7, 5)) > 0.7
VOLUME = MetaTensor(torch.zeros(1, 6, 7, 5), affine=torch.from_numpy(AFFINE))


def nifti(path: Path, values: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    nib.loadsave.save(nib.nifti1.Nifti1Image(values.astype(np.uint8), affine), path)
    return path


def as_itk(values: np.ndarray, affine: np.ndarray) -> sitk.Image:
    image = sitk.GetImageFromArray(values.astype(np.uint8).transpose())
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    return image


def test_on_the_same_grid(tmp_path: Path) -> None:
    label = read_label(nifti(tmp_path / "a.nii.gz", 2 * MASK), VOLUME)
    assert label.dtype == torch.float32
    np.testing.assert_array_equal(label[0], MASK)


def test_further_dimensions(tmp_path: Path) -> None:
    np.testing.assert_array_equal(read_label(nifti(tmp_path / "a.nii", MASK[..., None, None]), VOLUME)[0], MASK)
    films = nifti(tmp_path / "b.nii", np.stack([MASK, MASK], axis=-1))
    with pytest.raises(UnreadableInputError, match=r"the label 'b\.nii': it has 4 dimensions, not 2 or 3"):
        read_label(films, VOLUME)


def test_nrrd_of_a_viewer(tmp_path: Path) -> None:
    sitk.WriteImage(as_itk(MASK, AFFINE), tmp_path / "a.nrrd")
    np.testing.assert_array_equal(read_label(tmp_path / "a.nrrd", VOLUME)[0], MASK)


def test_other_order_of_the_slices_and_cropped(tmp_path: Path) -> None:
    """As a DICOM segmentation comes back: slices from the other end, empty ones left out."""
    mask = MASK.copy()
    mask[..., [0, 4]] = False
    turned = AFFINE @ np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, -1, 3], [0, 0, 0, 1.0]])
    sitk.WriteImage(as_itk(mask[..., 3:0:-1], turned), tmp_path / "a.nrrd")
    np.testing.assert_array_equal(read_label(tmp_path / "a.nrrd", VOLUME)[0], mask)


def test_same_shape_from_the_other_end(tmp_path: Path) -> None:
    turned = AFFINE @ np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, -1, 4], [0, 0, 0, 1.0]])
    label = read_label(nifti(tmp_path / "a.nii", MASK[..., ::-1], turned), VOLUME)
    np.testing.assert_array_equal(label[0], MASK)


def test_transposed_axes(tmp_path: Path) -> None:
    exchanged = AFFINE @ np.array([[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    label = read_label(nifti(tmp_path / "a.nii", MASK.transpose(1, 0, 2), exchanged), VOLUME)
    np.testing.assert_array_equal(label[0], MASK)


def test_sheared_volume(tmp_path: Path) -> None:
    sheared = AFFINE.copy()
    sheared[1, 2] = 0.9
    image = MetaTensor(torch.zeros(1, 6, 7, 5), affine=torch.from_numpy(sheared))
    np.testing.assert_array_equal(read_label(nifti(tmp_path / "a.nii", MASK, sheared), image)[0], MASK)


def test_segments_of_their_own(tmp_path: Path) -> None:
    parts = np.stack([MASK & (np.arange(5) < 2), MASK & (np.arange(5) >= 2)], axis=-1).astype(np.uint8)
    image = sitk.GetImageFromArray(parts.transpose(2, 1, 0, 3), isVector=True)
    image.CopyInformation(as_itk(MASK, AFFINE))
    sitk.WriteImage(image, tmp_path / "a.seg.nrrd")
    np.testing.assert_array_equal(read_label(tmp_path / "a.seg.nrrd", VOLUME)[0], MASK)


def test_label_of_a_picture(tmp_path: Path) -> None:
    flat = np.random.default_rng(1).random((8, 11)) > 0.5
    picture = MetaTensor(torch.zeros(3, 8, 11))
    Image.fromarray(flat.astype(np.uint8) * 255).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_label(tmp_path / "a.png", picture)[0], flat)
    sitk.WriteImage(sitk.GetImageFromArray(flat[None].astype(np.uint8)), tmp_path / "b.nrrd")
    np.testing.assert_array_equal(read_label(tmp_path / "b.nrrd", picture)[0], flat)
    with pytest.raises(UnreadableInputError, match=r"\(11, 8\) pixels, its picture of \(8, 11\)"):
        read_label(tmp_path / "a.png", MetaTensor(torch.zeros(3, 11, 8)))


def test_empty_labels(tmp_path: Path) -> None:
    nothing = np.zeros_like(MASK)
    assert is_empty_label(nifti(tmp_path / "a.nii.gz", nothing))
    assert not is_empty_label(nifti(tmp_path / "b.nii.gz", MASK))
    (tmp_path / "a.bin").write_bytes(nothing.astype(np.uint8).tobytes())
    (tmp_path / "b.bin").write_bytes(MASK.astype(np.uint8).tobytes())
    assert is_empty_label(tmp_path / "a.bin")
    assert not is_empty_label(tmp_path / "b.bin")
    # Opaque black is nothing, though its alpha is not 0.
    Image.new("RGBA", (4, 4), (0, 0, 0, 255)).save(tmp_path / "a.png")
    assert is_empty_label(tmp_path / "a.png")


def test_damaged_label(tmp_path: Path) -> None:
    for name in ("a.nii.gz", "a.nrrd", "a.png"):
        (tmp_path / name).write_bytes(b"nothing")
        with pytest.raises(UnreadableInputError, match=f"Cannot read the label '{name}'"):
            is_empty_label(tmp_path / name)


def test_a_picture_is_one_slice() -> None:
    image, label = MetaTensor(torch.rand(3, 5, 7)), torch.ones(1, 5, 7)
    slices, masks = labelled_slices(image, label)
    assert slices.shape == (1, 3, 5, 7)
    assert torch.equal(masks[0], label)


@pytest.mark.parametrize("native", [False, True])
def test_slices_and_masks_belong_together(native: bool) -> None:
    image = MetaTensor(torch.rand(1, 6, 8, 4), affine=np.diag([1.0, 1.0, 5.0, 1.0]), meta={"native_slices": native})
    slices, masks = labelled_slices(image, image.as_tensor() > 0.5)
    assert torch.equal(slices > 0.5, masks)
    assert len(slices) == 4


def test_the_axis_can_be_chosen() -> None:
    image = MetaTensor(torch.rand(1, 6, 8, 4), affine=np.eye(4))
    assert len(labelled_slices(image, image.as_tensor(), 1)[0]) == 8


@pytest.mark.parametrize(
    ("marked", "expected"),
    [
        ({3, 4}, [0, 3, 4, 9]),
        (set(), [0, 3, 6, 9]),
        (set(range(10)), [0, 3, 6, 9]),
        ({0, 1, 2, 3, 4, 5, 6, 7, 8}, [0, 3, 5, 8, 9]),
    ],
)
def test_normal_slices_do_not_outnumber_the_others(marked: set[int], expected: list[int]) -> None:
    masks = torch.zeros(10, 1, 2, 2)
    masks[sorted(marked), 0, 1, 0] = 1
    assert representative_slices(masks, 4).tolist() == expected
