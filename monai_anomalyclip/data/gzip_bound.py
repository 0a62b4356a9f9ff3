# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Read a file that may be gzip-compressed as far as its header says, whatever it would inflate to."""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from monai_anomalyclip.data.errors import UnreadableInputError

__all__ = ["BoundedFile"]

_PIECE = 2**20
_PADDING = 2**20  # what may follow the data; writers pad at most to a block


class BoundedFile:
    """A file, plain or gzip, of which exactly the bytes that are asked for are read or inflated. Only goes forward.

    Args:
        stream: gives the (inflated) bytes.
        size: of a plain file; None for a compressed one, whose inflated size nothing tells before it is read.
    """

    def __init__(self, stream: IO[bytes] | gzip.GzipFile, size: int | None) -> None:
        self._stream = stream
        self.size = size
        self.position = 0

    @classmethod
    @contextmanager
    def open(cls, path: str | os.PathLike[str]) -> Iterator[BoundedFile]:
        """Open a file; one whose name ends in ``.gz`` is inflated."""
        if os.fspath(path).lower().endswith(".gz"):
            with gzip.open(path, "rb") as inflated:
                yield cls(inflated, None)
        else:
            with open(path, "rb") as plain:
                yield cls(plain, os.fstat(plain.fileno()).st_size)

    def read(self, size: int) -> bytes:
        """Up to `size` bytes, fewer only where the file ends."""
        block = self._stream.read(size)
        self.position += len(block)
        return block

    def read_exactly(self, size: int) -> bytes:
        """The next `size` bytes.

        Raises:
            UnreadableInputError: the file ends before.
        """
        block = self.read(size)
        if len(block) < size:
            raise UnreadableInputError(
                f"the file is truncated: it ends after {self.position} bytes, {size - len(block)} too early."
            )
        return block

    def skip_to(self, position: int) -> None:
        """Go forward; what lies between is inflated in small pieces, none of which is kept.

        Raises:
            UnreadableInputError: the file ends before.
        """
        while self.position < position:
            self.read_exactly(min(_PIECE, position - self.position))

    def check_end(self) -> None:
        """Refuse a compressed file that goes on for long: its header then does not describe it.

        Reading up to the end also makes gzip compare the checksum.

        Raises:
            UnreadableInputError: more than a mebibyte follows.
        """
        if self.size is None and len(self.read(_PADDING + 1)) > _PADDING:
            raise UnreadableInputError(
                f"it inflates to more than the {self.position - _PADDING - 1} bytes that its header claims."
            )
