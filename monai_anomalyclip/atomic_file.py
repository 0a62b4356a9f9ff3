# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Files that appear under their names only when they are complete, and the digests that their content is known by."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import psutil

__all__ = [
    "git_blob_id",
    "make_private_folder",
    "on_disk",
    "remove_abandoned",
    "replaced_when_complete",
    "sha256_of",
    "sync",
    "unfinished_path",
    "write_atomically",
]

# Several processes write into one folder, from several computers and containers, where numbers of processes repeat.
_HOST = hashlib.sha256(platform.node().encode()).hexdigest()[:6]
_TOKEN = secrets.token_hex(3)
_UNFINISHED = re.compile(r"\.unfinished-(\d+)-([0-9a-f]{6})-([0-9a-f]{6})\..+")
_LONGEST_WRITE = 7 * 24 * 3600  # seconds after which what another computer left unfinished is taken for abandoned


@contextmanager
def replaced_when_complete(path: str | os.PathLike[str], durable: bool = True) -> Iterator[Path]:
    """Give a temporary path in the same folder, with the same suffix, to write to; then rename it.

    When the block raises, the temporary file is removed and what was at ``path`` stays as it was. What is renamed has
    reached the disk (fsync), so that a loss of power leaves the old content or the new one; unless `durable` is False,
    for what somebody else brings there, or can do without.

    Example::

        with replaced_when_complete("model.pt") as unfinished:
            torch.save(state, unfinished)
    """
    unfinished = unfinished_path(path)
    try:
        yield unfinished
        if durable:
            sync(unfinished)
        os.replace(unfinished, path)
        if durable:
            sync(unfinished.parent)
    finally:
        unfinished.unlink(missing_ok=True)


def write_atomically(path: Path, content: bytes, durable: bool = True) -> None:
    """Write a file so that it is never seen half-written, readable by its owner only."""
    unfinished = unfinished_path(path)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    try:
        try:
            handle = os.open(unfinished, flags, 0o600)
        except FileExistsError:
            unfinished.unlink()
            handle = os.open(unfinished, flags, 0o600)
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            if durable:
                _flush(handle)
        os.replace(unfinished, path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    if durable:
        sync(unfinished.parent)


def make_private_folder(path: Path) -> None:
    """Make a folder, and all that are missing above it, for their owner only."""
    if not path.is_dir():
        make_private_folder(path.parent)
        path.mkdir(mode=0o700, exist_ok=True)


def sync(path: Path) -> None:
    """See to it that a file, or the names in a folder, are on the disk, where the system can do so."""
    with contextlib.suppress(OSError):  # a file that must be open for writing, a folder on Windows, some network drives
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _flush(handle: int) -> None:
    with contextlib.suppress(OSError):
        os.fsync(handle)


def on_disk(path: Path) -> tuple[int, str]:
    """See to it that a file is on the disk; how many bytes it has, and their SHA-256 in hexadecimal."""
    with path.open("rb") as file:
        _flush(file.fileno())
        return os.fstat(file.fileno()).st_size, _digest(hashlib.sha256(), file)


def unfinished_path(path: str | os.PathLike[str]) -> Path:
    """Where this process writes a file before it is complete: hidden, in the same folder, with the same suffix."""
    folder, name = os.path.split(path)
    return Path(folder, f".unfinished-{os.getpid()}-{_HOST}-{_TOKEN}.{name}")


def remove_abandoned(folder: str | os.PathLike[str]) -> None:
    """Remove what killed processes had not finished, in a folder and below; other processes' work goes on.

    Whether a process of another computer lives cannot be told: what one left is removed after a week.
    """
    for root, folders, files in os.walk(folder):  # passes over folders that another process removes meanwhile
        inside = set(folders)
        for name in folders + files:
            match = _UNFINISHED.fullmatch(name)
            if not match:
                continue
            inside.discard(name)  # what is in it lives or goes with it
            path = Path(root, name)
            if _goes_on(path, int(match[1]), *match.groups()[1:]):
                continue
            if path.is_dir() and not path.is_symlink():  # of a bundle that was being made
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        folders[:] = sorted(inside)


def _goes_on(path: Path, process: int, host: str, token: str) -> bool:
    if host != _HOST:
        with contextlib.suppress(OSError):
            return time.time() - path.lstat().st_mtime < _LONGEST_WRITE
    return psutil.pid_exists(process) and (process != os.getpid() or token == _TOKEN)


_CHUNK = 1 << 20


def sha256_of(path: str | Path) -> str:
    """SHA-256 of a file, 64 hexadecimal digits."""
    with Path(path).open("rb") as file:
        return _digest(hashlib.sha256(), file)


def git_blob_id(path: str | Path) -> str:
    """The name that git gives a file's content, 40 hexadecimal digits: SHA-1 of ``blob <size>``, a zero byte, content.

    It tells that a file is the one in a repository. SHA-1 withstands accidents, not a forger with great means.
    """
    path = Path(path)
    header = f"blob {path.stat().st_size}\0".encode()
    with path.open("rb") as file:
        return _digest(hashlib.sha1(header, usedforsecurity=False), file)


def _digest(digest: Any, file: BinaryIO) -> str:
    while chunk := file.read(_CHUNK):
        digest.update(chunk)
    text: str = digest.hexdigest()
    return text
