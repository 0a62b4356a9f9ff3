# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Decode the frames of a video inside a DICOM file (MPEG-2, H.264, HEVC), with PyAV."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from fractions import Fraction
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.uid import UID

from monai_anomalyclip.data.dicom.header import MAX_FRAMES
from monai_anomalyclip.data.dicom.pixel_stream import PixelFormat, PixelStream, readable
from monai_anomalyclip.data.dicom.series import DicomSeries, FrameReference, Instance
from monai_anomalyclip.data.errors import UnreadableInputError
from monai_anomalyclip.data.video_index import ONE_PICTURE_PER_PACKET, scan_packets

__all__ = ["EncapsulatedVideo", "is_video", "with_true_frames"]

MAX_VIDEO_BYTES = 2 * 2**30
"""Compressed videos of more bytes are refused."""

_CODECS = {
    **{UID(f"1.2.840.10008.1.2.4.{number}"): "mpegvideo" for number in (100, 101)},
    **{UID(f"1.2.840.10008.1.2.4.{number}"): "h264" for number in (102, 103, 104, 105, 106)},
    **{UID(f"1.2.840.10008.1.2.4.{number}"): "hevc" for number in (107, 108)},
}


def is_video(instance: Instance) -> bool:
    """Whether the pixel data are one stream of video rather than frames."""
    # Those of fragmentable streams have the UID of the plain ones with ".1" added (PS3.6 A).
    return _codec(instance) is not None


def with_true_frames(series: DicomSeries, video: EncapsulatedVideo) -> DicomSeries:
    """The series with as many frames as its video holds, and a note where its header says otherwise.

    Args:
        series: of one video.
        video: that video.

    Raises:
        UnreadableInputError: as for :meth:`EncapsulatedVideo.count`.
    """
    count, stated = video.count(), len(series.frames)
    if count == stated:
        return series
    frames = tuple(FrameReference(series.frames[0].instance, index) for index in range(count))
    note = f"The video holds {'fewer' if count < stated else 'more'} frames than its header says."
    return replace(series, kind="cine", frames=frames, notes=(*series.notes, note))


class EncapsulatedVideo:
    """Decoder of the video that a DICOM file holds.

    Reading on from where the last call ended decodes no frame twice. Elementary streams have no index: going back
    begins anew, and all frames before the first are decoded too.

    Args:
        instance: a file for which :func:`is_video` holds.

    Attributes:
        pixel_aspect: how much wider than high a pixel is to be shown, once the frames were counted.
    """

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self.pixel_aspect = Fraction(1)
        self._resources = ExitStack()
        self._frames: Iterator[Any] | None = None
        self._next = 0  # frame that the decoder gives next

    def count(self) -> int:
        """How many frames the stream holds, by its packets where they tell; otherwise all are decoded once.

        Raises:
            UnreadableInputError: it holds none, or more than 200 000; or as for :meth:`read`.
        """
        with readable("the video"):
            joined = self._join()
            with self._container(joined) as container:
                first = next(container.decode(video=0), None)
                codec = container.streams.video[0].codec_context.codec.canonical_name
                self.pixel_aspect = container.streams.video[0].sample_aspect_ratio or Fraction(1)
            if first is None:
                raise UnreadableInputError("it holds no frame.")
            packets = None
            if codec in ONE_PICTURE_PER_PACKET and not first.interlaced_frame:
                # A lost packet of a transport stream spoils some pictures, but the decoder goes on behind it.
                with self._container(joined) as container, suppress(UnreadableInputError):
                    packets = scan_packets(container, container.streams.video[0])
            if packets is not None:
                count = len(packets[0])
            else:
                with self._container(joined) as container:
                    count = sum(1 for _ in islice(container.decode(video=0), MAX_FRAMES + 1))
            if count > MAX_FRAMES:
                raise UnreadableInputError(f"it has more than the allowed {MAX_FRAMES:,} frames.")
        return count

    def read(self, start: int, stop: int) -> Iterator[npt.NDArray[np.uint8]]:
        """Decode frames `start` to `stop`, each (rows, columns, 3) uint8 RGB.

        The iterator ends early when the stream holds fewer frames.

        Raises:
            UnreadableInputError: PyAV is not installed, the stream is damaged, of more than 2 GiB, in an unknown
                container, or of another size than the header says.
        """
        try:
            with readable("the video"):
                form = PixelFormat.from_header(self._instance.header)
                if self._frames is None or start < self._next:
                    self.close()
                    container = self._resources.enter_context(self._container(self._join()))
                    self._frames, self._next = container.decode(video=0), 0
            while self._next < stop:
                with readable("the video"):
                    frame = next(self._frames, None)
                    if frame is None:
                        return
                    self._next += 1
                    if self._next <= start:
                        continue
                    picture = _picture(frame, form)
                yield picture
        except UnreadableInputError:
            self.close()
            raise

    def close(self) -> None:
        """Release the decoder and the stream; reading again opens them anew."""
        self._frames, self._next = None, 0
        self._resources.close()

    def _join(self) -> io.BytesIO:
        joined = io.BytesIO()
        with PixelStream(self._instance, PixelFormat.from_header(self._instance.header)) as stream:
            for fragment in stream.fragments():
                if joined.tell() + len(fragment) > MAX_VIDEO_BYTES:
                    raise UnreadableInputError(f"it has more than the allowed {MAX_VIDEO_BYTES:,} bytes.")
                joined.write(fragment)
        return joined

    def _container(self, joined: io.BytesIO) -> Any:
        try:
            import av
        except ImportError as error:
            raise UnreadableInputError("it needs PyAV: pip install av.") from error
        joined.seek(0)
        # The format is given, never guessed: FFmpeg's playlists would open other files and addresses.
        container = av.open(joined, format=_container_name(joined.getbuffer()[:512].tobytes(), self._instance))
        container.flags &= ~av.container.Flags.gen_pts.value  # invented time stamps would be wrong for scan_packets
        return container


def _picture(frame: Any, form: PixelFormat) -> npt.NDArray[np.uint8]:
    if (frame.height, frame.width) != (form.rows, form.columns):
        raise UnreadableInputError(
            f"its frames are {frame.height} x {frame.width}, but the header says {form.rows} x {form.columns}."
        )
    picture: npt.NDArray[np.uint8] = frame.to_ndarray(format="rgb24")
    return picture


def _codec(instance: Instance) -> str | None:
    return _CODECS.get(UID(instance.transfer_syntax.removesuffix(".1")))


def _container_name(head: bytes, instance: Instance) -> str:
    """FFmpeg's name of the container (PS3.5 8.2.5 to 8.2.8), or of the bare stream."""
    if head[4:8] == b"ftyp":
        return "mp4"
    if head[:1] == b"\x47" and head[188:189] == b"\x47":
        return "mpegts"
    if head[:4] == b"\x00\x00\x01\xba":
        return "mpeg"
    codec = _codec(instance)
    if codec and head.lstrip(b"\x00")[:1] == b"\x01":  # start code of an elementary stream
        return codec
    raise UnreadableInputError("its stream is in an unknown container.")
