# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""PNG where Pillow goes wrong: the frames of moving ones (APNG), and gray of few bits that counts as transparent.

Pillow lets a default image that is no part of the animation shine through its frames, and lays the first colour of a
palette where nothing is to be; so it decodes the parts here, and the specification says how they are laid together.
"""

from __future__ import annotations

import functools
import io
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image, PngImagePlugin

from monai_anomalyclip.data.checksums import check_png
from monai_anomalyclip.data.errors import UnreadableInputError

__all__ = ["MovingPng", "moving_png", "scale_hidden_gray"]

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_SHARED = (b"PLTE", b"tRNS", b"eXIf")  # what every frame is decoded with
_BACKGROUND, _PREVIOUS = 1, 2  # what a frame leaves behind: nothing, or what was there before
_OVER = 1
_OPAQUE = 255
_STEP_OF_GRAY = {"L;2": 85, "L;4": 17}  # by the raw mode of a PNG


@dataclass
class _Part:
    """A frame as it is stored: which part of the picture it changes, and where its pixels lie in the file."""

    control: tuple[int, int, int, int, int, int]  # width, height, left, top, disposal, blending
    pieces: list[tuple[int, int]] = field(default_factory=list)


@dataclass
class MovingPng:
    """What a moving PNG holds.

    Args:
        path: the file.
        width: of all frames.
        height: of all frames.
        count: how many frames there are, by the file's own word or by what it holds.
        hidden: whether it also holds a picture for programs that show no animation, which is no part of it.

    Example::

        moving = moving_png("study.png")
        pictures = [] if moving is None else [moving.picture(number) for number in range(moving.count)]
    """

    path: Path
    width: int
    height: int
    count: int
    hidden: bool
    _depth: bytes
    _shared: bytes
    _parts: list[_Part]

    def picture(self, number: int) -> Image.Image:
        """A frame, from 0, as it is seen: RGBA, or gray of 16 bits with black where nothing is. Not turned upright.

        Raises:
            UnreadableInputError: the frame is missing, lies outside the picture, or has colours of 16 bits.
        """
        if number >= len(self._parts):
            raise UnreadableInputError(
                f"the file is truncated or damaged: frame {number + 1} of {self.count} is missing."
            )
        colours: npt.NDArray[Any] = np.empty(0)
        alpha = np.zeros((self.height, self.width), np.uint8)
        exif = b""
        for part in self._parts[: number + 1]:
            width, height, left, top, disposal, blending = part.control
            decoded, colour, opacity = self._decoded(part)
            exif = exif or decoded.getexif().tobytes()
            if not colours.size:
                colours = np.zeros((self.height, self.width, *colour.shape[2:]), colour.dtype)
            place = np.s_[top : top + height, left : left + width]
            before = colours[place].copy(), alpha[place].copy()
            colours[place], alpha[place] = _over(*before, colour, opacity) if blending == _OVER else (colour, opacity)
            if part is self._parts[number]:
                break
            if disposal == _BACKGROUND:
                colours[place], alpha[place] = 0, 0
            elif disposal == _PREVIOUS:
                colours[place], alpha[place] = before
        if colours.ndim == 2:
            seen = Image.fromarray(colours * (alpha > 0))
        else:
            seen = Image.fromarray(np.dstack([colours, alpha]), "RGBA")
        seen.info["exif"] = exif
        return seen

    def largest(self) -> int:
        """The largest gray of 16 bits in all frames that can be read; 0 for frames of 8 bits."""
        status = os.stat(self.path)
        return _largest(os.fspath(self.path), status.st_mtime_ns, status.st_size)

    def _decoded(self, part: _Part) -> tuple[Image.Image, npt.NDArray[Any], npt.NDArray[np.uint8]]:
        """Pillow's picture of one part, its colours, and how opaque they are."""
        width, height, left, top, *_ = part.control
        if not (0 < width <= self.width - left and 0 < height <= self.height - top):
            raise UnreadableInputError("the file is damaged: a frame lies outside its picture.")
        with self.path.open("rb") as stream:
            pixels = b"".join(_at(stream, *piece) for piece in part.pieces)
        header = _chunk(b"IHDR", struct.pack(">II", width, height) + self._depth)
        still = _SIGNATURE + header + self._shared + _chunk(b"IDAT", pixels) + _chunk(b"IEND", b"")
        check_png(io.BytesIO(still))
        image = Image.open(io.BytesIO(still), formats=("PNG",))
        if image.mode.startswith("I"):
            gray = np.array(image, dtype=np.uint16)
            shown = gray != image.info.get("transparency", -1)
            return image, gray, shown * np.uint8(_OPAQUE)
        if self._depth[0] == 16:
            raise UnreadableInputError(
                "it is a moving PNG of 16 bits per sample; save its frames as files of their own."
            )
        scale_hidden_gray(image)
        samples = np.asarray(image.convert("RGBA"))
        return image, samples[..., :3], samples[..., 3]


