# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""What highdicom is told about the source of a result.

highdicom is strict: it refuses sources with missing or invalid patient attributes, SOP classes that it does not know,
several multi-frame files, two frames at one position, or orientations that differ in the last digit; its warnings quote
the patient's name; and it writes frames in descending order along the normal, while dcmqi (3D Slicer) and Cornerstone
(OHIF) take the frames of parametric maps as ascending whatever their positions say. So it gets one neutral, complete,
single-frame header per frame, at made-up positions that give the right order;
:func:`monai_anomalyclip.writers.dicom.source_restoration.restore_source` then puts the truth in place.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from pydicom.config import IGNORE
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, SecondaryCaptureImageStorage
from pydicom.valuerep import format_number_as_ds

from monai_anomalyclip.data.dicom.series import DicomSeries, text_of, values_of
from monai_anomalyclip.writers.dicom.valid_values import known_character_set, valid_element

__all__ = [
    "UnsuitableSourceError",
    "check_references",
    "check_shape",
    "decimal_strings",
    "frame_headers",
    "frame_index",
    "is_placed",
    "slice_spacing",
    "verbatim",
]

_EMPTY = (
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
)
_EQUIPMENT = ("Manufacturer", "ManufacturerModelName", "DeviceSerialNumber", "SoftwareVersions")
_STUDY, _SERIES, _SPACE, _FRAME = "2.25.1", "2.25.2", "2.25.3", "2.25.4"  # placeholders of UIDs


class UnsuitableSourceError(ValueError):
    """The source cannot have such an object; the message quotes nothing of its headers."""


def is_placed(series: DicomSeries) -> bool:
    """Whether the frames lie in a patient coordinate system: with position, orientation and pixel spacing.

    The Frame of Reference UID is no condition, because anonymisers remove it.
    """
    geometry = series.geometry
    return all(part is not None for part in (geometry.positions, geometry.orientation, geometry.pixel_spacing))


def check_references(series: DicomSeries) -> None:
    """Refuse a series whose files cannot be referenced.

    Raises:
        ValueError: a file lacks one of the UIDs that references need.
    """
    for instance in series.instances:
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID"):
            if not instance.header.get(keyword):
                raise UnsuitableSourceError(
                    f"A file of the series has no {keyword}, so no DICOM object can refer to it: write the results in "
                    "another format, such as NIfTI or PNG."
                )


def check_shape(series: DicomSeries, shape: Sequence[int], name: str) -> None:
    """Refuse pixels that do not lie on the grid of a series.

    Raises:
        ValueError: the shape is not (n, rows, columns).
    """
    expected = (len(series.frames), *series.size)
    if tuple(shape) != expected:
        raise ValueError(
            f"The {name} must have the shape (frames, rows, columns) of the series, {expected}, got {tuple(shape)}."
        )


def frame_headers(series: DicomSeries) -> list[Dataset]:
    """Make one neutral single-frame header per frame, in the order of the frames.

    Equipment and lossy compression (as far as they are valid and the same in all files), size, pixel spacing and slice
    thickness are the source's; patient and study are empty; UIDs, orientation and positions are placeholders. The
    series itself is not changed. Where the frames have no place in space there is no spatial attribute at all.
    """
    common = Dataset()
    for keyword in _EMPTY:
        setattr(common, keyword, None)
    common.StudyInstanceUID, common.SeriesInstanceUID = _STUDY, _SERIES
    common.Modality = series.modality
    common.Rows, common.Columns = series.size
    declared = known_character_set(series.header)
    for keyword in _EQUIPMENT:
        # pydicom raises nearly anything for a value that it cannot decode, such as "10:1" for a number
        with contextlib.suppress(Exception):
            value = series.common(keyword)
            valid = valid_element(verbatim(keyword, value), declared=declared) if value else None
            if valid is not None and str(valid.value).isascii():
                common.add(valid)
    _add_compression(common, series)
    if not is_placed(series):
        common.SOPClassUID = SecondaryCaptureImageStorage
        return [_placed(common, index) for index in range(len(series.frames))]

    common.SOPClassUID = CTImageStorage
    common.FrameOfReferenceUID = _SPACE
    common.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    common.PixelSpacing = decimal_strings(series.geometry.pixel_spacing)
    common.SliceThickness = decimal_strings([_slice_thickness(series)])[0]
    common.SpacingBetweenSlices = decimal_strings([slice_spacing(series) or 1.0])[0]
    return [_placed(common, index, rank) for index, rank in enumerate(_ranks_along_normal(series))]


def _add_compression(common: Dataset, series: DicomSeries) -> None:
    """Results of lossy images are lossy: if any file is, with ratio and method where all lossy files agree in them."""
    lossy = [one for one in series.instances if text_of(one.header, "LossyImageCompression") == "01"]
    if not lossy:
        if series.common("LossyImageCompression") == "00":
            common.LossyImageCompression = "00"
        return
    common.LossyImageCompression = "01"
    for keyword in ("LossyImageCompressionRatio", "LossyImageCompressionMethod"):
        with contextlib.suppress(Exception):  # see frame_headers
            if len(values_of(lossy, keyword)) == 1:
                valid = valid_element(verbatim(keyword, lossy[0].header[keyword].value), declared=True)
                if valid is not None:
                    common.add(valid)


def frame_index(uid: str) -> int:
    """The index of the frame that a placeholder UID stands for."""
    return int(str(uid).rpartition(".")[2])


def slice_spacing(series: DicomSeries) -> float | None:
    """Distance in mm of neighbouring slices along the normal, where one number says it: of a grid, even with gaps."""
    geometry = series.geometry
    single = len(series.frames) == 1 or "irregular spacing" in geometry.flaws
    return None if single else geometry.slice_spacing


def decimal_strings(values: Sequence[float] | npt.NDArray[np.float64] | None) -> list[str]:
    """Numbers as decimal strings of at most 16 characters."""
    return [format_number_as_ds(float(value)) for value in (() if values is None else values)]


def verbatim(keyword: str, value: object) -> DataElement:
    """An element with a value of the source, which need not be valid."""
    tag = tag_for_keyword(keyword)
    assert tag is not None
    return DataElement(tag, dictionary_VR(tag), value, validation_mode=IGNORE)


def _placed(common: Dataset, index: int, rank: int | None = None) -> Dataset:
    header = Dataset()
    header.update(dict(common.items()))
    header.SOPInstanceUID = f"{_FRAME}.{index}"
    if rank is not None:
        header.ImagePositionPatient = [0, 0, -rank]  # highdicom sorts by descending z
    return header


def _ranks_along_normal(series: DicomSeries) -> list[int]:
    orientation, positions = series.geometry.orientation, series.geometry.positions
    assert orientation is not None
    assert positions is not None
    order = np.argsort(positions @ np.cross(orientation[:3], orientation[3:]), kind="stable")
    ranks: list[int] = np.argsort(order).tolist()
    return ranks


def _slice_thickness(series: DicomSeries) -> float:
    """Slice thickness in mm; readers need one, so a nominal one stands in, the same as in ``StackGeometry.affine``."""
    try:
        thickness = float(series.common("SliceThickness") or 0)
    except (TypeError, ValueError):  # several values, or no number
        thickness = 0.0
    if math.isfinite(thickness) and thickness > 0:
        return thickness
    return series.geometry.slice_spacing or 1.0
