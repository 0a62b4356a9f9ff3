# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom import Dataset

from monai_anomalyclip.data.dicom.series import DicomSeries
from monai_anomalyclip.writers.dicom import Provenance, write_segmentation

STACKS = (
    "regular", "oblique", "sagittal", "gaps", "irregular", "tilt", "duplicates", "one place", "single", "enhanced",
    "legacy enhanced", "big endian", "colour",
)  # fmt: skip


def planted(series: DicomSeries) -> np.ndarray:
    """A box that lies symmetrically to no plane and grows from frame to frame, from the second to the last but one."""
    mask = np.zeros((len(series.frames), *series.size), np.uint8)
    for index in range(min(1, len(mask) - 1), max(1, len(mask) - 1)):
        mask[index, 2 : 5 + index, 4:13] = 1
    return mask


def source_plane(series: DicomSeries, index: int) -> tuple[list[float], list[float]]:
    """Orientation and position of a frame as its file says."""
    header, number = series.frames[index].instance.header, series.frames[index].index
    if "PerFrameFunctionalGroupsSequence" not in header:
        return header.ImageOrientationPatient, header.ImagePositionPatient
    groups = (header.SharedFunctionalGroupsSequence[0], header.PerFrameFunctionalGroupsSequence[number])
    orientation = next(group.PlaneOrientationSequence[0] for group in groups if "PlaneOrientationSequence" in group)
    return orientation.ImageOrientationPatient, groups[1].PlanePositionSequence[0].ImagePositionPatient


def places(phantoms: ModuleType, series: DicomSeries, mask: np.ndarray) -> np.ndarray:
    """The marked voxels in mm, sorted, by the source's headers alone."""
    grid = Dataset()
    grid.Rows, grid.Columns, grid.PixelSpacing = 16, 20, [0.8, 0.5]
    points = [phantoms.slice_points(grid, *source_plane(series, index))[mask[index] != 0] for index in range(len(mask))]
    return in_order(np.concatenate(points))


def in_order(points: np.ndarray) -> np.ndarray:
    rounded = np.round(points, 4) + 0.0
    return rounded[np.lexsort(rounded.T)]


def from_highdicom(phantoms: ModuleType, path: Path) -> np.ndarray:
    """The marked voxels in mm, sorted, by the geometry that highdicom reads."""
    result = hd.seg.segread(path)
    shared = result.SharedFunctionalGroupsSequence[0]
    grid = Dataset()
    grid.Rows, grid.Columns = result.Rows, result.Columns
    grid.PixelSpacing = shared.PixelMeasuresSequence[0].PixelSpacing
    orientation = shared.PlaneOrientationSequence[0].ImageOrientationPatient
    frames = result.pixel_array.reshape(-1, result.Rows, result.Columns)
    points = [
        phantoms.slice_points(grid, orientation, item.PlanePositionSequence[0].ImagePositionPatient)[frame != 0]
        for item, frame in zip(result.PerFrameFunctionalGroupsSequence, frames, strict=True)
    ]
    return in_order(np.concatenate(points))


def positions_of(result: Dataset) -> list[list[float]]:
    return [
        list(item.PlanePositionSequence[0].ImagePositionPatient) for item in result.PerFrameFunctionalGroupsSequence
    ]


@pytest.mark.parametrize("name", STACKS)
def test_voxels_lie_where_they_lay_in_the_source(
    stacks: dict[str, DicomSeries], phantoms: ModuleType, name: str, tmp_path: Path, provenance: Provenance
) -> None:
    series = stacks[name]
    mask = planted(series)
    path = write_segmentation(series, mask, tmp_path / "seg.dcm", provenance=provenance)
    assert mask.any()
    np.testing.assert_array_equal(from_highdicom(phantoms, path), places(phantoms, series, mask))

    # Position by position, to the last digit, ascending along the normal.
    result = pydicom.dcmread(path)
    assert positions_of(result) == [list(source_plane(series, index)[1]) for index in range(len(mask))]
    orientation = result.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0].ImageOrientationPatient
    assert list(orientation) == list(source_plane(series, 0)[0])


