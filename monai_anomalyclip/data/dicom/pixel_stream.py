# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Open a DICOM file at its pixel data and give out the bytes of single frames."""

from __future__ import annotations

import io
import logging
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, BinaryIO, NamedTuple

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from monai_anomalyclip.data.dicom.header import MAX_INFLATED_BYTES
from monai_anomalyclip.data.dicom.pydicom_api import (
    generate_fragments,
    get_frame,
    original_encoding,
    parse_basic_offsets,
    parse_fragments,
    quiet_pydicom,
)
from monai_anomalyclip.data.dicom.series import Instance
from monai_anomalyclip.data.errors import UnreadableInputError

__all__ = ["MAX_FRAME_BYTES", "PixelFormat", "PixelStream", "describe_syntax", "readable"]

MAX_FRAME_BYTES = 2**30
"""Frames that take more than this are refused."""


class PixelFormat(NamedTuple):
    """Image Pixel attributes (DICOM PS3.3 C.7.6.3), checked. Make it with :meth:`from_header`."""

    rows: int
    columns: int
    samples: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: int
    photometric: str
    planar: int
    n_frames: int

    @classmethod
    def from_header(cls, header: Dataset) -> PixelFormat:
        """Take the attributes from a header. A High Bit that contradicts the other bits is taken as Bits Stored - 1.

        Raises:
            UnreadableInputError: an attribute is absent, impossible or not supported, or a frame would exceed 1 GiB.
        """
        allocated = _number(header, "BitsAllocated")
        stored = _number(header, "BitsStored", allocated)
        high_bit = _number(header, "HighBit", stored - 1)
        found = cls(
            rows=_number(header, "Rows"),
            columns=_number(header, "Columns"),
            samples=_number(header, "SamplesPerPixel", 1),
            bits_allocated=allocated,
            bits_stored=stored,
            high_bit=high_bit if stored - 1 <= high_bit < allocated else stored - 1,
            signed=_number(header, "PixelRepresentation", 0),
            photometric=str(header.get("PhotometricInterpretation") or "").strip().upper(),
            planar=_number(header, "PlanarConfiguration", 0),
            n_frames=_number(header, "NumberOfFrames", 1),
        )
        found._check()
        return found

    def _check(self) -> None:
        if self.bits_allocated not in (1, 8, 16, 32, 64):
            packed = " (packed pixels are retired)" if self.bits_allocated == 12 else ""
            raise UnreadableInputError(
                f"its pixels have {self.bits_allocated} bits allocated{packed}; only 1, 8, 16, 32 and 64 are "
                "supported: convert the file first."
            )
        sound = (
            0 < self.rows < 2**16
            and 0 < self.columns < 2**16
            and self.samples in (1, 3)
            and 0 < self.bits_stored <= self.bits_allocated
            and self.signed in (0, 1)
            and self.planar in (0, 1)
            and self.n_frames > 0
        )
        if not sound:
            raise UnreadableInputError(
                f"its header describes pixels that cannot be: {self.rows} x {self.columns}, {self.samples} samples "
                f"of {self.bits_stored} in {self.bits_allocated} bits, {self.n_frames} frames."
            )
        if self.frame_bytes > MAX_FRAME_BYTES:
            raise UnreadableInputError(
                f"a frame of {self.rows} x {self.columns} x {self.samples} samples takes {self.frame_bytes:,} "
                f"bytes, more than the allowed {MAX_FRAME_BYTES:,}."
            )

    @property
    def frame_bytes(self) -> int:
        """Size of a decoded frame."""
        return self.rows * self.columns * self.samples * max(self.bits_allocated // 8, 1)

    @property
    def stored_bits(self) -> int:
        """Number of bits that an uncompressed frame takes in the file."""
        bits = self.rows * self.columns * self.samples * self.bits_allocated
        # Two pixels share their chrominance (PS3.3 C.7.6.3.1.2).
        return bits * 2 // 3 if self.photometric == "YBR_FULL_422" else bits

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of a decoded frame: (rows, columns) or (rows, columns, 3)."""
        return (self.rows, self.columns) if self.samples == 1 else (self.rows, self.columns, self.samples)


def _number(header: Dataset, keyword: str, default: int | None = None) -> int:
    try:
        value = header.get(keyword)
        return default if value in (None, "") and default is not None else int(value)
    except Exception:  # pydicom converts on access, fails in many ways, and quotes the file
        raise UnreadableInputError(f"{keyword} in its header is absent or no number.") from None


_KEYWORDS = {0x7FE00010: "PixelData", 0x7FE00008: "FloatPixelData", 0x7FE00009: "DoubleFloatPixelData"}
_OFFSET_TABLES = ["ExtendedOffsetTable", "ExtendedOffsetTableLengths"]
_UNDEFINED_LENGTH = 0xFFFFFFFF
_DECODER_LOG = logging.getLogger("pydicom.pixels.decoders.base")  # prints a traceback for every plug-in that fails


class PixelStream:
    """A file opened at its pixel data, as a context manager.

    Nothing but the frame that is asked for is read, except from deflated files, which are inflated as a whole.

    Attributes:
        encapsulated: whether frames are compressed, in fragments (PS3.5 A.4).
        keyword: ``"PixelData"``, ``"FloatPixelData"`` or ``"DoubleFloatPixelData"``.
        vr: value representation of that element.

    Raises:
        UnreadableInputError: the file is damaged or truncated, holds no pixel data, or inflates to too much.
    """

    keyword: str
    vr: str
    encapsulated: bool

    def __init__(self, instance: Instance, form: PixelFormat) -> None:
        self._form = form
        self._offsets: Any = None
        self._syntax = UID(instance.transfer_syntax)
        self._stream: BinaryIO = self._inflated(instance) if self._deflated else instance.path.open("rb")
        try:
            self._locate()
        except BaseException:
            self._stream.close()
            raise

    def __enter__(self) -> PixelStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stream.close()

    @property
    def _deflated(self) -> bool:
        return bool(self._syntax == DeflatedExplicitVRLittleEndian)

    def compressed(self, index: int) -> bytes:
        """The bytes of one compressed frame."""
        self._stream.seek(self._start)
        n_frames = self._form.n_frames
        data = get_frame(self._stream, index, number_of_frames=n_frames, extended_offsets=self._offsets)
        # No codec in use doubles the size; headers and profiles may add some.
        if not data or len(data) > 2 * self._form.frame_bytes + 2**20:
            raise UnreadableInputError(f"its {len(data):,} compressed bytes cannot be one frame.")
        return bytes(data)

    def fragments(self) -> Iterator[bytes]:
        """All fragments in the order of the file."""
        self._stream.seek(self._start)
        parse_basic_offsets(self._stream)
        yield from generate_fragments(self._stream)

    def native(self, index: int) -> BinaryIO:
        """The file at the beginning of its uncompressed pixel data, which reach beyond frame `index`."""
        needed = -(-self._form.stored_bits * (index + 1) // 8)
        if min(self._length, self._file_size - self._start) < needed:
            raise UnreadableInputError("its pixel data are truncated.")
        self._stream.seek(self._start)
        return self._stream

    def _inflated(self, instance: Instance) -> BinaryIO:
        limit = min(self._form.frame_bytes * self._form.n_frames + 2**26, MAX_INFLATED_BYTES)
        inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        with instance.path.open("rb") as stream:
            # The deflated part follows preamble, magic word, and group 2 (PS3.10 7.1), whose length may not be stated.
            stream.seek(132)
            read_dataset(stream, False, True, stop_when=lambda tag, *_: tag.group != 2)
            inflated = inflate.decompress(stream.read(), limit)
        if not inflate.eof:
            amount = "more than its header says" if len(inflated) >= limit else "less than it should: it is truncated"
            raise UnreadableInputError(f"the file inflates to {amount}.")
        return io.BytesIO(inflated)

    def _locate(self) -> None:
        """Find where the pixel data begin, how long they are, and where each compressed frame lies."""
        if self._deflated:
            read_dataset(self._stream, False, True, stop_when=lambda tag, *_: tag in _KEYWORDS, specific_tags=[])
            little = True
        else:
            dataset = dcmread(self._stream, stop_before_pixels=True, force=True, specific_tags=_OFFSET_TABLES)
            little = bool(original_encoding(dataset)[1])
            if all(table in dataset for table in _OFFSET_TABLES):
                self._offsets = tuple(dataset[table].value for table in _OFFSET_TABLES)
        head = self._stream.read(8)
        if len(head) < 8:
            raise UnreadableInputError("it holds no pixel data.")
        # Some files are in implicit VR against their transfer syntax; no even length looks like one of these letters.
        explicit = head[4:6] in (b"OB", b"OW", b"OF", b"OD", b"UN")
        if explicit:
            head += self._stream.read(4)
        order = "<" if little else ">"
        group, element = struct.unpack_from(f"{order}HH", head)
        self.keyword = _KEYWORDS[group << 16 | element]
        self.vr = head[4:6].decode() if explicit else "OW"
        (self._length,) = struct.unpack(f"{order}L", head[-4:])
        self._start = self._stream.tell()
        self._file_size = self._stream.seek(0, io.SEEK_END)
        self.encapsulated = self._length == _UNDEFINED_LENGTH
        if self.encapsulated != self._syntax.is_encapsulated:
            raise UnreadableInputError("its pixel data and its transfer syntax contradict each other.")
        if self.encapsulated:
            table = self._frame_table()
            self._offsets = self._offsets or table

    def _frame_table(self) -> tuple[list[int], list[int]] | None:
        """Offsets and lengths of the frames where each is one fragment and there is no basic offset table.

        Without it, pydicom would walk through all fragments again for every frame. Checks that no fragment is cut off.
        """
        self._stream.seek(self._start)
        basic = parse_basic_offsets(self._stream)
        first = self._stream.tell()
        count, positions = parse_fragments(self._stream)
        if not count:
            raise UnreadableInputError("it holds no pixel data.")
        self._stream.seek(positions[-1] + 4)
        end = positions[-1] + 8 + struct.unpack("<L", self._stream.read(4))[0]
        if end > self._file_size:
            raise UnreadableInputError("its pixel data are truncated.")
        if basic or count != self._form.n_frames:
            return None
        ends = [*positions[1:], end]
        lengths = [end - position - 8 for position, end in zip(positions, ends, strict=True)]
        return [position - first for position in positions], lengths


@contextmanager
def readable(what: str) -> Iterator[None]:
    """Turn whatever goes wrong into one sentence, without any text of the file.

    Args:
        what: what is read, such as ``"frame 3"``.

    Raises:
        UnreadableInputError: something went wrong.
    """
    disabled, _DECODER_LOG.disabled = _DECODER_LOG.disabled, True
    try:
        with quiet_pydicom():
            yield
    except UnreadableInputError as error:
        raise UnreadableInputError(f"Cannot read {what} of a DICOM series: {error}") from None
    except FileNotFoundError:
        raise UnreadableInputError(f"Cannot read {what} of a DICOM series: the file is gone.") from None
    except PermissionError:
        raise UnreadableInputError(
            f"Cannot read {what} of a DICOM series: you have no permission to read the file."
        ) from None
    except Exception as error:  # a damaged file makes pydicom and the codecs raise nearly anything, quoting the file
        raise UnreadableInputError(
            f"Cannot read {what} of a DICOM series: the file is truncated or damaged ({type(error).__name__})."
        ) from None
    finally:
        _DECODER_LOG.disabled = disabled


def describe_syntax(syntax: UID) -> str:
    """Name and UID of a transfer syntax of the standard; others are not quoted, since they may be any text."""
    if not (syntax.is_valid and syntax.startswith("1.2.840.10008.")):
        return "that is not of the standard"
    return f"{syntax.name} ({syntax})" if syntax.name != syntax else str(syntax)
