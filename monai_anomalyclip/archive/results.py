# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The DICOM results of a series: which there will be, in which order they are stored, and what they supersede."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence

from monai_anomalyclip.data.dicom.series import digest_of_instances, group_of
from monai_anomalyclip.data.inputs import InputCatalogue
from monai_anomalyclip.scale.warm_run import WarmRun, WorkDone
from monai_anomalyclip.writers.dicom.provenance import result_uid, uid_context
from monai_anomalyclip.writers.output_folder import OutputFolder
from monai_anomalyclip.writers.record import MadeWith
from monai_anomalyclip.writers.result_files import save

__all__ = ["ARCHIVE_IDS", "Predecessor", "Seal", "SeriesResults", "score_series", "seal_of"]

ARCHIVE_IDS = {"deterministic_uids": True, "outputs": ["seg", "sr"]}
"""Of the configuration: an archive gets segmentation and report, with UIDs that follow from source and settings."""

SUPERSEDES = "Supersedes an earlier result of fewer or other images of this series."


@dataclass(frozen=True)
class Seal:
    """The structured report that is stored last: where it is, all results of the same source and settings are.

    Args:
        key: text that stands for source and settings; nothing of it can be read.
        series_uid: Series Instance UID of the report.
        instance_uid: SOP Instance UID.
    """

    key: str
    series_uid: str
    instance_uid: str


@dataclass(frozen=True)
class Predecessor:
    """A report that an archive holds of the same series, made from other images of it or with other settings."""

    study_uid: str
    series_uid: str
    class_uid: str
    instance_uid: str


@dataclass(frozen=True)
class SeriesResults:
    """What came of a series.

    Args:
        files: DICOM objects in the order in which they are to be stored, the seal last.
        done: what became of its inputs.
    """

    files: tuple[Path, ...] = ()
    done: WorkDone = field(default_factory=WorkDone)


def seal_of(made: MadeWith, study_uid: str, series_uid: str, instance_uids: Sequence[str]) -> Seal:
    """The seal of a series, without any of its images.

    Args:
        made: what results are made with.
        study_uid: Study Instance UID.
        series_uid: Series Instance UID.
        instance_uids: SOP Instance UIDs of all images of the series, in any order.
    """
    context = uid_context(made, group_of(study_uid, series_uid), digest_of_instances(instance_uids))
    report, instance = (result_uid(context, f"report {what}") for what in ("series", "instance"))
    return Seal(digest_of_instances([context]), report, instance)


def score_series(
    run: WarmRun, catalogue: InputCatalogue, output: Path, predecessors: Sequence[Predecessor] = ()
) -> SeriesResults:
    """Score the stacks of one series.

    Args:
        run: the warm model; made with :data:`ARCHIVE_IDS`.
        catalogue: the stacks.
        output: a folder for the results, empty or absent.
        predecessors: reports that the new ones supersede, and name.
    """
    shutil.rmtree(output, ignore_errors=True)
    folder = OutputFolder(output)
    done = run(catalogue, folder)
    reports: list[Path] = []
    others: list[Path] = []
    for name in catalogue.sources:
        state = folder.state(name)
        for file in state.files if state is not None and state.state == "finished" else ():
            if file.path.endswith(".dcm"):
                (reports if file.path.endswith("_sr.dcm") else others).append(folder.path / file.path)
    for path in reports if predecessors else ():
        _supersede(path, predecessors)
    return SeriesResults((*others, *reversed(reports)), done)


def _supersede(path: Path, predecessors: Sequence[Predecessor]) -> None:
    """Say in a report which ones it takes the place of (PS3.3 C.17.2, Predecessor Documents Sequence)."""
    report = pydicom.dcmread(path)
    studies: dict[str, dict[str, list[Dataset]]] = {}
    for one in predecessors:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = one.class_uid, one.instance_uid
        studies.setdefault(one.study_uid, {}).setdefault(one.series_uid, []).append(item)
    items = []
    for study_uid, series in studies.items():
        study = Dataset()
        study.StudyInstanceUID = study_uid
        study.ReferencedSeriesSequence = DicomSequence()
        for series_uid, instances in series.items():
            entry = Dataset()
            entry.SeriesInstanceUID, entry.ReferencedSOPSequence = series_uid, DicomSequence(instances)
            study.ReferencedSeriesSequence.append(entry)
        items.append(study)
    report.PredecessorDocumentsSequence = DicomSequence(items)
    report.CompletionFlagDescription = SUPERSEDES[:64]
    save(report, path, True)
