# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset

from monai_anomalyclip.data.dicom import FrameReference, Instance
from monai_anomalyclip.data.dicom.attributes import time_order
from monai_anomalyclip.data.dicom.stack import split_until_unique


def frames(rows: Sequence[dict[str, Any]]) -> list[FrameReference]:
    result = []
    for index, row in enumerate(rows):
        header = Dataset()
        header.SOPInstanceUID = f"1.2.{index}"
        for keyword, value in row.items():
            setattr(header, keyword, value)
        result.append(FrameReference(Instance(Path(str(index)), header, "1.2.840.10008.1.2.1")))
    return result


def split(rows: Sequence[dict[str, Any]], places: Sequence[int], in_plane: Any = None) -> list[tuple[list[int], dict]]:
    """(sorted indices, values) of the parts."""
    where = np.zeros((len(rows), 2)) if in_plane is None else np.asarray(in_plane, float)
    parts = split_until_unique(frames(rows), np.array(places), where)
    assert sorted(index for part in parts for index in part.indices) == list(range(len(rows)))
    return [(sorted(part.indices.tolist()), part.values) for part in parts]


def test_unique_places_are_never_split() -> None:
    rows = [{"EchoTime": index, "AcquisitionNumber": index, "ImageType": ["A", str(index)]} for index in range(6)]
    assert split(rows, range(6)) == [([0, 1, 2, 3, 4, 5], {})]


def test_two_attributes_at_once() -> None:
    rows = [
        {"EchoTime": echo, "DiffusionBValue": b} for echo in (10, 20) for b in (0.0, 1000.0) for _ in range(3)
    ]  # slices innermost
    assert split(rows, [0, 1, 2] * 4) == [
        ([0, 1, 2], {"echo time": 10, "b-value": 0}),
        ([3, 4, 5], {"echo time": 10, "b-value": 1000}),
        ([6, 7, 8], {"echo time": 20, "b-value": 0}),
        ([9, 10, 11], {"echo time": 20, "b-value": 1000}),
    ]


def test_what_changes_from_slice_to_slice_tears_nothing_apart() -> None:
    rows = [
        {"AcquisitionNumber": place + 100 * volume, "FlipAngle": place, "KVP": 80 + 60 * volume}
        for volume in range(2)
        for place in range(5)
    ]
    assert split(rows, [0, 1, 2, 3, 4] * 2) == [
        ([0, 1, 2, 3, 4], {"tube voltage": 80}),
        ([5, 6, 7, 8, 9], {"tube voltage": 140}),
    ]


def test_a_value_that_only_some_frames_have_is_told_from_none() -> None:
    rows = [{}, {}, {"DiffusionBValue": 50.0}, {"DiffusionBValue": 50.0}]
    assert split(rows, [0, 1, 0, 1]) == [([2, 3], {"b-value": 50}), ([0, 1], {"b-value": None})]


def test_stations_that_overlap() -> None:
    rows = [{"AcquisitionNumber": station} for station in range(5) for _ in range(8)]
    places = [6 * station + index for station in range(5) for index in range(8)]
    parts = split(rows, places)
    assert [len(indices) for indices, _ in parts] == [8] * 5
    assert [values for _, values in parts] == [{"acquisition number": station} for station in range(5)]


def test_heart_phases_whose_trigger_times_differ_between_slices() -> None:
    rows = [{"TriggerTime": 40 * phase + 3.7 * place} for place in range(4) for phase in range(6)]
    parts = split(rows, [place for place in range(4) for _ in range(6)])
    assert [values for _, values in parts] == [{"phase": number} for number in range(1, 7)]
    for phase, (indices, _) in enumerate(parts):
        assert indices == [6 * place + phase for place in range(4)]


def test_phases_need_a_time_for_every_frame_and_equally_many_frames() -> None:
    rows = [{"TriggerTime": 40 * phase + 3.7 * place} for place in range(4) for phase in range(6)]
    places = [place for place in range(4) for _ in range(6)]
    assert len(split(rows[:-1], places[:-1])) == 1
    del rows[7]["TriggerTime"]
    assert len(split(rows, places)) == 1


def test_long_times_keep_their_precision() -> None:
    moments = [f"20200630091600.{340000 + 50000 * time + 1000 * place}" for place in range(3) for time in range(2)]
    parts = split([{"AcquisitionDateTime": moment} for moment in moments], [0, 0, 1, 1, 2, 2])
    assert [indices for indices, _ in parts] == [[0, 2, 4], [1, 3, 5]]


def test_frames_in_one_place_are_one_sequence_in_time_but_not_one_of_echoes() -> None:
    rows: list[dict[str, Any]] = [{"AcquisitionNumber": index, "TriggerTime": index} for index in range(4)]
    assert split(rows, [0] * 4) == [([0, 1, 2, 3], {})]
    rows = [{"EchoTime": index, "AcquisitionNumber": index} for index in range(4)]
    assert [values for _, values in split(rows, [0] * 4)] == [{"echo time": echo} for echo in range(4)]


def test_two_stacks_side_by_side() -> None:
    left_and_right = [[-80.0, 0], [-80, 0], [75, 0], [75, 0]]
    assert [indices for indices, _ in split([{}] * 4, [0, 1, 0, 1], left_and_right)] == [[0, 1], [2, 3]]


def test_true_duplicates_stay() -> None:
    assert split([{"InstanceNumber": index} for index in range(4)], [0, 1, 0, 1]) == [([0, 1, 2, 3], {})]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([{"InstanceNumber": 3}, {"InstanceNumber": 20}, {"InstanceNumber": 1}], [2, 0, 1]),
        ([{"AcquisitionTime": "101112.5"}, {"AcquisitionTime": "101112.25"}, {"AcquisitionTime": "9"}], [2, 1, 0]),
        ([{"TriggerTime": 5, "InstanceNumber": 1}, {"TriggerTime": 2, "InstanceNumber": 2}], [1, 0]),
        ([{}, {"TemporalPositionIdentifier": 2}, {"TemporalPositionIdentifier": 1}], [2, 1, 0]),
        ([{}, {}], [0, 1]),
    ],
)
def test_time_order(rows: list[dict[str, Any]], expected: list[int]) -> None:
    assert time_order(frames(rows)) == expected
