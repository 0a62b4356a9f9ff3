# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Streams that end before a file takes all memory or time, whatever sizes it claims."""

from __future__ import annotations

import io
import zlib
from typing import BinaryIO

__all__ = ["Allowance", "BoundedStream", "TooManyError", "TooMuchError", "inflate_beginning"]

_PIECE = 2**20


class TooMuchError(Exception):
    """More was asked for than is allowed."""


class TooManyError(TooMuchError):
    """Not more bytes, but more calls than are allowed."""


class Allowance:
    """What may still be read for one file: bytes, and calls, of which every DICOM element takes at least one."""

    def __init__(self, size: int, calls: int) -> None:
        self.size = size
        self.calls = calls

    def check(self) -> None:
        """See whether it is used up.

        Raises:
            TooManyError: more calls were made than are allowed.
            TooMuchError: more bytes were asked for than are allowed.
        """
        if self.calls < 0:
            raise TooManyError
        if self.size < 0:
            raise TooMuchError


class BoundedStream:
    """A binary stream that raises once its allowance is used up; several streams can share one."""

    def __init__(self, stream: BinaryIO, allowance: Allowance) -> None:
        self._stream = stream
        self._allowance = allowance
        self.seek = stream.seek
        self.tell = stream.tell

    def read(self, size: int = -1) -> bytes:
        """Read `size` bytes, or fewer at the end.

        Raises:
            TooMuchError: the allowance does not cover it, or everything is asked for.
        """
        self._allowance.size -= size
        self._allowance.calls -= 1
        self._allowance.check()
        if size < 0:
            raise TooMuchError
        return self._stream.read(size)


def inflate_beginning(stream: BinaryIO, kept_bytes: int, max_bytes: int) -> io.BytesIO:
    """The beginning of what a raw deflate stream (PS3.5 A.5) inflates to; a stream that is cut off gives what it can.

    Args:
        stream: at the start of the deflated data.
        kept_bytes: how much is kept, give or take a mebibyte; the rest is inflated for its size only.
        max_bytes: how much it may be.

    Raises:
        TooMuchError: it inflates to more than `max_bytes`.
        zlib.error: the data are damaged.
    """
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    kept = io.BytesIO()
    total = 0
    while not inflater.eof:
        deflated = inflater.unconsumed_tail or stream.read(_PIECE)
        if not deflated:
            break
        piece = inflater.decompress(deflated, _PIECE)
        total += len(piece)
        if total > max_bytes:
            raise TooMuchError
        if kept.tell() < kept_bytes:
            kept.write(piece)
    kept.seek(0)
    return kept
