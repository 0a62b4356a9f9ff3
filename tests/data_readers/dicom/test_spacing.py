# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
from pydicom import Dataset

from monai_anomalyclip.data.dicom import FrameReference, Instance
from monai_anomalyclip.data.dicom.header import read_header
from monai_anomalyclip.data.dicom.spacing import find_pixel_spacing


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
