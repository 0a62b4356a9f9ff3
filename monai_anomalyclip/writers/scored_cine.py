# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""A film's results while its parts are being scored: the film with overlay, and its most suspicious frames."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from monai_anomalyclip.data.slicing import SliceView
from monai_anomalyclip.writers.cine import CineWriter
from monai_anomalyclip.writers.findings import Findings
from monai_anomalyclip.writers.overlay import Picture, montage

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
    ) -> None:
        self.times = [float(time) for time in times]
        self.findings: Findings | None = None
        self.read_s = self.score_s = 0.0
        self._kept: list[tuple[float, int, Picture, npt.NDArray[np.float32], npt.NDArray[np.bool_]]] = []
        self._writer = CineWriter(folder, name, size, times, fps, threshold=threshold, overwrite=True)

    def add(
        self,
        frames: npt.NDArray[np.uint8],
        maps: npt.NDArray[np.float32],
        masks: npt.NDArray[np.bool_],
        scores: npt.NDArray[np.float64],
    ) -> None:
        """Take the next part: frames (n, H, W, 3), maps and masks (n, H, W), scores (n,).

        Raises:
            ValueError: as for :meth:`CineWriter.add`.
        """
        first = self._writer.written
        self._writer.add(frames, maps, masks, scores)
        part = Findings.of(scores, maps, masks)
        self.findings = part if self.findings is None else self.findings.followed_by(part)
        for index in np.argsort(-scores, kind="stable")[:_KEPT].tolist():
            self._kept.append(
                (float(scores[index]), first + index, frames[index].copy(), maps[index].copy(), masks[index].copy())
            )
        self._kept = sorted(self._kept, key=lambda frame: (-frame[0], frame[1]))[:_KEPT]

    @property
    def written(self) -> int:
        """How many frames were taken."""
        return self._writer.written

    def close(self) -> tuple[list[Path], Findings, Picture]:
        """Finish the film; its times are cut off where its frames ended.

        Returns:
            film and table, the findings of all frames, and a picture of the most suspicious ones.

        Raises:
            ValueError: there is no frame.
        """
        paths = self._writer.close(short=True)
        assert self.findings is not None
        self.times = self.times[: self.written]
        shown = sorted(self._kept, key=lambda frame: frame[1])
        stacks = [torch.from_numpy(np.stack([frame[place] for frame in shown])) for place in (2, 3, 4)]
        volume = stacks[0].permute(3, 2, 1, 0)
        heat, mask = (stack.permute(2, 1, 0)[None] for stack in stacks[1:])
        labels = [f"{self.times[index]:.1f} s    score {score:.2f}" for score, index, *_ in shown]
        scores = [frame[0] for frame in shown]
        picture = montage(volume, heat, mask, SliceView.native(volume.shape[1:]), scores, labels, max_slices=_KEPT)
        return paths, self.findings, picture

    def abort(self) -> None:
        """Leave nothing behind."""
        self._writer.abort()
