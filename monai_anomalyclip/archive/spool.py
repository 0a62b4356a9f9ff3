# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Images that were received and are not done yet: a folder that tells all there is to know, also after a kill -9."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pydicom

from monai_anomalyclip.archive.results import Predecessor
from monai_anomalyclip.atomic_file import make_private_folder, remove_abandoned, write_atomically

__all__ = ["Spool", "SpooledStudy", "StudyState", "is_image"]

_SPARE = 2**30  # bytes of the disk that are left free


@dataclass(frozen=True)
class StudyState:
    """What has been done of a study.

    Args:
        keys: the seal's key of each series that is done, by the series' group.
        reports: our latest report of each, by the same.
        tried: how often sending has failed since it last went well.
    """

    keys: dict[str, str] = field(default_factory=dict)
    reports: dict[str, list[Predecessor]] = field(default_factory=dict)
    tried: int = 0

    def to_json(self) -> str:
        """As text."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> StudyState:
        """What :meth:`to_json` gave; nothing for what is damaged: the study is then done again."""
        try:
            fields = json.loads(text)
            reports = {key: [Predecessor(**one) for one in found] for key, found in fields["reports"].items()}
            return cls(dict(fields["keys"]), reports, int(fields["tried"]))
        except (ValueError, TypeError, KeyError, AttributeError):
            return cls()


class SpooledStudy:
    """A study in the spool.

    Args:
        path: its folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.images = path / "images"

    def quiet_for(self, now: float | None = None) -> float:
        """Seconds since the last image was received."""
        times = [entry.stat().st_mtime for entry in os.scandir(self.images) if entry.name[0] != "."]
        return (time.time() if now is None else now) - max(times, default=0.0)

    def count(self) -> int:
        """Number of images."""
        return sum(entry.name[0] != "." for entry in os.scandir(self.images))

    def state(self) -> StudyState:
        """What has been done of it."""
        try:
            return StudyState.from_json((self.path / "state.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            return StudyState()

    def put(self, state: StudyState) -> None:
        """Note what has been done of it."""
        write_atomically(self.path / "state.json", state.to_json().encode())

    def done_count(self) -> int:
        """Number of images when it was last done; -1: never."""
        try:
            return int((self.path / "done").read_text())
        except (FileNotFoundError, ValueError):
            return -1

    def put_done(self, count: int) -> None:
        """Note that it is done with so many images."""
        write_atomically(self.path / "done", str(count).encode())

    def remove(self) -> None:
        """Forget it."""
        shutil.rmtree(self.path, ignore_errors=True)


class Spool:
    """The folder of all studies. Names in it are hashes; files are readable by their owner only.

    An image counts as received when it has its name: it is written under another one, brought to the disk, and renamed.

    Args:
        path: the folder.

    Example:
        >>> spool = Spool(Path("spool"))
        >>> [study.count() for study in spool.studies()]
        []
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        make_private_folder(path.absolute())
        remove_abandoned(path)

    def put(self, file: bytes) -> bool:
        """Keep an image; False for what is none, which nobody needs to send again.

        Args:
            file: a DICOM file.

        Raises:
            OSError: the disk is full.
            ValueError: it lacks the UIDs that tell where it belongs.
        """
        keywords = ["SOPClassUID", "StudyInstanceUID", "SOPInstanceUID"]
        header = pydicom.dcmread(io.BytesIO(file), stop_before_pixels=True, specific_tags=list(keywords))
        uids = [str(header.get(keyword, "")) for keyword in keywords]
        if not all(uids):
            raise ValueError("The object lacks a UID.")
        if not is_image(uids[0]):
            return False
        if shutil.disk_usage(self.path).free < len(file) + _SPARE:
            raise OSError("The disk of the spool is full.")
        folder = self.path / _hash(uids[1]) / "images"
        make_private_folder(folder)
        target = folder / f"{_hash(uids[2])}.dcm"
        if not target.exists() or target.read_bytes() != file:  # sent again: the study does not begin anew
            write_atomically(target, file)
        return True

    def studies(self) -> Iterator[SpooledStudy]:
        """All studies, in no order that matters."""
        for folder in sorted(self.path.iterdir()):
            if folder.name[0] != "." and (folder / "images").is_dir():
                yield SpooledStudy(folder)


def is_image(class_uid: str) -> bool:
    """Whether objects of a SOP class are images to score: no SEG, SR, secondary capture, parametric map, ..."""
    name = pydicom.uid.UID(class_uid).name
    return "Image Storage" in name and "Secondary Capture" not in name


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]
