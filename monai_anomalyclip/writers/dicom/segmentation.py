# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Anomalous regions as a DICOM Segmentation."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import numpy.typing as npt

from monai_anomalyclip.data.dicom.series import DicomSeries
from monai_anomalyclip.writers.dicom.coding import DEFAULT_CATEGORY, DEFAULT_TYPE, parse_code
from monai_anomalyclip.writers.dicom.provenance import Provenance
from monai_anomalyclip.writers.dicom.saving import save, silenced
from monai_anomalyclip.writers.dicom.source_headers import (
    check_references,
    check_shape,
    frame_headers,
    is_placed,
)
from monai_anomalyclip.writers.dicom.source_restoration import restore_source

__all__ = ["make_segmentation", "write_segmentation"]

_LABEL = "Anomaly (unspecified)"
_COLOUR = hd.color.CIELabColor.from_rgb(255, 64, 64)


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
) -> hd.seg.Segmentation:
    """Make a binary DICOM Segmentation with one segment of a mask (DICOM PS3.3 A.51).

    Every frame has the position of its source frame, so that stacks with gaps, irregular spacing, tilt or duplicate
    positions keep their true geometry; nothing is resampled. A mask without any anomaly gives a segmentation of empty
    frames.

    Args:
        series: the source: a stack of frames with positions, or one picture.
        mask: (n, rows, columns) bool or integer, non-zero where anomalous, in the order of `series.frames`.
        provenance: which algorithm made the mask.
        category: Segmented Property Category as ``"code^scheme^meaning"``.
        segment_type: Segmented Property Type, likewise.
        omit_empty_frames: leave empty frames out of a mask that is not empty. Smaller, but some viewers put the rest in
            wrong places.

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
    segment = hd.seg.SegmentDescription(
        segment_number=1,
        segment_label=_LABEL,
        segmented_property_category=parse_code(category),
        segmented_property_type=parse_code(segment_type),
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=provenance.algorithm_identification(),
        tracking_id="anomaly",
        tracking_uid=provenance.uid(series, "tracking"),
        display_color=_COLOUR,
    )
    result = hd.seg.Segmentation(
        source_images=frame_headers(series),
        pixel_array=(np.asarray(mask) != 0).astype(np.uint8),
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[segment],
        omit_empty_frames=omit_empty_frames,
        content_label="ANOMALY",
        content_description="Anomalous regions; research use only",
        content_creator_name="AnomalyCLIP^",
        contributing_equipment=[provenance.contributing_equipment()],
        **provenance.identity(series, "segmentation"),
        **provenance.equipment,
    )
    restore_source(result, series)
    provenance.name_dimensions(result, series, "segmentation")
    if not is_placed(series):
        # Type 2C: required, though perhaps empty, where no position says it. The grid is the source's.
        directions = series.header.get("PatientOrientation") or ""
        sound = len(directions) == 2 and all(re.fullmatch("[LRAPHF]{1,3}", str(side)) for side in directions)
        result.PatientOrientation = list(directions) if sound else ""
    return result
