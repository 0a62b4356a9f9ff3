# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom import Dataset

from monai_anomalyclip.data.dicom import DicomSeries, group_instances, scan_files


def read(*paths: Path) -> list[DicomSeries]:
    series, skipped = group_instances(scan_files(paths).instances)
    assert skipped == []
    return series


def sizes(series: Iterable[DicomSeries]) -> list[tuple[str, int, str, str | None, str | None]]:
    return [(one.kind, len(one.frames), one.geometry.verdict, one.split, one.excluded) for one in series]


def files(series: DicomSeries) -> list[Path]:
    return [frame.instance.path for frame in series.frames]


def test_flat_folder_of_localizer_two_series_and_secondary_capture(phantoms: ModuleType, tmp_path: Path) -> None:
    first = phantoms.make_series(tmp_path, count=6)
    second = phantoms.make_series(tmp_path, count=6, seed="b", origin=(0, 0, 20))
    phantoms.make_series(tmp_path, count=2, seed="loc", localizer=True, orientation="coronal")
    phantoms.make_series(
        tmp_path,
        count=1,
        seed="sc",
        modality="OT",
        photometric="RGB",
        positioned=False,
        image_type=["DERIVED", "SECONDARY"],
    )
    found = {tuple(sorted(files(series))): series for series in read(tmp_path)}
    assert len(found) == 4
    assert sorted(str(series.excluded) for series in found.values()) == [
        "None",
        "None",
        "localizer",
        "secondary capture",
    ]
    for paths in (first, second):
        series = found[tuple(sorted(paths))]
        assert sizes([series]) == [("volume", 6, "regular", None, None)]
        assert files(series) == paths


def test_localizer_inside_a_series_is_cut_off(phantoms: ModuleType, tmp_path: Path) -> None:
    def first_is_scout(image: Dataset, index: int) -> None:
        if index == 0:
            image.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]

    phantoms.make_series(tmp_path, count=5, edit=first_is_scout)
    assert sizes(read(tmp_path)) == [
        ("volume", 1, "single slice", "localizer", "localizer"),
        ("volume", 4, "regular", "other frames", None),
    ]


@pytest.mark.parametrize("enhanced", [False, True])
def test_two_echoes_make_two_volumes(phantoms: ModuleType, tmp_path: Path, enhanced: bool) -> None:
    phantoms.make_series(tmp_path, count=6, modality="MR", echoes=(20, 80), enhanced=enhanced)
    series = read(tmp_path)
    assert sizes(series) == [
        ("volume", 6, "regular", "echo time 20", None),
        ("volume", 6, "regular", "echo time 80", None),
    ]
    assert [one.part for one in series] == [0, 1]
    assert len({one.key for one in series}) == 2
    if enhanced:
        assert [[frame.index for frame in one.frames] for one in series] == [list(range(6)), list(range(6, 12))]


@pytest.mark.parametrize("vendor", ["standard", "siemens", "ge"])
@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1"])
def test_b_values_of_all_vendors(phantoms: ModuleType, tmp_path: Path, vendor: str, syntax: str) -> None:
    phantoms.make_series(
        tmp_path, count=4, modality="MR", b_values=(0, 500, 1000), b_vendor=vendor, transfer_syntax=syntax
    )
    assert [one.split for one in read(tmp_path)] == ["b-value 0", "b-value 500", "b-value 1000"]


def test_dynamic_enhanced_series_over_several_files(phantoms: ModuleType, tmp_path: Path) -> None:
    options = {"count": 5, "modality": "MR", "temporal": 3}
    phantoms.make_series(tmp_path / "one", enhanced=True, **options)
    phantoms.make_series(tmp_path / "many", seed="b", **options)
    expected = [("volume", 5, "regular", f"time point {time}", None) for time in (1, 2, 3)]
    assert sizes(read(tmp_path / "one")) == expected
    assert sizes(read(tmp_path / "many")) == expected


def test_stack_ids_are_kept_apart(phantoms: ModuleType, tmp_path: Path) -> None:
    def two_stacks(image: Dataset, index: int) -> None:
        for frame in image.PerFrameFunctionalGroupsSequence[4:]:
            frame.FrameContentSequence[0].StackID = "CANARY"

    phantoms.make_series(tmp_path, count=10, modality="MR", enhanced=True, edit=two_stacks)
    assert [(len(one.frames), one.geometry.verdict, one.split) for one in read(tmp_path)] == [
        (4, "regular", "stack 1"),
        (6, "regular", "stack 2"),
    ]


