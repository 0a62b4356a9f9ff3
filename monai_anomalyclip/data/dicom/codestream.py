# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""What stored pixel data claim to be, before any are decoded: what a compressed frame would become, so that bombs are
refused, and how far the data of a file reach, so that what was cut off is known.
"""

from __future__ import annotations

import io
import struct
from itertools import pairwise
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt
from pydicom.uid import UID, JPEGExtended12Bit

from monai_anomalyclip.data.errors import UnreadableInputError

__all__ = [
    "EXTENDED_JPEG",
    "Codestream",
    "PixelExtent",
    "check_rle",
    "decode_extended_jpeg",
    "find_extent",
    "parse_jpeg",
    "parse_jpeg2000",
]

_SOC_SIZ = b"\xff\x4f\xff\x51"
_NO_LENGTH = {0x01, *range(0xD0, 0xD9)}  # TEM, RST0-7, SOI: markers without a segment
_NO_FRAME = {0xC4, 0xC8, 0xCC}  # DHT, JPG, DAC: between the numbers of the start-of-frame markers
_JPEG_LS_FRAME = 0xF7
_MAX_TILES = 4096  # OpenJPEG allocates kilobytes for each tile before it has seen any


class Codestream(NamedTuple):
    """Size of a compressed frame.

    Args:
        rows: height in pixels.
        columns: width in pixels.
        samples: number of components.
        bits: precision of a sample.
        adobe_transform: colour transform by the Adobe marker of a JPEG (1: the components are YCbCr), None without it.
    """

    rows: int
    columns: int
    samples: int
    bits: int
    adobe_transform: int | None = None


def parse_jpeg(data: bytes) -> Codestream:
    """Read the frame header of a JPEG (ITU-T T.81) or JPEG-LS (ITU-T T.87) codestream.

    Raises:
        ValueError: there is none before the first scan, or more than one.
    """
    if data[:2] != b"\xff\xd8":
        raise ValueError("it does not begin as a JPEG")
    frame: tuple[int, ...] | None = None
    adobe = None
    position = 2
    while True:
        if position + 4 > len(data) or data[position] != 0xFF:
            raise ValueError("its JPEG header is damaged")
        marker = data[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
            continue
        position += 2
        if marker in _NO_LENGTH:
            continue
        if marker in (0xD9, 0xDA):  # end of image, start of scan
            break
        (length,) = struct.unpack_from(">H", data, position)
        body = data[position + 2 : position + length]
        if (0xC0 <= marker <= 0xCF and marker not in _NO_FRAME) or marker == _JPEG_LS_FRAME:
            if frame or len(body) < 6:
                raise ValueError("its JPEG header is damaged")
            frame = struct.unpack_from(">BHHB", body)
        elif marker == 0xEE and body.startswith(b"Adobe") and len(body) >= 12:
            adobe = body[11]
        position += max(length, 2)
    if frame is None:
        raise ValueError("it has no JPEG frame header")
    bits, rows, columns, samples = frame
    return Codestream(rows, columns, samples, bits, adobe)


def parse_jpeg2000(data: bytes) -> Codestream:
    """Read the image and tile size (SIZ) of a JPEG 2000 or HTJ2K codestream (ITU-T T.800 A.5.1), bare or in a JP2 file.

    Raises:
        ValueError: there is none, a JP2 header contradicts it, or it is cut into more than 4096 tiles.
    """
    # DICOM wants the bare codestream; some writers left the boxes of a JP2 file around it.
    start = data.find(_SOC_SIZ, 0, 2**16) if data[4:8] == b"jP  " else 0
    if start < 0 or data[start : start + 4] != _SOC_SIZ or len(data) < start + 43:
        raise ValueError("it has no JPEG 2000 header")
    width, height, left, top, tile_width, tile_height, tile_left, tile_top, samples, bits = struct.unpack_from(
        ">8IHB", data, start + 8
    )
    size = Codestream(height - top, width - left, samples, (bits & 0x7F) + 1)
    box = data.find(b"ihdr", 0, start)
    if box >= 0 and struct.unpack_from(">2I", data, box + 4) != (size.rows, size.columns):
        raise ValueError("its JPEG 2000 headers contradict each other")
    if not (tile_width and tile_height):
        raise ValueError("its JPEG 2000 header is damaged")
    if -(-(width - tile_left) // tile_width) * -(-(height - tile_top) // tile_height) > _MAX_TILES:
        raise ValueError(f"it is cut into more than {_MAX_TILES} tiles")
    return size


def check_rle(data: bytes, segments: int, pixels: int) -> None:
    """Refuse an RLE frame (DICOM PS3.5 Annex G) whose segments would decode to far more than one byte per pixel.

    Raises:
        ValueError: the header is damaged, has another number of segments, or a segment decodes to more than twice
            the pixels.
    """
    if len(data) < 64:
        raise ValueError("its RLE header is cut off")
    count, *offsets = struct.unpack_from("<16I", data)
    bounds = [*offsets[:count], len(data)]
    if count != segments or bounds != sorted(bounds):
        raise ValueError("its RLE header is damaged")
    for start, end in pairwise(bounds):
        decoded, position = 0, start
        while position < end:
            control = data[position]
            decoded += control + 1 if control < 128 else 257 - control if control > 128 else 0
            position += control + 2 if control < 128 else 2 if control > 128 else 1
            if decoded > 2 * pixels + 128:
                raise ValueError("an RLE segment decodes to more than the frame holds")


EXTENDED_JPEG = (JPEGExtended12Bit, UID("1.2.840.10008.1.2.4.53"), UID("1.2.840.10008.1.2.4.55"))
"""Transfer syntaxes of JPEG processes 2 and 4, 6 and 8, 10 and 12; the last two are retired."""


def decode_extended_jpeg(data: bytes, code: Codestream, syntax: UID) -> npt.NDArray[Any]:
    """Decode one gray frame.

    pydicom 3.0 refuses 12 bits with GDCM; GDCM 3.2 decodes them as SimpleITK does. Its library for 8 bits tries first
    and prints "Unsupported JPEG data precision 12" to the standard error stream, which is of no account.

    Args:
        data: the codestream.
        code: its size, checked against the header.
        syntax: one of :data:`EXTENDED_JPEG`.

    Returns:
        (rows, columns), uint8 or uint16.

    Raises:
        UnreadableInputError: GDCM is not installed, or cannot decode the data.
    """
    try:
        import gdcm
    except ImportError as error:
        raise UnreadableInputError(
            f"cannot decode transfer syntax {syntax.name} ({syntax}): install python-gdcm."
        ) from error
    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(data)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((code.columns, code.rows, 1))
    image.SetDataElement(element)
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(gdcm.PhotometricInterpretation.MONOCHROME2))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(str.__str__(syntax))))
    allocated = 8 if code.bits <= 8 else 16
    image.SetPixelFormat(gdcm.PixelFormat(1, allocated, code.bits, code.bits - 1, 0))
    buffer = image.GetBuffer()
    if buffer is None:
        raise UnreadableInputError(f"{syntax.name} data are damaged.")
    # GDCM's wrapper returns the bytes as text.
    values = np.frombuffer(buffer.encode("utf-8", "surrogateescape"), dtype=f"<u{allocated // 8}")
    return values.reshape(code.rows, code.columns).astype(values.dtype.newbyteorder("="))


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
