# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""What a DICOM series is to the rest of the package: ordered frames of one size, and where they lie in space."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from monai_anomalyclip.data.dicom.pydicom_api import quiet_pydicom

__all__ = [
    "DAMAGED",
    "DicomSeries",
    "FrameReference",
    "Instance",
    "SkippedFile",
    "StackGeometry",
    "digest_of_instances",
    "file_mark",
    "group_of",
    "text_of",
    "values_of",
]

# Defined terms of images (PS3.3 C.7.3.1.1.1); any other text could be a name.
_MODALITIES = frozenset(
    [
        "BI",
        "BMD",
        "CR",
        "CT",
        "DG",
        "DMS",
        "DX",
        "ES",
        "EPS",
        "GM",
        "IO",
        "IVOCT",
        "IVUS",
        "LS",
        "MG",
        "MR",
        "NM",
        "OAM",
        "OCT",
        "OP",
        "OPM",
        "OPT",
        "OPTENF",
        "OT",
        "PA",
        "PT",
        "PX",
        "RF",
        "RG",
        "RTIMAGE",
        "SM",
        "TG",
        "US",
        "VA",
        "XA",
        "XC",
    ]
)

DAMAGED = (
    "damaged header",
    "damaged pixels",
    "deflated too large",
    "header too large",
    "too large",
    "unreadable",
)
"""Codes of files that are damaged, cannot be opened, or claim more than can be read."""

Kind = Literal["volume", "frame", "cine"]


@dataclass(frozen=True)
class SkippedFile:
    """A file that is not processed.

    Args:
        path: the file; never to be logged.
        code: reason in a word or two, fit for counting, such as ``"not DICOM"``.
        detail: one sentence for the user, without any text of the file.
        series_uid: of the series that it would belong to, as far as that can be read; never to be logged.
    """

    path: Path
    code: str
    detail: str = ""
    series_uid: str = field(default="", repr=False)

    @property
    def damaged(self) -> bool:
        """Whether an undamaged or smaller copy would be read: it is not left out as it is meant to be."""
        return self.code in DAMAGED


@dataclass(frozen=True)
class Instance:
    """One DICOM file.

    Args:
        path: the file.
        header: the elements before the pixel data; without bulk data and most private elements.
        transfer_syntax: UID of the transfer syntax.
        seen: which file it was when the header was read, see :func:`file_mark`; None where that is not known.
    """

    path: Path
    header: Dataset = field(repr=False)
    transfer_syntax: str
    seen: tuple[int, ...] | None = field(default=None, repr=False, compare=False)

    @property
    def n_frames(self) -> int:
        """Number of frames, 1 for single-frame objects."""
        return int(self.header.get("NumberOfFrames") or 1)


def file_mark(status: os.stat_result) -> tuple[int, ...]:
    """What changes when a file is written to, or another takes its place."""
    return status.st_ino, status.st_size, status.st_mtime_ns


@dataclass(frozen=True)
class FrameReference:
    """One frame of one file; `index` counts from 0."""

    instance: Instance
    index: int = 0


@dataclass(frozen=True)
class StackGeometry:
    """Where the frames of a stack lie, and whether they make a volume.

    Args:
        flaws: what keeps the stack from being a regular one; empty for a regular stack, a single slice, or frames
            without a position. Of ``"gaps"`` (missing slices on a regular grid), ``"irregular spacing"``,
            ``"gantry tilt"``, ``"duplicate positions"``.
        orientation: (6,) direction cosines of rows and columns (Image Orientation (Patient)), or None.
        positions: (n, 3) mm in LPS, Image Position (Patient) of each frame in stack order, which is that along the
            normal; or None.
        pixel_spacing: distance in mm between (rows, columns), or None when unknown: never invented.
        spacing_source: which attribute the pixel spacing comes from, with a remark when it is not calibrated.
        slice_spacing: nominal distance in mm between neighbouring slices along the normal, or None.
        missing_slices: how many slots of a regular grid are empty.
        tilt_degrees: angle between the slice normal and the direction in which the positions move.
    """

    flaws: tuple[str, ...] = ()
    orientation: npt.NDArray[np.float64] | None = None
    positions: npt.NDArray[np.float64] | None = None
    pixel_spacing: tuple[float, float] | None = None
    spacing_source: str | None = None
    slice_spacing: float | None = None
    missing_slices: int = 0
    tilt_degrees: float = 0.0

    @property
    def verdict(self) -> str:
        """``"regular"``, ``"single slice"``, ``"no position"``, or the flaws joined by `` + ``."""
        if self.flaws:
            return " + ".join(self.flaws)
        if self.positions is None:
            return "no position"
        return "regular" if len(self.positions) > 1 else "single slice"

    def affine(self, sheared: bool = False) -> npt.NDArray[np.float64] | None:
        """(4, 4) matrix from (column, row, slice) indices to mm in RAS; None where no affine can be true.

        A single slice gets its thickness' direction from the normal and `slice_spacing`, or 1 mm if that is unknown.

        Args:
            sheared: give the true, sheared matrix of a stack whose only flaw is a gantry tilt.
        """
        allowed = (set(), {"gantry tilt"}) if sheared else (set(),)
        if self.orientation is None or self.positions is None or self.pixel_spacing is None:
            return None
        if set(self.flaws) not in allowed:
            return None
        across, down = self.orientation[:3], self.orientation[3:]
        if len(self.positions) > 1:
            step = (self.positions[-1] - self.positions[0]) / (len(self.positions) - 1)
        else:
            step = np.cross(across, down) * (self.slice_spacing or 1.0)
        matrix = np.eye(4)
        matrix[:3, 0] = across * self.pixel_spacing[1]
        matrix[:3, 1] = down * self.pixel_spacing[0]
        matrix[:3, 2] = step
        matrix[:3, 3] = self.positions[0]
        return np.asarray(np.diag([-1.0, -1.0, 1.0, 1.0]) @ matrix)


