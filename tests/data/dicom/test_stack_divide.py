# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from pydicom import Dataset

from monai_anomalyclip.data.dicom import DicomSeries, group_instances, scan_files

Edit = Callable[[Dataset, int], None]


def read(folder: Path) -> list[DicomSeries]:
    series, skipped = group_instances(scan_files([folder]).instances)
    assert skipped == []
    return series


@pytest.mark.parametrize(
    ("keyword", "values", "name"),
    [
        ("FrameOfReferenceUID", ("1.2.3", "1.2.4"), "frame of reference"),
        ("PatientID", ("A", "B"), "patient ID"),
        ("Modality", ("PT", "OT"), "modality"),
        ("PatientPosition", ("HFS", "FFS"), "patient position"),
        ("Units", ("BQML", "CNTS"), "unit"),
        ("SUVType", ("BW", "LBM"), "kind of uptake value"),
        ("RescaleType", ("HU", "US"), "unit of the rescaled values"),
        ("ImageLaterality", ("L", "R"), "image laterality"),
        ("Laterality", ("L", "R"), "laterality of the series"),
        ("PhotometricInterpretation", ("MONOCHROME2", "MONOCHROME1"), "brightness of small values"),
    ],
)
def test_what_cannot_differ_divides_a_stack(
    phantoms: ModuleType, tmp_path: Path, keyword: str, values: tuple[str, str], name: str
) -> None:
    def edit(image: Dataset, index: int) -> None:
        setattr(image, keyword, values[index >= 4])

    phantoms.make_series(tmp_path, count=7, modality="PT", edit=edit)
    series = read(tmp_path)
    assert sorted(len(one.frames) for one in series) == [3, 4]
    assert {one.geometry.verdict for one in series} == {"regular"}
    assert {one.split for one in series} == {f"{name} 1", f"{name} 2"}
    for one in series:
        assert f"differ in {name}: each kind is a stack of its own" in one.notes[0]


def test_an_attribute_that_some_files_lack_does_not_divide(phantoms: ModuleType, tmp_path: Path) -> None:
    def edit(image: Dataset, index: int) -> None:
        if index % 2:
            del image.FrameOfReferenceUID
            image.PatientPosition = "HFS"

    phantoms.make_series(tmp_path, count=6, edit=edit)
    (series,) = read(tmp_path)
    assert (series.geometry.verdict, series.notes) == ("regular", ())


@pytest.mark.parametrize("keyword", ["FrameOfReferenceUID", "PatientID", "StudyInstanceUID", "SeriesInstanceUID"])
def test_an_identifier_of_each_file_s_own_is_what_anonymisers_write(
    phantoms: ModuleType, tmp_path: Path, keyword: str
) -> None:
    def edit(image: Dataset, index: int) -> None:
        setattr(image, keyword, f"1.2.3.{100 + 7 * index % 100}")

    paths = phantoms.make_series(tmp_path, count=6, edit=edit)
    (series,) = read(tmp_path)
    assert series.geometry.verdict == "regular"
    assert [frame.instance.path for frame in series.frames] == paths
    (note,) = series.notes
    assert "as some anonymisers write" in note
    assert "1.2.3" not in note
    assert series.common(keyword) is None


def test_study_and_series_of_each_file_s_own(phantoms: ModuleType, tmp_path: Path) -> None:
    def edit(image: Dataset, index: int) -> None:
        image.StudyInstanceUID, image.SeriesInstanceUID = f"1.2.3.{index}", f"1.2.4.{index}"

    phantoms.make_series(tmp_path, count=6, edit=edit)
    (series,) = read(tmp_path)
    assert (len(series.frames), series.geometry.verdict) == (6, "regular")


@pytest.mark.parametrize(
    ("keyword", "value"),
    [("SeriesDescription", "another"), ("SeriesNumber", None), ("PatientName", "Another^One"), ("InstanceNumber", 1)],
)
def test_series_of_one_file_each_stay_apart_unless_all_agrees(
    phantoms: ModuleType, tmp_path: Path, keyword: str, value: object
) -> None:
    def edit(image: Dataset, index: int) -> None:
        image.SeriesInstanceUID = f"1.2.4.{index}"
        if keyword != "SeriesDescription" or index % 2:
            setattr(image, keyword, f"{value}{index}" if isinstance(value, str) else value)

    phantoms.make_series(tmp_path, count=4, edit=edit)
    assert [len(one.frames) for one in read(tmp_path)] == [1, 1, 1, 1]


def test_what_is_told_once_is_noted_where_it_differs(phantoms: ModuleType, tmp_path: Path) -> None:
    def edit(image: Dataset, index: int) -> None:
        image.StudyDate = f"2020010{1 + index % 2}"
        image.Manufacturer = f"CANARY{index % 2}"

    phantoms.make_series(tmp_path, count=4, edit=edit)
    (series,) = read(tmp_path)
    assert series.notes == (
        "The files of this stack differ in study date and manufacturer: results leave out what they differ in.",
    )
    assert (series.common("StudyDate"), series.common("Modality")) == (None, "CT")


def test_where_a_slice_is_in_the_archive(phantoms: ModuleType, tmp_path: Path) -> None:
    phantoms.make_series(tmp_path, count=3, origin=(0, 0, -7.5), spacing=2.5, instance_numbers="reversed")
    (series,) = read(tmp_path)
    assert series.instance_numbers == (3, 2, 1)
    assert series.slice_positions == (-7.5, -5.0, -2.5)
    phantoms.make_cine(tmp_path / "film", count=2)
    (film,) = read(tmp_path / "film")
    assert (film.instance_numbers, film.slice_positions) == ((1, 1), (None, None))


def test_a_malformed_attribute_divides_nothing(phantoms: ModuleType, tmp_path: Path) -> None:
    def edit(image: Dataset, _: int) -> None:
        image.PatientPosition = "HFS"

    for path in phantoms.make_series(tmp_path, count=7, edit=edit)[4:]:
        written, damaged = (b"\x18\x00\x00\x51" + kind for kind in (b"CS", b"FD"))  # numbers of 8 bytes in 4 bytes
        path.write_bytes(path.read_bytes().replace(written, damaged))
    assert [len(one.frames) for one in read(tmp_path)] == [7]
