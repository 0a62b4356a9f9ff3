# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The error of an input that cannot be read, and why one failed in one line that names no file and no folder."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

__all__ = [
    "DamagedInputError",
    "UnreadableInputError",
    "failure_reason",
    "may_pass",
]


class UnreadableInputError(ValueError):
    """An input was refused: the message is one sentence for the user that names the file, never its folder."""


class DamagedInputError(UnreadableInputError):
    """Nothing is left to read, and files are damaged: trying again gives the same."""


_MAX_REASON = 300
_SHORT_NAME = 4
_ABSOLUTE_FOLDER = re.compile(r"(?<![\w.])(?:[A-Za-z]:)?[/\\](?:[^\s'\"/\\]+[/\\])+")


_PASSING = frozenset(
    getattr(errno, name, -1)
    for name in (
        "EAGAIN", "EBUSY", "ECONNABORTED", "ECONNRESET", "EDQUOT", "EHOSTDOWN", "EHOSTUNREACH", "EIO", "EMFILE",
        "ENETDOWN", "ENETUNREACH", "ENFILE", "ENOLCK", "ENOMEM", "ENOSPC", "EROFS", "ESTALE", "ETIMEDOUT",
    )
)  # fmt: skip


def may_pass(error: BaseException) -> bool:
    """Whether an input that failed may do well another time: full disks and memories, drives and networks that ail.

    Args:
        error: what was raised; what caused it counts.
    """
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, MemoryError | TimeoutError | ConnectionError) or type(seen).__name__ == "OutOfMemoryError":
            return True
        if isinstance(seen, OSError) and seen.errno in _PASSING:
            return True
        seen = seen.__cause__
    return False


def failure_reason(error: BaseException, item: Mapping[str, Any]) -> str:
    """Say in one line why an item failed: the root cause, without file and folder names, which may be a patient's.

    Args:
        error: what a transform raised; MONAI wraps it into "applying transform ...".
        item: the item before the transforms. In the message the item's name takes the place of its file's name, and
            the folders of its paths are removed.
    """
    while error.__cause__ is not None and not isinstance(error, UnreadableInputError):
        error = error.__cause__
    message = str(error)
    hidden: set[str] = set()
    for value in item.values():
        for path in _paths(value):
            for folder in _spellings(str(path.parent)) - {"."}:
                message = message.replace(f"{folder}{os.sep}", "")
            # A name that was made from the file's name is one the user wants to see.
            if hasattr(value, "source") and not path.name.startswith(str(item["name"]).rpartition("/")[2]):
                hidden |= _spellings(path.name)
    if hidden:  # before anything else takes a piece out of the names
        message = _any_of(hidden).sub(lambda found: str(item["name"]), message)
    message = _ABSOLUTE_FOLDER.sub("", " ".join(message.split()))
    if not isinstance(error, UnreadableInputError):
        message = f"{type(error).__name__}: {message}" if message else type(error).__name__
    return message if len(message) <= _MAX_REASON else f"{message[: _MAX_REASON - 3]}..."


def _spellings(text: str) -> set[str]:
    """A name as it is, and as ``repr`` shows it: alone, or within a text of both kinds of quotes."""
    return {text, repr(text)[1:-1], repr(f"{text}'\"")[1:-4]}


def _any_of(names: Iterable[str]) -> re.Pattern[str]:
    """What finds the names as words of their own, and short ones, such as a DICOM file's "1", within quotes alone.

    Any blanks stand for those of a name, since some messages have been wrapped or tidied.
    """
    words = []
    for name in sorted(names, key=len, reverse=True):
        pattern = r"\s+".join(re.escape(word) for word in name.split() or [name])
        words.append(rf"(?<!\w){pattern}(?!\w)" if len(name) > _SHORT_NAME else rf"(?<=['\"]){pattern}(?=['\"])")
    return re.compile("|".join(words))


def _paths(value: Any) -> tuple[Path, ...]:
    if (source := getattr(value, "source", None)) is not None:  # of an item that no transform has read yet
        return tuple(source.paths)
    return (Path(value),) if isinstance(value, str | os.PathLike) else ()
