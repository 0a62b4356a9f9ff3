# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""From stored values to real ones and on to gray or colour: rescale, padding, windows, tables and colour spaces."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from monai_anomalyclip.data.dicom.attributes import find_value
from monai_anomalyclip.data.dicom.pixels import DecodedFrame
from monai_anomalyclip.data.dicom.pydicom_api import convert_color_space, original_encoding
from monai_anomalyclip.data.dicom.series import FrameReference
from monai_anomalyclip.data.errors import UnreadableInputError
from monai_anomalyclip.transforms.intensity_presets import window_limits

__all__ = [
    "VOI",
    "LookupTable",
    "find_voi",
    "find_windows",
    "is_hounsfield",
    "palette_tables",
    "real_values",
    "rescale",
    "to_rgb",
]

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


_REAL = "PixelValueTransformationSequence"
_VOI = "FrameVOILUTSequence"


def real_values(stored: npt.NDArray[Any], frame: FrameReference) -> npt.NDArray[np.float32]:
    """Stored values of a gray frame to real ones: Modality LUT or rescale (DICOM PS3.3 C.11.1), padding as NaN.

    Args:
        stored: (rows, columns).
        frame: where they come from.

    Returns:
        (rows, columns) float32; NaN where a value is padding (C.7.5.1.1.2) or not finite.

    Raises:
        UnreadableInputError: the Modality LUT is damaged.
    """
    padding = _padding(stored, frame)
    tables = find_value(frame, None, "ModalityLUTSequence")
    if tables:
        real = LookupTable.from_item(tables[0], _is_signed(frame), _is_little(frame))(stored).astype(np.float32)
    else:
        slope, intercept = rescale(frame)
        real = stored.astype(np.float32)
        if slope != 1:
            real *= np.float32(slope)
        if intercept:
            real += np.float32(intercept)
    if padding is not None:
        real[padding] = np.nan
    if stored.dtype.kind == "f":
        real[~np.isfinite(real)] = np.nan
    return real


def rescale(frame: FrameReference) -> tuple[float, float]:
    """Slope and intercept of a frame; a slope that is absent, 0 or not finite is 1, such an intercept 0."""
    slope, intercept = (_numbers(frame, _REAL, keyword) for keyword in ("RescaleSlope", "RescaleIntercept"))
    return (slope[0] if slope and slope[0] else 1.0), (intercept[0] if intercept and intercept[0] else 0.0)


def is_hounsfield(frame: FrameReference) -> bool:
    """Whether the real values of a CT can be Hounsfield units: they are rescaled, and to no other unit."""
    tables = find_value(frame, None, "ModalityLUTSequence")
    if tables:
        unit = tables[0].get("ModalityLUTType")
    elif _numbers(frame, _REAL, "RescaleIntercept"):
        unit = find_value(frame, _REAL, "RescaleType")
    else:
        return False
    return str(unit or "HU").strip().upper() in ("HU", "US")  # US: unspecified