def test_orientations_of_a_three_plane_series(phantoms: ModuleType, tmp_path: Path) -> None:
    def same_series(image: Dataset, index: int) -> None:
        image.SeriesInstanceUID = image.FrameOfReferenceUID = "1.2.3"

    for seed, orientation in zip("abc", ("axial", "sagittal", "coronal"), strict=True):
        phantoms.make_series(tmp_path, count=4, seed=seed, orientation=orientation, modality="MR", edit=same_series)
    series = read(tmp_path)
    assert [(one.part, len(one.frames), one.geometry.verdict, one.split) for one in series] == [
        (part, 4, "regular", f"orientation {part + 1}") for part in range(3)
    ]
    normals = {tuple(np.round(np.cross(*one.geometry.orientation.reshape(2, 3))).tolist()) for one in series}
    assert normals == {(0, 0, 1), (-1, 0, 0), (0, 1, 0)}


def test_orientations_that_differ_by_rounding_are_one(phantoms: ModuleType, tmp_path: Path) -> None:
    def jitter(image: Dataset, index: int) -> None:
        angle = 0.3 + (-1) ** index * 2e-4
        across, down = [np.cos(angle), np.sin(angle), 0], [-np.sin(angle), np.cos(angle), 0]
        image.ImageOrientationPatient = [f"{value:.6f}" for value in (*across, *down)]

    phantoms.make_series(tmp_path, count=8, edit=jitter)
    assert sizes(read(tmp_path)) == [("volume", 8, "regular", None, None)]


@pytest.mark.parametrize("numbers", ["ascending", "reversed", "absent"])
def test_neither_names_nor_instance_numbers_matter(phantoms: ModuleType, tmp_path: Path, numbers: str) -> None:
    paths = phantoms.make_series(tmp_path, count=7, orientation="sagittal", instance_numbers=numbers)
    (series,) = read(tmp_path)
    assert files(series) == paths


def test_result_does_not_depend_on_the_order_of_the_instances(phantoms: ModuleType, tmp_path: Path) -> None:
    phantoms.make_series(tmp_path, count=4, modality="MR", echoes=(20, 80), b_values=(0, 1000), duplicate=(1,))
    phantoms.make_series(tmp_path, count=5, seed="b", gap=(2,))
    phantoms.make_series(tmp_path, count=3, seed="c", modality="DX", positioned=False)
    instances = scan_files([tmp_path]).instances
    expected, _ = group_instances(instances)
    assert len(expected) == 4 + 1 + 3
    for seed in range(5):
        random.Random(seed).shuffle(instances)
        series, _ = group_instances(instances)
        assert sizes(series) == sizes(expected)
        assert [files(one) for one in series] == [files(one) for one in expected]
        assert [one.key for one in series] == [one.key for one in expected]


def test_sizes_and_pixel_spacings_of_a_series_are_kept_apart(phantoms: ModuleType, tmp_path: Path) -> None:
    def same_series(image: Dataset, index: int) -> None:
        image.SeriesInstanceUID = "1.2.3"

    phantoms.make_series(tmp_path, count=3, edit=same_series)
    phantoms.make_series(tmp_path, count=4, seed="b", size=(8, 8), edit=same_series)
    phantoms.make_series(tmp_path, count=5, seed="c", pixel_spacing=(1, 1), origin=(0, 0, 90), edit=same_series)
    series = read(tmp_path)
    assert [(len(one.frames), one.split) for one in series] == [
        (4, "size 8 x 8, pixel spacing 0.8 x 0.5"),
        (3, "size 16 x 20, pixel spacing 0.8 x 0.5"),
        (5, "size 16 x 20, pixel spacing 1 x 1"),
    ]


def test_duplicates_keep_the_stack_with_a_flaw(phantoms: ModuleType, tmp_path: Path) -> None:
    paths = phantoms.make_series(tmp_path, count=6, duplicate=(2,))
    (series,) = read(tmp_path)
    assert sizes([series]) == [("volume", 7, "duplicate positions", None, None)]
    assert files(series) == [paths[index] for index in (0, 1, 2, 6, 3, 4, 5)]


def test_a_sequence_in_one_place_is_one_stack_in_time(phantoms: ModuleType, tmp_path: Path) -> None:
    def bolus_tracking(image: Dataset, index: int) -> None:
        image.AcquisitionNumber = index
        image.AcquisitionTime = f"1012{59 - index:02d}"

    paths = phantoms.make_series(tmp_path, offsets=(0, 0, 0, 0), edit=bolus_tracking)
    (series,) = read(tmp_path)
    assert sizes([series]) == [("volume", 4, "duplicate positions", None, None)]
    assert files(series) == paths[::-1]
    assert series.notes == ("All frames lie in one place; they are in the order of time.",)


