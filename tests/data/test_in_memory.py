# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import gc
from pathlib import Path
from types import ModuleType

import nibabel as nib
import numpy as np
import pydicom
import pytest
import tifffile
import torch
from monai.data.meta_tensor import MetaTensor
from PIL import Image

from monai_anomalyclip.data import load_input
from monai_anomalyclip.data.in_memory import given_image


def test_a_picture_of_pil_is_read_as_its_file(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for mode, shape in (("RGB", (9, 7, 3)), ("L", (9, 7)), ("RGBA", (9, 7, 4)), ("P", (9, 7))):
        picture = Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8), "L" if mode == "P" else mode)
        picture = picture.convert(mode)
        picture.save(tmp_path / "a.png")
        (image,) = given_image(picture).parts
        (by_path,) = given_image(tmp_path / "a.png").parts
        assert torch.equal(image.as_tensor().float() / 255, by_path.load().as_tensor()), mode  # type: ignore


@pytest.mark.parametrize("largest", [200, 4000, 60000])
@pytest.mark.parametrize("shape", [(20, 30), (20, 30, 3)])
def test_16_bits_have_the_white_that_their_file_has(shape: tuple[int, ...], largest: int, tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, largest + 1, shape).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb" if len(shape) == 3 else "minisblack")
    (image,) = given_image(values).parts
    expected = load_input(tmp_path / "a.tif").as_tensor()
    shown = image.as_tensor().float().expand(3, -1, -1) / 255  # type: ignore[union-attr]
    torch.testing.assert_close(shown, expected)


def test_the_turn_of_a_camera_is_undone() -> None:
    picture = Image.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4))
    picture.getexif()[0x0112] = 6  # rotate by 90 degrees to show it
    (image,) = given_image(picture).parts
    assert tuple(image.shape) == (3, 4, 3)  # type: ignore


@pytest.mark.parametrize("dtype", [">i2", "<f8", "uint8"])
def test_volumes_of_any_kind_of_number(dtype: str) -> None:
    values = (np.arange(30).reshape(2, 3, 5) * 3).astype(dtype)
    (image,) = given_image(values[::-1]).parts
    assert image.shape == (1, 2, 3, 5)  # type: ignore
    assert np.array_equal(image[0], values[::-1].astype(np.float32))  # type: ignore


def test_a_slice_of_raw_intensities_is_no_picture_of_8_bits() -> None:
    (raw,) = given_image(np.array([[-1000, 40], [80, 3000]], np.int16)).parts
    assert raw.dtype == torch.float32  # type: ignore
    assert "intensity" not in raw.meta  # type: ignore
    (unit,) = given_image(np.array([[0.0, 0.5], [0.25, 1.0]])).parts
    assert np.array_equal(unit[0], [[0.0, 0.5], [0.25, 1.0]])  # type: ignore
    assert "none" in unit.meta["intensity"]  # type: ignore


def test_simpleitk_of_other_dimensions() -> None:
    """Of two a picture, as the array; of four, or of colours in a volume, none."""
    sitk = pytest.importorskip("SimpleITK")
    gray = np.random.default_rng(0).integers(0, 256, (9, 7), dtype=np.uint8)
    for pixels in (gray, np.stack([gray, gray // 2, 255 - gray], axis=-1)):
        (image,) = given_image(sitk.GetImageFromArray(pixels, isVector=pixels.ndim == 3)).parts
        (expected,) = given_image(pixels).parts
        assert torch.equal(torch.as_tensor(image), torch.as_tensor(expected))  # type: ignore[arg-type]
    series = sitk.JoinSeries([sitk.GetImageFromArray(np.zeros((3, 4, 5), np.float32))] * 2)
    with pytest.raises(ValueError, match="4 dimensions and 1 components is neither a picture nor a volume"):
        given_image(series)
    with pytest.raises(ValueError, match="3 dimensions and 3 components is neither"):
        given_image(sitk.GetImageFromArray(np.zeros((4, 5, 6, 3), np.uint8), isVector=True))


def test_simpleitk_lies_where_nibabel_does(tmp_path: Path) -> None:
    sitk = pytest.importorskip("SimpleITK")
    affine = np.array([[0, -2.0, 0, 5], [1.5, 0, 0, -7], [0, 0, 3, 11], [0, 0, 0, 1]])
    values = np.random.default_rng(0).normal(size=(4, 5, 6)).astype(np.float32)
    nib.save(nib.Nifti1Image(values, affine), tmp_path / "a.nii")  # type: ignore[attr-defined]
    (image,) = given_image(sitk.ReadImage(str(tmp_path / "a.nii"))).parts
    assert np.allclose(image.affine, affine, atol=1e-5)  # type: ignore
    assert np.array_equal(image[0], values)  # type: ignore


def test_the_scaling_of_a_nifti_file_is_applied(tmp_path: Path) -> None:
    stored = nib.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4), np.diag([2, 2, 2, 1.0]))
    stored.header.set_slope_inter(0.5, -3)
    nib.save(stored, tmp_path / "a.nii")  # type: ignore[attr-defined]
    (image,) = given_image(nib.load(tmp_path / "a.nii")).parts  # type: ignore[attr-defined]
    assert torch.equal(image.as_tensor(), load_input(tmp_path / "a.nii").as_tensor())  # type: ignore


def test_the_folder_of_datasets_is_private_and_goes(tmp_path: Path, phantoms: ModuleType) -> None:
    paths = phantoms.make_series(tmp_path, count=3)
    given = given_image([pydicom.dcmread(path) for path in paths])
    assert given.folder is not None
    folder = Path(given.folder.name)
    assert folder.stat().st_mode & 0o077 == 0
    assert len(list(folder.iterdir())) == 3
    del given
    gc.collect()
    assert not folder.exists()


def test_datasets_of_two_series_are_refused(tmp_path: Path, phantoms: ModuleType) -> None:
    paths = [path for seed in "ab" for path in phantoms.make_series(tmp_path / seed, count=2, seed=seed)]
    with pytest.raises(ValueError, match="2 inputs"):
        given_image([pydicom.dcmread(path) for path in paths])


def test_metadata_of_a_reader_go_on_to_hold(tmp_path: Path, phantoms: ModuleType) -> None:
    phantoms.make_series(tmp_path, count=3)
    loaded = load_input(tmp_path)
    (image,) = given_image(loaded).parts
    assert isinstance(image, MetaTensor)
    assert {key: image.meta[key] for key in ("kind", "native_slices", "intensity")} == {
        key: loaded.meta[key] for key in ("kind", "native_slices", "intensity")
    }
