# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Checksums of the pixels in PNG and TIFF files, which their decoders do not look at: damage would go unnoticed."""

from __future__ import annotations

import struct
import zlib
from typing import BinaryIO

from PIL import TiffImagePlugin

from monai_anomalyclip.data.errors import UnreadableInputError

__all__ = ["check_deflated", "check_png"]

_PNG = b"\x89PNG\r\n\x1a\n"
# Of these the pixels do not depend. The others are looked at, for a damaged name makes another kind of a chunk.
_BESIDE = (
    *(b"tEXt", b"zTXt", b"iTXt", b"tIME", b"pHYs", b"gAMA", b"iCCP", b"sRGB"),
    *(b"cHRM", b"sBIT", b"bKGD", b"hIST", b"sPLT", b"cICP", b"mDCv", b"cLLi"),
)
_PIECE = 2**20
_DEFLATE = (8, 32946)  # values of the tag Compression
_WRONG = "the file is damaged: a checksum of its pixels does not match."


def check_png(stream: BinaryIO) -> None:
    """Refuse a PNG with a wrong checksum in what its picture is made of; any other file passes.

    Raises:
        UnreadableInputError: a checksum is wrong, or the file ends before it.
    """
    if stream.read(len(_PNG)) != _PNG:
        return
    while len(head := stream.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        if kind in _BESIDE:
            stream.seek(length + 4, 1)
            continue
        checksum = zlib.crc32(kind)
        while length and (piece := stream.read(min(length, _PIECE))):
            checksum = zlib.crc32(piece, checksum)
            length -= len(piece)
        told = stream.read(4)
        if len(told) < 4:
            raise UnreadableInputError("the file is truncated or damaged: it ends within its pixels.")
        if struct.unpack(">I", told)[0] != checksum:
            raise UnreadableInputError(_WRONG)


def check_deflated(image: TiffImagePlugin.TiffImageFile, stream: BinaryIO) -> None:
    """Refuse a page of a TIFF whose strips or tiles are compressed by Deflate and do not end in their checksum.

    Args:
        image: Pillow's picture, at its page.
        stream: of its file.

    Raises:
        UnreadableInputError: a part is damaged.
    """
    tags = image.tag_v2
    if tags.get(259) not in _DEFLATE:
        return
    offsets, counts = (tags.get(first, tags.get(second, ())) for first, second in ((273, 324), (279, 325)))
    for offset, count in zip(offsets, counts, strict=False):
        stream.seek(offset)
        packed = zlib.decompressobj()
        left = count
        try:
            while left and not packed.eof and (piece := stream.read(min(left, _PIECE))):
                left -= len(piece)
                while piece:
                    packed.decompress(piece, _PIECE)  # never more than that at a time
                    piece = packed.unconsumed_tail
        except zlib.error as error:
            raise UnreadableInputError(_WRONG) from error
        if not packed.eof:
            raise UnreadableInputError(_WRONG)
