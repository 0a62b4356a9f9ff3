# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Read the header of one file that nobody vouches for: bounded in time and memory, and without an exception."""

from __future__ import annotations

import io
import os
import re
import stat
import sys
import zlib
from pathlib import Path
from typing import BinaryIO

from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset, read_partial, read_sequence
from pydicom.tag import BaseTag
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MediaStorageDirectoryStorage,
    MPEGTransferSyntaxes,
)
from pydicom.values import converters

from monai_anomalyclip.data.dicom.attributes import is_private_trait
from monai_anomalyclip.data.dicom.codestream import PixelExtent, find_extent
from monai_anomalyclip.data.dicom.exclusion import is_image_class, object_kind
from monai_anomalyclip.data.dicom.pydicom_api import original_character_set, original_encoding, quiet_pydicom
from monai_anomalyclip.data.dicom.series import Instance, SkippedFile, file_mark, text_of

__all__ = [
    "MAX_FRAMES",
    "MAX_INFLATED_BYTES",
    "MAX_PIXEL_BYTES",
    "Allowance",
    "BoundedStream",
    "TooManyError",
    "TooMuchError",
    "inflate_beginning",
    "read_header",
]

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
    """The beginning of what a raw deflate stream (PS3.5 A.5) inflates to.

    Args:
        stream: at the start of the deflated data.
        kept_bytes: how much is kept, give or take a mebibyte; the rest is inflated for its size only.
        max_bytes: how much it may be.

    Raises:
        TooMuchError: it inflates to more than `max_bytes`.
        EOFError: the stream is cut off.
        zlib.error: the data are damaged.
    """
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    kept = io.BytesIO()
    total = 0
    while not inflater.eof:
        deflated = inflater.unconsumed_tail or stream.read(_PIECE)
        if not deflated:
            raise EOFError
        piece = inflater.decompress(deflated, _PIECE)
        total += len(piece)
        if total > max_bytes:
            raise TooMuchError
        if kept.tell() < kept_bytes:
            kept.write(piece)
    kept.seek(0)
    return kept


MAX_PIXEL_BYTES = 4 * 2**30
"""Images that decode to more bytes are skipped, except videos, which are decoded frame by frame."""

MAX_FRAMES = 200_000
"""Objects of more frames are skipped."""

MAX_INFLATED_BYTES = 256 * 2**20
"""Deflated data sets that inflate to more bytes are skipped."""

_MAX_HEADER_BYTES = 128 * 2**20
# Every element takes two reads. Functional groups take some 125 to 250 for each frame and 16 bytes for each read, so
# large files get more: a small one that makes millions of empty elements is still refused.
_MAX_READS = 1_000_000
_MAX_READS_OF_LARGE = 4 * _MAX_READS
_BYTES_PER_READ = 16
_MAX_ELEMENT_BYTES = 64 * 2**10
_MAX_DEPTH = 32
_UNDEFINED_LENGTH = 0xFFFFFFFF

_PIXEL_GROUP = 0x7FE00001
_PIXEL_DATA = (0x7FE00001, 0x7FE00002, 0x7FE00010)  # with the extended offset table, which stands before the pixels
_ICON = 0x00880200
_LOOKUP_TABLES = {*range(0x00281201, 0x00281204), *range(0x00281221, 0x00281224)}
_FIRST_GROUPS = (b"\x02\x00", b"\x08\x00", b"\x00\x08")  # the last one in big endian
_SURE_SUFFIXES = (".dcm", ".dicom", ".dic")
_UID = re.compile(r"[0-9.]{1,64}")
_VIDEO = {str(uid) for uid in MPEGTransferSyntaxes}


_ENDS_EARLY = "The file ends before the pixels that it should have."


class _RefusedError(Exception):
    def __init__(self, code: str, detail: str, series_uid: str = "") -> None:
        super().__init__(code)
        self.code = code
        self.detail = detail
        self.series_uid = series_uid


def read_header(path: Path) -> Instance | SkippedFile:
    """Read all elements of a file before its pixel data, or say why it is skipped.

    Elements of more than 64 KiB are dropped, except sequences and palettes; so are icons, sequences that cannot be
    decoded, and private elements outside of sequences, some 100 KiB in every file of some manufacturers, except those
    that tell frames of one place apart. All other sequences are decoded.
    Files without preamble or file meta are read if they begin like DICOM and have a SOP class.

    Images that end before or within their pixel data are damaged, and so are files that are too short to be anything,
    if their names are those of DICOM files.

    Codes of skipped files: "unreadable", "not DICOM", "DICOMDIR", "damaged header", "damaged pixels",
    "header too large", "deflated too large", "too large", "no image", and the kinds of
    :func:`~monai_anomalyclip.data.dicom.exclusion.object_kind`.
    """
    with quiet_pydicom():
        try:
            if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for its writer
                return SkippedFile(path, "unreadable", "It is not a regular file.")
            with path.open("rb") as stream:
                return _read(path, stream)
        except _RefusedError as refusal:
            return SkippedFile(path, refusal.code, refusal.detail, refusal.series_uid)
        except OSError:
            return SkippedFile(path, "unreadable", "The file cannot be read.")


