# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from scipy import ndimage

from monai_anomalyclip.demo.volumes import make_volume, write_dicom_series, write_nifti


@pytest.mark.parametrize("family", ["brain_mr", "head_ct", "lung_ct"])
def test_lesion_is_one_piece_over_a_few_slices(family: str) -> None:
    for seed in range(4):
        phantom = make_volume(family, seed, size=112)
        twin = make_volume(family, seed, size=112, anomalous=False)
        per_slice = phantom.mask.any(axis=(0, 1))
        assert 3 <= per_slice.sum() <= 12
        assert phantom.kind
        first, last = np.flatnonzero(per_slice)[[0, -1]]
        assert per_slice[first : last + 1].all()
        _, pieces = ndimage.label(phantom.mask, structure=np.ones((3, 3, 3)))
        assert pieces <= 2  # the skull may cut a lesion's thin end in two
        assert not twin.mask.any()
        assert not twin.kind
        assert np.array_equal(phantom.image[~phantom.mask], twin.image[~phantom.mask])
        assert (phantom.image != twin.image)[phantom.mask].mean() > 0.7


def test_neighbouring_slices_fit() -> None:
    """Anatomy changes slowly along z: neighbours resemble each other more than slices far apart."""
    image = make_volume("head_ct", 1, size=112, anomalous=False).image.clip(-50, 120).astype(float)
    near = np.corrcoef(image[..., 9].ravel(), image[..., 10].ravel())[0, 1]
    far = np.corrcoef(image[..., 0].ravel(), image[..., 10].ravel())[0, 1]
    assert near > 0.95
    assert far < near


def test_head_ct_is_in_hounsfield_units() -> None:
    image = make_volume("head_ct", 2, size=112, anomalous=False).image
    assert -1024 <= image.min() < -950
    assert 500 < image.max() < 1500
    soft_tissue = image[40:72, 40:72, 5:15]  # inside the skull
    assert 20 < np.median(soft_tissue) < 40
    assert soft_tissue.max() < 150


def test_lung_ct_is_in_hounsfield_units() -> None:
    """Air in the lung and around, a chest wall with bone, and a nodule as dense as tissue."""
    phantom = make_volume("lung_ct", 2, size=112)
    lung = phantom.image[46:66, 46:66, 5:15][~phantom.mask[46:66, 46:66, 5:15]]
    assert -900 < np.median(lung) < -750
    assert -30 < np.median(phantom.image[ndimage.binary_erosion(phantom.mask, iterations=2)]) < 130
    assert 300 < phantom.image.max() < 600
    assert phantom.image[0].mean() < -950


def test_nifti_round_trip(tmp_path: Path) -> None:
    phantom = make_volume("brain_mr", 3)
    path = write_nifti(tmp_path / "volume.nii.gz", phantom.image, phantom.affine)
    read = nib.load(path)
    assert read.shape == (224, 224, 20)
    assert nib.aff2axcodes(read.affine) == ("L", "P", "S")
    assert np.allclose(read.header.get_zooms(), (1, 1, 4))
    assert read.header.get_xyzt_units()[0] == "mm"
    assert np.allclose(read.affine, phantom.affine, atol=1e-4)
    assert np.allclose(read.get_qform(), phantom.affine, atol=1e-3)
    assert np.array_equal(np.asarray(read.dataobj), phantom.image)
    assert [p.name for p in tmp_path.iterdir()] == ["volume.nii.gz"]
    with pytest.raises(FileExistsError, match="exists"):
        write_nifti(path, phantom.image, phantom.affine)


@pytest.mark.parametrize(("family", "modality"), [("head_ct", "CT"), ("brain_mr", "MR"), ("lung_ct", "CT")])
def test_simpleitk_reads_the_dicom_series(tmp_path: Path, family: str, modality: str) -> None:
    phantom = write_dicom_series(tmp_path / "study" / "ct", 4, size=64, slices=12, family=family)
    names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(tmp_path / "study" / "ct"))
    assert len(names) == 12
    assert list(names) != sorted(names)
    volume = sitk.ReadImage(names)
    assert np.allclose(volume.GetSpacing(), (3.5, 3.5, 4), atol=1e-5)
    direction = np.array(volume.GetDirection()).reshape(3, 3)
    ras = np.diag([-1, -1, 1]) @ direction @ np.diag(volume.GetSpacing())
    assert np.allclose(ras, phantom.affine[:3, :3], atol=1e-4)
    for index in ((0, 0, 0), (63, 0, 0), (0, 63, 11), (20, 30, 6)):
        expected = np.array([-1, -1, 1]) * (phantom.affine[:3, :3] @ index + phantom.affine[:3, 3])
        assert np.allclose(volume.TransformIndexToPhysicalPoint(index), expected, atol=1e-3)
    assert np.array_equal(sitk.GetArrayFromImage(volume), phantom.image.transpose(2, 1, 0))
    header = pydicom.dcmread(names[0])
    assert (header.Modality, header.SOPClassUID.name) == (modality, f"{modality} Image Storage")


def test_dicom_files_are_complete(tmp_path: Path) -> None:
    write_dicom_series(tmp_path / "ct", 4, size=64, slices=5)
    headers = [pydicom.dcmread(path) for path in sorted((tmp_path / "ct").iterdir())]
    assert {h.Modality for h in headers} == {"CT"}
    assert len({h.SOPInstanceUID for h in headers}) == 5
    assert len({h.SeriesInstanceUID for h in headers}) == len({h.FrameOfReferenceUID for h in headers}) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["ct"]
    with pytest.raises(FileExistsError, match="exists"):
        write_dicom_series(tmp_path / "ct", 4)


@pytest.mark.parametrize(
    ("family", "slices", "message"),
    [("metal", 5, "not of 'metal'"), ("head_ct", 40, "reach beyond"), ("head_ct", 0, "reach")],
)
def test_bad_arguments(family: str, slices: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_volume(family, 0, slices=slices)
