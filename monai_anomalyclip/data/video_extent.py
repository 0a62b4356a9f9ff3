# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""How long a video file says it is: the way to notice one that was cut off between two frames."""

from __future__ import annotations

import os
import struct
from typing import BinaryIO

__all__ = ["promised_size"]

_MAX_BOXES = 2**20
_EBML, _SEGMENT = 0x1A45DFA3, 0x18538067


def promised_size(file: BinaryIO, size: int) -> int:
    """Where the media data of an MP4 (ISO 14496-12) or Matroska file (RFC 9559) end; 0 where nothing tells.

    Args:
        file: at its start.
        size: of the file in bytes.
    """
    head = file.read(8)
    file.seek(0)
    if head[:4] == _EBML.to_bytes(4, "big"):
        return _end_of_segment(file)
    return _end_of_media_boxes(file, size) if head[4:] in (b"ftyp", b"moov", b"mdat", b"free", b"wide") else 0


def _end_of_media_boxes(file: BinaryIO, size: int) -> int:
    start = end = 0
    for _ in range(_MAX_BOXES):
        if start + 16 > size:
            break
        file.seek(start)
        length, kind, long_length = struct.unpack(">I4sQ", file.read(16))
        length = long_length if length == 1 else length or size - start  # 0 means up to the end of the file
        if length < 8:
            break
        if kind == b"mdat":
            end = start + length
        start += length
    return end


def _end_of_segment(file: BinaryIO) -> int:
    for _ in range(2):  # the EBML header, then the segment
        identifier = int.from_bytes(file.read(4), "big")
        first = file.read(1)
        if not first or not first[0]:
            return 0
        width = 9 - first[0].bit_length()
        length = int.from_bytes(first + file.read(width - 1), "big") & ((1 << 7 * width) - 1)
        if identifier == _SEGMENT:
            unknown = length == (1 << 7 * width) - 1  # as in live recordings
            return 0 if unknown else file.tell() + length
        file.seek(length, os.SEEK_CUR)
    return 0
