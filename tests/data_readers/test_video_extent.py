# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import io
import struct
from collections.abc import Callable
from typing import Any

import pytest

from monai_anomalyclip.data.video_extent import promised_size


def promised(content: bytes) -> int:
    return promised_size(io.BytesIO(content), len(content))


@pytest.mark.parametrize(
    ("name", "container"), [("v.mp4", {}), ("v.mp4", {"movflags": "faststart"}), ("v.mkv", {}), ("v.webm", {})]
)
def test_whole_files_promise_what_they_hold(
    make_video: Callable[..., Any], name: str, container: dict[str, str]
) -> None:
    made = make_video(name, "libvpx" if name == "v.webm" else "libx264", container=container)
    content = made.path.read_bytes()
    end = promised(content)
    if name != "v.mp4" or container:
        assert end == len(content)  # the media data come last
    else:
        assert end == content.index(b"moov") - 4  # the table comes after them
    assert promised(content[:-1]) == end


def test_what_promises_nothing(make_video: Callable[..., Any]) -> None:
    assert promised(b"") == 0
    assert promised(make_video("v.avi", "mjpeg", pixels="yuvj420p").path.read_bytes()) == 0
    live = make_video("v.mkv", container={"live": "1"}).path.read_bytes()
    assert promised(live) == 0


def box(kind: bytes, length: int) -> bytes:
    return struct.pack(">I", length) + kind


def test_boxes() -> None:
    start = box(b"ftyp", 8)
    assert promised(start + box(b"mdat", 1) + struct.pack(">Q", 2**40) + bytes(9)) == 8 + 2**40
    assert promised(start + box(b"mdat", 0) + bytes(50)) == 8 + 8 + 50  # up to the end
    assert promised(start + box(b"mdat", 20) + bytes(12) + box(b"what", 2**31) + bytes(9)) == 28
    assert promised(start + box(b"mdat", 4) + bytes(50)) == 0  # nonsense
    assert promised(start * 100_000) == 0
