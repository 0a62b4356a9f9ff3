# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The inputs a run can meet, behind one face: a frame, a NIfTI volume, a stack of a DICOM series, a video."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from monai_anomalyclip.atomic_file import sha256_of
from monai_anomalyclip.data.dicom.geometry import find_pixel_aspect
from monai_anomalyclip.data.dicom.pydicom_api import quiet_pydicom
from monai_anomalyclip.data.dicom.reader import frame_times, load_series
from monai_anomalyclip.data.dicom.series import DicomSeries
from monai_anomalyclip.data.errors import UnreadableInputError
from monai_anomalyclip.transforms.intensity_presets import check_preset

if TYPE_CHECKING:
    from monai.data.meta_tensor import MetaTensor

    from monai_anomalyclip.data.dicom.encapsulated_video import EncapsulatedVideo
    from monai_anomalyclip.data.video import VideoReader

__all__ = [
    "DicomSource",
    "FrameSource",
    "InputPart",
    "NiftiSource",
    "ReadOptions",
    "Source",
    "VideoSource",
    "digest",
    "frame_ranges",
]

_PART_BYTES = 2**28  # of float32 frames that are in memory at a time
_MAX_PART = 64
_MAX_STRIDE = 100_000  # a frame an hour: clocks of films count no further
_SETTLED = 2.0  # seconds after which a file's times are sure to tell of a change


@dataclass(frozen=True)
class ReadOptions:
    """How inputs are read.

    Args:
        preset: intensity preset of DICOM series and NIfTI volumes (see
            :mod:`monai_anomalyclip.transforms.intensity_presets`).
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
        if not 1 <= self.stride <= _MAX_STRIDE:
            raise ValueError(f"stride must lie in 1 to {_MAX_STRIDE:,}, got {self.stride}.")


class Source(ABC):
    """One input. Its text form holds no path, so that it may stand in a log.

    Attributes:
        origin: what kind of file it comes from.
        kind: what the results are like: pictures, a volume, or a film.
        label: first part of the results' names: a modality, "frame", "volume" or "video".
        key: sixteen hexadecimal digits that depend on the input alone.
        group: sixteen that the inputs of one file, or of one DICOM series, share.
        identity: text that a file is known by; "" for DICOM.
        modality: DICOM modality, or "".
        paths: the files.
    """

    origin: Literal["frame", "nifti", "dicom", "video"]
    kind: Literal["frame", "volume", "cine"]
    label: str
    key: str
    group: str
    identity: str = ""
    modality: str = ""
    paths: tuple[Path, ...]

    options: ReadOptions = ReadOptions()

    @abstractmethod
    def load(self, start: int = 0, stop: int | None = None) -> MetaTensor:
        """Read it: (C, H, W), (C, X, Y, Z), or frames start to stop of a film as (C, W, H, n).

        Intensities are as the reader of its kind gives them, see :meth:`InputPart.load`.

        Raises:
            UnreadableInputError: it cannot be read; the message says why.
        """

    def timing(self) -> tuple[list[float], float]:
        """Of a film: when each scored frame is shown, in seconds, and nominal frames per second."""
        raise TypeError(f"{self!r} is no film.")

    def pixel_aspect(self) -> Fraction:
        """Of a film: how much wider than high its pixels are to be shown."""
        return Fraction(1)

    def parts(self) -> list[tuple[int, int | None]]:
        """The ranges of frames it is read in; only films have more than one."""
        return [(0, None)]

    def state(self) -> str:
        """SHA-256 of all that is in the files, whatever they are called and in whichever order they come."""
        contents = []
        for path in self.paths:
            with contextlib.suppress(OSError):
                contents.append(_content(path))
        return hashlib.sha256(repr(sorted(contents)).encode()).hexdigest()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.label}, {self.key})"


@dataclass(frozen=True)
class InputPart:
    """Frames `start` to `stop` of a source: what an item of the data set is before it is read."""

    source: Source
    start: int = 0
    stop: int | None = None

    def load(self, eight_bit: bool = False) -> MetaTensor:
        """Read it, see :meth:`Source.load`, as float32 in [0, 1] whatever the format.

        This is the one place where intensities are brought to that range; what was done stands in the meta
        ``intensity``. DICOM's reader, which has the evidence of the headers, has scaled gray images already.

        Args:
            eight_bit: leave what is stored in 8 bits as it is (uint8), for those who hand it on.

        Raises:
            UnreadableInputError: it cannot be read, or its intensities cannot be scaled by the preset.
        """
        from monai_anomalyclip.transforms.intensity import ScaleIntensityForCLIP  # needs torch, headers alone do not

        image = self.source.load(self.start, self.stop)
        if self.source.origin in ("frame", "nifti"):
            from monai_anomalyclip.data.masks import note_on_values

            if note := note_on_values(image.numpy()):
                image.meta["notes"] = f"{image.meta.get('notes') or ''} {note}".strip()
        preset = "auto" if image.meta.get("intensity") else self.source.options.preset
        try:
            return cast("MetaTensor", ScaleIntensityForCLIP(preset=preset, eight_bit=eight_bit)(image))
        except ValueError as error:
            raise UnreadableInputError(str(error)) from error


def digest(text: str) -> str:
    """Sixteen hexadecimal digits of a text's SHA-256."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]


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


