# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Lookup tables of DICOM headers: modality and VOI tables, and palettes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from monai_anomalyclip.data.errors import UnreadableInputError

__all__ = ["LookupTable", "palette_tables"]

_DAMAGED = "a lookup table in its header is damaged or of an unsupported kind."


@dataclass(frozen=True)
class LookupTable:
    """One table (DICOM PS3.3 C.11.1.1, C.11.2.1.1, C.7.6.3.1.5).

    highdicom's and pydicom's tables demand data of exactly the declared length and depth; scanners differ.

    Args:
        first: the input that gives the first entry; smaller ones give it too, and larger ones than the table holds the
            last entry.
        entries: unsigned numbers.
        bits: nominal depth of the entries.
    """

    first: int
    entries: npt.NDArray[np.uint16]
    bits: int

    @classmethod
    def from_item(cls, item: Dataset, signed: bool, little: bool) -> LookupTable:
        """Take the table of an item of a Modality or VOI LUT Sequence.

        Args:
            item: holds LUT Descriptor and LUT Data.
            signed: whether the inputs may be negative, which the descriptor cannot tell in every encoding.
            little: byte order of LUT Data where they are bytes.

        Raises:
            UnreadableInputError: the table is damaged.
        """
        try:
            length, first, bits = _descriptor(item.LUTDescriptor, signed)
            return cls(first, _entries(item.LUTData, length, little), bits)
        except Exception:  # pydicom converts on access, fails in many ways, and quotes the file
            raise UnreadableInputError(_DAMAGED) from None

    def position(self, values: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        """Which entry each whole number gets."""
        return np.clip(values.astype(np.int64) - self.first, 0, len(self.entries) - 1)

    def __call__(self, values: npt.NDArray[Any]) -> npt.NDArray[np.uint16]:
        """Look up whole numbers of any type."""
        return self.entries[self.position(values)]

    def scaled(self, values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Look up whole numbers; the result is in [0, 1], 1 being the largest number of the entries' depth."""
        white = max(2 ** min(self.bits, 16) - 1, int(self.entries.max()))
        return self(values).astype(np.float32) / np.float32(white)

    def as_bytes(self) -> npt.NDArray[np.uint8]:
        """The entries as 8 bits; those of 16 bits are shifted, unless they are small numbers in wide fields."""
        shift = max(self.bits - 8, 0) if self.entries.max() > 255 else 0
        narrow: npt.NDArray[np.uint8] = np.minimum(self.entries >> shift, 255).astype(np.uint8)
        return narrow


def palette_tables(header: Dataset, signed: bool, little: bool) -> tuple[LookupTable, LookupTable, LookupTable]:
    """The red, green and blue table of a PALETTE COLOR image, also where they are segmented (PS3.3 C.7.9.2).

    Indirect segments are not supported: a few bytes of them expand to any length.

    Raises:
        UnreadableInputError: a table is absent, damaged, or holds an indirect segment.
    """
    try:
        tables = []
        for colour in ("Red", "Green", "Blue"):
            length, first, bits = _descriptor(header[f"{colour}PaletteColorLookupTableDescriptor"].value, signed)
            data = header.get(f"{colour}PaletteColorLookupTableData")
            if data is None:
                segments = header[f"Segmented{colour}PaletteColorLookupTableData"].value
                kind = "u1" if bits <= 8 else "<u2" if little else ">u2"
                entries = _expand(np.frombuffer(segments, kind).tolist(), length)
            else:
                entries = _entries(data, length, little)
            tables.append(LookupTable(first, entries, bits))
    except Exception:  # see from_item
        raise UnreadableInputError(_DAMAGED) from None
    red, green, blue = tables
    return red, green, blue


def _descriptor(numbers: Sequence[int], signed: bool) -> tuple[int, int, int]:
    """Number of entries (0 stands for 65536), first input, depth."""
    length, first, bits = (int(number) for number in numbers)
    if not (0 <= length <= 2**16 and 1 <= bits <= 16):
        raise ValueError("impossible descriptor")
    return length or 2**16, first - 2**16 if signed and first >= 2**15 else first, bits


def _entries(data: Any, length: int, little: bool) -> npt.NDArray[np.uint16]:
    if isinstance(data, bytes):
        # Entries of 8 bits are also found in fields of 16; the number of bytes tells.
        kind = "u1" if len(data) < 2 * length else "<u2" if little else ">u2"
        numbers = np.frombuffer(data[: 2 * length if kind != "u1" else length], kind)
    else:
        numbers = np.atleast_1d(np.asarray(data, dtype=np.int64))[:length] & 0xFFFF
    if not len(numbers):
        raise ValueError("no entries")
    return numbers.astype(np.uint16)


def _expand(segments: list[int], length: int) -> npt.NDArray[np.uint16]:
    entries: list[int] = []
    position = 0
    while position + 2 < len(segments) and len(entries) < length:
        kind, count = segments[position : position + 2]
        position += 2
        if kind == 0:
            entries.extend(segments[position : position + count])
            position += count
        elif kind == 1 and entries:
            steps = np.linspace(entries[-1], segments[position], count + 1)[1:]
            entries.extend(np.rint(steps).astype(int).tolist())
            position += 1
        else:
            raise ValueError("unsupported segment")
    return _entries(entries, length, True)
