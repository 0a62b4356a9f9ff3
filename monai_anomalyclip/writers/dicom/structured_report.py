# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The anomaly scores of a series and of its most suspicious slices as a DICOM Structured Report."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import highdicom as hd
import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

import monai_anomalyclip
from monai_anomalyclip.data.dicom.series import DicomSeries
from monai_anomalyclip.writers.dicom.coding import ANOMALY_SCORE, ANOMALY_THRESHOLD, NO_UNITS, private_scheme_item
from monai_anomalyclip.writers.dicom.provenance import Provenance
from monai_anomalyclip.writers.dicom.saving import save, silenced
from monai_anomalyclip.writers.dicom.source_headers import check_references, frame_headers
from monai_anomalyclip.writers.dicom.source_restoration import restore_source

__all__ = ["write_report"]

_PROCEDURE = Code("363679005", "SCT", "Imaging procedure")
_COMMENT = Code("121106", "DCM", "Comment")


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
    overwrite: bool = False,
) -> Path:
    """Write scores as a Comprehensive 3D SR by template TID 1500, Measurement Report (DICOM PS3.16).

    One measurement group holds the score of the series and the threshold; one further group per slice, in descending
    order of score, refers to the slice's file, and frame number in a multi-frame file. The report is partial,
    preliminary and unverified, and says that it is for research only.

    Args:
        series: the source, of any kind.
        scores: (n,) anomaly scores, in the order of `series.frames`; not calibrated.
        path: the file to write; its folder must exist.
        score: anomaly score of the whole series.
        threshold: above which score the series counts as anomalous; None if no threshold was set.
        provenance: which algorithm gave the scores.
        top: how many slices to report, at most.
        overwrite: replace an existing file.

    Returns:
        The path of the file.

    Raises:
        FileExistsError: the file exists and `overwrite` is False.
        ValueError: not one finite score per frame, a score or threshold is not finite, `top` is negative; a source
            without UIDs.
    """
    values = np.asarray(scores, dtype=np.float64)
    check_references(series)
    if values.shape != (len(series.frames),):
        raise ValueError(f"The series has {len(series.frames)} frames, got scores of shape {values.shape}.")
    if not (np.isfinite(values).all() and math.isfinite(score) and (threshold is None or math.isfinite(threshold))):
        raise ValueError("Scores and threshold must be finite numbers, got NaN or infinity.")
    if top < 0:
        raise ValueError(f"top must not be negative, got {top}.")

    measurements = [_measurement(ANOMALY_SCORE, score)]
    if threshold is not None:
        measurements.append(_measurement(ANOMALY_THRESHOLD, threshold))
    headers = frame_headers(series)
    everything = _source_images(series, headers, range(len(values)))
    groups = [_group("series", measurements, everything, series, provenance)]
    for index in np.argsort(-values, kind="stable")[:top].tolist():
        name = f"frame {index + 1} of {len(values)}"
        measurements = [_measurement(ANOMALY_SCORE, values[index])]
        groups.append(_group(name, measurements, _source_images(series, headers, [index]), series, provenance))
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


def _measurement(name: hd.sr.CodedConcept, value: float) -> hd.sr.Measurement:
    return hd.sr.Measurement(name=name, value=float(value), unit=NO_UNITS)


def _source_images(
    series: DicomSeries, headers: Sequence[Dataset], indices: Iterable[int]
) -> list[hd.sr.SourceImageForMeasurementGroup]:
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
    source_images: list[hd.sr.SourceImageForMeasurementGroup],
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
    report[0].ContentSequence.append(  # TID 1500 is extensible
        hd.sr.TextContentItem(
            name=_COMMENT,
            value=monai_anomalyclip.RESEARCH_USE_ONLY,
            relationship_type=hd.sr.RelationshipTypeValues.CONTAINS,
        )
    )
    return report