def _read(path: Path, stream: BinaryIO) -> Instance:
    seen = file_mark(os.fstat(stream.fileno()))
    start = stream.read(132)
    has_prefix = start[128:] == b"DICM"
    if len(start) < 132 and path.suffix.lower() in _SURE_SUFFIXES:
        raise _RefusedError("damaged header", "The file ends before its header begins.")
    if not has_prefix and start[:2] not in _FIRST_GROUPS:
        raise _RefusedError("not DICOM", "The file does not begin like a DICOM file.")
    try:
        header, syntax, pixels = _parse(stream, 132 if has_prefix else 0)
        kind = object_kind(header)
        if not _UID.fullmatch(str(header.get("SOPClassUID") or "")):
            raise ValueError("no SOP class")
    except _RefusedError:
        raise
    except Exception as error:  # damaged files make pydicom raise nearly anything, RecursionError included
        if not has_prefix and path.suffix.lower() not in _SURE_SUFFIXES:
            raise _RefusedError("not DICOM", "The file does not begin like a DICOM file.") from error
        if isinstance(error, TooManyError):
            raise _RefusedError(
                "header too large", "The header has too many elements for a file of its size."
            ) from error
        if isinstance(error, TooMuchError):
            detail = f"The header has more than {_MAX_HEADER_BYTES:,} bytes, or claims so."
            raise _RefusedError("header too large", detail) from error
        raise _RefusedError("damaged header", "The header cannot be decoded, or names no SOP class.") from error
    if kind:
        raise _RefusedError(kind, "The object is no image that could be scored.")
    _check_image(header, syntax, pixels)
    return Instance(path, header, syntax, seen)