@pytest.mark.parametrize("modality", ["DX", "CR", "MG", "US", "XC", "ES"])
def test_pictures_without_position_are_a_frame_each(phantoms: ModuleType, tmp_path: Path, modality: str) -> None:
    photometric = "RGB" if modality in ("US", "XC", "ES") else "MONOCHROME2"
    paths = phantoms.make_series(
        tmp_path, count=3, modality=modality, positioned=False, photometric=photometric, instance_numbers="reversed"
    )
    series = read(tmp_path)
    assert sizes(series) == [("frame", 1, "no position", f"image {number}", None) for number in (1, 2, 3)]
    assert [files(one)[0] for one in series] == paths[::-1]  # nothing but the number tells their order
    assert {one.colour for one in series} == {photometric == "RGB"}
    assert {one.geometry.pixel_spacing for one in series} == {None}
    single = phantoms.make_series(tmp_path / "single", count=1, seed="s", modality=modality, positioned=False)
    assert read(single[0])[0].split is None


def test_multi_frame_files_without_positions_are_cines(phantoms: ModuleType, tmp_path: Path) -> None:
    phantoms.make_cine(tmp_path, count=5)
    phantoms.make_cine(tmp_path, count=4, seed="gray", photometric="MONOCHROME2", modality="XA")
    found = {(one.kind, len(one.frames), one.modality, one.colour, one.geometry.verdict) for one in read(tmp_path)}
    assert found == {("cine", 5, "US", True, "no position"), ("cine", 4, "XA", False, "no position")}
    (ultrasound,) = (one for one in read(tmp_path) if one.modality == "US")
    assert [frame.index for frame in ultrasound.frames] == list(range(5))


def test_colour_stacks_are_volumes(phantoms: ModuleType, tmp_path: Path) -> None:
    phantoms.make_series(tmp_path / "rgb", photometric="RGB", modality="MR")
    phantoms.make_series(tmp_path / "palette", photometric="PALETTE COLOR", modality="MR")
    for name in ("rgb", "palette"):
        (series,) = read(tmp_path / name)
        assert (series.kind, series.colour, series.geometry.verdict) == ("volume", True, "regular")


def test_positions_that_cannot_be_used_make_frames_with_a_note(phantoms: ModuleType, tmp_path: Path) -> None:
    def broken(image: Dataset, index: int) -> None:
        image.ImageOrientationPatient = [1, 0, 0, 1, 0, 0]

    phantoms.make_series(tmp_path, count=2, edit=broken)
    series = read(tmp_path)
    assert [(one.kind, one.geometry.verdict) for one in series] == [("frame", "no position")] * 2
    assert series[0].notes == ("Position or orientation is missing or malformed and not used.",)
    assert series[0].geometry.pixel_spacing == (0.8, 0.5)


def test_enhanced_file_with_a_frame_without_position_is_a_cine(phantoms: ModuleType, tmp_path: Path) -> None:
    def drop(image: Dataset, index: int) -> None:
        del image.PerFrameFunctionalGroupsSequence[2].PlanePositionSequence
        del image.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence
        for frame in image.PerFrameFunctionalGroupsSequence:
            if "PlanePositionSequence" in frame:
                orientation = Dataset()
                orientation.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
                frame.PlaneOrientationSequence = [orientation]

    phantoms.make_series(tmp_path, modality="MR", enhanced=True, edit=drop)
    (series,) = read(tmp_path)
    assert (series.kind, len(series.frames)) == ("cine", 6)
    assert series.notes == ("Some frames have no position, so none was used.",)


def test_more_frames_than_functional_groups_are_no_error(phantoms: ModuleType, tmp_path: Path) -> None:
    def more(image: Dataset, index: int) -> None:
        image.NumberOfFrames = 9
        image.PixelData += bytes(3 * 16 * 20 * 2)

    phantoms.make_series(tmp_path, modality="MR", enhanced=True, edit=more)
    assert [(one.kind, len(one.frames)) for one in read(tmp_path)] == [("cine", 9)]


def test_mosaics_have_no_position_and_are_excluded(phantoms: ModuleType, tmp_path: Path) -> None:
    phantoms.make_series(tmp_path, count=1, modality="MR", image_type=["ORIGINAL", "PRIMARY", "M", "MOSAIC"])
    assert sizes(read(tmp_path)) == [("frame", 1, "no position", None, "mosaic")]


