# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
import torch
from PIL import Image
from pydicom.encaps import encapsulate

from monai_anomalyclip.data import load_input
from monai_anomalyclip.data.errors import UnreadableInputError
from monai_anomalyclip.demo.volumes import make_volume, write_dicom_series
from monai_anomalyclip.label.reading import read_image
from monai_anomalyclip.transforms.intensity import apply_window
from monai_anomalyclip.transforms.intensity_presets import PRESETS

AFFINE = np.array([[-0.5, 0, 0, 7], [0, -0.8, 0, 5], [0, 0, 3, -2], [0, 0, 0, 1.0]])


def test_picture_has_its_rows_first(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    with pytest.warns(UserWarning, match="does not apply to pictures"):
        image = read_image(tmp_path / "a.png", "ct-brain")
    np.testing.assert_allclose(image, pixels.transpose(2, 0, 1) / 255, atol=1e-6)


def test_nifti_keeps_grid_and_affine(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((5, 6, 7)).astype(np.float32)
    nib.loadsave.save(nib.nifti1.Nifti1Image(values, AFFINE), tmp_path / "a.nii.gz")
    image = read_image(tmp_path / "a.nii.gz")
    assert image.shape == (1, 5, 6, 7)
    np.testing.assert_allclose(image.affine, AFFINE)
    assert float(image.min()) == 0
    assert float(image.max()) == 1
    assert np.corrcoef(np.asarray(image).ravel(), values.ravel())[0, 1] > 0.99


def test_ct_series_is_rescaled_and_seen_through_the_window_of_its_region(tmp_path: Path) -> None:
    phantom = write_dicom_series(tmp_path / "study", 3, size=48, slices=6)  # says HEAD
    image = read_image(tmp_path / "study")
    np.testing.assert_allclose(image.affine, phantom.affine, atol=1e-4)
    expected = apply_window(phantom.image.astype(np.float32), *PRESETS["ct-brain"])
    np.testing.assert_allclose(np.asarray(image)[0], expected, atol=1e-5)
    assert json.loads(image.meta["intensity"])["preset"] == "ct-brain"
    assert json.loads(read_image(tmp_path / "study", "ct-bone").meta["intensity"])["preset"] == "ct-bone"


def test_nifti_that_was_made_of_a_series_gets_its_window(tmp_path: Path) -> None:
    phantom = write_dicom_series(tmp_path / "1.2.3", 3, size=48, slices=6)
    nib.loadsave.save(nib.nifti1.Nifti1Image(phantom.image, phantom.affine), tmp_path / "1.2.3.nii.gz")
    image = read_image(tmp_path / "1.2.3.nii.gz")
    np.testing.assert_allclose(np.asarray(image), np.asarray(read_image(tmp_path / "1.2.3")), atol=1e-6)


def test_inverted_radiograph_is_turned(tmp_path: Path, phantoms: ModuleType) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32), dtype=np.uint8)
    options: dict[str, Any] = {"count": 1, "signed": False, "positioned": False, "bits_stored": 8, "modality": "CR"}
    for name, shown, photometric in [("plain", pixels, "MONOCHROME2"), ("inverted", 255 - pixels, "MONOCHROME1")]:
        phantoms.make_series(
            tmp_path / name, edit=phantoms.picture(shown), photometric=photometric, seed=name, **options
        )
    plain, inverted = (read_image(tmp_path / name) for name in ("plain", "inverted"))
    assert plain.shape == (1, 32, 24, 1)
    np.testing.assert_allclose(np.asarray(inverted), np.asarray(plain), atol=1e-6)
    assert np.corrcoef(np.asarray(plain).ravel(), pixels.T.ravel())[0, 1] > 0.99


def test_colour_series(tmp_path: Path, phantoms: ModuleType) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    phantoms.make_series(
        tmp_path / "es", edit=phantoms.picture(pixels), photometric="RGB", modality="ES", count=1, signed=False,
        positioned=False, bits_stored=8,
    )  # fmt: skip
    image = read_image(tmp_path / "es")
    assert image.meta["native_slices"] == 1
    np.testing.assert_allclose(np.asarray(image)[..., 0], pixels.transpose(2, 1, 0) / 255, atol=1e-6)
    (file,) = (tmp_path / "es").iterdir()
    np.testing.assert_array_equal(np.asarray(read_image(file)), np.asarray(image))


