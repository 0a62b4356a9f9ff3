# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

from monai_anomalyclip.data.dicom.series import DicomSeries
from monai_anomalyclip.writers.dicom.source_headers import (
    check_shape,
    frame_headers,
    frame_index,
    is_placed,
    slice_spacing,
)


def test_headers_are_neutral(stacks: dict[str, DicomSeries]) -> None:
    series = stacks["oblique"]
    before = deepcopy(series.header)
    headers = frame_headers(series)
    assert series.header == before
    assert len(headers) == 6
    for index, header in enumerate(headers):
        assert frame_index(header.SOPInstanceUID) == index
        assert header["PatientName"].is_empty
        assert header["StudyDate"].is_empty
        assert not {"SeriesDescription", "InstitutionName", "ProtocolName"} & set(header.dir())
        assert (header.Rows, header.Columns) == (16, 20)
        assert list(header.PixelSpacing) == [0.8, 0.5]
        assert header.SliceThickness == 3
        assert header.SpacingBetweenSlices == 3
    assert len({str(header.ImagePositionPatient) for header in headers}) == 6


def test_lossy_compression_is_told(stacks: dict[str, DicomSeries]) -> None:
    series = deepcopy(stacks["single"])
    series.header.LossyImageCompression = "01"
    series.header.LossyImageCompressionRatio = 12
    (header,) = frame_headers(series)
    assert (header.LossyImageCompression, header.LossyImageCompressionRatio) == ("01", 12)


@pytest.mark.parametrize("value", [b"10:1", b"ZEBRAFINCH", b"1\\x"])
def test_what_cannot_be_decoded_is_left_out(stacks: dict[str, DicomSeries], value: bytes) -> None:
    series = deepcopy(stacks["single"])
    tag = Tag("LossyImageCompressionRatio")
    series.header[tag] = RawDataElement(tag, "DS", len(value), value, 0, False, True)
    series.header.LossyImageCompression = "01"
    (header,) = frame_headers(series)
    assert header.LossyImageCompression == "01"
    assert "LossyImageCompressionRatio" not in header


@pytest.mark.parametrize("missing", ["positions", "orientation", "pixel_spacing"])
def test_without_a_part_of_it_there_is_no_space(stacks: dict[str, DicomSeries], missing: str) -> None:
    series = stacks["single"]
    assert is_placed(series)
    series = replace(series, geometry=replace(series.geometry, **{missing: None}))
    assert not is_placed(series)
    (header,) = frame_headers(series)
    assert not {"ImagePositionPatient", "FrameOfReferenceUID", "PixelSpacing"} & set(header.dir())


@pytest.mark.filterwarnings("ignore:Invalid value for VR")
@pytest.mark.parametrize(
    ("thickness", "spacing", "expected"),
    [(2.5, 3.0, 2.5), (None, 3.0, 3.0), (0, 3.0, 3.0), ("nan", 3.0, 3.0), ([1, 2], 3.0, 3.0), (None, None, 1.0)],
)
def test_slice_thickness(
    stacks: dict[str, DicomSeries], thickness: object, spacing: float | None, expected: float
) -> None:
    series = deepcopy(stacks["single"])
    series.header.SliceThickness = thickness
    series = replace(series, geometry=replace(series.geometry, slice_spacing=spacing))
    assert float(frame_headers(series)[0].SliceThickness) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [("regular", 3.0), ("gaps", 3.0), ("tilt", 3.0), ("irregular", None), ("single", None), ("one place", None)],
)
def test_slice_spacing_where_one_number_says_it(
    stacks: dict[str, DicomSeries], name: str, expected: float | None
) -> None:
    assert slice_spacing(stacks[name]) == expected


def test_other_grid_is_refused(stacks: dict[str, DicomSeries]) -> None:
    check_shape(stacks["regular"], np.zeros((6, 16, 20)).shape, "mask")
    for shape in ((6, 20, 16), (5, 16, 20), (16, 20), (6, 16, 20, 1)):
        with pytest.raises(ValueError, match=r"mask must have the shape .* \(6, 16, 20\), got"):
            check_shape(stacks["regular"], shape, "mask")
