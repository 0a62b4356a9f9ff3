# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""What is known about the distance between the pixels of a frame."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from monai_anomalyclip.data.dicom.attributes import find_value, vector
from monai_anomalyclip.data.dicom.series import FrameReference

__all__ = ["PixelSpacing", "find_pixel_spacing"]

_LARGEST_MM = 1e4
_UNCALIBRATED = "at the detector, not calibrated"
_TWO_DIMENSIONAL, _CENTIMETRES, _TISSUE_OR_FLOW = 1, 3, (1, 2)


class PixelSpacing(NamedTuple):
    """Distance in mm between (rows, columns), where it comes from, and a sentence if something is wrong with it."""

    spacing: tuple[float, float] | None = None
    source: str | None = None
    note: str | None = None


def find_pixel_spacing(frame: FrameReference) -> PixelSpacing:
    """Pixel Spacing, else Imager Pixel Spacing, else the calibration of the ultrasound region, else nothing.

    Pixel Spacing of a projection radiograph that equals Imager Pixel Spacing, without a statement that it is
    calibrated, is the distance at the detector (PS3.3 10.7.1.3). Values must be two finite positive numbers; a
    malformed attribute is not used, and neither is an ultrasound calibration that differs between regions.
    """
    note = None
    for sequence, keyword, name in (
        ("PixelMeasuresSequence", "PixelSpacing", "Pixel Spacing"),
        (None, "ImagerPixelSpacing", "Imager Pixel Spacing"),
    ):
        try:
            spacing = _positive(find_value(frame, sequence, keyword))
        except ValueError:
            note = note or f"{name} is malformed and not used."
            continue
        if spacing is not None:
            if keyword == "ImagerPixelSpacing" or _is_at_detector(frame, spacing):
                name = f"{name} ({_UNCALIBRATED})"
            return PixelSpacing(spacing, name, note)
    try:
        spacing = _ultrasound(frame)
    except ValueError as error:
        return PixelSpacing(note=note or str(error))
    return PixelSpacing(spacing, None if spacing is None else "ultrasound region", note)


def _positive(value: object) -> tuple[float, float] | None:
    numbers = vector(value, 2)
    if numbers is None:
        return None
    if numbers.min() <= 0 or numbers.max() > _LARGEST_MM:
        raise ValueError("The distance must be positive.")
    return float(numbers[0]), float(numbers[1])


def _is_at_detector(frame: FrameReference, spacing: tuple[float, float]) -> bool:
    try:
        imager = vector(find_value(frame, None, "ImagerPixelSpacing"), 2)
        calibrated = find_value(frame, None, "PixelSpacingCalibrationType")
    except ValueError:
        return False
    return imager is not None and not calibrated and bool(np.allclose(imager, spacing, rtol=1e-4))


def _ultrasound(frame: FrameReference) -> tuple[float, float] | None:
    """PS3.3 C.8.5.5: regions of two-dimensional tissue or colour flow whose units are cm."""
    found = set()
    for region in find_value(frame, None, "SequenceOfUltrasoundRegions") or []:
        try:
            kind = region.get("RegionSpatialFormat"), region.get("RegionDataType")
            units = region.get("PhysicalUnitsXDirection"), region.get("PhysicalUnitsYDirection")
            if kind[0] != _TWO_DIMENSIONAL or kind[1] not in _TISSUE_OR_FLOW or units != (_CENTIMETRES, _CENTIMETRES):
                continue
            deltas = 10 * abs(float(region.PhysicalDeltaY)), 10 * abs(float(region.PhysicalDeltaX))
        except Exception as error:  # malformed values raise nearly anything
            raise ValueError("The calibration of the ultrasound region is malformed and not used.") from error
        found.add(deltas)
    if not found:
        return None
    first = min(found)
    if not np.allclose(list(found), first, rtol=1e-3):
        raise ValueError("The ultrasound regions differ in calibration, so that the pixel spacing is not known.")
    return _positive(first)
