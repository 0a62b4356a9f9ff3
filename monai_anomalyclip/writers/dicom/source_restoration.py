# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Put the source's own patient, study, geometry and references into a finished object."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy

import numpy as np
import numpy.typing as npt
from highdicom import SOPClass
from pydicom.datadict import keyword_for_tag
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage

from monai_anomalyclip.data.dicom.attributes import find_value, vector
from monai_anomalyclip.data.dicom.pydicom_api import quiet_pydicom
from monai_anomalyclip.data.dicom.series import DicomSeries, Instance, text_of, values_of
from monai_anomalyclip.writers.dicom.provenance import derived_uid
from monai_anomalyclip.writers.dicom.source_headers import (
    decimal_strings,
    frame_index,
    slice_spacing,
)
from monai_anomalyclip.writers.dicom.valid_values import known_character_set, valid_element, valid_text, valid_uid

__all__ = ["patient_and_study", "restore_source", "source_notes"]

_ROUNDED = 1e-4  # what orthonormal direction cosines may have been rounded by
_PATIENT_GROUPS = (0x0010, 0x0012)
_STUDY = (
    "StudyDate",
    "StudyTime",
    "StudyID",
    "StudyDescription",
    "AccessionNumber",
    "IssuerOfAccessionNumberSequence",
    "ReferringPhysicianName",
    "ReferringPhysicianIdentificationSequence",
    "ConsultingPhysicianName",
    "ConsultingPhysicianIdentificationSequence",
    "PhysiciansOfRecord",
    "PhysiciansOfRecordIdentificationSequence",
    "NameOfPhysiciansReadingStudy",
    "PhysiciansReadingStudyIdentificationSequence",
    "RequestingService",
    "RequestingServiceCodeSequence",
    "ReferencedStudySequence",
    "ReferencedPatientSequence",
    "ProcedureCodeSequence",
    "ReasonForPerformedProcedureCodeSequence",
    "AdmittingDiagnosesDescription",
    "AdmittingDiagnosesCodeSequence",
    "AdmissionID",
    "IssuerOfAdmissionIDSequence",
    "ServiceEpisodeID",
    "ServiceEpisodeDescription",
    "IssuerOfServiceEpisodeIDSequence",
    "ReasonForVisit",
    "ReasonForVisitCodeSequence",
)
_TRIAL = ("ClinicalTrialSponsorName", "ClinicalTrialProtocolID", "ClinicalTrialSubjectID")
# Of another module, which can stand alone.
_TRIAL_STUDY = (
    "ClinicalTrialTimePointID",
    "ClinicalTrialTimePointDescription",
    "ClinicalTrialTimePointTypeCodeSequence",
)


def restore_source(result: SOPClass, series: DicomSeries) -> None:
    """Complete an object that was made from the placeholders of ``frame_headers``.

    Patient and study modules (with clinical trial) are those that all files agree in, made valid (see
    :mod:`~monai_anomalyclip.writers.dicom.valid_values`); attributes of type 2 that have no valid value stay empty. The
    character set is the source's, or UTF-8 where that is none. UIDs that are none are replaced by others that always
    belong to them. Orientation and positions are those of `series.geometry`. Private elements and everything else of
    the source stay behind.

    Args:
        result: changed in place.
        series: the source of the headers.
    """
    modules, _ = patient_and_study(series)
    result.copy_patient_and_study_information(modules)
    _restore_character_set(result, series)
    _restore_file_references(result, series)
    _restore_content(result.get("ContentSequence", []), series)
    if "PerFrameFunctionalGroupsSequence" in result:
        indices = _restore_frames(result, series)
        if "FrameOfReferenceUID" in result:
            _restore_space(result, series, indices)


def patient_and_study(series: DicomSeries) -> tuple[Dataset, list[str]]:
    """What results take from their source about patient and study, and sentences about what they do not.

    Args:
        series: the source.

    Returns:
        A data set of valid values, and sentences that name attributes, but none of their values.
    """
    header = series.header
    modules, rewritten, left_out = Dataset(), [], []
    declared = "SpecificCharacterSet" in header and known_character_set(header)
    for tag in header.keys():  # noqa: SIM118 (a Dataset iterates over elements)
        keyword = keyword_for_tag(tag)
        if not keyword or (tag.group not in _PATIENT_GROUPS and keyword not in _STUDY):
            continue
        try:
            element = deepcopy(header[tag])
            valid = valid_element(element, declared=declared) if _agreed(series, element) else None
        except Exception:  # pydicom raises nearly anything for a value that it cannot decode
            valid = None
        if valid is not None:
            modules.add(valid)
            if valid.VR != "SQ" and str(valid.value or "") != str(element.value or "").rstrip(" \0"):
                rewritten.append(keyword)
        else:
            left_out.append(keyword)
    _complete(modules)
    # Of the standard's images all have the same modules; the class tells highdicom which.
    modules.SOPClassUID, modules.SOPInstanceUID = CTImageStorage, "2.25.0"
    modules.StudyInstanceUID = valid_uid(series.header.StudyInstanceUID)
    notes = [
        f"DICOM results {done}, which are not valid or not the same in all files of the source: {', '.join(names)}."
        for done, names in (("rewrite some attributes", rewritten), ("leave out some attributes", left_out))
        if names
    ]
    keywords = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID")
    uids = {text for keyword in keywords for text in values_of(series.instances, keyword)}
    if any(valid_uid(uid) != uid for uid in uids):
        notes.append("UIDs of the source are not valid: DICOM results name others, by which no archive finds it.")
    return modules, notes


