# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Find the DICOM images among files and folders, reading headers only."""

from __future__ import annotations

import filecmp
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from monai_anomalyclip.data.dicom.attributes import text_of, vector
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
    "NumberOfFrames",
)
_SAME_PLACE_MM = 0.005


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
        The images, and every other file with the reason (one that is no more than the beginning of a DICOM file, even
        an empty one, is damaged where images are beside it that are named alike): the codes of
        :func:`~monai_anomalyclip.data.dicom.header.read_header`, "duplicate file" (an identical copy) or
        "duplicate UID" (the same image, but other bytes, such as another compression). Of copies, the one whose path
        sorts first is kept. Files that share a SOP Instance UID but differ in study, series, position or number are all
        kept.
    """
    instances: list[Instance] = []
    skipped: list[SkippedFile] = []
    with quiet_pydicom():  # once for all files
        for path in tqdm(sorted(_files(paths, skipped)), desc="headers", unit="file", disable=not progress):
            outcome = read_header(path)
            if isinstance(outcome, Instance):
                instances.append(outcome)
            else:
                skipped.append(outcome)

    kinds = {_kind(instance.path) for instance in instances}
    skipped = [_as_cut_off(file) if _kind(file.path) in kinds else file for file in skipped]
    first: dict[tuple[str, ...], list[Instance]] = {}
    kept: list[Instance] = []
    with quiet_pydicom():
        for instance in instances:
            others = first.setdefault(_identity(instance), [])
            known = next((other for other in others if _in_one_place(other, instance)), None)
            if known is None:
                others.append(instance)
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


def _kind(path: Path) -> tuple[Path, str]:
    """Folder and suffix, by which a file that tells nothing else belongs to its neighbours; numbers are no suffix."""
    return path.parent, "" if path.suffix[1:].isdecimal() else path.suffix.lower()


def _as_cut_off(file: SkippedFile) -> SkippedFile:
    """The same; damaged if it is no more than the beginning of a DICOM file: an empty preamble, part of the prefix."""
    try:
        if file.code != "not DICOM" or file.path.stat().st_size >= 132:
            return file
        start = file.path.read_bytes()
    except OSError:
        return file
    if start[:128].strip(b"\0") or not b"DICM".startswith(start[128:]):
        return file
    return SkippedFile(file.path, "damaged header", "The file ends before its header begins, unlike those beside it.")


def _identity(instance: Instance) -> tuple[str, ...]:
    """What two files have in common that hold the same image; the path, which is nobody else's, without a UID."""
    header = instance.header
    if not text_of(header, "SOPInstanceUID"):
        return (str(instance.path),)
    return tuple(_plain(text_of(header, keyword)) for keyword in _SAME_IMAGE)


def _plain(text: str) -> str:
    """A whole number without leading zeros or sign, for tools write them differently; any other text as it is."""
    try:
        return str(int(text))
    except ValueError:
        return text


def _in_one_place(one: Instance, other: Instance) -> bool:
    """Whether two files have the same position, up to what tools change in its last digits, or none."""
    places = [text_of(instance.header, "ImagePositionPatient") for instance in (one, other)]
    try:
        first, second = (vector(instance.header.get("ImagePositionPatient"), 3) for instance in (one, other))
    except Exception:  # whatever a malformed value makes pydicom raise
        return places[0] == places[1]
    if first is None or second is None:
        return first is second
    return bool(np.abs(first - second).max() <= _SAME_PLACE_MM)


def _copy_of(known: Instance, instance: Instance) -> SkippedFile:
    try:
        identical = filecmp.cmp(known.path, instance.path, shallow=False)
    except OSError:
        identical = False
    if identical:
        return SkippedFile(instance.path, "duplicate file", "Another file is an identical copy.")
    detail = "Another file has the same UIDs and position, but not the same bytes; that one is used."
    return SkippedFile(instance.path, "duplicate UID", detail)
