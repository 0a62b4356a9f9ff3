# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Open a video safely, and find out how many frames it has and when each is shown."""

from __future__ import annotations

import os
import struct
from array import array
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
import numpy.typing as npt

from monai_anomalyclip.data.errors import UnreadableInputError
from monai_anomalyclip.data.frames import MAX_PIXELS

__all__ = [
    "MAX_FRAMES",
    "ONE_PICTURE_PER_PACKET",
    "VideoIndex",
    "VideoSource",
    "broken_at",
    "index_video",
    "named_errors",
    "open_video",
    "promised_size",
    "scan_packets",
]

_MAX_BOXES = 2**20
_EBML, _SEGMENT = 0x1A45DFA3, 0x18538067


def promised_size(file: BinaryIO, size: int) -> int:
    """Where the media data of an MP4 (ISO 14496-12) or Matroska file (RFC 9559) end; 0 where nothing tells.

    Args:
        file: at its start.
        size: of the file in bytes.
    """
    head = file.read(8)
    file.seek(0)
    if head[:4] == _EBML.to_bytes(4, "big"):
        return _end_of_segment(file)
    return _end_of_media_boxes(file, size) if head[4:] in (b"ftyp", b"moov", b"mdat", b"free", b"wide") else 0


def _end_of_media_boxes(file: BinaryIO, size: int) -> int:
    start = end = 0
    for _ in range(_MAX_BOXES):
        if start + 16 > size:
            break
        file.seek(start)
        length, kind, long_length = struct.unpack(">I4sQ", file.read(16))
        length = long_length if length == 1 else length or size - start  # 0 means up to the end of the file
        if length < 8:
            break
        if kind == b"mdat":
            end = start + length
        start += length
    return end


def _end_of_segment(file: BinaryIO) -> int:
    for _ in range(2):  # the EBML header, then the segment
        identifier = int.from_bytes(file.read(4), "big")
        first = file.read(1)
        if not first or not first[0]:
            return 0
        width = 9 - first[0].bit_length()
        length = int.from_bytes(first + file.read(width - 1), "big") & ((1 << 7 * width) - 1)
        if identifier == _SEGMENT:
            unknown = length == (1 << 7 * width) - 1  # as in live recordings
            return 0 if unknown else file.tell() + length
        file.seek(length, os.SEEK_CUR)
    return 0


VideoSource: TypeAlias = str | os.PathLike[str] | BinaryIO
"""A path, or a binary file that can be read and sought from its start."""

MAX_FRAMES = 2**24
"""Videos of more frames are refused (77 hours at 60 frames per second)."""

# Playlists and the like, which FFmpeg would recognise by their content too, name other files and addresses to open.
_CONTAINERS = "mov,matroska,webm,avi,mpeg,mpegts,mpegvideo,h264,hevc,m4v,asf,flv,ogg"
# Of these codecs every packet of a container holds one picture that is shown. Others hide pictures (VP8) or leave some
# out (MPEG-4 in AVI), so only decoding tells how many there are.
ONE_PICTURE_PER_PACKET = frozenset(("av1", "ffv1", "h264", "hevc", "mjpeg", "png", "prores", "rawvideo", "vp9"))
_UNKNOWN_RATE = Fraction(25)
_THREADS = "4"  # each holds a picture


@dataclass(frozen=True, eq=False)
class VideoIndex:
    """What :func:`index_video` found out.

    Attributes:
        n_frames: number of frames that are shown.
        times: (n_frames,) float64, when each is shown, in seconds of the file's own clock, which need not begin at 0;
            in display order, at whatever varying rate the file says.
        width: of the upright picture, in pixels.
        height: of the upright picture, in pixels.
        fps: nominal number of frames per second; 25 where the file does not tell.
        codec: FFmpeg's name of the codec.
        quarter_turns: counter-clockwise turns that make a decoded picture upright.
        pts: (n_frames,) int64, the file's time stamps; None where frames can only be counted.
        keyframes: int64, ascending numbers of the frames at which decoding can begin.
        pixel_aspect: how much wider than high a pixel of the upright picture is to be shown.
        others: how many further films the file holds, such as those of a second camera; they are not read.
    """

    n_frames: int
    times: npt.NDArray[np.float64]
    width: int
    height: int
    fps: Fraction
    codec: str
    quarter_turns: int = 0
    pts: npt.NDArray[np.int64] | None = None
    keyframes: npt.NDArray[np.int64] | None = None
    pixel_aspect: Fraction = Fraction(1)
    others: int = 0

    @property
    def note(self) -> str:
        """A sentence on films of the file that are not read, or nothing."""
        films = f"The file holds {1 + self.others} films, of which the one that players show was scored"
        return f"{films}: save the others as files of their own." if self.others else ""


