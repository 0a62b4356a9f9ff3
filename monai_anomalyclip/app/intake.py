# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Files that a browser sends: into one private folder, under harmless paths, and no more than fits."""

from __future__ import annotations

import os
import shutil
import stat
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from monai_anomalyclip.atomic_file import make_private_folder

__all__ = ["Intake", "RefusedUploadError", "safe_path"]

_LONGEST_PART, _LONGEST_PATH, _DEEPEST = 200, 1000, 20  # bytes, bytes, folders
_PIECE = 2**20
_RESERVE = 2**30  # bytes of the disk that stay free
_LITTER = ("__MACOSX", ".DS_Store", "Thumbs.db", "desktop.ini")


class RefusedUploadError(ValueError):
    """What was sent cannot be taken; the message says why, in words for the page."""


def safe_path(name: str) -> PurePosixPath:
    """The relative path that a sent name stands for.

    Raises:
        RefusedUploadError: it is absolute, leads out of its folder, or no file system takes it.
    """
    path = name.replace("\\", "/")
    parts = path.split("/")
    wrong = (
        not path
        or len(os.fsencode(path)) > _LONGEST_PATH
        or len(parts) > _DEEPEST
        or any(part in ("", ".", "..") or len(os.fsencode(part)) > _LONGEST_PART for part in parts)
        or any(ord(letter) < 32 or ord(letter) == 127 for letter in path)
        or ":" in parts[0]
    )
    if wrong:
        raise RefusedUploadError("A file's name leads out of its folder, or is no name of a file: rename it.")
    return PurePosixPath(*parts)


@dataclass
class Intake:
    """The files of one study as they arrive.

    Args:
        folder: where they go; made for its owner only.
        most_bytes: of all files together, unpacked.
        most_files: number of files.
    """

    folder: Path
    most_bytes: int
    most_files: int
    received: int = 0
    files: int = 0

    @classmethod
    def resumed(cls, folder: Path, most_bytes: int, most_files: int) -> Intake:
        """One that counts what is in the folder already."""
        make_private_folder(folder)
        sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
        return cls(folder, most_bytes, most_files, sum(sizes), len(sizes))

    def open(self, name: str) -> BinaryIO:
        """A new file of that name, to be written with :meth:`write`.

        Raises:
            RefusedUploadError: as for :func:`safe_path`; or it was sent twice, or there are too many.
        """
        if self.files >= self.most_files:
            raise RefusedUploadError(f"More than {self.most_files} files: name a folder on this machine instead.")
        path = self.folder.joinpath(*safe_path(name).parts)
        try:
            make_private_folder(path.parent)
            stream = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            raise RefusedUploadError("Two of the files have one name: send them as two studies.") from None
        self.files += 1
        return stream

    def write(self, stream: BinaryIO, piece: bytes) -> None:
        """Append to a file.

        Raises:
            RefusedUploadError: the files together are too large, or the disk is nearly full.
        """
        self.received += len(piece)
        if self.received > self.most_bytes:
            limit = self.most_bytes / 2**30
            raise RefusedUploadError(f"More than {limit:g} GiB: name a folder on this machine instead.")
        if shutil.disk_usage(self.folder).free < _RESERVE + len(piece):
            raise RefusedUploadError("The disk is nearly full: make room, and send the files again.")
        stream.write(piece)

    def unpack(self) -> None:
        """Replace each zip archive by what is in it; archives within archives stay as they are.

        Raises:
            RefusedUploadError: an archive is damaged, encrypted, holds links or names that lead out, or is too large
                when it is unpacked: what its headers say does not count, what comes out does.
        """
        for path in sorted(self.folder.rglob("*")):
            if path.suffix.lower() != ".zip" or not path.is_file() or not zipfile.is_zipfile(path):
                continue
            size = path.stat().st_size
            inside = path.with_name(path.name + ".files").relative_to(self.folder)
            try:
                with zipfile.ZipFile(path) as archive:
                    for info in _members(archive):
                        with archive.open(info) as source, self.open(f"{inside.as_posix()}/{info.filename}") as stream:
                            while piece := source.read(_PIECE):
                                self.write(stream, piece)
            except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, OSError) as error:
                raise RefusedUploadError(f"The archive cannot be unpacked ({type(error).__name__}).") from None
            except ValueError as error:
                raise (
                    error if isinstance(error, RefusedUploadError) else RefusedUploadError("The archive is damaged.")
                ) from None
            path.unlink()
            self.received -= size
            self.files -= 1


def _members(archive: zipfile.ZipFile) -> Iterator[zipfile.ZipInfo]:
    for info in archive.infolist():
        if info.is_dir() or any(part in _LITTER for part in info.filename.split("/")):
            continue
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFREG):
            raise RefusedUploadError("The archive holds a link or a device, which is not followed.")
        if info.flag_bits & 1:
            raise RefusedUploadError("The archive is encrypted: unpack it first.")
        yield info
