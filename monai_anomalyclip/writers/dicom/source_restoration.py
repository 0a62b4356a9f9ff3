# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Put the source's own patient, study, geometry and references into a finished object."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from copy import deepcopy

from highdicom import SOPClass
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage

from monai_anomalyclip.data.dicom.series import DicomSeries, Instance
from monai_anomalyclip.writers.dicom.provenance import derived_uid
from monai_anomalyclip.writers.dicom.source_headers import (
    decimal_strings,
    frame_index,
    slice_spacing,
    verbatim,
)

__all__ = ["restore_source"]


def restore_source(result: SOPClass, series: DicomSeries) -> None:
    """Complete an object that was made from the placeholders of ``frame_headers``.

    Patient and study modules (with clinical trial) and the character set are copied as they are, but for values that
    cannot be decoded; attributes of type 2 that the source lacks stay empty. Orientation and positions are those of
    `series.geometry`. Private elements and everything else of the source stay behind.

    Args:
        result: changed in place.
        series: the source of the headers.
    """
    result.copy_patient_and_study_information(_patient_and_study(series.header))
    if "SpecificCharacterSet" in series.header:
        result["SpecificCharacterSet"] = deepcopy(series.header["SpecificCharacterSet"])
    _restore_file_references(result, series)
    _restore_content(result.get("ContentSequence", []), series)
    if "PerFrameFunctionalGroupsSequence" in result:
        indices = _restore_frames(result, series)
        if "FrameOfReferenceUID" in result:
            _restore_space(result, series, indices)


def _patient_and_study(header: Dataset) -> Dataset:
    modules = Dataset()
    for tag in header.keys():  # noqa: SIM118 (a Dataset iterates over elements)
        if tag.group <= 0x0040 and not tag.is_private:
            with contextlib.suppress(Exception):  # pydicom raises nearly anything for a value that it cannot decode
                modules[tag] = deepcopy(header[tag])
    modules.SOPClassUID = CTImageStorage  # tells highdicom which modules there are: the same ones in all images
    modules.SOPInstanceUID = "2.25.0"
    return modules


def _restore_file_references(result: SOPClass, series: DicomSeries) -> None:
    files = [_file_reference(instance) for instance in series.instances]
    if "SourceImageSequence" in result:
        result.SourceImageSequence = files
    if "ReferencedSeriesSequence" in result:
        result.ReferencedSeriesSequence = [_series_reference(series, "ReferencedInstanceSequence", files)]
    if "CurrentRequestedProcedureEvidenceSequence" in result:
        study = Dataset()
        study.add(verbatim("StudyInstanceUID", series.header.StudyInstanceUID))
        study.ReferencedSeriesSequence = [_series_reference(series, "ReferencedSOPSequence", files)]
        result.CurrentRequestedProcedureEvidenceSequence = [study]


def _file_reference(instance: Instance) -> Dataset:
    item = Dataset()
    item.add(verbatim("ReferencedSOPClassUID", instance.header.SOPClassUID))
    item.add(verbatim("ReferencedSOPInstanceUID", instance.header.SOPInstanceUID))
    return item


def _series_reference(series: DicomSeries, keyword: str, files: list[Dataset]) -> Dataset:
    item = Dataset()
    item.add(verbatim("SeriesInstanceUID", series.header.SeriesInstanceUID))
    setattr(item, keyword, files)
    return item


def _restore_reference(item: Dataset, series: DicomSeries) -> int:
    """Put the true file in place of a placeholder, and give the index of the frame that it stood for."""
    index = frame_index(item.ReferencedSOPInstanceUID)
    item.update(dict(_file_reference(series.frames[index].instance).items()))
    return index


def _restore_content(items: Sequence[Dataset], series: DicomSeries) -> None:
    for item in items:
        for reference in item.get("ReferencedSOPSequence", []):
            _restore_reference(reference, series)
        _restore_content(item.get("ContentSequence", []), series)


def _restore_frames(result: SOPClass, series: DicomSeries) -> list[int]:
    """Give each frame its true source; return the index in the series of each frame."""
    indices = []
    for item in result.PerFrameFunctionalGroupsSequence:
        source = item.DerivationImageSequence[0].SourceImageSequence[0]
        index = _restore_reference(source, series)
        frame = series.frames[index]
        if frame.instance.n_frames > 1:
            source.ReferencedFrameNumber = frame.index + 1
        indices.append(index)
    return indices


def _restore_space(result: SOPClass, series: DicomSeries, indices: list[int]) -> None:
    # Anonymised files may lack the UID. That the frames of one stack share a frame of reference is true even then; the
    # UID in its place is the same in all results of a series, and in nothing else.
    uid = series.header.get("FrameOfReferenceUID") or derived_uid(f"frame of reference of {series.series_uid}")
    result.add(verbatim("FrameOfReferenceUID", uid))
    result.add(verbatim("PositionReferenceIndicator", series.header.get("PositionReferenceIndicator")))
    orientation, positions = series.geometry.orientation, series.geometry.positions
    assert orientation is not None
    assert positions is not None
    for item, index in zip(result.PerFrameFunctionalGroupsSequence, indices, strict=True):
        item.PlanePositionSequence[0].ImagePositionPatient = decimal_strings(positions[index])
    shared = result.SharedFunctionalGroupsSequence[0]
    shared.PlaneOrientationSequence[0].ImageOrientationPatient = decimal_strings(orientation)
    if slice_spacing(series) is None:
        del shared.PixelMeasuresSequence[0].SpacingBetweenSlices

    # The made-up positions always look like a regular grid.
    result.pop("DimensionOrganizationType", None)
    neighbours = max(indices) - min(indices) == len(indices) - 1 > 0
    if neighbours and not series.geometry.flaws:
        result.DimensionOrganizationType = "3D"
