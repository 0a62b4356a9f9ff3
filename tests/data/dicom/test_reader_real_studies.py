# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""What real scanners and archives write, in ../shared/real; skipped where that is absent."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from pydicom.pixels import apply_rescale

from monai_anomalyclip.data.dicom import DicomSeries, group_instances, scan_files

TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])

Row = tuple[str, int, str, str | None, str | None]

REGULAR_4: list[Row] = [("volume", 4, "regular", None, None)]
TIME_POINTS: list[Row] = [("volume", 25, "regular", f"time point {time}", None) for time in (1, 2, 3, 4)]
B_VALUES: list[Row] = [("volume", 4, "regular", f"b-value {b}", None) for b in (0, 1000)]
EXPECTED: dict[str, list[Row]] = {
    "dicom2nifti/anatomical/001": REGULAR_4,
    "dicom2nifti/anatomical/001_implicit": REGULAR_4,
    "dicom2nifti/ge/anatomical/001": REGULAR_4,
    "dicom2nifti/ge/anatomical/001_implicit": REGULAR_4,
    "dicom2nifti/ge/anatomical/001_single_slice": [("volume", 1, "single slice", None, None)],
    "dicom2nifti/ge/dti/001": B_VALUES,
    "dicom2nifti/ge/dti/001_implicit": B_VALUES,
    # Four time points that nothing but the instance number tells apart.
    "dicom2nifti/ge/dti/002": [("volume", 16, "duplicate positions", None, None)],
    "dicom2nifti/generic/anatomical/001": REGULAR_4,
    "dicom2nifti/generic/anatomical/001_implicit": REGULAR_4,
    "dicom2nifti/generic/anatomical/002_non_isotropic": REGULAR_4,
    "dicom2nifti/generic/compressed/001": REGULAR_4,
    "dicom2nifti/generic/compressed_j2k/001": REGULAR_4,
    "dicom2nifti/generic/compressed_jpeg/001": REGULAR_4,
    "dicom2nifti/generic/compressed_jpegls/001": REGULAR_4,
    "dicom2nifti/generic/compressed_rle/001": REGULAR_4,
    "dicom2nifti/generic/rgb/001": [("volume", 4, "regular", None, "secondary capture")],
    "dicom2nifti/hitachi/anatomical/001": REGULAR_4,
    "dicom2nifti/hitachi/anatomical/001_implicit": REGULAR_4,
    "dicom2nifti/philips_enhanced/anatomical/001": [("volume", 8, "regular", None, None)],
    "dicom2nifti/philips_enhanced/anatomical/001_implicit": [("volume", 8, "regular", None, None)],
    "dicom2nifti/failing/gantrytilting/001": [("volume", 4, "gantry tilt", None, None)],
    "dicom2nifti/failing/notavolume/001": [("volume", 4, "duplicate positions", None, None)],
    "dicom2nifti/failing/slicecount/001": [("volume", 2, "regular", None, None)],
    "dicom2nifti/failing/sliceincrement/001": [("volume", 4, "gaps", None, None)],
    "dicom2nifti/failing/sliceincrement/002": [("volume", 4, "gaps + gantry tilt", None, None)],
    "dicom2nifti/failing/sliceorientation/001": [
        ("volume", 2, "regular", "pixel spacing 0.32 x 0.32, orientation 1", None),
        ("volume", 2, "regular", "pixel spacing 0.5556 x 0.5556, orientation 2", None),
    ],
    "dcm_qa/ct_ge_tilt": [("volume", 28, "irregular spacing + gantry tilt", None, None)],
    "dcm_qa/12bit/In": [("frame", 1, "no position", None, "mosaic")],
    "dcm_qa/agfa/Agfa": TIME_POINTS,
    "dcm_qa/agfa/Siemens": TIME_POINTS,
}

GROUND_TRUTH = {
    "dicom2nifti/anatomical/001": (),
    "dicom2nifti/ge/anatomical/001": (),
    "dicom2nifti/generic/anatomical/001": (),
    "dicom2nifti/generic/anatomical/002_non_isotropic": (),
    "dicom2nifti/hitachi/anatomical/001": (),
    "dicom2nifti/philips_enhanced/anatomical/001": (),
    "dicom2nifti/generic/compressed_rle/001": (),
    "dicom2nifti/ge/dti/001": (0, 1),
}


def read(folder: Path) -> list[DicomSeries]:
    series, skipped = group_instances(scan_files([folder]).instances)
    assert skipped == []
    return series


