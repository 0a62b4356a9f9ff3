# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from monai_anomalyclip.data.errors import UnreadableInputError
from monai_anomalyclip.demo.volumes import make_volume, write_dicom_series
from monai_anomalyclip.label.reading import read_image
from monai_anomalyclip.transforms.intensity_presets import PRESETS
from monai_anomalyclip.transforms.intensity_scaling import apply_window

AFFINE = np.array([[-0.5, 0, 0, 7], [0, -0.8, 0, 5], [0, 0, 3, -2], [0, 0, 0, 1.0]])


def test_picture_has_its_rows_first(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
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


@pytest.mark.parametrize("kind", ["vector", "rgb24"])
def test_colour_nifti(tmp_path: Path, kind: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 9, 2, 3), dtype=np.uint8)
    if kind == "vector":  # what SimpleITK makes of an RGB series
        stored = sitk.GetImageFromArray(pixels.transpose(2, 1, 0, 3), isVector=True)
        sitk.WriteImage(stored, tmp_path / "a.nii.gz")
    else:
        structured = pixels.view([("R", "u1"), ("G", "u1"), ("B", "u1")])[..., 0]
        nib.loadsave.save(nib.nifti1.Nifti1Image(structured, AFFINE), tmp_path / "a.nii.gz")
    image = read_image(tmp_path / "a.nii.gz")
    assert image.meta["native_slices"] == 1
    np.testing.assert_allclose(image, pixels.transpose(3, 0, 1, 2) / 255, atol=1e-6)


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
    with pytest.raises(UnreadableInputError, match="'secret' holds 0 DICOM series"):
        read_image(tmp_path / "secret")
    (tmp_path / "secret" / "a.dcm").write_bytes(b"nothing")
    with pytest.raises(UnreadableInputError, match="no DICOM image") as caught:
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


def test_tags_that_cannot_be_read_are_done_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    phantom = write_dicom_series(tmp_path / "a", 3, size=32, slices=3)
    nib.loadsave.save(nib.nifti1.Nifti1Image(phantom.image, phantom.affine), tmp_path / "a.nii.gz")

    def fail(file: str) -> dict[str, str]:
        raise RuntimeError("as SimpleITK raises it")

    monkeypatch.setattr("monai_anomalyclip.label.reading._read_tags", fail)
    assert json.loads(read_image(tmp_path / "a.nii.gz").meta["intensity"])["preset"] != "ct-brain"