def _content(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    now = path.stat()
    if time.time() - max(now.st_mtime, now.st_ctime) < _SETTLED:
        return sha256_of(path)
    return _read_once(path, now.st_ino, now.st_size, now.st_mtime_ns, now.st_ctime_ns)


@functools.lru_cache(maxsize=4096)  # pages of a TIFF are inputs of one file; a series is looked at before and after
def _read_once(path: Path, *_: int) -> str:
    return sha256_of(path)


class FrameSource(Source):
    """A picture, or one page of a TIFF.

    Args:
        path: the file.
        identity: text that tells it from all others, such as its path relative to the input folder.
        page: page of a multi-page TIFF, from 0.
        options: how it is read; of pictures only recorded.
    """

    origin, kind, label = "frame", "frame", "frame"

    def __init__(self, path: Path, identity: str, page: int = 0, options: ReadOptions | None = None) -> None:
        self.paths = (path,)
        self.options = options or ReadOptions()
        self.page = page
        self.identity = identity
        self.group = digest(identity)
        self.key = digest(f"{identity}\n{page}" if page else identity)

    def load(self, start: int = 0, stop: int | None = None) -> MetaTensor:
        """Read it as (3, H, W) uint8."""
        from monai_anomalyclip.data.frames import load_frame  # each reader is imported for what it reads

        return load_frame(self.paths[0], page=self.page)


class NiftiSource(Source):
    """A NIfTI volume; arguments as for :class:`FrameSource`.

    Attributes:
        among_others: whether it is not the only input: then a time point is for those that have several.
    """

    origin, kind, label = "nifti", "volume", "volume"

    def __init__(self, path: Path, identity: str, options: ReadOptions) -> None:
        from monai_anomalyclip.data.nifti import files_of_volume

        self.paths = files_of_volume(path)
        self.options = options
        self.identity = identity
        self.key = self.group = digest(identity)
        self.among_others = False

    def load(self, start: int = 0, stop: int | None = None) -> MetaTensor:
        """Read it as (1, X, Y, Z) float32."""
        from monai_anomalyclip.data.nifti import load_volume

        return load_volume(self.paths[0], **self.reading())

    def reading(self) -> dict[str, Any]:
        """The options for the reader of NIfTI files."""
        options = self.options
        return {"form": options.nifti_form, "time_point": options.time_point, "only_if_4d": self.among_others}


class DicomSource(Source):
    """A stack of a DICOM series.

    Args:
        series: the stack. The attribute of that name has the frames that a video really holds, not those its header
            claims, once the parts, the times or the frames have been asked for.
        options: how it is read.
    """

    origin = "dicom"

    def __init__(self, series: DicomSeries, options: ReadOptions) -> None:
        self.series = series
        self.options = options
        self._video: EncapsulatedVideo | None = None
        self.paths = tuple(instance.path for instance in series.instances)
        self.key = series.key
        self.group = series.group
        self.kind = series.kind
        self.label = self.modality.lower()

    @property
    def modality(self) -> str:  # type: ignore[override]
        """DICOM modality."""
        return self.series.modality

    def timing(self) -> tuple[list[float], float]:
        """As the header says, see :func:`monai_anomalyclip.data.dicom.reader.frame_times`."""
        with contextlib.suppress(UnreadableInputError):
            self._count_frames()
        return frame_times(self.series)

    def pixel_aspect(self) -> Fraction:
        """By the spacing of pixels, else by Pixel Aspect Ratio, else, of a video, by its own header."""
        frame = self.series.frames[0]
        with quiet_pydicom():
            aspect = find_pixel_aspect(frame, self.series.geometry.pixel_spacing)
        return self._video.pixel_aspect if aspect == 1 and self._video is not None else aspect

    def parts(self) -> list[tuple[int, int | None]]:
        """One range for a stack, several for a long cine; one for a damaged video, so that reading it says why."""
        try:
            self._count_frames()
        except UnreadableInputError:
            return [(0, None)]
        if self.kind != "cine":
            return [(0, None)]
        return frame_ranges(len(self.series.frames), *self.series.size)

    def load(self, start: int = 0, stop: int | None = None) -> MetaTensor:
        """Read it, see :func:`monai_anomalyclip.data.dicom.load_series`.

        The last part of a video closes it, and so does reading another film.
        """
        self._count_frames()
        last = stop in (None, len(self.series.frames))
        if self._video is None:
            return load_series(self.series, preset=self.options.preset, start=start, stop=stop)
        from monai_anomalyclip.data.video import one_open

        with one_open(self._video, last=last):
            return load_series(self.series, preset=self.options.preset, start=start, stop=stop, video=self._video)

    def _count_frames(self) -> None:
        """Find out once how many frames a video holds, which headers often tell wrongly."""
        if self._video is not None or self.kind == "volume" or not self.series.colour:
            return
        from monai_anomalyclip.data.dicom.encapsulated_video import EncapsulatedVideo, is_video, with_true_frames

        if is_video(self.series.instances[0]):
            video = EncapsulatedVideo(self.series.instances[0])
            self.series = with_true_frames(self.series, video)
            self.kind, self._video = self.series.kind, video


class VideoSource(Source):
    """A video file; arguments as for :class:`FrameSource`."""

    origin, kind, label = "video", "cine", "video"

    def __init__(self, path: Path, identity: str, options: ReadOptions) -> None:
        self.paths = (path,)
        self.options = options
        self.identity = identity
        self.key = self.group = digest(identity)
        self._reader: VideoReader | None = None

    @property
    def reader(self) -> VideoReader:
        """Reader of the scored frames, made when it is first asked for; it stays open from one part to the next.

        Raises:
            UnreadableInputError: the file cannot be read.
        """
        if self._reader is None:
            from monai_anomalyclip.data.video import VideoReader

            self._reader = VideoReader(self.paths[0], stride=self.options.stride)
        return self._reader

    def timing(self) -> tuple[list[float], float]:
        """Presentation times from the container, from 0 on where its clock begins before."""
        times = self.reader.times - min(0.0, float(self.reader.times[0]))
        return [float(time) for time in times], float(self.reader.index.fps) / self.options.stride

    def pixel_aspect(self) -> Fraction:
        """As the file says."""
        return self.reader.index.pixel_aspect

    def parts(self) -> list[tuple[int, int | None]]:
        """Ranges of scored frames; a file that cannot be indexed is one range, so that reading it says why."""
        try:
            index = self.reader.index
        except UnreadableInputError:
            return [(0, None)]
        return frame_ranges(self.reader.n_frames, index.height, index.width)

    def load(self, start: int = 0, stop: int | None = None) -> MetaTensor:
        """Read scored frames start to stop as (3, W, H, n) uint8; the last part or another film closes the file."""
        import torch
        from monai.data.meta_tensor import MetaTensor  # takes seconds, which headers alone do not need

        from monai_anomalyclip.data.video import one_open

        stop = self.reader.n_frames if stop is None else stop
        with one_open(self.reader, last=stop == self.reader.n_frames):
            frames = torch.from_numpy(self.reader.read(start, stop))
        meta: dict[str, Any] = {"kind": "cine", "native_slices": 1, "notes": self.reader.index.note, "modality": ""}
        return MetaTensor(frames.permute(3, 2, 1, 0), affine=torch.eye(4, dtype=torch.float64), meta=meta)
