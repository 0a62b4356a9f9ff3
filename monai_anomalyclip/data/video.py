# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Read the frames of a video in display order, from any frame on, upright and as RGB."""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from threading import Lock
from types import TracebackType
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from monai_anomalyclip.data.errors import UnreadableInputError
from monai_anomalyclip.data.frames import MAX_PIXELS
from monai_anomalyclip.data.video_index import (
    VideoIndex,
    VideoSource,
    broken_at,
    index_video,
    named_errors,
    open_video,
)

__all__ = ["MAX_BYTES", "Reader", "VideoIndex", "VideoReader", "index_video", "one_open"]


class Reader(Protocol):
    """Anything that opens by itself when it is asked for something, and can be closed."""

    def close(self) -> None:
        """Release what is open."""


_kept: list[weakref.ref[Reader]] = []  # one at most; weak, so that it goes when its source goes
_lock = Lock()


@contextmanager
def one_open(reader: Reader, *, last: bool) -> Iterator[None]:
    """Within the block a reader is in use; afterwards it stays open until another one is used in this process.

    The worker of a data loader rarely meets the last part of a film, which would close it: without this it would end
    with all films open, each of which may hold gigabytes. What is in use in another thread is left alone.

    Args:
        reader: what is used.
        last: nothing more will be asked for: it is closed after the block, as it is when the block raises.
    """
    with _lock:
        _release(reader)
    keep = False
    try:
        yield
        keep = not last
    finally:
        if not keep:
            reader.close()
        else:
            with _lock:
                _release(reader)
                _kept.append(weakref.ref(reader))


def _release(used: Reader) -> None:
    """Nothing is kept any more; unless it is the one that is used, it is closed."""
    while _kept:
        former = _kept.pop()()
        if former is not None and former is not used:
            former.close()


MAX_BYTES = 2**30
"""Frames that take more memory together are refused; once scaled to [0, 1] they take four times as much."""

_FAR = 64  # frames ahead from which on seeking is quicker than decoding what lies between


