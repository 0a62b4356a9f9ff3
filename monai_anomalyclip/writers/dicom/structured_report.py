# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The anomaly scores of a series, and of its most suspicious slices or of findings, as a DICOM Structured Report."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import highdicom as hd
import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

import monai_anomalyclip
from monai_anomalyclip.data.dicom.series import DicomSeries
from monai_anomalyclip.writers.dicom.provenance import (
    ANOMALY_MAP,
    ANOMALY_SCORE,
    ANOMALY_THRESHOLD,
    NO_UNITS,
    Provenance,
    private_scheme_item,
)
from monai_anomalyclip.writers.dicom.source_headers import check_references, frame_headers
from monai_anomalyclip.writers.dicom.source_restoration import restore_source
from monai_anomalyclip.writers.result_files import save, silenced

__all__ = ["ReportedFinding", "write_report"]

_PROCEDURE = Code("363679005", "SCT", "Imaging procedure")
_COMMENT = Code("121106", "DCM", "Comment")
_MILLILITRE = Code("ml", "UCUM", "ml")


@dataclass(frozen=True)
class ReportedFinding:
    """A region that a person accepted.

    Args:
        number: its number among the findings of the series.
        frames: indices of the frames that it lies on.
        map_max: the highest value of the anomaly map in it.
        volume_ml: its size; None where the size of a voxel is unknown.
        note: what the person wrote.

    Example:
        >>> ReportedFinding(2, frames=range(7, 10), map_max=0.93).number
        2
    """

    number: int
    frames: Sequence[int]
    map_max: float
    volume_ml: float | None = None
    note: str = ""


@silenced()
def write_report(
    series: DicomSeries,
    scores: Sequence[float] | npt.NDArray[np.floating],
    path: str | os.PathLike[str],
    *,
    score: float,
    threshold: float | None,
    provenance: Provenance,
    top: int = 5,
    findings: Sequence[ReportedFinding] = (),
    overwrite: bool = False,
) -> Path:
    """Write scores as a Comprehensive 3D SR by template TID 1500, Measurement Report (DICOM PS3.16).

    One measurement group holds the score of the series and the threshold, which refer to the most suspicious slice; the
    group itself refers to all. One further group per slice, in descending order of score, refers to the slice's file,
    and frame number in a multi-frame file. Each finding is a group, too, which refers to all slices that it lies on.
    The report is partial, preliminary and unverified, and says that it is for research only.

    Args:
        series: the source, of any kind.
        scores: (n,) anomaly scores, in the order of `series.frames`; not calibrated.
        path: the file to write; its folder must exist.
        score: anomaly score of the whole series.
        threshold: above which score the series counts as anomalous; None if no threshold was set.
        provenance: which algorithm gave the scores.
        top: how many slices to report, at most.
        findings: what a person accepted.
        overwrite: replace an existing file.

    Returns:
        The path of the file.

    Raises:
        FileExistsError: the file exists and `overwrite` is False.
        ValueError: not one finite score per frame, a score or threshold is not finite, `top` is negative; a finding
            on frames that the series has not; a source without UIDs.
    """
    values = np.asarray(scores, dtype=np.float64)
    check_references(series)
    if values.shape != (len(series.frames),):
        raise ValueError(f"The series has {len(series.frames)} frames, got scores of shape {values.shape}.")
    if not (np.isfinite(values).all() and math.isfinite(score) and (threshold is None or math.isfinite(threshold))):
        raise ValueError("Scores and threshold must be finite numbers, got NaN or infinity.")
    if top < 0:
        raise ValueError(f"top must not be negative, got {top}.")
    if beyond := [i for finding in findings for i in finding.frames if not 0 <= i < len(values)]:
        raise ValueError(f"The series has {len(values)} frames, a finding lies on frame {beyond[0]}, counted from 0.")

    headers = frame_headers(series)
    ranked = np.argsort(-values, kind="stable").tolist()
    everything = _source_images(series, headers, range(len(values)))
    worst = _source_images(series, headers, ranked[:1])
    measurements = [_measurement(ANOMALY_SCORE, score, worst)]
    if threshold is not None:
        measurements.append(_measurement(ANOMALY_THRESHOLD, threshold, worst))
    groups = [_group("series", measurements, everything, series, provenance)]
    for index in ranked[:top]:
        name = f"frame {index + 1} of {len(values)}"
        images = _source_images(series, headers, [index])
        measurements = [_measurement(ANOMALY_SCORE, values[index], images)]
        groups.append(_group(name, measurements, images, series, provenance))
    for finding in findings:
        images = _source_images(series, headers, finding.frames)
        measurements = [_measurement(ANOMALY_MAP, finding.map_max, images)]
        if finding.volume_ml is not None:
            measurements.append(_measurement(codes.SCT.Volume, finding.volume_ml, images, _MILLILITRE))
        group = _group(f"finding {finding.number}", measurements, images, series, provenance)
        group[0].ContentSequence.append(_comment(f"Accepted by a reviewer. {finding.note}".strip()))
        groups.append(group)
    result = hd.sr.Comprehensive3DSR(
        evidence=headers,
        content=_content(groups, provenance),
        is_complete=False,
        is_final=False,
        is_verified=False,
        coding_schemes=[private_scheme_item()],
        contributing_equipment=[provenance.contributing_equipment()],
        **provenance.identity(series, "report"),
        **provenance.equipment,
    )
    restore_source(result, series)
    return save(result, path, overwrite)


