# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Judge from positions alone whether slices make a volume, and what keeps them from it."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from monai_anomalyclip.data.dicom.attributes import find_value, vector
from monai_anomalyclip.data.dicom.series import FrameReference, StackGeometry

__all__ = ["PixelSpacing", "distance_along", "find_pixel_aspect", "find_pixel_spacing", "judge_geometry", "locations"]

_LARGEST_MM = 1e4
_LARGEST_ASPECT = 8
_SQUARE = 0.01  # pixels whose sides differ by less are shown as square ones
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


def find_pixel_aspect(frame: FrameReference, spacing: tuple[float, float] | None) -> Fraction:
    """How much wider than high a pixel is: by its spacing, else by Pixel Aspect Ratio (PS3.3 C.7.6.3.1.7), else 1.

    A malformed ratio counts as absent, and so does one that no display has.

    Args:
        frame: the frame.
        spacing: distance in mm between (rows, columns), or None where it is not known.
    """
    if spacing is not None:
        rows, columns = spacing
        return Fraction(1) if abs(columns / rows - 1) < _SQUARE else _bounded(Fraction(columns / rows))
    with contextlib.suppress(ValueError):
        ratio = vector(find_value(frame, None, "PixelAspectRatio"), 2)
        if ratio is not None and ratio.min() > 0:
            return _bounded(Fraction(ratio[1]) / Fraction(ratio[0]))
    return Fraction(1)


def _bounded(aspect: Fraction) -> Fraction:
    return aspect.limit_denominator(1000) if 1 / _LARGEST_ASPECT <= aspect <= _LARGEST_ASPECT else Fraction(1)


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


_SAME_PLACE_MM = 0.005
_TILT_DEGREES = 0.1
_TILT_MM = 0.1

_Floats = npt.NDArray[np.float64]
_Ints = npt.NDArray[np.int64]


def distance_along(orientation: npt.ArrayLike, positions: npt.ArrayLike) -> _Floats:
    """(n,) mm of (n, 3) positions along the normal of the (6,) direction cosines, which is rows x columns."""
    cosines = np.asarray(orientation, dtype=np.float64)
    return np.asarray(positions, dtype=np.float64) @ np.cross(cosines[:3], cosines[3:])


def locations(distances: npt.ArrayLike) -> _Ints:
    """(n,) number of the place of each slice along the normal, from 0; closer than 0.005 mm is the same place."""
    along = np.asarray(distances, dtype=np.float64)
    order = np.argsort(along, kind="stable")
    numbers = np.empty(len(along), dtype=np.int64)
    numbers[order] = np.concatenate([[0], np.cumsum(np.diff(along[order]) > _SAME_PLACE_MM)])
    return numbers


def judge_geometry(
    orientation: npt.ArrayLike,
    positions: npt.ArrayLike,
    pixel_spacing: Sequence[float] | None = None,
    *,
    spacing_source: str | None = None,
    slice_thickness: float | None = None,
) -> tuple[_Ints, StackGeometry]:
    """Order slices along their normal and find the flaws of the stack.

    Scanners round positions, so the slices may lie off a regular grid by 1 % of the spacing or 0.1 mm, whichever is
    more, but by no more than 10 % of the spacing. The spacing is that of the best fitting grid. Then:

    - "gaps": the slices lie on a grid of the smallest distance, and fewer slots of it are empty than filled;
    - "irregular spacing": they lie on no grid, or jump sideways;
    - "gantry tilt": they move sideways steadily, by more than 0.1 degrees and 0.1 mm over the stack;
    - "duplicate positions": several slices lie in one place; the other flaws are then those of the places.

    Args:
        orientation: (6,) orthonormal direction cosines.
        positions: (n, 3) mm, Image Position (Patient), n at least 1.
        pixel_spacing: mm between (rows, columns), passed on.
        spacing_source: passed on.
        slice_thickness: mm, stands in for the slice spacing if all slices lie in one place.

    Returns:
        (n,) indices that put the slices in order (slices in one place keep theirs), and the geometry.
    """
    cosines = np.asarray(orientation, dtype=np.float64)
    points = np.asarray(positions, dtype=np.float64)
    along = distance_along(cosines, points)
    numbers = locations(along)
    order = np.argsort(numbers, kind="stable").astype(np.int64)
    starts = np.flatnonzero(np.diff(numbers[order], prepend=-1))
    places, along = points[order][starts], along[order][starts]

    flaws = []
    missing, tilt, spacing = 0, 0.0, slice_thickness
    if len(places) > 1:
        slots = _slots(along)
        spacing = float(np.median(np.diff(along))) if slots is None else _line(slots, along)[0]
        sideways = places - np.outer(along, np.cross(cosines[:3], cosines[3:]))
        lean, residual = _lean(along, sideways)
        if slots is not None and residual <= _tolerance(spacing):
            missing = int(slots[-1]) + 1 - len(places)
        else:
            flaws.append("irregular spacing")
        if missing:
            flaws.insert(0, "gaps")
        if residual <= _tolerance(spacing):
            tilt = math.degrees(math.atan(lean))
            if tilt > _TILT_DEGREES and lean * (along[-1] - along[0]) > _TILT_MM:
                flaws.append("gantry tilt")
    if len(places) < len(points):
        flaws.append("duplicate positions")
    geometry = StackGeometry(
        flaws=tuple(flaws),
        orientation=cosines,
        positions=points[order],
        pixel_spacing=None if pixel_spacing is None else (float(pixel_spacing[0]), float(pixel_spacing[1])),
        spacing_source=spacing_source,
        slice_spacing=spacing,
        missing_slices=missing,
        tilt_degrees=tilt,
    )
    return order, geometry


def _tolerance(spacing: float) -> float:
    return min(max(0.01 * spacing, 0.1), 0.1 * spacing)


def _line(x: npt.ArrayLike, y: _Floats) -> tuple[float, float]:
    """Slope of the least-squares line, and the largest residual."""
    abscissa = np.asarray(x, dtype=np.float64)
    centred = abscissa - abscissa.mean()
    slope = float(centred @ y / (centred @ centred))
    return slope, float(np.abs(y - y.mean() - slope * centred).max())


def _slots(along: _Floats) -> _Ints | None:
    """Slot of each place on a regular grid, or None if there is no such grid."""
    count = len(along)
    steps = np.diff(along)
    multiples = np.concatenate([[0], np.cumsum(np.rint(steps / steps.min()))])
    candidates = [np.arange(count)]
    if multiples[-1] + 1 < 2 * count:
        candidates.append(multiples.astype(np.int64))
    for slots in candidates:
        spacing, residual = _line(slots, along)
        if residual <= _tolerance(spacing):
            return slots
    return None


def _lean(along: _Floats, sideways: _Floats) -> tuple[float, float]:
    """Sideways mm for each mm along the normal, and the largest distance from that line in mm."""
    centred = along - along.mean()
    across = sideways - sideways.mean(axis=0)
    slope = centred @ across / (centred @ centred)
    return float(np.linalg.norm(slope)), float(np.linalg.norm(across - np.outer(centred, slope), axis=1).max())