@pytest.mark.parametrize("folder", EXPECTED)
def test_every_folder_gets_its_verdict(real_data: Path, folder: str) -> None:
    series = read(real_data / "dicom" / folder)
    assert [(one.kind, len(one.frames), one.geometry.verdict, one.split, one.excluded) for one in series] == EXPECTED[
        folder
    ]


def test_tilt_is_the_one_that_the_scanner_wrote(real_data: Path) -> None:
    (series,) = read(real_data / "dicom" / "dcm_qa" / "ct_ge_tilt")
    assert series.geometry.tilt_degrees == pytest.approx(abs(float(series.header.GantryDetectorTilt)), abs=0.01)
    assert len(series.instances) == 28
    (gap,) = read(real_data / "dicom" / "dicom2nifti" / "failing" / "sliceincrement" / "002")
    assert gap.geometry.missing_slices == 1  # instance number 4 is not there


def test_mixed_folders(real_data: Path) -> None:
    scan = scan_files([real_data / "dicom" / "pydicom_data"])
    assert sorted(file.code for file in scan.skipped) == ["duplicate UID", "not DICOM", "segmentation"]
    series, _ = group_instances(scan.instances)
    found = sorted((one.modality, one.kind, len(one.frames), one.colour, one.excluded or "") for one in series)
    assert found == [
        ("CR", "frame", 1, False, ""),
        ("CT", "volume", 1, False, ""),
        ("CT", "volume", 2, False, "calculated map"),
        ("MR", "cine", 10, False, ""),  # an enhanced MR whose functional groups were lost
        ("NM", "frame", 1, False, "secondary capture"),
        ("OT", "frame", 1, True, "secondary capture"),
        ("US", "cine", 2, True, ""),
        ("US", "frame", 1, True, ""),
        ("US", "frame", 1, True, ""),
        ("US", "frame", 1, True, ""),
    ]
    calibrated = {one.geometry.spacing_source for one in series if one.modality == "US"}
    assert calibrated == {None, "ultrasound region"}


def test_pixel_spacing_is_not_invented(real_data: Path) -> None:
    folder = real_data / "dicom"
    for path in (folder / "cornerstone_wado" / "no-pixel-spacing.dcm", folder / "pydicom_data" / "RG3_J2KR.dcm"):
        (series,) = read(path)
        spacing, source = series.geometry.pixel_spacing, series.geometry.spacing_source
        assert (spacing is None) == ("SequenceOfUltrasoundRegions" not in series.header)
        assert source == (None if spacing is None else "ultrasound region")


@pytest.mark.parametrize("folder", GROUND_TRUTH)
def test_voxels_lie_where_the_nifti_beside_the_series_has_them(real_data: Path, folder: str) -> None:
    path = real_data / "dicom" / folder
    truth = nib.load(path.with_name(f"{path.name}_ground_truth.nii.gz"))
    values = np.asarray(truth.dataobj, dtype=np.float64)
    volumes = GROUND_TRUTH[folder]
    all_series = read(path)
    assert len(all_series) == max(len(volumes), 1)
    for series, volume in zip(all_series, volumes or (None,), strict=True):
        expected = np.squeeze(values) if volume is None else values[..., volume]
        affine = series.geometry.affine()
        assert affine is not None
        # From the voxels of the NIfTI to ours: whole numbers, each of ours once, with the same value.
        indices = np.stack(np.meshgrid(*map(np.arange, expected.shape), indexing="ij"), axis=-1).reshape(-1, 3)
        homogeneous = np.concatenate([indices, np.ones((len(indices), 1))], axis=1)
        there = homogeneous @ (np.linalg.inv(affine) @ truth.affine).T[:, :3]
        column, row, k = np.rint(there).astype(int).T
        assert np.abs(there - np.rint(there)).max() < 0.02
        assert len({*zip(column.tolist(), row.tolist(), k.tolist(), strict=True)}) == expected.size
        files = {one.path: pydicom.dcmread(one.path) for one in series.instances}
        pixels = {path: apply_rescale(np.atleast_3d(one.pixel_array.T).T, one) for path, one in files.items()}
        stack = np.stack([pixels[frame.instance.path][frame.index] for frame in series.frames]).astype(np.float64)
        assert stack.size == expected.size
        ours = stack[k, row, column]
        slope, intercept = np.polyfit(ours, expected.ravel(), 1)  # enhanced files keep their rescale elsewhere
        np.testing.assert_allclose(slope * ours + intercept, expected.ravel(), atol=1e-3 * np.ptp(expected))
