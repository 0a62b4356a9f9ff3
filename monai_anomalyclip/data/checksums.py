# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Damage of pixels that decoders do not see: wrong checksums in PNG and TIFF, pixels of PNG and JPEG that end early."""

from __future__ import annotations

import functools
import io
import re
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from isal import isal_zlib
from PIL import Image, TiffImagePlugin

from monai_anomalyclip.data.errors import UnreadableInputError

__all__ = [
    "check_deflated_parts",
    "check_jpeg",
    "check_jpeg_parts",
    "check_lossless_jpeg",
    "check_png",
    "decode_jpeg",
]

_PNG = b"\x89PNG\r\n\x1a\n"
# Of these the pixels do not depend. The others are looked at, for a damaged name makes another kind of a chunk.
_BESIDE = (
    *(b"tEXt", b"zTXt", b"iTXt", b"tIME", b"pHYs", b"gAMA", b"iCCP", b"sRGB"),
    *(b"cHRM", b"sBIT", b"bKGD", b"hIST", b"sPLT", b"cICP", b"mDCv", b"cLLi"),
)
_PIECE = 2**20
_DEFLATE, _JPEG = (8, 32946), 7  # values of the tag Compression
_COMPRESSION, _STRIP_ROWS, _TILE_WIDTH, _TILE_LENGTH, _JPEG_TABLES = 259, 278, 322, 323, 347
_BANDS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by the colour type of a PNG
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_PROGRESSIVE = 0xC2
_HUFFMAN = (0xC0, 0xC1, _PROGRESSIVE)  # kinds of frames; arithmetic coding may leave out zeros at the end
_LOSSLESS = 0xC3
_TABLES, _SCAN, _END, _RESTARTS = 0xC4, 0xDA, 0xD9, 0xDD
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # but those within a scan; more bytes of 0xff may stand before it
_RESTART = re.compile(rb"\xff+[\xd0-\xd7]")
_MORE = bytes(range(7, 250, 11)) * 4  # as if the last scan of a JPEG went on
_ENDS_EARLY = "the file is damaged: its pixels end before the picture does."
_FLAT = 3
_LUMA = np.array((0.299, 0.587, 0.114))
_WRONG = "the file is damaged: a checksum of its pixels does not match."


