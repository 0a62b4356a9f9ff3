# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Overlay pictures as DICOM Secondary Capture, which every viewer shows."""

from __future__ import annotations

import contextlib
import math
import os
from datetime import datetime
from pathlib import Path

import highdicom as hd
import numpy as np
import numpy.typing as npt
from pydicom.tag import Tag
from pydicom.uid import (
    ExplicitVRLittleEndian,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    SecondaryCaptureImageStorage,
)

import monai_anomalyclip
from monai_anomalyclip.data.dicom.geometry import find_pixel_aspect
from monai_anomalyclip.data.dicom.series import DicomSeries
from monai_anomalyclip.writers.dicom.provenance import Provenance
from monai_anomalyclip.writers.dicom.source_headers import check_references, decimal_strings, frame_headers
from monai_anomalyclip.writers.dicom.source_restoration import restore_source
from monai_anomalyclip.writers.result_files import check_size, save, silenced

__all__ = ["write_secondary_capture"]


@silenced()
def write_secondary_capture(
    series: DicomSeries,
    pictures: npt.NDArray[np.uint8],
    path: str | os.PathLike[str],
    *,
    provenance: Provenance,
    overwrite: bool = False,
) -> Path:
    """Write overlay pictures as one colour Secondary Capture object (DICOM PS3.3 A.8.1; several: A.8.5, multi-frame).

    The pictures may have any size, need not be one per frame of the series, and are marked as holding burned-in
    annotation. Frames of a cine with a Frame Time keep it; others are pages.

    Args:
        series: the source, of any kind.
        pictures: (n, height, width, 3) uint8 RGB.
        path: the file to write; its folder must exist.
        provenance: which algorithm made the pictures.
        overwrite: replace an existing file.

    Returns:
        The path of the file.

    Raises:
        FileExistsError: the file exists and `overwrite` is False.
        ValueError: not RGB pictures of 1 to 65535 pixels a side, or too large together; a source without UIDs.
    """
    check_references(series)
    if pictures.ndim != 4 or pictures.shape[3] != 3 or pictures.dtype != np.uint8 or not pictures.size:
        raise ValueError(
            f"Expected RGB pictures (n, height, width, 3) uint8, got {pictures.dtype} {pictures.shape}: convert them."
        )
    if max(pictures.shape[1:3]) > 65535:
        raise ValueError(
            f"A DICOM image has at most 65535 rows and columns, got {pictures.shape[1:3]}: make it smaller."
        )
    check_size(pictures.nbytes)
    result = _captured(series, pictures, provenance)
    restore_source(result, series)
    return save(result, path, overwrite)


def _captured(series: DicomSeries, pictures: npt.NDArray[np.uint8], provenance: Provenance) -> hd.SOPClass:
    source = frame_headers(series)[0]
    several = len(pictures) > 1
    result = hd.SOPClass(
        study_instance_uid=source.StudyInstanceUID,
        sop_class_uid=MultiFrameTrueColorSecondaryCaptureImageStorage if several else SecondaryCaptureImageStorage,
        modality="OT",
        transfer_syntax_uid=ExplicitVRLittleEndian,
        **provenance.identity(series, "secondary capture"),
        **provenance.equipment,
    )
    result.ContributingEquipmentSequence = [
        provenance.contributing_equipment(),
        hd.ContributingEquipment.for_highdicom(),
    ]
    with contextlib.suppress(AttributeError, ValueError, TypeError):  # a source without manufacturer, or with odd text
        result.ContributingEquipmentSequence.insert(0, hd.ContributingEquipment.for_image_acquisition(source))
    result.ConversionType = "WSD"  # workstation
    result.ImageType = ["DERIVED", "SECONDARY"]
    result.BurnedInAnnotation = "YES"
    result.DerivationDescription = f"Anomaly map over the source image. {monai_anomalyclip.RESEARCH_USE_ONLY}"
    result.SourceImageSequence, result.ReferencedSeriesSequence = [], []  # filled with the source
    result.PatientOrientation = ""  # a picture of any layout
    result.Laterality = ""  # type 2C, not known
    now = datetime.now()
    result.DateOfSecondaryCapture, result.TimeOfSecondaryCapture = now.date(), now.time()

    result.LossyImageCompression = source.get("LossyImageCompression", "00")
    for keyword in ("LossyImageCompressionRatio", "LossyImageCompressionMethod"):
        if keyword in source:
            result[keyword] = source[keyword]
    result.Rows, result.Columns = pictures.shape[1:3]
    if (aspect := find_pixel_aspect(series.frames[0], series.geometry.pixel_spacing)) != 1:
        result.PixelAspectRatio = [aspect.denominator, aspect.numerator]  # vertical, horizontal
    result.SamplesPerPixel, result.PhotometricInterpretation, result.PlanarConfiguration = 3, "RGB", 0
    result.BitsAllocated, result.BitsStored, result.HighBit, result.PixelRepresentation = 8, 8, 7, 0
    if several:
        result.NumberOfFrames = len(pictures)
        _add_order(result, series)
    content = np.ascontiguousarray(pictures).tobytes()
    result.PixelData = content + b"\0" * (len(content) % 2)
    return result


def _add_order(result: hd.SOPClass, series: DicomSeries) -> None:
    try:
        frame_time = float(series.header.get("FrameTime") or 0)
    except (TypeError, ValueError):
        frame_time = 0.0
    timed = series.kind == "cine" and result.NumberOfFrames == len(series.frames)
    if timed and math.isfinite(frame_time) and frame_time > 0:
        result.FrameTime = decimal_strings([frame_time])[0]
        result.FrameIncrementPointer = Tag("FrameTime")
    else:
        result.PageNumberVector = list(range(1, result.NumberOfFrames + 1))
        result.FrameIncrementPointer = Tag("PageNumberVector")