_SourceImages = list[hd.sr.SourceImageForMeasurementGroup]


def _measurement(
    name: hd.sr.CodedConcept | Code,
    value: float,
    images: _SourceImages,
    unit: hd.sr.CodedConcept | Code = NO_UNITS,
) -> hd.sr.Measurement:
    """A number that says which images it comes from: OHIF 3.10 opens no report with others."""
    references = [
        hd.sr.SourceImageForMeasurement(
            referenced_sop_class_uid=image.referenced_sop_class_uid,
            referenced_sop_instance_uid=image.referenced_sop_instance_uid,
            referenced_frame_numbers=image.referenced_frame_numbers,
        )
        for image in images
    ]
    return hd.sr.Measurement(name=name, value=float(value), unit=unit, referenced_images=references)


def _comment(text: str) -> hd.sr.TextContentItem:
    return hd.sr.TextContentItem(name=_COMMENT, value=text, relationship_type=hd.sr.RelationshipTypeValues.CONTAINS)


def _source_images(series: DicomSeries, headers: Sequence[Dataset], indices: Iterable[int]) -> _SourceImages:
    """One reference per file that holds the frames, with frame numbers if these are not all of the file."""
    by_file: dict[int, list[int]] = {}
    for index in indices:
        by_file.setdefault(id(series.frames[index].instance), []).append(index)
    references = []
    for members in by_file.values():
        partial = len(members) < series.frames[members[0]].instance.n_frames
        references.append(
            hd.sr.SourceImageForMeasurementGroup(
                referenced_sop_class_uid=headers[members[0]].SOPClassUID,
                referenced_sop_instance_uid=headers[members[0]].SOPInstanceUID,
                referenced_frame_numbers=[series.frames[i].index + 1 for i in members] if partial else None,
            )
        )
    return references


def _group(
    name: str,
    measurements: list[hd.sr.Measurement],
    source_images: _SourceImages,
    series: DicomSeries,
    provenance: Provenance,
) -> hd.sr.MeasurementsAndQualitativeEvaluations:
    uid = provenance.uid(series, f"report group {name}")
    return hd.sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(uid=uid, identifier=name),
        algorithm_id=provenance.report_algorithm(),
        measurements=measurements,
        source_images=source_images,
    )


def _content(
    groups: list[hd.sr.MeasurementsAndQualitativeEvaluations], provenance: Provenance
) -> hd.sr.MeasurementReport:
    equipment = provenance.equipment
    observer = hd.sr.DeviceObserverIdentifyingAttributes(
        uid=provenance.device_uid(),
        name=provenance.algorithm_name,
        manufacturer_name=equipment["manufacturer"],
        model_name=equipment["manufacturer_model_name"],
        serial_number=equipment["device_serial_number"],
    )
    context = hd.sr.ObservationContext(
        observer_device_context=hd.sr.ObserverContext(codes.DCM.Device, observer_identifying_attributes=observer)
    )
    report = hd.sr.MeasurementReport(
        observation_context=context, procedure_reported=_PROCEDURE, imaging_measurements=groups
    )
    said = f"{monai_anomalyclip.RESEARCH_USE_ONLY} {provenance.caution}".strip()
    report[0].ContentSequence.append(_comment(said))  # TID 1500 and 1501 are extensible
    return report