def index_video(source: VideoSource, *, max_pixels: int = MAX_PIXELS) -> VideoIndex:
    """Find the frames of a video.

    One picture is decoded, to learn its size and rotation; the others are found by their packets alone. Where those do
    not tell (no time stamps, interlaced fields, codecs that hide or omit pictures) all pictures are decoded once.

    Args:
        source: the video.
        max_pixels: videos of larger pictures are refused before a picture is decoded.

    Raises:
        UnreadableInputError: the file is missing, no video, truncated, damaged, too large, or PyAV is not installed.
    """
    with named_errors(source):
        with open_video(source, max_pixels) as (container, stream):
            import av  # there, since the file is open

            first = _first_picture(container, stream)
            size, turns = (first.width, first.height), round(first.rotation / 90) % 4
            codec = str(stream.codec_context.codec.canonical_name)
            fps = _nominal_rate(stream)
            aspect = stream.sample_aspect_ratio or Fraction(1)  # absent or 0 where nothing is said
            clock = stream.time_base
            cover = av.stream.Disposition.attached_pic
            others = sum(not one.disposition & cover for one in container.streams.video) - 1
        packets = None
        if codec in ONE_PICTURE_PER_PACKET and not first.interlaced_frame:
            with open_video(source, max_pixels) as (container, stream):
                packets = scan_packets(container, stream)
        if packets is None:
            with open_video(source, max_pixels) as (container, stream):
                stamps = _scan_pictures(container, stream, size)
            pts, keyframes = None, None
        else:
            pts, keyframes = packets
            stamps = pts.astype(np.float64)
        with _opened(source) as (file, available):
            if promised_size(file, available) > available:
                raise broken_at(len(stamps))
        times = _fill(stamps * clock.numerator / clock.denominator, float(fps))
        width, height = size[::-1] if turns % 2 else size
        aspect = 1 / aspect if turns % 2 else aspect
        return VideoIndex(len(times), times, width, height, fps, codec, turns, pts, keyframes, aspect, others)


@contextmanager
def open_video(source: VideoSource, max_pixels: int) -> Iterator[tuple[Any, Any]]:
    """Open a video with PyAV and yield its container and its best video stream.

    Raises:
        UnreadableInputError: PyAV is not installed, there is no video, no decoder for it, or it is too large.
    """
    try:
        import av
    except ImportError as error:
        raise UnreadableInputError("videos need the package PyAV: pip install av.") from error
    av.logging.set_level(None)  # FFmpeg's messages quote names and texts of the file
    limit = {"max_pixels": str(max_pixels)}  # also holds where the size changes within the stream
    with (
        _opened(source) as (file, _),
        # Titles in another encoding than UTF-8 are no damage.
        av.open(
            file,
            "r",
            options=limit,
            container_options={"format_whitelist": _CONTAINERS},
            metadata_errors="replace",
        ) as container,
    ):
        # Invented time stamps are wrong for reordered pictures.
        container.flags &= ~av.container.Flags.gen_pts.value
        stream = container.streams.best("video")
        if stream is None or stream.disposition & av.stream.Disposition.attached_pic:
            raise UnreadableInputError("it holds no video.")
        codec = stream.codec_context
        if codec is None:
            raise UnreadableInputError("there is no decoder for its codec; save it as H.264 in MP4 first.")
        if codec.width * codec.height > max_pixels:
            raise UnreadableInputError(
                f"its pictures of {codec.width} x {codec.height} pixels are larger than the allowed {max_pixels:,}."
            )
        codec.options = {**limit, "threads": _THREADS}
        if codec.name == "mjpeg":  # otherwise gives half a picture without a word
            codec.options = {**codec.options, "err_detect": "explode"}
        codec.thread_type = "AUTO"
        yield container, stream


