# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""What the readers take from pydicom 3 only, and as much of it as pydicom 2.4 can stand in for: uncompressed frames.

MONAI Label's server needs pydicom 2.4; everywhere else this package asks for pydicom 3.
"""

from __future__ import annotations

import io
import logging
import math
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, Literal, NoReturn

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import UID, ExplicitVRBigEndian

from monai_anomalyclip.data.errors import UnreadableInputError

__all__ = [
    "NativeDecoder",
    "convert_color_space",
    "generate_fragments",
    "get_decoder",
    "get_frame",
    "original_character_set",
    "original_encoding",
    "parse_basic_offsets",
    "parse_fragments",
    "quiet_pydicom",
]

_DTYPES = {"FloatPixelData": "f4", "DoubleFloatPixelData": "f8"}


class NativeDecoder:
    """Decodes uncompressed frames like pydicom 3's decoder of the same transfer syntax.

    Args:
        syntax: an uncompressed transfer syntax.
    """

    def __init__(self, syntax: UID) -> None:
        self.order: Literal["<", ">"] = ">" if syntax == ExplicitVRBigEndian else "<"

    def as_array(
        self, pixels: BinaryIO, *, index: int, raw: bool = True, **form: Any
    ) -> tuple[npt.NDArray[Any], dict[str, Any]]:
        """Decode one frame.

        Args:
            pixels: a file at the beginning of its pixel data.
            index: which frame, from 0.
            raw: must be true: colours are not converted.
            form: attributes of the image pixel module, and ``pixel_keyword`` and ``pixel_vr``, as pydicom 3 names them.

        Returns:
            (rows, columns) or (rows, columns, samples), and the Photometric Interpretation in a dictionary.
        """
        assert raw
        rows, columns, samples = form["rows"], form["columns"], form["samples_per_pixel"]
        bits, stored = form["bits_allocated"], form["bits_stored"]
        subsampled = form["photometric_interpretation"] == "YBR_FULL_422"
        stored_samples = 2 if subsampled else samples  # a pair of pixels shares its two colour differences
        size = rows * columns * stored_samples * bits // 8
        sign = "i" if form["pixel_representation"] else "u"
        dtype = np.dtype(_DTYPES.get(form["pixel_keyword"], f"{sign}{bits // 8}")).newbyteorder(self.order)
        swapped = self.order == ">" and bits == 8 and form["pixel_vr"] == "OW"  # bytes in 16-bit words
        data = _read(pixels, index * size, size, swapped)
        values = np.frombuffer(data, dtype).astype(dtype.newbyteorder("="))
        if dtype.kind != "f" and stored < bits:
            values = np.right_shift(np.left_shift(values, bits - stored), bits - stored)
        if subsampled:
            first, second, blue, red = values.reshape(-1, 4).T
            pairs = np.stack([first, blue, red, second, blue, red], axis=1)
            values = pairs.reshape(rows, columns, 3)
            return values, {"photometric_interpretation": "YBR_FULL"}
        if samples > 1 and form["planar_configuration"]:
            values = values.reshape(samples, rows, columns).transpose(1, 2, 0)
        else:
            values = values.reshape((rows, columns, samples) if samples > 1 else (rows, columns))
        return values, {"photometric_interpretation": form["photometric_interpretation"]}


def _read(pixels: BinaryIO, start: int, size: int, swapped: bool) -> bytes:
    first = start - start % 2 if swapped else start
    pixels.seek(first, io.SEEK_CUR)
    if not swapped:
        return pixels.read(size)
    words = np.frombuffer(pixels.read(2 * math.ceil((start - first + size) / 2)), "u2").byteswap().tobytes()
    return words[start - first : start - first + size]


def original_encoding(header: Dataset) -> tuple[bool | None, bool | None]:
    """Whether a header was read as implicit VR, and as little endian; None if it was not read from a file."""
    if hasattr(header, "original_encoding"):
        implicit, little = header.original_encoding
        return implicit, little
    return header.read_implicit_vr, header.read_little_endian


def original_character_set(header: Dataset) -> Any:
    """The character set that a header was read with."""
    return header.original_character_set if hasattr(header, "original_character_set") else header.read_encoding


def _compressed(*_: Any, **__: Any) -> NoReturn:
    raise UnreadableInputError(
        f"pydicom {pydicom.__version__}, which MONAI Label needs, cannot decode compressed pixels here: convert the "
        "files to uncompressed ones, or use this package with pydicom 3."
    )


try:
    from pydicom.encaps import generate_fragments, get_frame, parse_basic_offsets, parse_fragments
    from pydicom.pixels import convert_color_space, get_decoder
except ImportError:  # pydicom 2.4
    from pydicom.pixel_data_handlers.util import convert_color_space

    get_decoder = NativeDecoder
    generate_fragments = get_frame = parse_basic_offsets = parse_fragments = _compressed


_silence = threading.local()


@contextmanager
def quiet_pydicom() -> Iterator[None]:
    """Silence pydicom's warnings and its loggers within the block.

    pydicom decodes an element when it is first used, so every place that looks into a header needs this. A block
    within another costs nothing; the outermost takes a millisecond, for Python clears the caches of all loggers.
    """
    if getattr(_silence, "held", False):
        yield
        return
    logger = logging.getLogger("pydicom")
    level = logger.level  # that of its child loggers, too
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logger.setLevel(logging.CRITICAL + 1)
        _silence.held = True
        try:
            yield
        finally:
            _silence.held = False
            logger.setLevel(level)
