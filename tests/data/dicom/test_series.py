# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

from monai_anomalyclip.data.dicom import DicomSeries, FrameReference, Instance, SkippedFile, StackGeometry
from monai_anomalyclip.data.dicom.series import digest_of_instances

AXIAL = np.array([1.0, 0, 0, 0, 1, 0])


def instance(name: str = "a", **attributes: object) -> Instance:
    header = Dataset()
    header.SeriesInstanceUID, header.SOPInstanceUID = "1.2.3", f"1.2.{len(name)}"
    header.Rows, header.Columns = 4, 6
    for keyword, value in attributes.items():
        setattr(header, keyword, value)
    return Instance(Path(name), header, "1.2.840.10008.1.2.1")


def test_frames_and_files_of_a_series() -> None:
    first, second = instance(NumberOfFrames=3), instance("bb")
    assert (first.n_frames, second.n_frames) == (3, 1)
    frames = (FrameReference(second), FrameReference(first, 2), FrameReference(first, 0))
    series = DicomSeries("volume", frames, StackGeometry())
    assert series.instances == (second, first)
    assert series.header is second.header
    assert (series.series_uid, series.size) == ("1.2.3", (4, 6))


@pytest.mark.parametrize(
    ("modality", "expected"),
    [("ct", "CT"), (" MR ", "MR"), ("", "OT"), (None, "OT"), ("a/../b", "OT"), ("X" * 17, "OT"), ("Ä1", "OT")],
)
def test_modality_is_a_code(modality: str | None, expected: str) -> None:
    series = DicomSeries("frame", (FrameReference(instance(Modality=modality)),), StackGeometry())
    assert series.modality == expected


def test_key_tells_parts_apart_and_shows_nothing() -> None:
    first = instance()
    keys = {DicomSeries("frame", (FrameReference(first, index),), StackGeometry()).key for index in range(2)}
    for split in (None, "echo time 20", "echo time 80"):
        keys.add(DicomSeries("volume", (FrameReference(first),), StackGeometry(), split=split).key)
    assert len(keys) == 5
    assert all(len(key) == 16 and set(key) <= set("0123456789abcdef") for key in keys)


def test_key_of_a_volume_is_that_of_study_and_series() -> None:
    """A study that is completed later keeps its names, whichever slice is first now."""
    first, second = (FrameReference(instance(SOPInstanceUID=uid)) for uid in ("1.9", "1.8"))
    alone = DicomSeries("volume", (first,), StackGeometry())
    assert DicomSeries("volume", (second, first), StackGeometry(), part=3).key == alone.key
    other = DicomSeries("volume", (FrameReference(instance(StudyInstanceUID="1.7")),), StackGeometry())
    assert other.key != alone.key
    assert other.group != alone.group
    parts = [DicomSeries("volume", (first,), StackGeometry(), split=split) for split in ("echo 1", "echo 2")]
    assert parts[0].group == parts[1].group == alone.group


def test_digest_of_instances_depends_on_the_set_alone() -> None:
    assert digest_of_instances(["1.2", "1.10"]) == digest_of_instances(["1.10", "1.2", "1.2"])
    assert digest_of_instances(["1.2"]) != digest_of_instances(["1.2", "1.10"])


@pytest.mark.parametrize(
    ("geometry", "verdict"),
    [
        (StackGeometry(), "no position"),
        (StackGeometry(orientation=AXIAL, positions=np.zeros((1, 3))), "single slice"),
        (StackGeometry(orientation=AXIAL, positions=np.zeros((2, 3))), "regular"),
        (StackGeometry(flaws=("gaps", "gantry tilt"), positions=np.zeros((2, 3))), "gaps + gantry tilt"),
    ],
)
def test_verdict(geometry: StackGeometry, verdict: str) -> None:
    assert geometry.verdict == verdict


def test_affine_of_a_single_slice_takes_its_thickness_from_the_header_or_1_mm() -> None:
    place = {"orientation": AXIAL, "positions": np.array([[1.0, 2, 3]]), "pixel_spacing": (0.5, 0.25)}
    expected = np.array([[-0.25, 0, 0, -1], [0, -0.5, 0, -2], [0, 0, 5, 3], [0, 0, 0, 1]])
    np.testing.assert_array_equal(StackGeometry(**place, slice_spacing=5.0).affine(), expected)
    expected[2, 2] = 1
    np.testing.assert_array_equal(StackGeometry(**place).affine(), expected)


def test_affine_is_given_only_where_one_can_be_true() -> None:
    place = {"orientation": AXIAL, "positions": np.array([[0.0, 0, 0], [0, 1, 2]]), "pixel_spacing": (1.0, 1.0)}
    assert StackGeometry(**{**place, "pixel_spacing": None}).affine() is None
    assert StackGeometry(**{**place, "positions": None}).affine() is None
    for flaw in ("gaps", "irregular spacing", "duplicate positions"):
        assert StackGeometry(**place, flaws=(flaw,)).affine(sheared=True) is None
    tilted = StackGeometry(**place, flaws=("gantry tilt",))
    assert tilted.affine() is None
    sheared = tilted.affine(sheared=True)
    assert sheared is not None
    np.testing.assert_array_equal(sheared @ [0, 0, 1, 1], [0, -1, 2, 1])
    assert StackGeometry(**place, flaws=("gantry tilt", "gaps")).affine(sheared=True) is None


def test_skipped_files_and_instances_do_not_show_their_header() -> None:
    assert "PatientName" not in repr(instance(PatientName="CANARY"))
    assert "CANARY" not in repr(instance(PatientName="CANARY"))
    assert SkippedFile(Path("a"), "not DICOM").detail == ""


@pytest.mark.parametrize("keyword", ["Modality", "SeriesInstanceUID", "SOPInstanceUID"])
def test_values_that_cannot_be_decoded_count_as_absent(keyword: str) -> None:
    damaged = instance(Modality="CT")
    # Two bytes are no number of eight; pydicom raises when the value is asked for.
    damaged.header[keyword] = RawDataElement(Tag(keyword), "FD", 2, b"US", 0, False, True)
    series = DicomSeries("frame", (FrameReference(damaged),), StackGeometry())
    assert re.fullmatch("[0-9a-f]{16}", series.key)
    assert series.modality == ("OT" if keyword == "Modality" else "CT")
    assert series.series_uid == ("" if keyword == "SeriesInstanceUID" else "1.2.3")
