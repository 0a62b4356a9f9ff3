# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""What all inputs have in common, and how they are read."""

from __future__ import annotations

import contextlib
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from monai.data.meta_tensor import MetaTensor

from monai_anomalyclip.transforms.intensity_presets import check_preset

__all__ = ["InputPart", "ReadOptions", "Source", "digest", "frame_ranges"]

_PART_BYTES = 2**28  # of float32 frames that are in memory at a time
_MAX_PART = 64
_SAMPLES, _SAMPLE_BYTES = 8, 4096  # of a file's content, to tell whether it is still the same


@dataclass(frozen=True)
class ReadOptions:
    """How inputs are read.

    Args:
        preset: intensity preset of DICOM series (see :mod:`monai_anomalyclip.transforms.intensity_presets`).
        nifti_form: ``"refuse"``, ``"sform"`` or ``"qform"``: what to do when the two disagree.
        time_point: index of the volume to take from a 4-D NIfTI file; None refuses such files. A 3-D file among other
            inputs is read all the same, with a note.
        stride: every how many-th frame of a video is scored.
    """

    preset: str = "auto"
    nifti_form: str = "refuse"
    time_point: int | None = None
    stride: int = 1

    def __post_init__(self) -> None:
        check_preset(self.preset)
        if self.nifti_form not in ("refuse", "sform", "qform"):
            raise ValueError(f"nifti_form must be 'refuse', 'sform' or 'qform', got {self.nifti_form!r}.")
        if self.stride < 1:
            raise ValueError(f"stride must be at least 1, got {self.stride}.")


class Source(ABC):
    """One input. Its text form holds no path, so that it may stand in a log.

    Attributes:
        origin: what kind of file it comes from.
        kind: what the results are like: pictures, a volume, or a film.
        label: first part of the results' names: a modality, "frame", "volume" or "video".
        key: eight hexadecimal digits that depend on the input alone.
        modality: DICOM modality, or "".
        paths: the files.
    """

    origin: Literal["frame", "nifti", "dicom", "video"]
    kind: Literal["frame", "volume", "cine"]
    label: str
    key: str
    modality: str = ""
    paths: tuple[Path, ...]

    @abstractmethod
    def load(self, start: int = 0, stop: int | None = None) -> MetaTensor:
        """Read it: (C, H, W), (C, X, Y, Z), or frames start to stop of a film as (C, W, H, n).

        Raises:
            UnreadableInputError: it cannot be read; the message says why.
        """

    def timing(self) -> tuple[list[float], float]:
        """Of a film: when each scored frame is shown, in seconds, and nominal frames per second."""
        raise TypeError(f"{self!r} is no film.")

    def parts(self) -> list[tuple[int, int | None]]:
        """The ranges of frames it is read in; only films have more than one."""
        return [(0, None)]

    def state(self) -> str:
        """Hexadecimal digits that change when files are added, removed or replaced, by their size and samples.

        The size alone would not do: volumes of two patients on one grid have the same.
        """
        samples = []
        for path in self.paths:
            with contextlib.suppress(OSError):
                samples.append(_sample(path))
        return digest(repr(sorted(samples)))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.label}, {self.key})"


@dataclass(frozen=True)
class InputPart:
    """Frames `start` to `stop` of a source: what an item of the data set is before it is read."""

    source: Source
    start: int = 0
    stop: int | None = None

    def load(self) -> MetaTensor:
        """Read it, see :meth:`Source.load`."""
        return self.source.load(self.start, self.stop)


def digest(text: str) -> str:
    """Eight hexadecimal digits of a text's SHA-256."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:8]


def frame_ranges(count: int, height: int, width: int) -> list[tuple[int, int | None]]:
    """The parts that a film is read in, so that their frames fit into memory.

    Args:
        count: number of frames.
        height: of a frame in pixels.
        width: of a frame in pixels.
    """
    size = max(1, min(_MAX_PART, _PART_BYTES // max(1, height * width * 3 * 4)))
    starts: Iterable[int] = range(0, count, size)
    return [(start, min(start + size, count)) for start in starts] or [(0, None)]


def _sample(path: Path) -> str:
    """Size and digest of evenly spread pieces of a file, of all of it when it is small."""
    size = path.stat().st_size
    content = hashlib.sha256()
    with path.open("rb") as stream:
        for start in range(0, size, max(_SAMPLE_BYTES, size // _SAMPLES)):
            stream.seek(start)
            content.update(stream.read(_SAMPLE_BYTES))
    return f"{size} {content.hexdigest()}"