@dataclass(frozen=True)
class VOI:
    """The window or table of a file that turns real values into gray (DICOM PS3.3 C.11.2).

    Args:
        width: width of the window, 0 if there is a table.
        level: its centre.
        function: ``"LINEAR"``, ``"LINEAR_EXACT"`` or ``"SIGMOID"``.
        table: VOI LUT instead of a window, or None.
    """

    width: float = 0.0
    level: float = 0.0
    function: str = "LINEAR"
    table: LookupTable | None = None

    @property
    def limits(self) -> tuple[float, float] | None:
        """The values that become 0 and 1; None for a sigmoid or a table, which have no such values."""
        if self.table is not None or self.function == "SIGMOID":
            return None
        if self.function == "LINEAR_EXACT":
            return self.level - self.width / 2, self.level + self.width / 2
        return window_limits(self.width, self.level)

    def apply_(self, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Map real values to [0, 1] in place; NaN stay NaN."""
        if self.table is not None:
            known = ~np.isnan(values)
            values[known] = self.table.scaled(np.rint(values[known]))
        elif self.limits is None:
            with np.errstate(over="ignore"):
                values[...] = 1 / (1 + np.exp(-4 * (values - np.float32(self.level)) / np.float32(self.width)))
        else:
            import torch  # here, because headers alone do not need it

            from monai_anomalyclip.transforms.intensity import scale_

            scale_(torch.from_numpy(values), *self.limits)
        return values


def find_voi(frame: FrameReference) -> VOI | None:
    """The VOI of a frame: the first VOI LUT, else the first window of finite centre and possible width, else None.

    Raises:
        UnreadableInputError: the VOI LUT is damaged.
    """
    tables = find_value(frame, _VOI, "VOILUTSequence")
    if tables:
        signed = _is_signed(frame) or rescale(frame)[1] < 0
        return VOI(table=LookupTable.from_item(tables[0], signed, _is_little(frame)))
    return next(iter(find_windows(frame)), None)


def find_windows(frame: FrameReference) -> list[VOI]:
    """All windows of a frame that have a finite centre and a possible width."""
    function = str(find_value(frame, _VOI, "VOILUTFunction") or "LINEAR").strip().upper()
    function = function if function in ("LINEAR_EXACT", "SIGMOID") else "LINEAR"
    centres, widths = (_numbers(frame, _VOI, keyword) for keyword in ("WindowCenter", "WindowWidth"))
    return [
        VOI(width, centre, function)
        for centre, width in zip(centres, widths, strict=False)
        if centre is not None and width is not None and (width >= 1 or (width > 0 and function != "LINEAR"))
    ]


def to_rgb(decoded: DecodedFrame, frame: FrameReference) -> npt.NDArray[np.uint8]:
    """A decoded frame of RGB, YBR_FULL, YBR_FULL_422 or PALETTE COLOR as (rows, columns, 3) uint8 RGB.

    Samples of more than 8 bits lose their lower bits.

    Raises:
        UnreadableInputError: the frame has one sample and no palette, a damaged palette, or another colour space.
    """
    values = decoded.values
    header = frame.instance.header
    if decoded.photometric == "PALETTE COLOR" and values.ndim == 2:
        tables = palette_tables(header, _is_signed(frame), _is_little(frame))
        return np.stack([table.as_bytes()[table.position(values)] for table in tables], axis=-1)
    if values.ndim != 3 or decoded.photometric not in ("RGB", "YBR_FULL", "YBR_FULL_422"):
        raise UnreadableInputError(
            "only RGB, YBR_FULL, YBR_FULL_422 and PALETTE COLOR are supported as colours; convert the file first."
        )
    if values.dtype != np.uint8:
        depth = int(header.get("BitsStored") or 8 * values.dtype.itemsize)
        values = (values >> max(depth - 8, 0)).astype(np.uint8)
    rgb: npt.NDArray[np.uint8] = convert_color_space(values, decoded.photometric, "RGB")
    return rgb


def _padding(stored: npt.NDArray[Any], frame: FrameReference) -> npt.NDArray[np.bool_] | None:
    """Where a frame is padded; None if it is not."""
    kind = "Float" if stored.dtype.kind == "f" else ""
    value, limit = (_numbers(frame, None, f"{kind}PixelPadding{end}") for end in ("Value", "RangeLimit"))
    if not value or value[0] is None:
        return None
    bounds = np.array([value[0], limit[0] if limit and limit[0] is not None else value[0]])
    if not kind:
        # The attributes may be written unsigned for signed pixels, or the other way round: the bits count.
        bounds = bounds.astype(np.int64).astype(stored.dtype)
    padded: npt.NDArray[np.bool_] = (stored >= bounds.min()) & (stored <= bounds.max())
    return padded


def _numbers(frame: FrameReference, sequence: str | None, keyword: str) -> list[float | None]:
    """The numbers of an attribute, None in place of what is no finite number; empty if there are none."""
    try:
        value = find_value(frame, sequence, keyword)
    except ValueError:
        return []
    return [_finite(part) for part in ([] if value is None else np.atleast_1d(np.asarray(value, dtype=object)))]


def _finite(value: object) -> float | None:
    try:
        number = float(str(value))
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _is_signed(frame: FrameReference) -> bool:
    return bool(frame.instance.header.get("PixelRepresentation"))


def _is_little(frame: FrameReference) -> bool:
    """Byte order of the bytes in a header; little if it was not read from a file."""
    return bool(original_encoding(frame.instance.header)[1] is not False)
