# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""All files of a film that is scored part by part: its frames so far, and what stands for it in the report."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from monai_anomalyclip.data.slicing import SliceView
from monai_anomalyclip.data.sources import DicomSource, Source
from monai_anomalyclip.writers.cine import CineWriter
from monai_anomalyclip.writers.dicom.provenance import Provenance
from monai_anomalyclip.writers.findings import Findings
from monai_anomalyclip.writers.overlays import Picture, side_by_side, with_square_pixels
from monai_anomalyclip.writers.scored_input import film_notes, write_series_report, write_worst
from monai_anomalyclip.writers.slice_pictures import montage
from monai_anomalyclip.writers.viewer_data import PreviewFrames, film_preview, shown_frames

__all__ = ["ScoredCine"]

_KEPT = 6


class ScoredCine:
    """Takes the parts of a film in order, and holds no more of it than its most suspicious frames.

    Args:
        folder: the output folder.
        name: where below the folder, without suffix.
        size: (H, W) of the frames.
        times: when each frame is shown, in seconds.
        fps: nominal frames per second.
        threshold: of the mask.
        pixel_aspect: as for :class:`CineWriter`.
        ceiling: likewise.
        content: digest of the film's file before it was read.

    Raises:
        ImportError: PyAV is not installed.
        ValueError: as for :class:`CineWriter`.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        name: str,
        size: tuple[int, int],
        times: Sequence[float],
        fps: float,
        threshold: float,
        pixel_aspect: Fraction = Fraction(1),
        ceiling: float = 1.0,
        content: str = "",
    ) -> None:
        self._folder, self._name, self.content = folder, name, content
        self.times = [float(time) for time in times]
        self.findings: Findings | None = None
        self.read_s = self.score_s = 0.0
        self._shown = set(shown_frames(len(self.times)))
        self._frames = PreviewFrames()
        self._size, self._threshold, self._aspect = size, threshold, pixel_aspect
        self._kept: dict[int, tuple[Picture, npt.NDArray[np.float32], npt.NDArray[np.bool_]]] = {}
        self._writer = CineWriter(
            folder, name, size, times, fps, threshold=threshold, overwrite=True, pixel_aspect=pixel_aspect,
            ceiling=ceiling,
        )  # fmt: skip

    def add(
        self,
        frames: npt.NDArray[np.uint8],
        maps: npt.NDArray[np.float32],
        masks: npt.NDArray[np.bool_],
        part: Findings,
    ) -> None:
        """Take the next part: frames (n, H, W, 3), maps and masks (n, H, W), and what was found in it.

        Raises:
            ValueError: as for :meth:`CineWriter.add`.
        """
        first = self._writer.written
        self._writer.add(frames, maps, masks, part.scores)
        self.findings = part if self.findings is None else self.findings.followed_by(part)
        kept = self._kept
        self._kept = {
            index: kept[index]
            if index < first
            else (frames[index - first].copy(), maps[index - first].copy(), masks[index - first].copy())
            for index in self.findings.order()[:_KEPT]
        }
        here = [index for index in range(first, first + len(frames)) if index in self._shown or index in self._kept]
        self._frames.add(here, frames[[index - first for index in here]], maps[[index - first for index in here]])
        self._frames.keep({*self._shown, *self._kept})

    @property
    def written(self) -> int:
        """How many frames were taken."""
        return self._writer.written

    def close(self) -> tuple[list[Path], Findings, Picture]:
        """Finish the film; its times are cut off where its frames ended.

        Returns:
            film, table and picture of the most suspicious frame; the findings of all frames; a picture of several.

        Raises:
            ValueError: there is no frame.
        """
        paths = self._writer.close(short=True)
        assert self.findings is not None
        self.times = self.times[: self.written]
        shown = sorted(self._kept)
        stacks = [torch.from_numpy(np.stack([self._kept[index][place] for index in shown])) for place in range(3)]
        volume = stacks[0].permute(3, 2, 1, 0)
        heat, mask = (stack.permute(2, 1, 0)[None] for stack in stacks[1:])
        labels = [f"{self.times[index]:.1f} s    score {self.findings.scores[index]:.2f}" for index in shown]
        aspect = float(self._aspect)
        view = SliceView.native(volume.shape[1:], (1.0, aspect))
        picture = montage(volume, heat, mask, view, labels=labels, max_slices=_KEPT, ceiling=self._writer.ceiling)
        peak = self.findings.peaks()[0]
        caption = f"{self.times[peak.index]:.1f} s  |  anomaly score {self.findings.anomaly_score:.3f}"
        frame, values, marked = with_square_pixels(*self._kept[peak.index], aspect)
        frame = side_by_side(frame, values, marked, f"frame {peak.index}  |  {caption}", ceiling=self._writer.ceiling)
        return [*paths, write_worst(self._folder, self._name, frame)], self.findings, picture

    def finish(
        self, source: Source, outputs: Sequence[str], provenance: Callable[[], Provenance]
    ) -> tuple[list[Path], list[str], Picture]:
        """Close the film, and write its structured report where that was asked for.

        Args:
            source: the film.
            outputs: the kinds of files that were asked for.
            provenance: gives what DICOM objects say of the algorithm.

        Returns:
            all files, sentences about what is missing, and a picture of several frames.
        """
        claimed = len(self.times)
        paths, findings, picture = self.close()
        if isinstance(source, DicomSource) and "sr" in outputs and self.written == claimed:
            place = self._folder, self._name, source.series
            paths.append(write_series_report(*place, findings, self._threshold, provenance()))
        return paths, film_notes(source, outputs, self.written, claimed), picture

    def preview(self) -> str:
        """The preview of a film that was closed (:func:`monai_anomalyclip.writers.viewer_data.film_preview`)."""
        assert self.findings is not None
        return film_preview(
            self._name, self._frames, self.findings, self._threshold, self.times, self._size, float(self._aspect),
            self._writer.ceiling,
        )  # fmt: skip

    def abort(self) -> None:
        """Leave nothing behind."""
        self._writer.abort()
