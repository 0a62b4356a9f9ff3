# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""How far the pixel data of a file reach, by lengths alone: what was cut off is known before it is used."""

from __future__ import annotations

import io
import struct
from typing import BinaryIO, NamedTuple

__all__ = ["PixelExtent", "find_extent"]

_PIXELS = (0x7FE00008, 0x7FE00009, 0x7FE00010)
_LONG_VRS = (b"OB", b"OW", b"OF", b"OD", b"OV", b"UN")
_ITEM, _END_OF_ITEMS = 0xFFFEE000, 0xFFFEE0DD
_UNDEFINED = 0xFFFFFFFF


class PixelExtent(NamedTuple):
    """What a file holds of its pixel data.

    Args:
        stated: bytes that the element is said to have, None where it has no such number.
        present: bytes that the file has from there on, likewise.
        ended: whether compressed data, of which the size is not known beforehand, end as they should.
    """

    stated: int | None
    present: int | None
    ended: bool

    def holds(self, size: float) -> bool:
        """Whether nothing is missing that the element states and `size` bytes of uncompressed pixels need."""
        if self.stated is None or self.present is None:
            return self.ended
        return self.present >= min(self.stated, size)


def find_extent(stream: BinaryIO, place: int, little: bool) -> PixelExtent:
    """See how far the pixel data reach; nothing but the heads of elements and fragments is read.

    Args:
        stream: the file.
        place: where the first element of the pixel data's group begins.
        little: byte order.
    """
    size = stream.seek(0, io.SEEK_END)
    order = "<" if little else ">"
    while True:
        stream.seek(place)
        head = stream.read(12)
        explicit = head[4:6] in _LONG_VRS
        if len(head) < (12 if explicit else 8):
            return PixelExtent(None, None, False)
        group, element = struct.unpack_from(f"{order}HH", head)
        (length,) = struct.unpack_from(f"{order}L", head, 8 if explicit else 4)
        start = place + (12 if explicit else 8)
        if group << 16 | element in _PIXELS:
            break
        place = start + length
    if length != _UNDEFINED:
        return PixelExtent(length, size - start, True)
    while start < size:
        stream.seek(start)
        head = stream.read(8)
        if len(head) < 8:
            return PixelExtent(None, None, False)
        group, element, length = struct.unpack(f"{order}HHL", head)
        tag = group << 16 | element
        if tag != _ITEM:  # anything but the end is left to the decoder, which says more
            return PixelExtent(None, None, tag == _END_OF_ITEMS or start + 8 < size)
        start += 8 + length
    # Some writers leave out the end of the sequence.
    return PixelExtent(None, None, start == size)