def check_png(stream: BinaryIO) -> None:
    """Refuse a PNG with a wrong checksum in what its picture is made of, or with too few pixels; other files pass.

    Raises:
        UnreadableInputError: a checksum is wrong, or the file, or its pixels, end too early.
    """
    if stream.read(len(_PNG)) != _PNG:
        return
    inflate, header, missing = isal_zlib.decompressobj(), b"", 0
    while len(head := stream.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        if kind in _BESIDE:
            stream.seek(length + 4, 1)
            continue
        checksum = zlib.crc32(kind)
        while length and (piece := stream.read(min(length, _PIECE))):
            checksum = zlib.crc32(piece, checksum)
            length -= len(piece)
            if kind == b"IHDR" and not header:
                header, missing = piece, _png_bytes(piece)
            while kind == b"IDAT" and piece and missing > 0 and not inflate.eof:
                missing -= len(inflate.decompress(piece, min(missing, _PIECE)))
                piece = inflate.unconsumed_tail
        told = stream.read(4)
        if len(told) < 4:
            raise UnreadableInputError("the file is truncated or damaged: it ends within its pixels.")
        if struct.unpack(">I", told)[0] != checksum:
            raise UnreadableInputError(_WRONG)
    if inflate.eof and missing > 0:
        raise UnreadableInputError(_ENDS_EARLY)


def check_jpeg(
    content: bytes, decoded: npt.NDArray[Any] | Image.Image, decode: Callable[[bytes], npt.NDArray[Any]]
) -> None:
    """Refuse a JPEG whose last scan stops before the picture's end, which decoders fill up without a word.

    Such a picture ends in a flat block, unless it is progressive. Then more data are put behind the last scan: a whole
    picture does not change by it.

    Args:
        content: the file, or a frame's codestream.
        decoded: what it was decoded to, (H, W) or (H, W, channels), or Pillow's picture.
        decode: what decoded it.

    Raises:
        UnreadableInputError: it is one of those.
    """
    place, kinds = 2, set()
    while (found := _MARKER.search(content, place)) is not None and found[0][-1] != _END:
        kinds.add(found[0][-1])
        place = found.end() + int.from_bytes(content[found.end() : found.end() + 2], "big")
    if found is None or _SCAN not in kinds or kinds.isdisjoint(_HUFFMAN):
        return
    if _PROGRESSIVE not in kinds and not _is_flat(_last_block(decoded)):
        return
    longer = content[: found.start()].rstrip(b"\xff") + _MORE + found[0]
    if not np.array_equal(decode(longer), np.asarray(decoded)):
        raise UnreadableInputError(_ENDS_EARLY)


def _is_flat(corner: npt.NDArray[Any]) -> bool:
    block = corner.reshape(-1, *corner.shape[2:]).astype(np.float64)
    # Colours of neighbouring blocks run into each other; the brightness does not.
    brightness = block if block.ndim == 1 else block[:, :3] @ _LUMA[: min(block.shape[1], 3)]
    return bool(np.ptp(brightness) <= _FLAT or (block.ndim > 1 and np.ptp(block[:, 0]) <= _FLAT))


def check_lossless_jpeg(content: bytes, decoded: npt.NDArray[Any]) -> None:
    """Refuse a lossless JPEG (ITU-T T.81, annex H) whose scan stops before the picture's end.

    Decoders make up the rest. What they gave is coded once more, in thought: it must not take more bits than there are.

    Args:
        content: the codestream of a frame. One with several scans, or with colours of unequal size, is not looked at.
        decoded: what it was decoded to, (H, W) or (H, W, channels), no colours converted.

    Raises:
        UnreadableInputError: it is one of those.
    """
    place, segments = 2, dict[int, bytes]()
    while (found := _MARKER.search(content, place)) is not None and found[0][-1] != _END:
        kind = found[0][-1]
        place = found.end() + int.from_bytes(content[found.end() : found.end() + 2], "big")
        segments[kind] = segments.get(kind, b"") + content[found.end() + 2 : place]
        if kind == _SCAN:
            break
    end = content.rfind(b"\xff\xd9", place)
    if end < 0 or {_LOSSLESS, _TABLES, _SCAN} - segments.keys():
        return
    frame, scan, planes = segments[_LOSSLESS], segments[_SCAN], np.atleast_3d(decoded)
    rows, columns, count = planes.shape
    restart, within = divmod(int.from_bytes(segments.get(_RESTARTS, b"")[:2], "big"), columns)
    predictor, shift = scan[-3], scan[-1]
    bits = _bits(segments[_TABLES])
    tables = [bits.get(number >> 4) for number in scan[2 : 2 + 2 * scan[0] : 2]]
    uneven = count > 1 and set(frame[7::3]) != {0x11}
    if not scan[0] == count == frame[5] or None in tables or uneven or within or shift & 15 or not 1 <= predictor <= 7:
        return
    starts = range(0, rows, restart or rows)
    taken = np.zeros(rows, np.int64)  # bits of each row
    for plane, table in zip(np.moveaxis(planes, 2, 0), tables, strict=True):
        values = plane.astype(np.int32) & (2 ** frame[0] - 1)
        differences = (values - _predicted(values, predictor, 2 ** (frame[0] - 1), starts)) & 0xFFFF
        taken += np.array(table, np.uint8)[_categories()][differences].sum(axis=1, dtype=np.int64)
    needed = -(-np.add.reduceat(taken, starts) // 8)  # a restart begins with a byte
    if needed.sum() > len(_RESTART.sub(b"", content[place:end]).replace(b"\xff\x00", b"\xff")):
        raise UnreadableInputError(_ENDS_EARLY)


@functools.cache
def _categories() -> npt.NDArray[np.intp]:
    """Of each difference modulo 2**16, which stands for one from -32767 to 32768 (table H.2)."""
    differences = np.arange(2**16)
    return np.frexp(np.minimum(differences, 2**16 - differences))[1].astype(np.intp)


def _bits(tables: bytes) -> dict[int, list[int]]:
    """Of Huffman tables, by their number: bits that a difference takes, by its category from 0 to 16."""
    found = {}
    while len(tables) > 17:
        lengths = [length for length, count in enumerate(tables[1:17], start=1) for _ in range(count)]
        bits = [1] * 17
        for category, length in zip(tables[17:], lengths, strict=False):
            bits[category] = length + category % 16  # 32768 is followed by nothing
        found[tables[0] & 15] = bits
        tables = tables[17 + len(lengths) :]
    return found


def _predicted(
    values: npt.NDArray[np.int32], predictor: int, first: int, starts: Sequence[int]
) -> npt.NDArray[np.int32]:
    """What each value is predicted to be by those to the left and above (table H.1), anew from some rows on."""
    predicted = np.empty_like(values)
    left, above, corner = values[1:, :-1], values[:-1, 1:], values[:-1, :-1]
    ways: dict[int, Callable[[], npt.NDArray[np.int32]]] = {
        1: lambda: left,
        2: lambda: above,
        3: lambda: corner,
        4: lambda: left + above - corner,
        5: lambda: left + ((above - corner) >> 1),
        6: lambda: above + ((left - corner) >> 1),
        7: lambda: (left + above) >> 1,
    }
    predicted[1:, 1:] = ways[predictor]()
    predicted[1:, 0] = values[:-1, 0]
    predicted[starts, 1:], predicted[starts, 0] = values[starts, :-1], first
    return predicted


def _last_block(decoded: npt.NDArray[Any] | Image.Image) -> npt.NDArray[Any]:
    if isinstance(decoded, Image.Image):  # an array of the whole would be a copy
        columns, rows = decoded.size
        return np.asarray(decoded.crop(((columns - 1) // 8 * 8, (rows - 1) // 8 * 8, columns, rows)))
    rows, columns = decoded.shape[:2]
    return decoded[(rows - 1) // 8 * 8 :, (columns - 1) // 8 * 8 :]


def _png_bytes(header: bytes) -> int:
    """How many bytes the pixels of a PNG take, with the byte for the filter of each row."""
    width, height, bits, colour, _, _, interlaced = struct.unpack(">IIBBBBB", header[:13])
    passes = _ADAM7 if interlaced else ((0, 0, 1, 1),)
    sizes = ((-(-(width - left) // right), -(-(height - top) // down)) for left, top, right, down in passes)
    return sum(
        rows * (1 + -(-columns * bits * _BANDS.get(colour, 0) // 8)) for columns, rows in sizes if columns > 0 < rows
    )


def check_deflated_parts(image: TiffImagePlugin.TiffImageFile, stream: BinaryIO) -> None:
    """Refuse a page of a TIFF with parts of Deflate without their checksum.

    Args:
        image: Pillow's picture, at its page.
        stream: of its file.

    Raises:
        UnreadableInputError: a part is damaged.
    """
    if image.tag_v2.get(_COMPRESSION) in _DEFLATE:
        for offset, count in _parts(image):
            stream.seek(offset)
            _check_deflated_part(stream, count)


def check_jpeg_parts(image: TiffImagePlugin.TiffImageFile, stream: BinaryIO, page: Image.Image | None) -> None:
    """Refuse a page of a TIFF with parts of JPEG that end early.

    Args:
        image: Pillow's picture, at its page.
        stream: of its file.
        page: its pixels as they lie in the file, so that parts that do not end flat need not be decoded once more.

    Raises:
        UnreadableInputError: a part is damaged.
    """
    tags = image.tag_v2
    if tags.get(_COMPRESSION) != _JPEG:
        return
    tables = tags.get(_JPEG_TABLES, b"")[:-2] or b"\xff\xd8"
    width, height = tags.get(_TILE_WIDTH, tags[256]), tags.get(_TILE_LENGTH, tags.get(_STRIP_ROWS, tags[257]))
    for index, (offset, count) in enumerate(_parts(image)):
        stream.seek(offset)
        row, column = divmod(index, -(-tags[256] // width))
        # A part that lacks its end is read to the last byte, and the rest filled up: with one it is compared.
        part = tables + stream.read(count)[2:] + b"\xff\xd9"
        _check_jpeg_part(part, page, (column * width, row * height))


def _parts(image: TiffImagePlugin.TiffImageFile) -> Iterator[tuple[int, int]]:
    """Offset and count of bytes of each strip or tile."""
    tags = image.tag_v2
    offsets, counts = (tags.get(first, tags.get(second, ())) for first, second in ((273, 324), (279, 325)))
    return zip(offsets, counts, strict=False)


def _check_jpeg_part(content: bytes, page: Image.Image | None, origin: tuple[int, int]) -> None:
    try:
        with Image.open(io.BytesIO(content), formats=["JPEG"]) as part:
            right, below = origin[0] + part.width, origin[1] + part.height
            within = page is not None and right <= page.width and below <= page.height
            if page is not None and within and "progressive" not in part.info:
                corner = page.crop((right - 1 - (part.width - 1) % 8, below - 1 - (part.height - 1) % 8, right, below))
                if not _is_flat(np.asarray(corner)):
                    return
        decoded = decode_jpeg(content)
    except Exception:  # libtiff, which has decoded it, passes over more than Pillow does
        return
    check_jpeg(content, decoded, decode_jpeg)


def _check_deflated_part(stream: BinaryIO, left: int) -> None:
    packed = zlib.decompressobj()
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


def decode_jpeg(content: bytes) -> npt.NDArray[Any]:
    """The pixels of a JPEG, (H, W) or (H, W, channels), as Pillow decodes them."""
    with Image.open(io.BytesIO(content), formats=("JPEG", "MPO")) as image:
        return np.asarray(image)