class VideoReader:
    """The frames of a video, or every n-th of them. A context manager.

    Frames are numbered in display order. Reading on from where the last call ended decodes no frame twice; going back
    or far ahead seeks to the key frame before. The rotation that the file asks for is applied. Colours are converted
    by the stream's matrix and range; where it names no matrix by that of BT.601, as FFmpeg does. Interlaced frames are
    left as they are.

    Args:
        source: a path, or a binary file that can be sought, which is not closed.
        stride: every how many frames one is read: number ``i`` of this reader is frame ``i * stride`` of the video.
        max_pixels: videos of larger pictures are refused before a picture is decoded.

    Raises:
        UnreadableInputError: as for :func:`index_video`.
        ValueError: the stride is not positive.
    """

    def __init__(self, source: VideoSource, stride: int = 1, *, max_pixels: int = MAX_PIXELS) -> None:
        if stride < 1:
            raise ValueError(f"The stride of a video must be 1 or more, got {stride}.")
        self.stride = stride
        self.index = index_video(source, max_pixels=max_pixels)
        self._source = source
        self._max_pixels = max_pixels
        self._resources = ExitStack()
        self._container: Any = None
        self._stream: Any = None
        self._converter: Any = None
        self._pictures: Iterator[Any] = iter(())
        self._next = self.index.n_frames  # frame that the decoder gives next: at first none
        self._sought = False

    @property
    def n_frames(self) -> int:
        """How many frames the reader gives."""
        return len(self.times)

    @property
    def times(self) -> npt.NDArray[np.float64]:
        """(n_frames,) when each is shown, in seconds of the file's own clock."""
        return self.index.times[:: self.stride]

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the decoder and the file; reading again opens them anew."""
        self._pictures = iter(())
        self._container = self._stream = self._converter = None
        self._next = self.index.n_frames
        self._resources.close()

    def read(self, start: int, stop: int) -> npt.NDArray[np.uint8]:
        """Read frames `start` to `stop` (exclusive) as (stop - start, H, W, 3) uint8 RGB.

        No more than these, and the few that the decoder works on, are held at a time.

        Raises:
            UnreadableInputError: the video is damaged; the message names the frame at which it breaks. Or the frames
                take more than 4 GiB.
            ValueError: there are no such frames.
        """
        if not 0 <= start <= stop <= self.n_frames:
            raise ValueError(f"Frames {start} to {stop} were asked for, but the video has {self.n_frames}.")
        shape = (stop - start, self.index.height, self.index.width, 3)
        with named_errors(self._source):
            if math.prod(shape) > MAX_BYTES:
                raise UnreadableInputError(
                    f"{shape[0]:,} frames of {shape[1]} x {shape[2]} pixels take {math.prod(shape):,} bytes, more than "
                    f"the allowed {MAX_BYTES:,}: read it in parts, which InputCatalogue(path).items() gives."
                )
            frames = np.empty(shape, np.uint8)
            for row, number in enumerate(range(start * self.stride, stop * self.stride, self.stride)):
                frames[row] = self._upright(self._picture(number))
        return frames

    def _upright(self, picture: Any) -> npt.NDArray[np.uint8]:
        rgb = self._converter.reformat(picture, format="rgb24", dst_color_range="JPEG").to_ndarray()
        return np.rot90(rgb, self.index.quarter_turns)

    def _picture(self, number: int) -> Any:
        self._approach(number)
        picture = self._advance(number)
        if picture is None and self._sought:
            # Some key frames do not allow to begin at them: only the way from the beginning tells whether it is damage.
            self._restart()
            picture = self._advance(number)
        if picture is None:
            error = broken_at(self._next)
            self.close()
            raise error
        return picture

    def _advance(self, number: int) -> Any:
        """Decode up to a frame; None where a frame on the way is missing, damaged or of another size."""
        for picture in self._pictures:
            at = self._number(picture)
            if at is None or at < self._next:  # led in by the key frame, or shown before it
                continue
            if at > self._next or picture.is_corrupt or not self._has_size(picture):
                return None
            self._next += 1
            if at == number:
                return picture
        return None

    def _approach(self, number: int) -> None:
        keyframe = 0
        if self.index.keyframes is not None:
            before = np.searchsorted(self.index.keyframes, number, side="right") - 1
            keyframe = int(self.index.keyframes[before]) if before >= 0 else 0
        if self._container is None or (number < self._next and keyframe == 0):
            self._restart()
        if keyframe > 0 and (number < self._next or keyframe > self._next + _FAR) and self.index.pts is not None:
            self._container.seek(int(self.index.pts[keyframe]), stream=self._stream)
            self._begin(keyframe, sought=True)

    def _restart(self) -> None:
        self.close()
        self._container, self._stream = self._resources.enter_context(open_video(self._source, self._max_pixels))
        from av.video.reformatter import VideoReformatter

        self._converter = VideoReformatter()  # one for all frames: each holds megabytes
        self._begin(0, sought=False)

    def _begin(self, number: int, *, sought: bool) -> None:
        self._pictures = self._decode()
        self._next, self._sought = number, sought

    def _decode(self) -> Iterator[Any]:
        from av.error import FFmpegError

        for packet in self._container.demux(self._stream):
            try:
                yield from packet.decode()
            except FFmpegError:
                if self.index.pts is None:
                    return
                # The time stamps of the pictures that follow tell which one is missing.

    def _number(self, picture: Any) -> int | None:
        """The number of a decoded frame; None for one that is not in the index."""
        pts = self.index.pts
        if pts is None:
            return self._next
        if picture.pts is None:
            return None
        at = int(np.searchsorted(pts, picture.pts))
        return at if at < len(pts) and pts[at] == picture.pts else None

    def _has_size(self, picture: Any) -> bool:
        size = (picture.width, picture.height)
        return (size[::-1] if self.index.quarter_turns % 2 else size) == (self.index.width, self.index.height)
