# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Write what was found in a film, part by part: a film of overlays and a table of its frames."""

from __future__ import annotations

import contextlib
import csv
import math
import os
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from monai_anomalyclip.atomic_file import make_private_folder, unfinished_path
from monai_anomalyclip.writers.overlays import overlay
from monai_anomalyclip.writers.result_files import refuse_existing, result_paths

__all__ = ["CINE_RESULTS", "FRAME_COLUMNS", "CineWriter"]

CINE_RESULTS = ("_overlay.mp4", "_frames.csv")
FRAME_COLUMNS = ("frame", "seconds", "anomaly_score", "map_max", "area_fraction", "flag")

_TICKS = 90_000  # per second: MPEG's own clock, which holds 24, 25, 29.97, 30, 50 and 60 frames per second exactly
_LONGEST = 1_000_000  # seconds
_BT709 = 1  # ITU-T H.273: BT.709 in each of its tables
_BANNER = "research use only"
# No B-frames: pictures leave the encoder in the order they enter it, and no edit list has to shift their times.
_ENCODING = {"preset": "veryfast", "crf": "20", "bf": "0"}


class CineWriter:
    """Write ``<name>_overlay.mp4`` and ``<name>_frames.csv`` while the frames of a film are being scored.

    The film (H.264, yuv420p, no sound, no metadata) has the size of the input, padded to even sides by repeating the
    last row and column, and shows each frame at its own time, so that a variable frame rate stays. The banner "research
    use only" lies in its lower left corner. The table has a row per frame; its ``flag`` is 1 where the map reaches the
    threshold.

    Both files appear when :meth:`close` is called; :meth:`abort` leaves nothing behind. As a context manager it closes
    at the end, and aborts when the block raises. Memory holds one part and what the encoder looks ahead.

    Example::

        with CineWriter(folder, "endoscopy", (1080, 1920), times, fps=25) as writer:
            for frames, maps, masks, scores in parts:
                writer.add(frames, maps, masks, scores)

    Args:
        folder: the output folder.
        name: where below it, without suffix.
        size: (H, W) of the frames.
        times: when each frame is shown, in seconds, increasing.
        fps: nominal frames per second, for the length of the last frame.
        threshold: from which value of the map on a frame is flagged.
        overwrite: replace existing results.
        pixel_aspect: how much wider than high a pixel is to be shown.
        ceiling: map value that the last colour stands for.

    Raises:
        ImportError: PyAV is not installed.
        FileExistsError: results exist and `overwrite` is False.
        ValueError: times that do not increase, sizes or a rate that are not positive, or a name that would leave the
            folder.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        name: str,
        size: tuple[int, int],
        times: Sequence[float],
        fps: float,
        *,
        threshold: float = 0.5,
        overwrite: bool = False,
        pixel_aspect: Fraction = Fraction(1),
        ceiling: float = 1.0,
    ) -> None:
        av = _pyav()
        self._seconds = np.asarray(times, dtype=np.float64)
        if self._seconds.ndim != 1 or not len(self._seconds) or not (self._seconds >= 0).all():
            raise ValueError(f"A film needs the times of its frames, 0 s or later, got {self._seconds!r}.")
        self._ticks = np.round(np.minimum(self._seconds, _LONGEST + 1) * _TICKS).astype(np.int64)
        if (np.diff(self._ticks) <= 0).any() or self._seconds[-1] > _LONGEST:
            raise ValueError(
                f"The times of a film's frames must increase by 1/{_TICKS} s or more, up to {_LONGEST} s; frame "
                f"{int(np.argmax(np.diff(self._ticks, append=0) <= 0))} is the last that does."
            )
        if min(size) < 1 or not 0 < fps <= 1000:
            raise ValueError(f"A film needs a positive size and 0 to 1000 frames per second, got {size} and {fps}.")
        self.size = size
        self.threshold, self.ceiling = threshold, ceiling
        self.written = 0
        self._durations = np.diff(self._ticks, append=self._ticks[-1] + max(1, round(_TICKS / fps)))
        self._banner = _banner(*size)
        self._paths = result_paths(folder, name, CINE_RESULTS)
        if not overwrite:
            refuse_existing(self._paths)
        make_private_folder(self._paths[0].parent)
        self._unfinished: list[Path] = []
        self._state = "open"
        self._files = contextlib.ExitStack()
        try:
            self._container, self._stream = self._open_film(av, fps, pixel_aspect)
            table = self._temporary(self._paths[1]).open("w", newline="", encoding="utf-8")
            self._table = csv.writer(self._files.enter_context(table), lineterminator="\n")
            self._table.writerow(FRAME_COLUMNS)
        except BaseException:
            self.abort()
            raise

    def add(
        self,
        frames: npt.NDArray[np.uint8],
        maps: npt.NDArray[np.floating],
        masks: npt.NDArray[Any],
        scores: Sequence[float] | npt.NDArray[np.floating],
    ) -> None:
        """Write the next frames.

        Args:
            frames: (n, H, W, 3) uint8 RGB.
            maps: (n, H, W) in [0, 1].
            masks: (n, H, W), non-zero where anomalous.
            scores: n anomaly scores.

        Raises:
            ValueError: shapes that do not fit, maps out of range, or more frames than times.
        """
        if self._state != "open":
            raise ValueError(f"The film is {self._state}: no frames can be added.")
        shape = (len(frames), *self.size)
        got = (frames.shape, maps.shape, masks.shape, len(scores))
        if got != ((*shape, 3), shape, shape, shape[0]) or frames.dtype != np.uint8:
            raise ValueError(
                f"Expected uint8 frames (n, {self.size[0]}, {self.size[1]}, 3) with n maps, masks and scores, got "
                f"{frames.dtype} {', '.join(map(str, got))}."
            )
        if self.written + len(frames) > len(self._ticks):
            raise ValueError(f"There are times for {len(self._ticks)} frames, but more frames were given.")
        for frame, heat, mask, score in zip(frames, maps, masks, scores, strict=True):
            self._show(overlay(frame, heat, mask, ceiling=self.ceiling))
            highest = float(heat.max())
            area = np.count_nonzero(mask) / mask.size
            values = (f"{value:.6g}" for value in (float(score), highest, area))
            seconds = f"{self._seconds[self.written]:.6f}"
            self._table.writerow((self.written, seconds, *values, int(highest >= self.threshold)))
            self.written += 1

    def close(self, short: bool = False) -> list[Path]:
        """Finish both files and give them their names.

        Args:
            short: take a film that ended before its times did.

        Returns:
            The paths of film and table.

        Raises:
            ValueError: fewer frames than times were written, or none at all; nothing is left behind then.
        """
        if self._state == "aborted":
            raise ValueError("The film was aborted: there is nothing to close.")
        if self._state == "open":
            try:
                if self.written != len(self._ticks) and not (short and self.written):
                    raise ValueError(f"Only {self.written} of {len(self._ticks)} frames were given: abort the film.")
                self._write(self._stream.encode(None))
                self._files.close()
                for unfinished, path in zip(self._unfinished, self._paths, strict=True):
                    os.replace(unfinished, path)
            except BaseException:
                self.abort()
                raise
            self._state = "closed"
        return self._paths

    def abort(self) -> None:
        """Leave nothing behind. Does nothing after :meth:`close`."""
        if self._state == "open":
            self._state = "aborted"
            with contextlib.suppress(Exception):  # such as a full disk, the reason for the abort
                self._files.close()
            for unfinished in self._unfinished:
                unfinished.unlink(missing_ok=True)

    def __enter__(self) -> CineWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self.abort()

    def _temporary(self, final: Path) -> Path:
        path = unfinished_path(final)
        self._unfinished.append(path)
        path.unlink(missing_ok=True)  # of a killed process with the same number
        path.touch(mode=0o600, exist_ok=False)
        return path

    def _open_film(self, av: ModuleType, fps: float, pixel_aspect: Fraction) -> tuple[Any, Any]:
        # "bitexact" keeps muxer and encoder from naming themselves in the metadata. The movie's own clock tells when
        # the first frame is due, in milliseconds if nothing is said.
        options = {"fflags": "+bitexact", "video_track_timescale": str(_TICKS), "movie_timescale": str(_TICKS)}
        path = str(self._temporary(self._paths[0]))
        container = self._files.enter_context(av.open(path, "w", format="mp4", options=options))
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001), options=_ENCODING)
        stream.height, stream.width = (side + side % 2 for side in self.size)
        stream.pix_fmt = "yuv420p"
        if pixel_aspect != 1:
            stream.codec_context.sample_aspect_ratio = pixel_aspect
        stream.time_base = stream.codec_context.time_base = Fraction(1, _TICKS)
        stream.codec_context.flags |= av.codec.context.Flags.bitexact
        # Said, because players guess the colours of a film that does not say them by its height.
        for name in ("colorspace", "color_primaries", "color_trc"):
            setattr(stream.codec_context, name, _BT709)
        self._frame_of = av.VideoFrame.from_ndarray
        return container, stream

    def _show(self, picture: npt.NDArray[np.uint8]) -> None:
        paint, transparency = self._banner
        corner = picture[-len(paint) :, : paint.shape[1]]
        corner[...] = np.round(paint + transparency * corner)
        height, width = self.size
        padded = np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        frame = self._frame_of(padded, format="rgb24").reformat(format="yuv420p", dst_colorspace="ITU709")
        frame.pts, frame.time_base = int(self._ticks[self.written]), Fraction(1, _TICKS)
        self._write(self._stream.encode(frame))

    def _write(self, packets: Sequence[Any]) -> None:
        for packet in packets:
            packet.duration = int(self._durations[np.searchsorted(self._ticks, packet.pts)])
            self._container.mux(packet)


def _banner(height: int, width: int) -> tuple[npt.NDArray[np.floating], npt.NDArray[np.floating]]:
    """The banner's light, (h, w, 3) in 0..255, and how much of the picture (h, w, 1) shines through: for the corner."""
    size = min(max(height // 40, 9), 40)
    font = ImageFont.load_default(size)
    canvas = Image.new("L", (math.ceil(font.getlength(_BANNER)) + size, 2 * size))
    ImageDraw.Draw(canvas).text((size // 2, size), _BANNER, 255, font, anchor="lm")
    ink = np.asarray(canvas, dtype=np.float32)[-height:, :width, None] / 255
    opacity = 0.6 + 0.4 * ink
    return np.repeat(235 * ink, 3, axis=2), 1 - opacity


def _pyav() -> ModuleType:
    try:
        import av
    except ImportError as error:
        raise ImportError("Writing a film needs PyAV, which is not installed: pip install av.") from error
    module: ModuleType = av
    return module