def source_notes(series: DicomSeries) -> list[str]:
    """Sentences for the record: what DICOM results do not take from their source as it is (see `patient_and_study`)."""
    with quiet_pydicom():
        return patient_and_study(series)[1] if series.header.get("StudyInstanceUID") else []


def _agreed(series: DicomSeries, element: DataElement) -> bool:
    return element.VR == "SQ" or len(values_of(series.instances, element.keyword)) < 2


def _complete(modules: Dataset) -> None:
    """Leave out what may only stand beside something else that is missing, or say that it is not known."""
    if modules.get("PatientIdentityRemoved") == "YES" and not (
        modules.get("DeidentificationMethod") or modules.get("DeidentificationMethodCodeSequence")
    ):
        modules.DeidentificationMethod = "Not stated in the source"
    if not all(modules.get(keyword) for keyword in _TRIAL):
        for element in list(modules):
            if element.keyword.startswith("ClinicalTrial") and not element.keyword.startswith(_TRIAL_STUDY):
                del modules[element.tag]


def _restore_character_set(result: SOPClass, series: DicomSeries) -> None:
    if "SpecificCharacterSet" in series.header and known_character_set(series.header):
        result["SpecificCharacterSet"] = deepcopy(series.header["SpecificCharacterSet"])
    elif "SpecificCharacterSet" in series.header or not _is_ascii(result):
        result.SpecificCharacterSet = "ISO_IR 192"


def _is_ascii(result: Dataset) -> bool:
    return all(
        all(map(_is_ascii, element.value)) if element.VR == "SQ" else str(element.value).isascii()
        for element in result
        if element.VR in ("SQ", "PN", "LO", "SH", "ST", "LT", "UT", "UC")
    )


def _restore_file_references(result: SOPClass, series: DicomSeries) -> None:
    files = [_file_reference(instance) for instance in series.instances]
    if "SourceImageSequence" in result:
        result.SourceImageSequence = files
    if "ReferencedSeriesSequence" in result:
        result.ReferencedSeriesSequence = _series_references(series.instances, "ReferencedInstanceSequence")
    if "CurrentRequestedProcedureEvidenceSequence" in result:
        studies = []
        for uid, files_of_study in _by(series.instances, "StudyInstanceUID").items():
            study = Dataset()
            study.StudyInstanceUID = valid_uid(uid)
            study.ReferencedSeriesSequence = _series_references(files_of_study, "ReferencedSOPSequence")
            studies.append(study)
        result.CurrentRequestedProcedureEvidenceSequence = studies


def _file_reference(instance: Instance) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = valid_uid(instance.header.SOPClassUID)
    item.ReferencedSOPInstanceUID = valid_uid(instance.header.SOPInstanceUID)
    return item


def _series_references(instances: Sequence[Instance], keyword: str) -> list[Dataset]:
    items = []
    for uid, files in _by(instances, "SeriesInstanceUID").items():
        item = Dataset()
        item.SeriesInstanceUID = valid_uid(uid)
        setattr(item, keyword, [_file_reference(instance) for instance in files])
        items.append(item)
    return items


def _by(instances: Sequence[Instance], keyword: str) -> dict[str, list[Instance]]:
    """Files by an identifier, which some anonymisers make each file's own."""
    groups: dict[str, list[Instance]] = {}
    for instance in instances:
        groups.setdefault(text_of(instance.header, keyword), []).append(instance)
    return groups


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


def _stored_orientation(series: DicomSeries) -> npt.NDArray[np.float64]:
    """That of the first frame to its last digit, where it is one: OHIF 3.10 opens no parametric map with another.

    The geometry's own is brought to unit length and right angles, which changes digits that nobody measured.
    """
    orientation = series.geometry.orientation
    assert orientation is not None
    stored = vector(find_value(series.frames[0], "PlaneOrientationSequence", "ImageOrientationPatient"), 6)
    alike = stored is not None and np.allclose(stored, orientation, rtol=0, atol=_ROUNDED)
    return stored if stored is not None and alike else orientation


def _restore_space(result: SOPClass, series: DicomSeries, indices: list[int]) -> None:
    # Anonymised files may lack the UID, or have one each. That the frames of one stack share a frame of reference is
    # true even then; the UID in its place is the same in all results of a series, and in nothing else.
    uid = series.common("FrameOfReferenceUID")
    result.FrameOfReferenceUID = valid_uid(uid) if uid else derived_uid(f"frame of reference of {series.series_uid}")
    indicator = valid_text(str(series.common("PositionReferenceIndicator") or ""), declared=False) or ""
    result.PositionReferenceIndicator = indicator if len(indicator) <= 64 and indicator.isascii() else ""
    positions = series.geometry.positions
    assert positions is not None
    for item, index in zip(result.PerFrameFunctionalGroupsSequence, indices, strict=True):
        item.PlanePositionSequence[0].ImagePositionPatient = decimal_strings(positions[index])
    shared = result.SharedFunctionalGroupsSequence[0]
    shared.PlaneOrientationSequence[0].ImageOrientationPatient = decimal_strings(_stored_orientation(series))
    if slice_spacing(series) is None:
        del shared.PixelMeasuresSequence[0].SpacingBetweenSlices

    # The made-up positions always look like a regular grid.
    result.pop("DimensionOrganizationType", None)
    neighbours = max(indices) - min(indices) == len(indices) - 1 > 0
    if neighbours and not series.geometry.flaws:
        result.DimensionOrganizationType = "3D"
