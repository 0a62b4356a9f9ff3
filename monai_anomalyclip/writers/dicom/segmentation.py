# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Anomalous regions as a DICOM Segmentation."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, Literal

import highdicom as hd
import numpy as np
import numpy.typing as npt

from monai_anomalyclip.data.dicom.series import DicomSeries
from monai_anomalyclip.transforms.annotation_answer import LEVELS
from monai_anomalyclip.writers.dicom.provenance import DEFAULT_CATEGORY, DEFAULT_TYPE, Provenance, parse_code
from monai_anomalyclip.writers.dicom.source_headers import (
    check_references,
    check_shape,
    frame_headers,
    is_placed,
)
from monai_anomalyclip.writers.dicom.source_restoration import restore_source
from monai_anomalyclip.writers.result_files import save, silenced

__all__ = ["make_segmentation", "write_segmentation"]

_LABEL = "Anomaly (unspecified)"
_COLOURS = ((255, 64, 64), (255, 160, 0), (255, 255, 0))

Kind = Literal["mask", "probability", "levels"]


def write_segmentation(
    series: DicomSeries,
    mask: npt.NDArray[Any],
    path: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    **options: Any,
) -> Path:
    """Write what :func:`make_segmentation` makes, whose other arguments and errors are the same.

    Args:
        series: the source.
        mask: (n, rows, columns).
        path: the file to write; its folder must exist.
        overwrite: replace an existing file.
        options: further arguments of :func:`make_segmentation`.

    Returns:
        The path of the file.

    Raises:
        FileExistsError: the file exists and `overwrite` is False.
    """
    return save(make_segmentation(series, mask, **options), path, overwrite)


@silenced()
def make_segmentation(
    series: DicomSeries,
    mask: npt.NDArray[Any],
    *,
    provenance: Provenance,
    category: str = DEFAULT_CATEGORY,
    segment_type: str = DEFAULT_TYPE,
    omit_empty_frames: bool = False,
    kind: Kind = "mask",
) -> hd.seg.Segmentation:
    """Make a DICOM Segmentation: binary with one segment of a mask (DICOM PS3.3 A.51), or of another kind.

    Every frame has the position of its source frame, so that stacks with gaps, irregular spacing, tilt or duplicate
    positions keep their true geometry; nothing is resampled. Where nothing is anomalous the segmentation has the first
    frame alone, empty: those of a study of 300 slices would take 10 MB in an archive to say no more.

    Args:
        series: the source: a stack of frames with positions, or one picture.
        mask: (n, rows, columns) bool or integer, non-zero where anomalous, in the order of `series.frames`. Of the
            other kinds the anomaly map, float in [0, 1].
        provenance: which algorithm made the mask.
        category: Segmented Property Category as ``"code^scheme^meaning"``.
        segment_type: Segmented Property Type, likewise.
        omit_empty_frames: leave the empty frames of any mask out. Smaller, but some viewers put the rest in wrong
            places.
        kind: ``"mask"``; ``"probability"``: a fractional segmentation, the map in 255 steps; ``"levels"``: a label map
            (DICOM supplement 243) of where the map reaches 0.5, 0.75 and 0.9, a segment for each.

    Raises:
        ValueError: the mask's shape is not that of the series; several frames without positions, which this object
            cannot hold; a code that is none; a source without UIDs.
    """
    check_references(series)
    check_shape(series, mask.shape, "mask")
    if len(series.frames) > 1 and not is_placed(series):
        raise ValueError(
            f"A DICOM segmentation of {len(series.frames)} frames needs their positions, orientation and pixel "
            "spacing, which this series lacks: write secondary captures, PNG or video instead."
        )
    headers = frame_headers(series)
    pixels, stored, labels = _content(kind, mask)
    if not pixels.any():
        headers, pixels = headers[:1], pixels[:1]
    segments = [
        hd.seg.SegmentDescription(
            segment_number=number,
            segment_label=label,
            segmented_property_category=parse_code(category),
            segmented_property_type=parse_code(segment_type),
            algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=provenance.algorithm_identification(),
            tracking_id="anomaly" if number == 1 else f"anomaly {number}",
            tracking_uid=provenance.uid(series, "tracking" if number == 1 else f"tracking {number}"),
            display_color=hd.color.CIELabColor.from_rgb(*_COLOURS[number - 1]),
        )
        for number, label in enumerate(labels, start=1)
    ]
    role = "segmentation" if kind == "mask" else f"{kind} segmentation"
    result = hd.seg.Segmentation(
        source_images=headers,
        pixel_array=pixels,
        segmentation_type=stored,
        segment_descriptions=segments,
        omit_empty_frames=omit_empty_frames,
        content_label="ANOMALY",
        content_description="Anomalous regions; research use only",
        content_creator_name="AnomalyCLIP^",
        contributing_equipment=[provenance.contributing_equipment()],
        **provenance.identity(series, role),
        **provenance.equipment,
    )
    restore_source(result, series)
    provenance.name_dimensions(result, series, role)
    if not is_placed(series):
        # Type 2C: required, though perhaps empty, where no position says it. The grid is the source's.
        directions = series.header.get("PatientOrientation") or ""
        sound = len(directions) == 2 and all(re.fullmatch("[LRAPHF]{1,3}", str(side)) for side in directions)
        result.PatientOrientation = list(directions) if sound else ""
    return result


def _content(kind: Kind, values: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], hd.seg.SegmentationTypeValues, list[str]]:
    """Pixels, how they are stored, and the labels of the segments."""
    if kind == "probability":
        return np.asarray(values, dtype=np.float32), hd.seg.SegmentationTypeValues.FRACTIONAL, [_LABEL]
    if kind == "levels":
        reached = np.zeros(values.shape, np.uint8)
        for level in LEVELS:
            reached += np.asarray(values) >= level
        return reached, hd.seg.SegmentationTypeValues.LABELMAP, [f"{_LABEL}, from {level:.2f}" for level in LEVELS]
    inside = values if values.dtype == bool else values != 0
    return inside.view(np.uint8), hd.seg.SegmentationTypeValues.BINARY, [_LABEL]