@pytest.mark.parametrize("name", ["regular", "oblique", "sagittal", "gaps", "single", "enhanced", "legacy enhanced"])
def test_voxels_that_dcmqi_reads(
    stacks: dict[str, DicomSeries],
    phantoms: ModuleType,
    name: str,
    tmp_path: Path,
    provenance: Provenance,
    run_tool: Callable[..., str],
) -> None:
    series = stacks[name]
    mask = planted(series)
    path = write_segmentation(series, mask, tmp_path / "seg.dcm", provenance=provenance)
    run_tool("segimage2itkimage", "--inputDICOM", path, "--outputDirectory", tmp_path, "--outputType", "nrrd")
    image = sitk.ReadImage(str(tmp_path / "1.nrrd"))
    indices = np.argwhere(sitk.GetArrayFromImage(image))[:, ::-1]
    points = np.array([image.TransformIndexToPhysicalPoint(index.tolist()) for index in indices])
    assert np.abs(in_order(points) - places(phantoms, series, mask)).max() < 1e-3


@pytest.mark.parametrize("name", ["regular", "enhanced", "sagittal", "duplicates"])
def test_marked_pixels_are_those_of_the_source_images(
    stacks: dict[str, DicomSeries], phantoms: ModuleType, name: str, tmp_path: Path, provenance: Provenance
) -> None:
    """The phantom's value tells where a pixel lies: follow the references, and look the values up."""
    series = stacks[name]
    mask = planted(series)
    result = pydicom.dcmread(write_segmentation(series, mask, tmp_path / "seg.dcm", provenance=provenance))
    files = {instance.header.SOPInstanceUID: pydicom.dcmread(instance.path) for instance in series.instances}
    orientation = result.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0].ImageOrientationPatient
    result.PixelSpacing = result.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing
    referenced = []
    for item, frame in zip(result.PerFrameFunctionalGroupsSequence, result.pixel_array, strict=True):
        (reference,) = item.DerivationImageSequence[0].SourceImageSequence
        source = files[reference.ReferencedSOPInstanceUID]
        assert reference.ReferencedSOPClassUID == source.SOPClassUID
        referenced.append((source.SOPInstanceUID, reference.get("ReferencedFrameNumber", 1)))
        pixels = source.pixel_array.reshape(-1, 16, 20)[referenced[-1][1] - 1]
        rescale = source
        if "PerFrameFunctionalGroupsSequence" in source:
            groups = source.PerFrameFunctionalGroupsSequence[referenced[-1][1] - 1]
            rescale = groups.PixelValueTransformationSequence[0]
        values = pixels * float(rescale.RescaleSlope) + float(rescale.RescaleIntercept)
        position = item.PlanePositionSequence[0].ImagePositionPatient
        expected = phantoms.value_at(phantoms.slice_points(result, orientation, position))
        assert np.abs(values - expected)[frame != 0].max(initial=0) <= float(rescale.RescaleSlope)
    assert len(set(referenced)) == len(mask)


def test_order_of_the_frames_does_not_matter(
    stacks: dict[str, DicomSeries], phantoms: ModuleType, tmp_path: Path, provenance: Provenance
) -> None:
    series = stacks["oblique"]
    mask = planted(series)
    assert series.geometry.positions is not None
    shuffled = [3, 0, 5, 1, 4, 2]
    geometry = replace(series.geometry, positions=series.geometry.positions[shuffled])
    other = replace(series, frames=tuple(series.frames[i] for i in shuffled), geometry=geometry)
    path = write_segmentation(other, mask[shuffled], tmp_path / "seg.dcm", provenance=provenance)
    np.testing.assert_array_equal(from_highdicom(phantoms, path), places(phantoms, series, mask))
    result = pydicom.dcmread(path)
    assert positions_of(result) == [list(source_plane(series, index)[1]) for index in range(6)]
    indices = [item.FrameContentSequence[0].DimensionIndexValues for item in result.PerFrameFunctionalGroupsSequence]
    assert [list(index) for index in indices] == [[1, n] for n in range(1, 7)]  # segment, position


