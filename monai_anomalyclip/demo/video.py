# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""An endoscopy-like clip: the camera slides over a phantom."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from monai_anomalyclip.atomic_file import replaced_when_complete
from monai_anomalyclip.demo.phantoms import sample_phantom

__all__ = ["make_clip", "write_mp4"]


def make_clip(
    seed: int, *, frames: int = 24, size: int = 112, anomalous: bool = True
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """A clip of an endoscopy phantom seen through a window that circles over it.

    Returns:
        Frames (T, size, size, 3) uint8 and lesion masks (T, size, size) bool; the lesion may leave the picture.
    """
    phantom = sample_phantom("endoscopy", anomalous, seed, size + size // 4)
    room = size // 4
    turn = 2 * np.pi * np.arange(frames) / frames
    rows = np.rint(room / 2 * (1 + np.sin(turn))).astype(int)
    columns = np.rint(room / 2 * (1 + np.cos(turn))).astype(int)
    windows = [(slice(r, r + size), slice(c, c + size)) for r, c in zip(rows, columns, strict=True)]
    return np.stack([phantom.image[w] for w in windows]), np.stack([phantom.mask[w] for w in windows])


def write_mp4(path: str | os.PathLike[str], frames: NDArray[np.uint8], *, frames_per_second: int = 12) -> Path:
    """Writes frames (T, H, W, 3) uint8 as an MP4 file (H.264); H and W must be even.

    Raises:
        ImportError: PyAV is not installed.
        FileExistsError: ``path`` exists.
        ValueError: the frames have another shape or type.
    """
    try:
        import av
    except ImportError as error:
        raise ImportError("Writing an MP4 needs PyAV; install it with: pip install av") from error
    path = Path(path)
    if path.exists():
        raise FileExistsError(f"{path} exists; choose another name or remove it first.")
    if (
        frames.dtype != np.uint8
        or frames.ndim != 4
        or frames.shape[3] != 3
        or frames.shape[1] % 2
        or frames.shape[2] % 2
    ):
        raise ValueError(f"Frames must be (T, H, W, 3) uint8 with even H and W, got {frames.shape} {frames.dtype}.")
    path.parent.mkdir(parents=True, exist_ok=True)
    with replaced_when_complete(path) as unfinished, av.open(str(unfinished), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(frames_per_second))
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": "14"}
        for picture in frames:
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path