def test_what_cannot_be_read_is_said_without_its_folder(tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    with pytest.raises(UnreadableInputError, match=r"^Cannot read 'absent': there is no such file\.$"):
        read_image(tmp_path / "secret" / "absent")
    with pytest.raises(UnreadableInputError, match=r"^Cannot read 'secret': it holds no image\.$"):
        read_image(tmp_path / "secret")
    (tmp_path / "secret" / "a.dcm").write_bytes(b"nothing")
    with pytest.raises(UnreadableInputError, match=r"^Cannot read 'a\.dcm': The file") as caught:
        read_image(tmp_path / "secret" / "a.dcm")
    assert "secret" not in str(caught.value)
    (tmp_path / "a.nii.gz").write_bytes(b"nothing")
    with pytest.raises(UnreadableInputError, match=r"a\.nii\.gz"):
        read_image(tmp_path / "a.nii.gz")


def test_unknown_preset(tmp_path: Path) -> None:
    volume = make_volume("brain_mr", 1, size=32, slices=3)
    nib.loadsave.save(nib.nifti1.Nifti1Image(volume.image, volume.affine), tmp_path / "a.nii")
    with pytest.raises(ValueError, match="no intensity preset 'ct-nose'"):
        read_image(tmp_path / "a.nii", "ct-nose")


@pytest.mark.parametrize("series", [0, 2])
def test_folder_of_the_same_name_need_not_hold_the_series(tmp_path: Path, series: int) -> None:
    phantom = make_volume("brain_mr", 1, size=32, slices=3)
    nib.loadsave.save(nib.nifti1.Nifti1Image(phantom.image, phantom.affine), tmp_path / "case_1.nii.gz")
    expected = np.asarray(read_image(tmp_path / "case_1.nii.gz"))
    (tmp_path / "case_1").mkdir()
    for number in range(series):
        write_dicom_series(tmp_path / f"made_{number}", number, size=32, slices=3)
        for file in (tmp_path / f"made_{number}").iterdir():
            file.rename(tmp_path / "case_1" / f"{number}_{file.name}")
    np.testing.assert_array_equal(np.asarray(read_image(tmp_path / "case_1.nii.gz")), expected)


def monai_labels_volume(series: Path) -> Path:
    """What MONAI Label 0.8.5 makes of a series of an archive, beside it."""
    files = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(series))
    image = sitk.ReadImage(files) if len(files) > 1 else sitk.ReadImage(files[0], imageIO="GDCMImageIO")
    sitk.WriteImage(image, series.with_name(f"{series.name}.nii.gz"))
    return series.with_name(f"{series.name}.nii.gz")


def test_radiograph_is_seen_through_its_own_window_as_in_predict(tmp_path: Path, phantoms: ModuleType) -> None:
    ramp = np.linspace(0, 4095, 24 * 32).round().reshape(24, 32).astype(np.uint16)

    def edit(dataset: Any, index: int) -> None:
        phantoms.picture(ramp)(dataset, index)
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
        dataset.WindowCenter, dataset.WindowWidth, dataset.ImagerPixelSpacing = 1000, 800, [0.2, 0.3]

    phantoms.make_series(tmp_path / "1.2", edit=edit, modality="DX", count=1, signed=False, positioned=False)
    shown = np.clip((ramp.T.astype(np.float64) - 600) / 799, 0, 1)  # PS3.3 C.11.2.1.2.1: from 600 to 1399
    (file,) = (tmp_path / "1.2").iterdir()
    for path in (file, tmp_path / "1.2", monai_labels_volume(tmp_path / "1.2")):
        image = read_image(path)
        np.testing.assert_allclose(np.asarray(image)[0, ..., 0], shown, atol=1e-5)
        np.testing.assert_allclose(image.affine, np.diag([-0.3, -0.2, 1, 1]), atol=1e-6)
        assert torch.equal(image[..., 0].as_tensor(), load_input(file).permute(0, 2, 1).as_tensor())