@pytest.mark.parametrize("name", ["regular", "tilt", "single", "DX", "ES"])
def test_empty_mask(
    stacks: dict[str, DicomSeries],
    pictures: dict[str, DicomSeries],
    name: str,
    tmp_path: Path,
    provenance: Provenance,
    assert_valid: Callable[..., None],
) -> None:
    """One frame stands for all, in its own place; the references name all files."""
    series = {**stacks, **pictures}[name]
    shape = (len(series.frames), *series.size)
    kinds: list[dict[str, Any]] = [{"omit_empty_frames": False}, {"omit_empty_frames": True}, {"kind": "levels"}]
    for number, options in enumerate(kinds):
        mask = np.zeros(shape, np.float32 if "kind" in options else bool)
        path = write_segmentation(series, mask, tmp_path / f"{number}.dcm", provenance=provenance, **options)
        result = hd.seg.segread(path)
        assert result.NumberOfFrames == 1
        assert result.pixel_array.shape == series.size
        assert not result.pixel_array.any()
        references = result.ReferencedSeriesSequence[0].ReferencedInstanceSequence
        assert len(references) == len(series.instances)
        if name in stacks:
            assert positions_of(result) == [list(source_plane(series, 0)[1])]
        assert_valid([path], series)


def test_empty_frames_are_kept_unless_told(
    stacks: dict[str, DicomSeries],
    phantoms: ModuleType,
    tmp_path: Path,
    provenance: Provenance,
    assert_valid: Callable[..., None],
) -> None:
    series = stacks["regular"]
    mask = planted(series)
    kept = write_segmentation(series, mask, tmp_path / "kept.dcm", provenance=provenance)
    assert pydicom.dcmread(kept).NumberOfFrames == 6
    for chosen, organization in (([1, 2, 3], "3D"), ([1, 3], None), ([4], None)):
        sparse = np.zeros_like(mask)
        sparse[chosen] = mask[chosen]
        path = write_segmentation(
            series, sparse, tmp_path / "sparse.dcm", provenance=provenance, omit_empty_frames=True, overwrite=True
        )
        result = pydicom.dcmread(path)
        assert positions_of(result) == [list(source_plane(series, index)[1]) for index in chosen]
        assert result.get("DimensionOrganizationType") == organization
        assert result.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SpacingBetweenSlices == 3
        np.testing.assert_array_equal(from_highdicom(phantoms, path), places(phantoms, series, sparse))
        assert_valid([path], series)


@pytest.mark.parametrize(
    ("name", "organization", "spacing"),
    [
        ("regular", "3D", 3), ("enhanced", "3D", 3), ("gaps", None, 3), ("tilt", None, 3), ("irregular", None, None),
        ("duplicates", None, 3), ("one place", None, None), ("single", None, None),
    ],
)  # fmt: skip
def test_only_a_regular_grid_is_called_one(
    stacks: dict[str, DicomSeries],
    name: str,
    organization: str | None,
    spacing: float | None,
    tmp_path: Path,
    provenance: Provenance,
) -> None:
    mask = planted(stacks[name])
    result = pydicom.dcmread(write_segmentation(stacks[name], mask, tmp_path / "seg.dcm", provenance=provenance))
    assert result.get("DimensionOrganizationType") == organization
    assert result.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].get("SpacingBetweenSlices") == spacing
    if name == "regular":
        volume = hd.seg.segread(tmp_path / "seg.dcm").get_volume()
        np.testing.assert_allclose(sorted(volume.spacing), [0.5, 0.8, 3])


@pytest.mark.parametrize("name", ["DX", "CR", "MG", "US", "ES", "XC", "OT"])
def test_pictures_without_frame_of_reference(
    pictures: dict[str, DicomSeries], name: str, tmp_path: Path, provenance: Provenance
) -> None:
    series = pictures[name]
    mask = planted(series)
    path = write_segmentation(series, mask, tmp_path / "seg.dcm", provenance=provenance)
    result = hd.seg.segread(path)
    assert "FrameOfReferenceUID" not in result
    assert "PatientOrientation" in result
    (found,) = result.get_pixels_by_source_instance([series.header.SOPInstanceUID], combine_segments=True)
    np.testing.assert_array_equal(found, mask[0])