def _parse(stream: BinaryIO, start: int) -> tuple[Dataset, str, PixelExtent | None]:
    """The header, the transfer syntax, and how far the pixel data reach, if any follow."""
    size = stream.seek(0, io.SEEK_END)
    allowance = Allowance(_MAX_HEADER_BYTES, max(_MAX_READS, min(size // _BYTES_PER_READ, _MAX_READS_OF_LARGE)))
    stream.seek(start)
    file = body = BoundedStream(stream, allowance)
    meta = read_dataset(body, False, True, stop_when=lambda tag, vr, length: tag >> 16 != 2)
    if meta.get("MediaStorageSOPClassUID") == MediaStorageDirectoryStorage:
        raise _RefusedError("DICOMDIR", "The file lists other files; those are read themselves.")
    syntax = str(meta.get("TransferSyntaxUID") or "")
    end: list[tuple[int, int]] = []

    def at_pixels(tag: BaseTag, vr: str | None, length: int) -> bool:
        number = int(tag)  # BaseTag compares slowly
        if number >= _PIXEL_GROUP:
            end.append((number, length))
        return number >= _PIXEL_GROUP

    if syntax == DeflatedExplicitVRLittleEndian:
        try:
            inflated = inflate_beginning(stream, _MAX_HEADER_BYTES, MAX_INFLATED_BYTES)
        except TooMuchError as error:
            detail = f"The data set inflates to more than the allowed {MAX_INFLATED_BYTES:,} bytes."
            raise _RefusedError("deflated too large", detail) from error
        body = BoundedStream(inflated, allowance)
        header = read_dataset(body, False, True, stop_when=at_pixels, defer_size=_MAX_ELEMENT_BYTES)
        header.file_meta = meta
    else:
        body.seek(0)
        header = read_partial(body, at_pixels, defer_size=_MAX_ELEMENT_BYTES, force=True)
        header.buffer = header.filename = None
    place = body.tell()
    early = _drop_cut_off(header, size if body is file else sys.maxsize)
    _fetch_or_drop(header, body)
    _decode_sequences(header, allowance)

    if not syntax:
        implicit, little = original_encoding(header)
        syntax = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        if end and end[-1][1] == _UNDEFINED_LENGTH:
            raise _RefusedError("damaged header", "The pixels are compressed, but the file does not say how.")
    if not end and (early or is_image_class(meta, "MediaStorageSOPClassUID")):
        raise _RefusedError("damaged header", _ENDS_EARLY, text_of(header, "SeriesInstanceUID"))
    if not end or end[-1][0] not in _PIXEL_DATA:
        return header, str(syntax), None
    if body is not file:  # inflated to its end
        return header, str(syntax), PixelExtent(None, None, True)
    return header, str(syntax), find_extent(stream, place, original_encoding(header)[1] is not False)


def _drop_cut_off(header: Dataset, size: int) -> bool:
    """Drop elements that the end of the file cuts off; whether there was one.

    Args:
        header: as it was read.
        size: of what it was read from.
    """
    cut = []
    for tag, element in header.items():
        if isinstance(element, RawDataElement) and element.length != _UNDEFINED_LENGTH:
            put_off = element.value is None
            present = size - element.value_tell if put_off else len(element.value)
            if present < element.length:
                cut.append(tag)
    for tag in cut:
        del header[tag]
    return bool(cut)


def _fetch_or_drop(header: Dataset, stream: BoundedStream) -> None:
    """Read the long sequences and palettes that pydicom put off, and drop the other long and the private elements."""
    for tag, element in list(header.items()):
        if tag == _ICON or (tag.is_private and not is_private_trait(int(tag))):
            del header[tag]
        elif isinstance(element, RawDataElement) and element.value is None and element.length > 0:
            if tag in _LOOKUP_TABLES or _is_sequence(element):
                stream.seek(element.value_tell)
                header[tag] = element._replace(value=stream.read(element.length))
            else:
                del header[tag]


def _decode_sequences(header: Dataset, allowance: Allowance) -> None:
    """Decode all sequences, which pydicom would do at their first use and without bounds.

    Elements of a VR that does not exist are dropped.
    """
    pending = [(header, 0)]
    while pending:
        dataset, depth = pending.pop()
        if depth > _MAX_DEPTH:
            raise _RefusedError("damaged header", f"Sequences are nested more than {_MAX_DEPTH} deep.")
        for tag, element in list(dataset.items()):
            if isinstance(element, RawDataElement) and element.VR is not None and element.VR not in converters:
                del dataset[tag]  # no VR that there is: pydicom raises whenever the value is asked for
                continue
            if not _is_sequence(element):
                continue
            if isinstance(element, RawDataElement):
                try:
                    _decode_sequence(dataset, element, allowance)
                except Exception:  # see _read
                    allowance.check()  # pydicom may have turned what it raised into another error
                    del dataset[tag]
                    continue
            pending.extend((item, depth + 1) for item in dataset[tag].value)


def _decode_sequence(dataset: Dataset, element: RawDataElement, allowance: Allowance) -> None:
    """As pydicom does; sequences of unknown VR are implicit little endian (PS3.5 6.2.2)."""
    unknown = element.VR == "UN"
    value = element.value or b""
    items = read_sequence(
        BoundedStream(io.BytesIO(value), allowance),
        unknown or element.is_implicit_VR,
        unknown or element.is_little_endian,
        len(value),
        original_character_set(dataset),
    )
    dataset[element.tag] = DataElement(element.tag, "SQ", items)


def _is_sequence(element: RawDataElement | DataElement) -> bool:
    vr = element.VR
    if vr in (None, "UN") and not element.tag.is_private:
        try:
            vr = dictionary_VR(element.tag)
        except KeyError:
            return False
    return bool(vr == "SQ")


def _check_image(header: Dataset, syntax: str, pixels: PixelExtent | None) -> None:
    series_uid = text_of(header, "SeriesInstanceUID")
    if pixels is None or "Rows" not in header:
        if is_image_class(header):
            raise _RefusedError("damaged header", _ENDS_EARLY, series_uid)
        raise _RefusedError("no image", "The object has no pixels.")
    try:
        rows, columns = int(header.Rows), int(header.Columns)
        samples, bits = int(header.get("SamplesPerPixel") or 1), int(header.BitsAllocated)
        frames = int(header.get("NumberOfFrames") or 1)
    except Exception as error:  # see _read
        detail = "The description of the pixels is missing or malformed."
        raise _RefusedError("damaged header", detail, series_uid) from error
    if min(rows, columns, samples, bits, frames) < 1:
        detail = "Rows, columns, samples, bits and frames must be at least 1."
        raise _RefusedError("damaged header", detail, series_uid)
    size = rows * columns * samples * (bits / 8)
    if syntax not in _VIDEO:
        size *= frames
    if size > MAX_PIXEL_BYTES or frames > MAX_FRAMES:
        raise _RefusedError(
            "too large",
            f"{frames:,} frames of {rows} x {columns} pixels are more than the allowed {MAX_PIXEL_BYTES:,} bytes or "
            f"{MAX_FRAMES:,} frames.",
            series_uid,
        )
    if text_of(header, "PhotometricInterpretation").upper() == "YBR_FULL_422":
        size *= 2 / 3  # two pixels share their chrominance
    if not pixels.holds(size):
        raise _RefusedError("damaged pixels", "The file ends within its pixel data.", series_uid)