def test_missing_slice_changes_neither_picture_nor_step(tmp_path: Path, phantoms: ModuleType) -> None:
    """SimpleITK spreads eight slices at 0 to 16 mm evenly: clients get its grid, the network each slice as stored."""
    paths = phantoms.make_series(tmp_path / "1.2", count=9, spacing=2.0)
    paths[4].unlink()
    expected = load_input(tmp_path / "1.2")
    alone = read_image(tmp_path / "1.2")
    assert torch.equal(alone.as_tensor(), expected.as_tensor())
    np.testing.assert_array_equal(alone.affine, expected.affine)
    assert np.linalg.norm(np.asarray(alone.affine)[:3, 2]) == pytest.approx(2)
    volume = monai_labels_volume(tmp_path / "1.2")
    served = read_image(volume)
    assert torch.equal(served.as_tensor(), expected.as_tensor())
    np.testing.assert_allclose(served.affine, nib.loadsave.load(volume).affine, atol=1e-6)
    assert np.linalg.norm(np.asarray(served.affine)[:3, 2]) == pytest.approx(16 / 7, abs=1e-4)


def test_volume_that_runs_the_other_way_keeps_its_direction(tmp_path: Path, phantoms: ModuleType) -> None:
    phantoms.make_series(tmp_path / "1.2", count=5)
    volume = monai_labels_volume(tmp_path / "1.2")
    file = nib.loadsave.load(volume)
    turned = file.affine @ np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, -1, 4], [0, 0, 0, 1.0]])
    nib.loadsave.save(nib.nifti1.Nifti1Image(np.asarray(file.dataobj)[:, :, ::-1], turned), volume)
    served, expected = read_image(volume), load_input(tmp_path / "1.2")
    assert torch.equal(served.as_tensor(), expected.flip(3).as_tensor())
    np.testing.assert_allclose(served.affine, turned, atol=1e-6)


def test_volume_on_another_grid_than_the_series_is_read_as_it_is(tmp_path: Path, phantoms: ModuleType) -> None:
    phantoms.make_series(tmp_path / "1.2", count=5)
    volume = monai_labels_volume(tmp_path / "1.2")
    values = np.asarray(nib.loadsave.load(volume).dataobj)
    nib.loadsave.save(nib.nifti1.Nifti1Image(values, np.diag([3.0, 3.0, 3.0, 1.0])), volume)
    np.testing.assert_array_equal(read_image(volume), load_input(volume))


def test_colour_series_is_read_for_its_volume(tmp_path: Path, phantoms: ModuleType) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    phantoms.make_series(
        tmp_path / "es", edit=phantoms.picture(pixels), photometric="RGB", modality="ES", count=1, signed=False,
        positioned=False, bits_stored=8,
    )  # fmt: skip
    image = read_image(monai_labels_volume(tmp_path / "es"))
    np.testing.assert_allclose(np.asarray(image)[..., 0], pixels.transpose(2, 1, 0) / 255, atol=1e-6)


