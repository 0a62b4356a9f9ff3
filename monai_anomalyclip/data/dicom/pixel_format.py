# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The Image Pixel attributes of a DICOM header, checked before anything is allocated for them."""

from __future__ import annotations

from typing import NamedTuple

from pydicom.dataset import Dataset

from monai_anomalyclip.data.errors import UnreadableInputError

__all__ = ["MAX_FRAME_BYTES", "PixelFormat"]

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