@contextmanager
def named_errors(source: VideoSource) -> Iterator[None]:
    """Turn every error within the block into one sentence that names the file, never its folder."""
    label = repr(Path(source).name) if isinstance(source, str | os.PathLike) else "the video"
    try:
        yield
    except UnreadableInputError as error:
        raise UnreadableInputError(f"Cannot read {label}: {error}") from error
    except FileNotFoundError as error:
        raise UnreadableInputError(f"Cannot read {label}: there is no such file.") from error
    except MemoryError as error:
        raise UnreadableInputError(f"Cannot read {label}: there is not enough memory for it.") from error
    except Exception as error:  # the text of PyAV's errors ends in the path
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise UnreadableInputError(f"Cannot read {label}: it is no video, truncated or damaged ({reason}).") from error


def broken_at(number: int) -> UnreadableInputError:
    """The error of a video that cannot be read from a frame on."""
    return UnreadableInputError(f"the file is truncated or damaged: it breaks at frame {number}, counted from 0.")


@contextmanager
def _opened(source: VideoSource) -> Iterator[tuple[BinaryIO, int]]:
    """The file at its start, and its size. FFmpeg never sees a path, which it might take for an address."""
    if isinstance(source, str | os.PathLike):
        with open(source, "rb") as file:
            yield file, os.fstat(file.fileno()).st_size
    else:
        size = source.seek(0, os.SEEK_END)
        source.seek(0)
        yield source, size


def _first_picture(container: Any, stream: Any) -> Any:
    from av.error import FFmpegError

    for packet in container.demux(stream):
        with suppress(FFmpegError):  # recordings may begin between two key frames
            for frame in packet.decode():
                return frame
    raise UnreadableInputError("none of its frames can be decoded.")


def _nominal_rate(stream: Any) -> Fraction:
    rate = stream.average_rate or stream.guessed_rate
    return Fraction(rate.numerator, rate.denominator) if rate else _UNKNOWN_RATE


def scan_packets(container: Any, stream: Any) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]] | None:
    """Time stamps in display order and numbers of the key frames; None where packets do not tell the frames."""
    pts, keys = array("q"), array("q")
    empty = 0
    first = None
    for packet in container.demux(stream):
        if packet.size == 0:
            empty += 1
            continue
        if packet.pts is None or (first is None and not packet.is_keyframe):
            return None
        if packet.is_corrupt:
            raise broken_at(sum(stamp < packet.pts for stamp in pts))
        first = packet.pts if first is None else first
        if packet.pts < first:  # shown before the first key frame: the decoder may drop it
            return None
        if packet.is_discard:  # needed for decoding, not shown
            continue
        pts.append(packet.pts)
        if packet.is_keyframe:
            keys.append(packet.pts)
        if len(pts) > MAX_FRAMES:
            raise UnreadableInputError(f"it has more than the allowed {MAX_FRAMES:,} frames.")
    shown = np.unique(np.array(pts, dtype=np.int64))
    if empty > 1 or len(shown) < len(pts) or not len(shown):  # the last, empty packet only ends the stream
        return None
    return shown, np.searchsorted(shown, np.sort(np.array(keys, dtype=np.int64)))


def _scan_pictures(container: Any, stream: Any, size: tuple[int, int]) -> npt.NDArray[np.float64]:
    """Time stamps of all pictures, NaN where there is none."""
    from av.error import FFmpegError

    stamps = array("d")
    for packet in container.demux(stream):
        try:
            frames = packet.decode()
        except FFmpegError as error:
            raise broken_at(len(stamps)) from error
        for frame in frames:
            if frame.is_corrupt or (frame.width, frame.height) != size:
                raise broken_at(len(stamps))
            stamps.append(np.nan if frame.pts is None else frame.pts)
        if len(stamps) > MAX_FRAMES:
            raise UnreadableInputError(f"it has more than the allowed {MAX_FRAMES:,} frames.")
    return np.array(stamps, dtype=np.float64)


def _fill(times: npt.NDArray[np.float64], fps: float) -> npt.NDArray[np.float64]:
    """Complete times in seconds: in between known ones evenly, elsewhere at the nominal rate."""
    numbers = np.arange(len(times), dtype=np.float64)
    known = np.flatnonzero(np.isfinite(times))
    if not len(known) or (np.diff(times[known]) <= 0).any():
        return numbers / fps
    filled = np.interp(numbers, known, times[known])
    filled[: known[0]] -= (known[0] - numbers[: known[0]]) / fps
    filled[known[-1] + 1 :] += (numbers[known[-1] + 1 :] - known[-1]) / fps
    return filled