def test_patient_orientation_of_a_picture_is_kept(
    phantoms: ModuleType, pictures: dict[str, DicomSeries], tmp_path: Path, provenance: Provenance
) -> None:
    series = pictures["DX"]
    header = Dataset()
    header.update(dict(series.header.items()))
    header.PatientOrientation = ["L", "F"]
    frame = replace(series.frames[0], instance=replace(series.instances[0], header=header))
    series = replace(series, frames=(frame,))
    path = write_segmentation(series, planted(series), tmp_path / "seg.dcm", provenance=provenance)
    assert list(pydicom.dcmread(path).PatientOrientation) == ["L", "F"]


def test_codes_label_and_algorithm(stacks: dict[str, DicomSeries], tmp_path: Path, provenance: Provenance) -> None:
    def segment_of(**codes: str) -> hd.seg.SegmentDescription:
        path = tmp_path / "seg.dcm"
        write_segmentation(
            stacks["single"], planted(stacks["single"]), path, provenance=provenance, overwrite=True, **codes
        )
        return hd.seg.segread(path).get_segment_description(1)

    segment = segment_of()
    assert segment.segment_label == "Anomaly (unspecified)"
    assert segment.algorithm_type == hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC
    assert segment.segmented_property_category.value == "49755003"
    assert segment.segmented_property_type.value == "52988006"
    other = segment_of(category="91723000^SCT^Anatomical Structure", segment_type="108369006^SCT^Neoplasm")
    assert other.segmented_property_category.meaning == "Anatomical Structure"
    assert other.segmented_property_type.meaning == "Neoplasm"
    with pytest.raises(ValueError, match="must read"):
        segment_of(segment_type="tumour")


@pytest.mark.parametrize("values", [(0, 1), (0, 255), (False, True)])
def test_any_kind_of_mask(
    stacks: dict[str, DicomSeries], values: Sequence[int], tmp_path: Path, provenance: Provenance
) -> None:
    series = stacks["regular"]
    mask = planted(series)
    path = write_segmentation(series, np.array(values)[mask], tmp_path / "seg.dcm", provenance=provenance)
    np.testing.assert_array_equal(pydicom.dcmread(path).pixel_array, mask)


def test_refused(stacks: dict[str, DicomSeries], cine: DicomSeries, tmp_path: Path, provenance: Provenance) -> None:
    with pytest.raises(ValueError, match="5 frames needs their positions"):
        write_segmentation(cine, np.zeros((5, *cine.size)), tmp_path / "seg.dcm", provenance=provenance)
    with pytest.raises(ValueError, match="mask must have the shape"):
        write_segmentation(stacks["regular"], np.zeros((6, 20, 16)), tmp_path / "seg.dcm", provenance=provenance)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["regular", "gaps", "single", "enhanced"])
def test_the_map_as_probabilities_and_as_levels(
    stacks: dict[str, DicomSeries], name: str, tmp_path: Path, provenance: Provenance, run_tool: Callable[..., str]
) -> None:
    series = stacks[name]
    heat = np.random.default_rng(0).random((len(series.frames), *series.size)).astype(np.float32)
    heat[:, :2] = 0
    options = {"provenance": provenance}
    soft = write_segmentation(series, heat, tmp_path / "soft.dcm", kind="probability", **options)
    levels = write_segmentation(series, heat, tmp_path / "levels.dcm", kind="levels", **options)
    mask = write_segmentation(series, heat >= 0.5, tmp_path / "mask.dcm", **options)
    read = hd.seg.segread(soft)
    assert read.SegmentationType == "FRACTIONAL"
    assert read.SegmentationFractionalType == "PROBABILITY"
    stored = read.pixel_array.reshape(heat.shape) / read.MaximumFractionalValue
    assert np.abs(stored - heat).max() <= 0.5 / 255 + 1e-6
    read = hd.seg.segread(levels)
    assert read.SegmentationType == "LABELMAP"
    expected = (heat >= 0.5).astype(int) + (heat >= 0.75) + (heat >= 0.9)
    assert np.array_equal(read.pixel_array.reshape(heat.shape), expected)
    assert [segment.SegmentLabel[-4:] for segment in read.SegmentSequence if segment.SegmentNumber] == [
        "0.50", "0.75", "0.90",
    ]  # fmt: skip
    uids = {pydicom.dcmread(path).SOPInstanceUID for path in (soft, levels, mask)}
    assert len(uids) == 3
    for path in (soft, levels):
        report = run_tool("dciodvfy", "-new", path)
        assert "Error" not in report, report
