# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Find the DICOM images among files and folders, reading headers only."""

from __future__ import annotations

import filecmp
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from monai_anomalyclip.data.dicom.attributes import text_of
from monai_anomalyclip.data.dicom.header import read_header
from monai_anomalyclip.data.dicom.pydicom_api import quiet_pydicom
from monai_anomalyclip.data.dicom.series import Instance, SkippedFile

__all__ = ["Scan", "scan_files"]

# Some devices and anonymisers give one and the same SOP Instance UID to everything.
_SAME_IMAGE = (
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "SOPInstanceUID",
    "InstanceNumber",
    "AcquisitionNumber",
    "ImagePositionPatient",
    "NumberOfFrames",
)


class Scan(NamedTuple):
    """Images and skipped files, each sorted by path."""

    instances: list[Instance]
    skipped: list[SkippedFile]


def scan_files(paths: Iterable[Path], *, progress: bool = False) -> Scan:
    """Read the headers of all DICOM images among the paths.

    Nothing is raised for a file, whatever it holds, and no file takes long or much memory; neither pydicom's warnings
    nor paths reach the log.

    Args:
        paths: files, and folders which stand for all files in them at any depth; links to folders are not followed.
        progress: show a progress bar.

    Returns:
        The images, and every other file with the reason: the codes of
        :func:`~monai_anomalyclip.data.dicom.header.read_header`, "duplicate file" (an identical copy) or
        "duplicate UID" (the same image, but other bytes, such as another compression). Of copies, the one whose path
        sorts first is kept. Files that share a SOP Instance UID but differ in study, series, position or number are all
        kept.
    """
    instances: list[Instance] = []
    skipped: list[SkippedFile] = []
    for path in tqdm(sorted(_files(paths, skipped)), desc="headers", unit="file", disable=not progress):
        outcome = read_header(path)
        if isinstance(outcome, Instance):
            instances.append(outcome)
        else:
            skipped.append(outcome)

    first: dict[tuple[str, ...], Instance] = {}
    kept: list[Instance] = []
    with quiet_pydicom():
        for instance in instances:
            known = first.setdefault(_identity(instance), instance)
            if known is instance:
                kept.append(instance)
            else:
                skipped.append(_copy_of(known, instance))
    return Scan(kept, sorted(skipped, key=lambda file: file.path))


def _files(paths: Iterable[Path], skipped: list[SkippedFile]) -> set[Path]:
    def refuse(error: OSError) -> None:
        skipped.append(SkippedFile(Path(error.filename), "unreadable", "The folder cannot be opened."))

    found: set[Path] = set()
    for path in map(Path, paths):
        if os.path.isdir(path):  # that of pathlib raises where a folder above is locked
            for folder, _, names in os.walk(path, onerror=refuse):
                found.update(Path(folder, name) for name in names)
        else:
            found.add(path)
    return found


def _identity(instance: Instance) -> tuple[str, ...]:
    """What two files have in common that hold the same image; the path, which is nobody else's, without a UID."""
    header = instance.header
    if not text_of(header, "SOPInstanceUID"):
        return (str(instance.path),)
    return tuple(text_of(header, keyword) for keyword in _SAME_IMAGE)


def _copy_of(known: Instance, instance: Instance) -> SkippedFile:
    try:
        identical = filecmp.cmp(known.path, instance.path, shallow=False)
    except OSError:
        identical = False
    if identical:
        return SkippedFile(instance.path, "duplicate file", "Another file is an identical copy.")
    detail = "Another file has the same UIDs and position, but not the same bytes; that one is used."
    return SkippedFile(instance.path, "duplicate UID", detail)
