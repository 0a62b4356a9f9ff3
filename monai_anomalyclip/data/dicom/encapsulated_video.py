# Copyright (c) monai_anomalyclip authors
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#     http://www.apache.org/licenses/LICENSE-2.0
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""Decode the frames of a video inside a DICOM file (MPEG-2, H.264, HEVC), with PyAV."""

from __future__ import annotations

import io
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.uid import UID, MPEGTransferSyntaxes

from monai_anomalyclip.data.dicom.pixel_format import PixelFormat
from monai_anomalyclip.data.dicom.pixel_stream import PixelStream, describe_syntax, readable
from monai_anomalyclip.data.dicom.series import Instance
from monai_anomalyclip.data.errors import UnreadableInputError

__all__ = ["is_video", "iterate_video"]

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
    return instance.transfer_syntax in MPEGTransferSyntaxes or _codec(instance) is not None


def iterate_video(instance: Instance, start: int = 0, stop: int | None = None) -> Iterator[npt.NDArray[np.uint8]]:
    """Decode frames `start` to `stop` of the stream, each (rows, columns, 3) uint8 RGB.

    Elementary streams have no index: all frames before `start` are decoded too. The iterator ends early when the stream
    holds fewer frames.

    Raises:
        UnreadableInputError: PyAV is not installed, the stream is damaged, of more than 2 GiB, in an unknown container,
            or of another size than the header says.
    """
    with readable("the video"):
        try:
            import av
        except ImportError as error:
            raise UnreadableInputError("it needs PyAV: install monai_anomalyclip[video].") from error
        form = PixelFormat.from_header(instance.header)
        stream = _join(instance, form)
        # The format is given, never guessed: FFmpeg's playlists would open other files and addresses.
        container = av.open(stream, format=_container(stream.getbuffer()[:512].tobytes(), instance))
    with container:
        frames = islice(container.decode(video=0), start, stop)
        while True:
            with readable("the video"):
                frame = next(frames, None)
                if frame is None:
                    return
                picture = _picture(frame, form)
            yield picture


def _picture(frame: Any, form: PixelFormat) -> npt.NDArray[np.uint8]:
    if (frame.height, frame.width) != (form.rows, form.columns):
        raise UnreadableInputError(
            f"its frames are {frame.height} x {frame.width}, but the header says {form.rows} x {form.columns}."
        )
    picture: npt.NDArray[np.uint8] = frame.to_ndarray(format="rgb24")
    return picture


def _join(instance: Instance, form: PixelFormat) -> io.BytesIO:
    joined = io.BytesIO()
    with PixelStream(instance, form) as stream:
        for fragment in stream.fragments():
            if joined.tell() + len(fragment) > MAX_VIDEO_BYTES:
                raise UnreadableInputError(f"it has more than the allowed {MAX_VIDEO_BYTES:,} bytes.")
            joined.write(fragment)
    joined.seek(0)
    return joined


def _codec(instance: Instance) -> str | None:
    return _CODECS.get(UID(instance.transfer_syntax.removesuffix(".1")))


def _container(head: bytes, instance: Instance) -> str:
    """FFmpeg's name of the container (PS3.5 8.2.5 to 8.2.8), or of the bare stream."""
    codec = _codec(instance)
    if codec is None:
        raise UnreadableInputError(
            f"cannot decode transfer syntax {describe_syntax(UID(instance.transfer_syntax))}: export it as MP4."
        )
    if head[4:8] == b"ftyp":
        return "mp4"
    if head[:1] == b"\x47" and head[188:189] == b"\x47":
        return "mpegts"
    if head[:4] == b"\x00\x00\x01\xba":
        return "mpeg"
    if head.lstrip(b"\x00")[:1] == b"\x01":  # start code of an elementary stream
        return codec
    raise UnreadableInputError("its stream is in an unknown container.")
