# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Small videos, made with PyAV from pictures that tell their number."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from tests.data.encoded_pictures import encodings, items, make_net, net, small_weights

__all__ = ["encodings", "items", "make_net", "net", "small_weights"]  # fixtures


class MadeVideo(NamedTuple):
    path: Path
    pictures: np.ndarray
    """(n, H, W, 3) uint8 that were encoded."""


@pytest.fixture
def make_video(tmp_path: Path) -> Callable[..., MadeVideo]:
    """Encode `n` smooth pictures whose brightness tells their number, with a key frame every `gop` frames."""
    av = pytest.importorskip("av")

    def make(
        name: str,
        codec: str = "libx264",
        n: int = 24,
        size: tuple[int, int] = (48, 64),
        *,
        pixels: str = "yuv420p",
        pts: Sequence[int] | None = None,
        clock: Fraction = Fraction(1, 1000),
        gop: int = 250,
        options: dict[str, str] | None = None,
        container: dict[str, str] | None = None,
        title: str = "",
        aspect: Fraction | None = None,
    ) -> MadeVideo:
        y, x = np.mgrid[: size[0], : size[1]]
        ramp = np.stack([x * 200 / size[1], y * 180 / size[0] + 30, 220 - x * 150 / size[1]], axis=-1)
        pictures = np.stack([(ramp * 0.5 + 100 * i / n).astype(np.uint8) for i in range(n)])
        with av.open(str(tmp_path / name), "w", options=container or {}) as output:
            output.metadata.update({"title": title} if title else {})
            # x264 would add key frames where the picture changes.
            keys = {"g": str(gop), "keyint_min": str(gop), "sc_threshold": "0"} if codec == "libx264" else {}
            stream: Any = output.add_stream(codec, rate=25, options={**keys, **(options or {})})
            stream.height, stream.width = size
            stream.pix_fmt = pixels
            stream.bit_rate = 4_000_000
            if aspect is not None:
                stream.codec_context.sample_aspect_ratio = aspect
            if pts is not None:
                stream.codec_context.time_base = clock
            for i, picture in enumerate(pictures):
                frame = av.VideoFrame.from_ndarray(picture, "rgb24")
                if pts is not None:
                    frame.pts, frame.time_base = pts[i], clock
                output.mux(stream.encode(frame))
            output.mux(stream.encode())
        return MadeVideo(tmp_path / name, pictures)

    return make
