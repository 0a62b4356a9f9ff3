# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import highdicom as hd
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom import Dataset

from monai_anomalyclip.data.dicom.series import DicomSeries
from monai_anomalyclip.data.inputs import InputCatalogue
from monai_anomalyclip.data.sources import DicomSource
from monai_anomalyclip.writers.dicom import Provenance, write_parametric_map


def linear_map(phantoms: ModuleType, series: DicomSeries) -> np.ndarray:
    """A map in [0, 1] whose value is a linear function of the place in mm, by the source's headers."""
    grid = Dataset()
    grid.Rows, grid.Columns, grid.PixelSpacing = 16, 20, [0.8, 0.5]
    assert series.geometry.positions is not None
    points = [
        phantoms.slice_points(grid, series.geometry.orientation, position) for position in series.geometry.positions
    ]
    return value(np.stack(points)).astype(np.float32)


def value(points: np.ndarray) -> np.ndarray:
    return 0.5 + points @ np.array([0.003, 0.005, 0.008])


@pytest.mark.parametrize("name", ["regular", "oblique", "sagittal", "single", "enhanced", "legacy enhanced"])
def test_values_that_dcmqi_reads(
    stacks: dict[str, DicomSeries],
    phantoms: ModuleType,
    name: str,
    tmp_path: Path,
    provenance: Provenance,
    run_tool: Callable[..., str],
) -> None:
    """dcmqi, the reader of 3D Slicer, takes frames as ascending along the normal, whatever their positions say."""
    maps = linear_map(phantoms, stacks[name])
    path = write_parametric_map(stacks[name], maps, tmp_path / "pm.dcm", provenance=provenance)
    run_tool("paramap2itkimage", "--inputDICOM", path, "--outputDirectory", tmp_path, "--outputType", "nrrd")
    image = sitk.ReadImage(str(tmp_path / "pmap.nrrd"))
    found = sitk.GetArrayFromImage(image)
    np.testing.assert_array_equal(found, maps)
    columns, rows, slices = image.GetSize()
    for index in ((0, 0, 0), (columns - 1, 0, 0), (0, rows - 1, 0), (columns - 1, rows - 1, slices - 1)):
        place = np.array(image.TransformIndexToPhysicalPoint(index))
        assert abs(found[index[::-1]] - value(place)) < 1e-5


@pytest.mark.parametrize("name", ["gaps", "irregular", "tilt", "duplicates", "one place", "colour", "big endian"])
def test_values_and_positions_frame_by_frame(
    stacks: dict[str, DicomSeries], phantoms: ModuleType, name: str, tmp_path: Path, provenance: Provenance
) -> None:
    series = stacks[name]
    maps = linear_map(phantoms, series)
    path = write_parametric_map(series, maps, tmp_path / "pm.dcm", provenance=provenance)
    result = hd.pm.ParametricMap.from_file(path)
    np.testing.assert_array_equal(result.get_frames(apply_real_world_transform=False), maps)
    for item, frame, source in zip(result.PerFrameFunctionalGroupsSequence, maps, series.frames, strict=True):
        assert item.PlanePositionSequence[0].ImagePositionPatient == source.instance.header.ImagePositionPatient
        reference = item.DerivationImageSequence[0].SourceImageSequence[0]
        assert reference.ReferencedSOPInstanceUID == source.instance.header.SOPInstanceUID
        assert frame.dtype == np.float32


def test_orientation_is_the_source_s_to_the_last_digit(
    phantoms: ModuleType, tmp_path: Path, provenance: Provenance
) -> None:
    """OHIF 3.10 compares direction cosines exactly, and takes a map with others for oblique."""
    written = "1", "0", "0", "0", "0.99255", "-0.12187"  # rounded, and so not quite of unit length

    def tilt(data: Dataset, _: int) -> None:
        data.ImageOrientationPatient = list(written)

    phantoms.make_series(tmp_path / "mr", modality="MR", count=3, edit=tilt)
    (source,) = InputCatalogue(tmp_path / "mr").sources.values()
    assert isinstance(source, DicomSource)
    maps = np.zeros((3, 16, 20), np.float32)
    path = write_parametric_map(source.series, maps, tmp_path / "pm.dcm", provenance=provenance)
    shared = pydicom.dcmread(path).SharedFunctionalGroupsSequence[0]
    assert shared.PlaneOrientationSequence[0].ImageOrientationPatient == [float(text) for text in written]


def test_meaning_of_the_values(
    stacks: dict[str, DicomSeries], phantoms: ModuleType, tmp_path: Path, provenance: Provenance
) -> None:
    path = write_parametric_map(
        stacks["regular"], linear_map(phantoms, stacks["regular"]), tmp_path / "pm.dcm", provenance=provenance
    )
    result = pydicom.dcmread(path)
    assert result.ContentQualification == "RESEARCH"
    assert "FloatPixelData" in result
    shared = result.SharedFunctionalGroupsSequence[0]
    mapping = shared.RealWorldValueMappingSequence[0]
    assert (mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept) == (1, 0)
    assert mapping.MeasurementUnitsCodeSequence[0].CodeValue == "1"
    assert mapping.QuantityDefinitionSequence[0].ConceptCodeSequence[0].CodeValue == "anomaly-map"
    window = shared.FrameVOILUTSequence[0]
    assert (window.WindowCenter, window.WindowWidth) == (0.5, 1)
    anatomy = shared.FrameAnatomySequence[0]
    assert anatomy.AnatomicRegionSequence[0].CodeValue == "38266002"
    assert anatomy.FrameLaterality == "U"


@pytest.mark.parametrize(
    ("keyword", "side", "expected"),
    [("ImageLaterality", "L", "L"), ("Laterality", "R", "R"), ("ImageLaterality", "B", "B"), ("Laterality", "X", "U")],
)
def test_known_side(
    stacks: dict[str, DicomSeries], keyword: str, side: str, expected: str, tmp_path: Path, provenance: Provenance
) -> None:
    series = deepcopy(stacks["single"])
    setattr(series.header, keyword, side)
    path = write_parametric_map(series, np.zeros((1, 16, 20)), tmp_path / "pm.dcm", provenance=provenance)
    anatomy = pydicom.dcmread(path).SharedFunctionalGroupsSequence[0].FrameAnatomySequence[0]
    assert anatomy.FrameLaterality == expected


def test_refused(
    stacks: dict[str, DicomSeries],
    pictures: dict[str, DicomSeries],
    tmp_path: Path,
    provenance: Provenance,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "pm.dcm"
    series = stacks["single"]
    with pytest.raises(ValueError, match="maps must have the shape"):
        write_parametric_map(series, np.zeros((16, 20)), path, provenance=provenance)
    for wrong in (-0.1, 1.1, np.nan):
        with pytest.raises(ValueError, match=r"\[0, 1\]"):
            write_parametric_map(series, np.full((1, 16, 20), wrong), path, provenance=provenance)
    with pytest.raises(ValueError, match="needs positions"):
        write_parametric_map(pictures["DX"], np.zeros((1, 16, 20)), path, provenance=provenance)
    unplaced = replace(series, geometry=replace(series.geometry, pixel_spacing=None))
    with pytest.raises(ValueError, match="needs positions"):
        write_parametric_map(unplaced, np.zeros((1, 16, 20)), path, provenance=provenance)
    monkeypatch.setattr("monai_anomalyclip.writers.result_files._LARGEST_VALUE", 4 * 16 * 20 - 1)
    with pytest.raises(ValueError, match="1,280 bytes"):
        write_parametric_map(series, np.zeros((1, 16, 20)), path, provenance=provenance)
    assert not list(tmp_path.iterdir())
