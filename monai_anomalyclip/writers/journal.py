# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""What an output folder holds so far, kept so that a killed run can go on."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["JOURNAL", "Journal", "known_names"]

JOURNAL = "journal.jsonl"
"""Name of the file in an output folder."""

_BEGINNING = b'{"name":'


class Journal:
    """An append-only file of JSON lines, the last one of a name counts.

    A line costs the same however many inputs there are, and a kill can cut off the last line only, which is then
    taken as never written.

    Args:
        path: the file; it need not exist.

    Raises:
        ValueError: the file exists and is no journal.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.entries: dict[str, dict[str, Any]] = {}
        self._length = 0  # of the whole lines
        self._size: int | None = 0  # of the file as this object left it; None: unknown
        if self.path.is_symlink():  # writing would go elsewhere
            raise ValueError(f"{self.path.name!r} in the output folder is a link: choose another output folder.")
        if not self.path.exists():
            return
        *lines, cut_off = self.path.read_bytes().split(b"\n")
        self._length = sum(len(line) + 1 for line in lines)
        self._size = self._length + len(cut_off)
        if not (cut_off.startswith(_BEGINNING) or _BEGINNING.startswith(cut_off)):
            lines.append(cut_off)  # no line of ours, not even the beginning of one
        for number, line in enumerate(lines, start=1):
            try:
                entry = json.loads(line)
                self.entries[str(entry["name"])] = entry
            except (ValueError, TypeError, KeyError) as error:
                raise ValueError(
                    f"Line {number} of {self.path.name!r} in the output folder is not an entry of this program: choose "
                    "another output folder."
                ) from error

    def add(self, entry: Mapping[str, Any]) -> None:
        """Append an entry, which must have a ``name``; the file is its owner's alone.

        Raises:
            RuntimeError: another run has changed the file; it stays as that one left it.
        """
        line = json.dumps(entry, allow_nan=False, separators=(",", ":")).encode() + b"\n"
        handle = os.open(self.path, os.O_WRONLY | os.O_CREAT, 0o600)
        with os.fdopen(handle, "wb") as stream:
            if self._size not in (None, os.fstat(stream.fileno()).st_size):
                raise RuntimeError(
                    f"{self.path.name!r} in the output folder was changed while this run went on: start it again when "
                    "no other one writes there."
                )
            self._size = None  # until the line is whole; the disk may be full
            stream.truncate(self._length)
            stream.seek(self._length)
            stream.write(line)
        self._length += len(line)
        self._size = self._length
        self.entries[str(entry["name"])] = dict(entry)

    def status(self, name: str) -> str | None:
        """``ok``, ``failed``, ``started``, or None for a name that it does not know."""
        return self.entries.get(name, {}).get("status")


def known_names(folder: str | os.PathLike[str]) -> list[str]:
    """Names of the inputs that an output folder knows.

    Raises:
        ValueError: as for :class:`Journal`.
    """
    return list(Journal(Path(folder) / JOURNAL).entries)
