# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""One run at a time in an output folder."""

from __future__ import annotations

import os
import weakref
from importlib import import_module
from typing import Any

__all__ = ["FolderInUseError", "FolderLock"]

_fcntl: Any = import_module("fcntl") if os.name == "posix" else None


class FolderInUseError(RuntimeError):
    """Another process writes to the folder."""


class FolderLock:
    """Keeps the runs of other processes out of a folder until it is released, or this process ends.

    The folder itself is locked (flock): no file lies around, and a killed process leaves nothing that could block the
    next one. Runs of one process share the lock. A system or file system that cannot lock folders goes without; there
    :class:`monai_anomalyclip.writers.journal.Journal` notices another run before it destroys what that one wrote.

    Args:
        folder: an existing folder.

    Raises:
        FolderInUseError: another process holds it.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._end = weakref.finalize(self, _release, _acquire(folder))

    def release(self) -> None:
        """Let others in, when no other run of this process is left; once is enough."""
        self._end()


# Descriptor of a folder by device and inode, and how many locks share it.
_held: dict[tuple[int, int], tuple[int, int]] = {}


def _acquire(folder: str | os.PathLike[str]) -> tuple[int, int] | None:
    if _fcntl is None:
        return None
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # a folder that can be written to, but not be listed
        return None
    place = os.fstat(descriptor)
    key = (place.st_dev, place.st_ino)
    if key in _held:
        os.close(descriptor)
        _held[key] = (_held[key][0], _held[key][1] + 1)
        return key
    try:
        _fcntl.flock(descriptor, _fcntl.LOCK_EX | _fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise FolderInUseError(
            f"Another run is writing to the output folder {str(folder)!r}: wait until it has ended, or choose another "
            "folder."
        ) from None
    except OSError:  # a network file system, for example
        os.close(descriptor)
        return None
    _held[key] = (descriptor, 1)
    return key


def _release(key: tuple[int, int] | None) -> None:
    if key is None or key not in _held:
        return
    descriptor, count = _held.pop(key)
    if count > 1:
        _held[key] = (descriptor, count - 1)
    else:
        os.close(descriptor)


def _forget() -> None:
    """In a forked process: a worker that outlives a killed run must not hold on to its lock."""
    for descriptor, _ in _held.values():
        os.close(descriptor)
    _held.clear()


if _fcntl is not None:
    os.register_at_fork(after_in_child=_forget)
