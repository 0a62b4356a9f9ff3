# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset

from monai_anomalyclip.data.dicom import DicomSeries, FrameReference, Instance, group_instances, scan_files
from monai_anomalyclip.data.dicom.geometry import distance_along, find_pixel_spacing, judge_geometry, locations
from monai_anomalyclip.data.dicom.header import read_header

AXIAL = np.array([1.0, 0, 0, 0, 1, 0])
TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def stack(offsets: Any, orientation: np.ndarray = AXIAL, tilt: float = 0.0) -> np.ndarray:
    """Positions at these distances along the normal, leaning towards the columns' direction."""
    normal = np.cross(orientation[:3], orientation[3:])
    direction = normal + np.tan(np.radians(tilt)) * orientation[3:]
    return np.array([12.5, -250.25, 900.0]) + np.multiply.outer(np.asarray(offsets, float), direction)


def read(folder: Path) -> DicomSeries:
    """The one stack in a folder."""
    series, skipped = group_instances(scan_files([folder]).instances)
    assert (len(series), skipped) == (1, [])
    return series[0]


def corners(affine: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """(8, 3) mm of the centres of the corner voxels, sorted."""
    indices = np.array([[i, j, k, 1] for i in (0, shape[0] - 1) for j in (0, shape[1] - 1) for k in (0, shape[2] - 1)])
    points = (affine @ indices.T).T[:, :3]
    return points[np.lexsort(np.round(points, 2).T)]


def matrix_of(image: sitk.Image) -> np.ndarray:
    """(4, 4) from indices to mm in LPS."""
    matrix = np.eye(4)
    matrix[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    matrix[:3, 3] = image.GetOrigin()
    return matrix


# ------------------------------------------------------------------------------------------------ the verdict


@settings(max_examples=150, deadline=None)
@given(
    angles=st.tuples(*[st.floats(-3.1, 3.1)] * 3),
    count=st.integers(2, 30),
    spacing=st.floats(0.1, 12),
    tilt=st.sampled_from([0.0, 0.0, 5.0, -20.0, 30.0]),
    seed=st.integers(0, 2**31),
    data=st.data(),
)
def test_flaws_are_found_in_any_orientation_and_order(
    angles: tuple[float, float, float], count: int, spacing: float, tilt: float, seed: int, data: st.DataObject
) -> None:
    turn = sitk.Euler3DTransform([0, 0, 0], *angles)
    orientation = np.array(turn.GetMatrix()).reshape(3, 3).T[:2].ravel()
    missing = data.draw(st.sets(st.integers(1, count - 2), max_size=(count - 2) // 3)) if count > 3 else set()
    slots = np.array([slot for slot in range(count) if slot not in missing])
    has_neighbours = len(slots) == 2 or np.diff(slots).min() == 1
    positions = stack(slots * spacing, orientation, tilt)
    shuffle = np.random.default_rng(seed).permutation(len(slots))

    order, geometry = judge_geometry(orientation, positions[shuffle], (0.5, 0.4))
    np.testing.assert_array_equal(shuffle[order], np.arange(len(slots)))  # along the normal
    np.testing.assert_array_equal(geometry.positions, positions)
    visible_tilt = tilt != 0 and spacing * (count - 1) * np.tan(np.radians(abs(tilt))) > 0.11
    if has_neighbours:
        expected = (("gaps",) if missing else ()) + (("gantry tilt",) if visible_tilt else ())
        assert set(geometry.flaws) - {"gantry tilt"} == set(expected) - {"gantry tilt"}
        if visible_tilt:
            assert geometry.flaws == expected
        assert geometry.missing_slices == len(missing)
        assert geometry.slice_spacing == pytest.approx(spacing, rel=1e-6)
    assert geometry.tilt_degrees == pytest.approx(abs(tilt), abs=1e-4)
    if not tilt and has_neighbours:  # highdicom finds the same
        found, numbers = hd.spatial.get_volume_positions(
            positions, orientation, allow_missing_positions=True, index_convention="RD"
        )
        assert found == pytest.approx(geometry.slice_spacing, rel=1e-6)
        assert numbers == slots.tolist()


def test_duplicates_keep_their_order_and_do_not_hide_other_flaws() -> None:
    offsets = [0, 3, 3, 6, 12, 12, 12]
    order, geometry = judge_geometry(AXIAL, stack(offsets)[::-1])
    assert order.tolist() == [6, 4, 5, 3, 0, 1, 2]
    assert geometry.flaws == ("gaps", "duplicate positions")
    assert (geometry.missing_slices, geometry.slice_spacing) == (1, pytest.approx(3))
    assert judge_geometry(AXIAL, stack([0, 0, 3, 3, 6, 6]))[1].flaws == ("duplicate positions",)
    assert judge_geometry(AXIAL, stack([0, 0, 3, 3, 6, 6], tilt=20))[1].flaws == ("gantry tilt", "duplicate positions")


def test_all_in_one_place_and_single_slices() -> None:
    order, geometry = judge_geometry(AXIAL, stack([5, 5, 5]), slice_thickness=2.5)
    assert order.tolist() == [0, 1, 2]
    assert (geometry.verdict, geometry.slice_spacing) == ("duplicate positions", 2.5)
    _, single = judge_geometry(AXIAL, stack([5]), (1, 1), spacing_source="Pixel Spacing")
    assert (single.verdict, single.slice_spacing) == ("single slice", None)
    assert single.spacing_source == "Pixel Spacing"


@pytest.mark.parametrize(
    ("offsets", "verdict", "missing"),
    [
        ([0, 3, 6, 9], "regular", 0),
        ([0, 3, 6, 12], "gaps", 1),
        ([0, 3, 9, 12, 21], "gaps", 3),
        ([0, 3, 6, 10], "irregular spacing", 0),
        ([0, 3, 6.2, 9], "irregular spacing", 0),
        ([0, 4, 8, 12, 13], "irregular spacing", 0),  # on a grid of 1 mm, but most of it would be empty
        ([0, 1, 2, 4, 8, 16, 32], "irregular spacing", 0),
        ([0, 4, 8, 12, 13.08, 20.08, 27.08], "irregular spacing", 0),
        ([0, 7], "regular", 0),
        (np.arange(300) * 0.625 // 0.01 * 0.01, "regular", 0),  # rounded down to 0.01 mm
        (np.round(np.arange(200) * 1.25, 1), "regular", 0),  # rounded to 0.1 mm
        (np.delete(np.round(np.arange(200) * 1.25, 1), [50, 51, 120]), "gaps", 3),
        (np.cumsum(3 + 0.003 * np.arange(100)), "irregular spacing", 0),  # grows by 0.1 % each
        (np.arange(50) * 0.011, "regular", 0),  # optical coherence tomography
        ([0, 0.011, 0.022, 0.044], "gaps", 1),
    ],
)
def test_spacing(offsets: Any, verdict: str, missing: int) -> None:
    _, geometry = judge_geometry(AXIAL, stack(offsets))
    assert (geometry.verdict, geometry.missing_slices) == (verdict, missing)


def test_jumps_sideways_are_no_tilt() -> None:
    positions = stack(np.arange(10) * 3.0)
    positions[5:, 0] += 4
    _, geometry = judge_geometry(AXIAL, positions)
    assert (geometry.verdict, geometry.tilt_degrees) == ("irregular spacing", 0.0)


def test_rounding_is_no_tilt_but_one_degree_is() -> None:
    orientation = np.array([0.8, 0.6, 0, -0.36, 0.48, -0.8])
    exact = stack(np.arange(4) * 1.0, orientation)
    assert judge_geometry(orientation, np.round(exact, 2))[1].verdict == "regular"
    assert judge_geometry(orientation, np.round(stack(np.arange(40) * 1.0, orientation), 1))[1].verdict == "regular"
    leaning = stack(np.arange(40) * 1.0, orientation, tilt=1)
    assert judge_geometry(orientation, leaning)[1].flaws == ("gantry tilt",)


def test_places_and_distances() -> None:
    assert locations([5.0, 1.0, 5.004, 1.0]).tolist() == [1, 0, 1, 0]
    assert locations([7.0]).tolist() == [0]
    np.testing.assert_allclose(distance_along([0, 1, 0, 0, 0, -1], [[2, 5, 7], [-3, 0, 1]]), [-2, 3])


# ------------------------------------------------------------------------------------------------ true millimetres


@pytest.mark.parametrize("numbers", ["ascending", "reversed", "absent"])
@pytest.mark.parametrize("orientation", ["axial", "sagittal", "coronal", "oblique"])
def test_affine_takes_every_voxel_to_its_place(
    phantoms: ModuleType, tmp_path: Path, orientation: str, numbers: str
) -> None:
    paths = phantoms.make_series(tmp_path, orientation=orientation, instance_numbers=numbers, origin=(100, -80, 30))
    series = read(tmp_path)
    assert (series.kind, series.geometry.verdict) == ("volume", "regular")
    assert [frame.instance.path for frame in series.frames] == paths  # along the normal, whatever the names
    affine = series.geometry.affine()
    assert affine is not None

    # The values of the phantom are those of the places that the affine names.
    headers = [pydicom.dcmread(frame.instance.path) for frame in series.frames]
    slope = float(headers[0].RescaleSlope)
    values = np.stack([header.pixel_array * slope + float(header.RescaleIntercept) for header in headers])
    k, row, column = np.meshgrid(*map(np.arange, values.shape), indexing="ij")
    points = np.stack([column, row, k, np.ones_like(k)], axis=-1) @ (TO_LPS @ affine).T
    assert np.abs(phantoms.value_at(points[..., :3]) - values).max() < 0.501 * slope

    # The places are exact, too: compared with the formula of the standard, slice by slice.
    for index, header in enumerate(headers):
        true = phantoms.slice_points(header, header.ImageOrientationPatient, header.ImagePositionPatient)
        np.testing.assert_allclose(points[index, ..., :3], true, atol=1e-6)

    names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(tmp_path))
    image = sitk.ReadImage(names)
    assert image.GetSize() == (20, 16, 6)
    for index in [(0, 0, 0), (19, 0, 0), (0, 15, 5), (19, 15, 5), (7, 3, 2)]:
        ours = (TO_LPS @ affine @ [*index, 1])[:3]
        np.testing.assert_allclose(ours, image.TransformIndexToPhysicalPoint(index), atol=1e-3)
        np.testing.assert_allclose(values[index[2], index[1], index[0]], image[index], atol=1e-6)


def test_tilted_stack_has_only_a_sheared_affine_and_it_is_true(phantoms: ModuleType, tmp_path: Path) -> None:
    phantoms.make_series(tmp_path, count=12, tilt=20, orientation="oblique")
    geometry = read(tmp_path).geometry
    assert geometry.flaws == ("gantry tilt",)
    assert geometry.tilt_degrees == pytest.approx(20, abs=1e-6)
    assert geometry.slice_spacing == pytest.approx(3)
    assert geometry.affine() is None
    sheared = geometry.affine(sheared=True)
    assert sheared is not None
    for index, frame in enumerate(read(tmp_path).frames):
        header = frame.instance.header
        true = phantoms.slice_points(header, header.ImageOrientationPatient, header.ImagePositionPatient)
        for row, column in [(0, 0), (15, 19)]:
            ours = (TO_LPS @ sheared @ [column, row, index, 1])[:3]
            np.testing.assert_allclose(ours, true[row, column], atol=1e-6)


@pytest.mark.parametrize(
    ("options", "verdict"),
    [
        ({"gap": (4, 5)}, "gaps"),
        ({"duplicate": (3,)}, "duplicate positions"),
        ({"offsets": (0, 3, 6, 7, 12, 15)}, "irregular spacing"),
        ({"offsets": (0, 4, 8, 9.08, 16.08), "tilt": 18.5}, "irregular spacing + gantry tilt"),
        ({"count": 1}, "single slice"),
        ({"tilt": 20, "gap": (4, 5)}, "gaps + gantry tilt"),
    ],
)
def test_flawed_stacks_are_judged_and_have_no_affine(
    phantoms: ModuleType, tmp_path: Path, options: dict[str, Any], verdict: str
) -> None:
    phantoms.make_series(tmp_path, **{"count": 12, **options})
    geometry = read(tmp_path).geometry
    assert geometry.verdict == verdict
    assert geometry.missing_slices == (2 if "gap" in options else 0)
    assert (geometry.affine() is None) == (verdict != "single slice")


def test_enhanced_files_have_the_geometry_of_their_single_frames(phantoms: ModuleType, tmp_path: Path) -> None:
    options = {"orientation": "oblique", "count": 7}
    phantoms.make_series(tmp_path / "single", **options)
    phantoms.make_series(tmp_path / "enhanced", enhanced=True, **options)
    path = phantoms.make_legacy_enhanced(tmp_path / "legacy", **options)
    expected = read(tmp_path / "single").geometry.affine()
    for name in ("enhanced", "legacy"):
        series = read(tmp_path / name)
        assert (series.kind, len(series.frames), len(series.instances)) == ("volume", 7, 1)
        np.testing.assert_allclose(series.geometry.affine(), expected, atol=1e-6)
    assert expected is not None
    image = sitk.ReadImage(str(path))
    np.testing.assert_allclose(
        corners(TO_LPS @ expected, (20, 16, 7)), corners(matrix_of(image), (20, 16, 7)), atol=1e-3
    )


def test_corners_are_those_of_simpleitk_in_a_colour_stack(phantoms: ModuleType, tmp_path: Path) -> None:
    phantoms.make_series(tmp_path, photometric="RGB", modality="MR", orientation="oblique")
    series = read(tmp_path)
    assert (series.kind, series.colour, series.geometry.verdict) == ("volume", True, "regular")
    image = sitk.ReadImage(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(tmp_path)))
    affine = series.geometry.affine()
    assert affine is not None
    ours, theirs = (corners(matrix, (20, 16, 6)) for matrix in (TO_LPS @ affine, matrix_of(image)))
    np.testing.assert_allclose(ours, theirs, atol=1e-3)


def frame(**attributes: object) -> FrameReference:
    header = Dataset()
    for keyword, value in attributes.items():
        setattr(header, keyword, value)
    return FrameReference(Instance(Path("x"), header, "1.2.840.10008.1.2.1"))


def region(**changes: object) -> Dataset:
    item = Dataset()
    attributes: dict[str, object] = {
        "RegionSpatialFormat": 1,
        "RegionDataType": 1,
        "PhysicalUnitsXDirection": 3,
        "PhysicalUnitsYDirection": 3,
        "PhysicalDeltaX": 0.02,
        "PhysicalDeltaY": -0.03,
    }
    for keyword, value in {**attributes, **changes}.items():
        setattr(item, keyword, value)
    return item


def test_pixel_spacing_comes_first() -> None:
    found = find_pixel_spacing(frame(PixelSpacing=[0.5, 0.25], ImagerPixelSpacing=[0.7, 0.7]))
    assert found == ((0.5, 0.25), "Pixel Spacing", None)


def test_distance_at_the_detector_is_told() -> None:
    spacing, source, note = find_pixel_spacing(frame(ImagerPixelSpacing=[0.15, 0.15]))
    assert (spacing, note) == ((0.15, 0.15), None)
    assert source == "Imager Pixel Spacing (at the detector, not calibrated)"
    same = {"PixelSpacing": [0.15, 0.15], "ImagerPixelSpacing": [0.15, 0.15]}
    assert find_pixel_spacing(frame(**same)).source == "Pixel Spacing (at the detector, not calibrated)"
    assert find_pixel_spacing(frame(**same, PixelSpacingCalibrationType="GEOMETRY")).source == "Pixel Spacing"


def test_ultrasound_regions_are_in_cm() -> None:
    found = find_pixel_spacing(frame(SequenceOfUltrasoundRegions=[region()]))
    assert found.spacing == pytest.approx((0.3, 0.2))
    assert (found.source, found.note) == ("ultrasound region", None)
    doppler = region(RegionSpatialFormat=3, PhysicalDeltaX=9.0)
    seconds = region(PhysicalUnitsXDirection=4, PhysicalDeltaX=9.0)
    several = frame(SequenceOfUltrasoundRegions=[doppler, region(RegionDataType=2), seconds, region()])
    assert find_pixel_spacing(several).spacing == pytest.approx((0.3, 0.2))
    assert find_pixel_spacing(frame(SequenceOfUltrasoundRegions=[doppler])) == (None, None, None)


def test_regions_that_differ_or_are_malformed_give_nothing() -> None:
    differing = find_pixel_spacing(frame(SequenceOfUltrasoundRegions=[region(), region(PhysicalDeltaX=0.04)]))
    assert differing.spacing is None
    assert "differ" in str(differing.note)
    for bad in (0.0, float("nan"), float("inf")):
        found = find_pixel_spacing(frame(SequenceOfUltrasoundRegions=[region(PhysicalDeltaX=bad)]))
        assert found.spacing is None
        assert found.note
    missing = region()
    del missing.PhysicalDeltaY
    assert find_pixel_spacing(frame(SequenceOfUltrasoundRegions=[missing])).spacing is None


def test_nothing_is_invented() -> None:
    assert find_pixel_spacing(frame()) == (None, None, None)
    assert find_pixel_spacing(frame(PixelSpacing=None)) == (None, None, None)


@pytest.mark.parametrize(
    "raw", ["0,7\\0,7", "nan\\nan", "inf\\1", "0\\0", "1\\0", "-1\\1", "0.7", "1\\1\\1", "x", "1e9\\1"]
)
def test_malformed_values_are_not_used_and_told(phantoms: ModuleType, tmp_path: Path, raw: str) -> None:
    path = phantoms.make_series(tmp_path, count=1, pixel_spacing=(0.123456, 0.123456))[0]
    data = path.read_bytes()
    value = raw.ljust(18).encode()
    assert b"0.123456\\0.123456 " in data
    path.write_bytes(data.replace(b"0.123456\\0.123456 ", value))
    instance = read_header(path)
    assert isinstance(instance, Instance)
    found = find_pixel_spacing(FrameReference(instance))
    assert found == (None, None, "Pixel Spacing is malformed and not used.")
    instance.header.ImagerPixelSpacing = [0.2, 0.2]
    fallback = find_pixel_spacing(FrameReference(instance))
    assert fallback.spacing == (0.2, 0.2)
    assert fallback.note == "Pixel Spacing is malformed and not used."


def test_a_malformed_spacing_at_the_detector_is_no_reason_to_doubt(phantoms: ModuleType) -> None:
    header = Dataset()
    header.PixelSpacing = header.ImagerPixelSpacing = [0.2, 0.2]
    frame = FrameReference(Instance(Path("x"), header, "1.2.840.10008.1.2.1"))
    assert find_pixel_spacing(frame).source == "Pixel Spacing (at the detector, not calibrated)"
    phantoms.spoil(header, "ImagerPixelSpacing")
    assert find_pixel_spacing(frame)[:2] == ((0.2, 0.2), "Pixel Spacing")