def moving_png(path: str | os.PathLike[str]) -> MovingPng | None:
    """What a file holds if it is a moving PNG; None for all others.

    Raises:
        UnreadableInputError: what says where its frames lie is damaged.
    """
    shared, depth, size = b"", b"", (0, 0)
    told: int | None = None
    hidden = False
    parts: list[_Part] = []
    order = 0
    with open(path, "rb") as stream:
        if stream.read(len(_SIGNATURE)) != _SIGNATURE:
            return None
        for kind, start, length in _chunks(stream):
            if kind == b"IHDR":
                header = _at(stream, start, 13)
                size, depth = struct.unpack(">II", header[:8]), header[8:]
            elif kind == b"acTL":
                told = struct.unpack(">I", _at(stream, start, 4))[0]
            elif kind in _SHARED:
                shared += _chunk(kind, _at(stream, start, length))
            elif kind == b"IDAT":
                if told is None:  # a still picture, whatever follows
                    return None
                if parts:
                    parts[-1].pieces.append((start, length))
                else:
                    hidden = True
            elif kind in (b"fcTL", b"fdAT"):
                if struct.unpack(">I", _at(stream, start, 4))[0] != order:
                    raise UnreadableInputError("the file is damaged: parts of its frames are missing or out of order.")
                order += 1
                if kind == b"fcTL":
                    control = struct.unpack(">IIII4xBB", _at(stream, start + 4, 22))
                    parts.append(_Part(control))
                elif parts:
                    parts[-1].pieces.append((start + 4, length - 4))
    if told is None or (not parts and told == 0):
        return None
    return MovingPng(Path(path), *size, max(told, len(parts)), hidden, depth, shared, parts)


def scale_hidden_gray(image: Image.Image) -> None:
    """Which gray of a PNG counts as transparent: Pillow brings the pixels of few bits to 0..255, but not that value.

    Args:
        image: what Pillow opened, not yet decoded.
    """
    hidden = image.info.get("transparency")
    if isinstance(image, PngImagePlugin.PngImageFile) and isinstance(hidden, int) and image.tile:
        raw = image.tile[0][3]
        image.info["transparency"] = hidden * _STEP_OF_GRAY.get(raw if isinstance(raw, str) else "", 1)


@functools.lru_cache(maxsize=64)
def _largest(path: str, *_state: int) -> int:
    moving = moving_png(path)
    largest = 0
    for part in moving._parts if moving is not None and moving._depth[0] == 16 else ():
        try:
            _, gray, shown = moving._decoded(part)  # type: ignore[union-attr]
        except Exception:  # reading that frame says why
            continue
        largest = max(largest, int((gray * (shown > 0)).max(initial=0)))
    return largest


def _over(
    colours: npt.NDArray[Any], alpha: npt.NDArray[np.uint8], new: npt.NDArray[Any], opacity: npt.NDArray[np.uint8]
) -> tuple[npt.NDArray[Any], npt.NDArray[np.uint8]]:
    """Lay colours over others, by how opaque they are."""
    if new.ndim == 3 and not np.isin(opacity, (0, _OPAQUE)).all():
        below, above = (Image.fromarray(np.dstack(pair), "RGBA") for pair in ((colours, alpha), (new, opacity)))
        seen = np.asarray(Image.alpha_composite(below, above))
        return seen[..., :3], seen[..., 3]
    laid = opacity == _OPAQUE
    return np.where(laid.reshape(laid.shape + (1,) * (new.ndim - 2)), new, colours), np.where(laid, opacity, alpha)


def _chunks(stream: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """Each chunk of a PNG: its kind, where its data begins, and how long that is."""
    place = len(_SIGNATURE)
    while True:
        stream.seek(place)
        head = stream.read(8)
        if len(head) < 8:
            return
        length, kind = struct.unpack(">I4s", head)
        yield kind, place + 8, length
        place += 12 + length


def _at(stream: BinaryIO, start: int, length: int) -> bytes:
    stream.seek(start)
    data = stream.read(length)
    if len(data) < length:
        raise UnreadableInputError("the file is truncated or damaged: it ends within its pixels.")
    return data


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