def test_series_that_predict_leaves_out_is_read_when_it_is_asked_for(tmp_path: Path, phantoms: ModuleType) -> None:
    phantoms.make_series(tmp_path / "scout", count=1, image_type=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    with pytest.raises(UnreadableInputError, match="localizer"):
        load_input(tmp_path / "scout")
    assert read_image(tmp_path / "scout").shape[-1] == 1


def test_compressed_series_where_pydicom_is_old(
    tmp_path: Path, phantoms: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    phantoms.make_series(tmp_path / "rle", count=3, transfer_syntax="1.2.840.10008.1.2.5")
    expected = load_input(tmp_path / "rle")
    monkeypatch.setattr("pydicom.__version__", "2.4.5")
    image = read_image(tmp_path / "rle")
    assert torch.equal(image.as_tensor(), expected.as_tensor())
    np.testing.assert_array_equal(image.affine, expected.affine)


def test_compressed_series_that_gdcm_cannot_read(
    tmp_path: Path, phantoms: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    (file,) = phantoms.make_series(tmp_path / "rle", count=1, transfer_syntax="1.2.840.10008.1.2.5")
    dataset = pydicom.dcmread(file)
    dataset.PixelData = encapsulate([b"nothing of a header"])
    dataset.save_as(file)
    monkeypatch.setattr("pydicom.__version__", "2.4.5")
    with pytest.raises(UnreadableInputError, match=r"^Cannot read a DICOM series: GDCM cannot decompress it\.$"):
        read_image(tmp_path / "rle")


def test_folder_of_one_picture(tmp_path: Path, picture: Callable[..., None]) -> None:
    picture(tmp_path / "frames" / "a.png")
    expected = np.asarray(Image.open(tmp_path / "frames" / "a.png")).transpose(2, 0, 1) / 255
    np.testing.assert_allclose(read_image(tmp_path / "frames"), expected, atol=1e-6)
    picture(tmp_path / "frames" / "b.png")
    with pytest.raises(UnreadableInputError, match="'frames' holds 2 inputs: give the file or folder of one"):
        read_image(tmp_path / "frames")


def test_damaged_volume_beside_its_series(tmp_path: Path, phantoms: ModuleType) -> None:
    phantoms.make_series(tmp_path / "1.2", count=3)
    (tmp_path / "1.2.nii.gz").write_bytes(b"nothing")
    with pytest.raises(UnreadableInputError, match=r"1\.2\.nii\.gz"):
        read_image(tmp_path / "1.2.nii.gz")


@pytest.mark.parametrize("shape", [(5, 6), (5, 6, 1), (5, 6, 4)])
def test_colour_nifti_without_its_series(tmp_path: Path, shape: tuple[int, ...]) -> None:
    """In the two ways that NIfTI knows: triples of bytes, and a vector of three as fifth dimension."""
    rgb = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    triples = np.ascontiguousarray(rgb).view([("R", "u1"), ("G", "u1"), ("B", "u1")])[..., 0]
    nib.loadsave.save(nib.nifti1.Nifti1Image(triples, AFFINE), tmp_path / "a.nii.gz")
    image = read_image(tmp_path / "a.nii.gz")
    volume = rgb.reshape(*shape[:2], -1, 3)
    np.testing.assert_allclose(np.asarray(image), np.moveaxis(volume, -1, 0) / 255, atol=1e-6)
    np.testing.assert_allclose(image.affine, AFFINE, atol=1e-6)
    nib.loadsave.save(nib.nifti1.Nifti1Image(volume[:, :, :, None], AFFINE), tmp_path / "b.nii")
    np.testing.assert_array_equal(np.asarray(read_image(tmp_path / "b.nii")), np.asarray(image))


@pytest.mark.parametrize("value", [-1, 256])
def test_colours_beyond_bytes_are_refused(tmp_path: Path, value: int) -> None:
    values = np.full((5, 6, 2, 1, 3), 9, np.int16)
    values[0, 0, 0, 0, 0] = value
    nib.loadsave.save(nib.nifti1.Nifti1Image(values, AFFINE), tmp_path / "a.nii")
    with pytest.raises(UnreadableInputError, match=r"'a\.nii': colours must lie in 0\.\.255; save them as 8-bit\."):
        read_image(tmp_path / "a.nii")


def test_nrrd_volume(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((5, 6, 7)).astype(np.float32)
    nib.loadsave.save(nib.nifti1.Nifti1Image(values, AFFINE), tmp_path / "a.nii")
    sitk.WriteImage(sitk.ReadImage(str(tmp_path / "a.nii")), tmp_path / "a.nrrd")
    image, same = read_image(tmp_path / "a.nrrd"), read_image(tmp_path / "a.nii")
    np.testing.assert_allclose(image, same, atol=1e-6)
    np.testing.assert_allclose(image.affine, same.affine, atol=1e-5)
    (tmp_path / "b.nrrd").write_bytes(b"NRRD")
    with pytest.raises(UnreadableInputError, match=r"'b\.nrrd': the file is truncated or damaged"):
        read_image(tmp_path / "b.nrrd")