@dataclass(frozen=True)
class DicomSeries:
    """Frames of one series that are scored together.

    Args:
        kind: ``"volume"``: gray frames with positions; ``"frame"``: one picture; ``"cine"``: frames in time.
        frames: in stack order: along the slice normal, or in time.
        geometry: see :class:`StackGeometry`.
        colour: whether the frames are RGB once decoded (RGB, YBR, palette).
        part: number of this stack among those that its series was cut into, from 0.
        split: why the series was cut and which part this is ("echo time 20", "orientation 2"), or None.
        excluded: why the series is not processed unless it is asked for ("localizer", "segmentation", ...), or None.
        notes: sentences about the series that a reader of the results should know; without any text of the files.
        source_digest: :func:`digest_of_instances` of the whole series, of which this may be a part; "": of the frames.
    """

    kind: Kind
    frames: tuple[FrameReference, ...]
    geometry: StackGeometry
    colour: bool = False
    part: int = 0
    split: str | None = None
    excluded: str | None = None
    notes: tuple[str, ...] = ()
    source_digest: str = ""

    @property
    def header(self) -> Dataset:
        """Header of the first frame's file."""
        return self.frames[0].instance.header

    @property
    def series_uid(self) -> str:
        """Series Instance UID."""
        return text_of(self.header, "SeriesInstanceUID")

    @property
    def modality(self) -> str:
        """Modality in capitals, ``"OT"`` when it is not given or no defined term."""
        modality = text_of(self.header, "Modality").upper()
        return modality if modality in _MODALITIES else "OT"

    @property
    def size(self) -> tuple[int, int]:
        """(rows, columns) of a frame."""
        return int(self.header.Rows), int(self.header.Columns)

    @property
    def instances(self) -> tuple[Instance, ...]:
        """The files, each once, in the order of their first frame."""
        return tuple({id(frame.instance): frame.instance for frame in self.frames}.values())

    @property
    def instance_numbers(self) -> tuple[int | None, ...]:
        """DICOM's Instance Number of each frame's file, None where it is missing or no number."""
        with quiet_pydicom():
            return tuple(_whole_number(text_of(frame.instance.header, "InstanceNumber")) for frame in self.frames)

    @property
    def slice_positions(self) -> tuple[float | None, ...]:
        """Where each frame lies along the slice normal, in mm (LPS); None for frames without position.

        Along the axis of an axial stack that is the z of Image Position (Patient), or its negative.
        """
        positions, orientation = self.geometry.positions, self.geometry.orientation
        if positions is None or orientation is None:
            return (None,) * len(self.frames)
        return tuple((positions @ np.cross(orientation[:3], orientation[3:])).tolist())

    def common(self, keyword: str) -> Any:
        """Value of an attribute that all files agree in; None where they do not, and where none has it.

        Files that lack it do not count. The value is that of the first file that has it.
        """
        if len(values_of(self.instances, keyword)) != 1:
            return None
        return next(one.header.get(keyword) for one in self.instances if text_of(one.header, keyword))

    @property
    def key(self) -> str:
        """Sixteen hexadecimal digits of the hash of what identifies this stack.

        A stack is known by study, series and what tells it from others of its series, so that it keeps its key when
        slices are added; a picture or film by its instance.
        """
        own = [self.split or ""]
        if self.kind != "volume":
            own = [text_of(self.header, "SOPInstanceUID"), str(self.frames[0].index)]
        return _hash(text_of(self.header, "StudyInstanceUID"), self.series_uid, *own)

    @property
    def group(self) -> str:
        """Sixteen hexadecimal digits that all stacks of a series share."""
        return group_of(text_of(self.header, "StudyInstanceUID"), self.series_uid)


def digest_of_instances(uids: Iterable[str]) -> str:
    """SHA-256 of a set of SOP Instance UIDs, in whichever order they come."""
    return hashlib.sha256("\n".join(sorted(set(uids))).encode()).hexdigest()


def group_of(study_uid: str, series_uid: str) -> str:
    """Sixteen hexadecimal digits that stand for a series."""
    return _hash(study_uid, series_uid)


def _hash(*texts: str) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]


def _whole_number(text: str) -> int | None:
    try:
        return int(text)
    except ValueError:
        return None


def values_of(instances: Iterable[Instance], keyword: str) -> list[str]:
    """The different texts of an attribute among files, without those that lack it, in the order of the files."""
    with quiet_pydicom():
        texts = [text_of(instance.header, keyword) for instance in instances]
    return list(dict.fromkeys(text for text in texts if text))


def text_of(header: Dataset, keyword: str) -> str:
    """Value of an attribute as text, ``""`` where it is missing or cannot be decoded."""
    try:
        with quiet_pydicom():  # whose warnings quote the value
            value = header.get(keyword)
    except Exception:  # damaged elements make pydicom raise nearly anything
        return ""
    return "" if value is None else str(value).strip()