def test_same_series_uid_in_two_studies_is_two_series(phantoms: ModuleType, tmp_path: Path) -> None:
    def same_series(image: Dataset, index: int) -> None:
        image.SeriesInstanceUID = "1.2.3"

    phantoms.make_series(tmp_path / "a", count=3, edit=same_series)
    phantoms.make_series(tmp_path / "b", count=4, study="other", edit=same_series)
    assert sorted((len(one.frames), one.part, one.split) for one in read(tmp_path)) == [(3, 0, None), (4, 0, None)]


def test_legacy_converted_files_of_all_kinds(phantoms: ModuleType, tmp_path: Path) -> None:
    for modality in ("CT", "MR", "PT"):
        phantoms.make_legacy_enhanced(tmp_path / modality, modality=modality, seed=modality)
        (series,) = read(tmp_path / modality)
        assert (series.kind, len(series.frames), series.geometry.verdict) == ("volume", 6, "regular")
        assert series.geometry.pixel_spacing == (0.8, 0.5)


def test_malformed_values_raise_nothing_and_tell_nothing(
    phantoms: ModuleType, tmp_path: Path, caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    paths = phantoms.make_series(tmp_path / "CANARY", count=3, modality="MR", echoes=(5,), duplicate=(1,))
    uid = str(pydicom.dcmread(paths[0]).SeriesInstanceUID).encode()
    for path in paths:
        data = path.read_bytes()
        data = data.replace(uid, b"CANARY^ZEBRA".ljust(len(uid), b"x")).replace(b"20200102", b"CANARY!!")
        data = data.replace(b"\x18\x00\x81\x00DS\x02\x005 ", b"\x18\x00\x81\x00DS\x02\x00?!")
        path.write_bytes(data)
    with caplog.at_level("DEBUG"):
        (series,) = read(tmp_path)
        shown = [repr(series.geometry), *series.notes, str(series.split), series.key]
    assert series.geometry.verdict == "duplicate positions"
    assert not caplog.records
    assert not recwarn.list
    assert "CANARY" not in "".join(shown)

    str(pydicom.dcmread(paths[0]).SeriesInstanceUID)  # the control: pydicom alone does tell
    assert any("CANARY" in str(warning.message) for warning in recwarn.list)


def test_nothing_but_numbers_and_our_own_words_is_in_names_and_notes(phantoms: ModuleType, tmp_path: Path) -> None:
    def texts(image: Dataset, index: int) -> None:
        image.ImageType = ["ORIGINAL", "PRIMARY", f"CANARY{index // 3}"]
        image.ConvolutionKernel = "CANARY"
        image.PixelSpacing = None

    phantoms.make_series(tmp_path, offsets=(0, 3, 6, 0, 3, 6), edit=texts)
    series = read(tmp_path)
    assert [one.split for one in series] == ["image type 1", "image type 2"]
    assert "CANARY" not in "".join(str((one.split, one.notes, one.excluded, one.geometry)) for one in series)


def test_instances_whose_header_fails_are_skipped(phantoms: ModuleType, tmp_path: Path) -> None:
    phantoms.make_series(tmp_path, count=3)
    instances = scan_files([tmp_path]).instances
    broken: Any = instances[1].header
    del broken.Rows
    series, skipped = group_instances(instances)
    assert [len(one.frames) for one in series] == [2]
    assert [(file.code, file.path) for file in skipped] == [("damaged header", instances[1].path)]


@pytest.mark.parametrize("middle", [0.48825, 0.488245, 0.5, 0.7000049999])
def test_spacings_that_differ_in_the_seventh_decimal_are_one(
    phantoms: ModuleType, tmp_path: Path, middle: float
) -> None:
    def jitter(image: Dataset, index: int) -> None:
        image.PixelSpacing = [f"{middle + (-1) ** index * 3e-7:.10f}"] * 2

    phantoms.make_series(tmp_path, count=8, edit=jitter)
    assert sizes(read(tmp_path)) == [("volume", 8, "regular", None, None)]


@pytest.mark.parametrize("middle", [0.1 + 0.00005, 0.30005, 0.6])
def test_orientations_on_both_sides_of_a_decimal_are_one(phantoms: ModuleType, tmp_path: Path, middle: float) -> None:
    def jitter(image: Dataset, index: int) -> None:
        cosine = middle + (-1) ** index * 1e-7
        sine = (1 - cosine**2) ** 0.5
        image.ImageOrientationPatient = [f"{value:.12f}" for value in (cosine, sine, 0, -sine, cosine, 0)]

    phantoms.make_series(tmp_path, count=8, edit=jitter)
    assert sizes(read(tmp_path)) == [("volume", 8, "regular", None, None)]


@pytest.mark.parametrize(
    ("keyword", "pair"), [("EchoTime", (20.0, 80.0)), ("FlipAngle", (15.0, 30.0)), ("InversionTime", (300.0, 900.0))]
)
def test_settings_that_differ_by_noise_tell_nothing_apart(
    phantoms: ModuleType, tmp_path: Path, keyword: str, pair: tuple[float, float]
) -> None:
    def edit(image: Dataset, index: int) -> None:
        setattr(image, keyword, f"{pair[index // 5] + index * 1e-6:.8f}")

    phantoms.make_series(tmp_path, offsets=(0, 3, 6, 9, 12, 0, 3, 6, 9, 12), modality="MR", edit=edit)
    assert [(len(one.frames), one.geometry.verdict) for one in read(tmp_path)] == [(5, "regular"), (5, "regular")]


@pytest.mark.parametrize("shift", [0.5, 10.4999999])
def test_overlapping_stations_whose_places_differ_by_noise(phantoms: ModuleType, tmp_path: Path, shift: float) -> None:
    """Two stations side by side: positions in the plane that lie on both sides of half a millimetre are one place."""

    def edit(image: Dataset, index: int) -> None:
        x = shift + (40.0 if index >= 4 else 0.0) + (-1) ** index * 1e-6
        image.ImagePositionPatient = [f"{x:.8f}", "0", f"{3 * (index % 4)}"]

    phantoms.make_series(tmp_path, count=8, edit=edit)
    assert [(len(one.frames), one.geometry.verdict) for one in read(tmp_path)] == [(4, "regular"), (4, "regular")]


def test_a_damaged_file_is_told_by_its_series_or_its_folder(phantoms: ModuleType, tmp_path: Path) -> None:
    paths = phantoms.make_series(tmp_path / "one", count=5)
    phantoms.make_series(tmp_path / "one", count=4, seed="b", origin=(0, 0, 50))
    phantoms.make_series(tmp_path / "two", count=3, seed="c", origin=(0, 0, 90))
    whole = paths[2].read_bytes()

    def notes(length: int) -> dict[int, tuple[str, ...]]:
        paths[2].write_bytes(whole[:length])
        scan = scan_files([tmp_path])
        assert [(file.path, file.damaged) for file in scan.skipped] == [(paths[2], True)]
        series, _ = group_instances(scan.instances, scan.skipped)
        return {len(one.frames) + 10 * (one.series_uid != series_uid): one.notes for one in series}

    series_uid = str(pydicom.dcmread(paths[0]).SeriesInstanceUID)
    missing = "Damaged files of this series are left out (1): slices are missing."
    perhaps = "Damaged files lie beside those of this series (1): slices may be missing."
    for length in (0, 100, 131, 140):
        assert notes(length) == {4: (perhaps,), 14: (perhaps,), 13: ()}
    for length in (len(whole) - 700, len(whole) - 1):
        assert notes(length) == {4: (missing,), 14: (), 13: ()}


def test_a_malformed_stack_id_joins_all_frames(phantoms: ModuleType, tmp_path: Path) -> None:
    (path,) = phantoms.make_series(tmp_path, count=4, enhanced=True)
    dataset = pydicom.dcmread(path)
    for group in dataset.PerFrameFunctionalGroupsSequence:
        phantoms.spoil(group.FrameContentSequence[0], "StackID")
    dataset.save_as(path)
    assert sizes(read(path)) == [("volume", 4, "regular", None, None)]


def test_spacing_from_another_attribute_is_noted(phantoms: ModuleType, tmp_path: Path) -> None:
    def edit(image: Dataset, index: int) -> None:
        if index >= 2:
            image.ImagerPixelSpacing = image.PixelSpacing
            del image.PixelSpacing

    phantoms.make_series(tmp_path, count=4, edit=edit)
    (series,) = read(tmp_path)
    assert series.geometry.spacing_source == "Pixel Spacing"
    note = "The pixel spacing of some slices comes from another attribute than that of the first."
    assert series.notes == (note,)


def test_slices_without_a_spacing_are_a_part_that_says_so(phantoms: ModuleType, tmp_path: Path) -> None:
    def edit(image: Dataset, index: int) -> None:
        if index >= 3:
            del image.PixelSpacing

    phantoms.make_series(tmp_path, count=6, edit=edit)
    assert sorted(str(series.split) for series in read(tmp_path)) == ["no pixel spacing", "pixel spacing 0.8 x 0.5"]
