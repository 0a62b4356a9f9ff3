# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""What an evaluation's figures are computed from, image by image, so that others can compute them again."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from ignite.engine import Engine, Events
from monai.utils import convert_to_numpy

from monai_anomalyclip.atomic_file import write_atomically

__all__ = ["EvaluationMaps"]


class EvaluationMaps:
    """Writes ``output_dir/maps/INDEX.npz`` for each image, INDEX being its place in the datalist.

    A file holds ``anomaly_map`` (h, w) float32 and ``mask`` (h, w) uint8 at the network's resolution, as the pixel
    metrics see them, ``mask_known``, ``anomaly_score``, ``image_label`` and ``class``. It has no name of a file. Every
    process writes its own images.

    Args:
        output_dir: folder of the evaluation.
        index_and_class: gives index and class of each item from ``engine.state.batch``.
        scores: gives (scores, labels) from ``engine.state.output``.
        maps: gives (maps, masks, whether the masks are known) from ``engine.state.output``.
        enabled: whether to write anything: maps take about 1 MB an image at 518 pixels.

    Example::

        with np.load("runs/evaluate/maps/00000.npz") as image:
            roc_auc_score(image["mask"].ravel(), image["anomaly_map"].ravel())
    """

    def __init__(
        self,
        output_dir: str | Path,
        index_and_class: Callable[..., Any],
        scores: Callable[..., Any],
        maps: Callable[..., Any],
        enabled: bool = True,
    ) -> None:
        self.folder = Path(output_dir) / "maps"
        self.index_and_class = index_and_class
        self.scores = scores
        self.maps = maps
        self.enabled = enabled

    def attach(self, engine: Engine) -> None:
        """Attach to an evaluator, on every process."""
        if self.enabled:
            engine.add_event_handler(Events.ITERATION_COMPLETED, self._write)

    def _write(self, engine: Engine) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        batch, output = engine.state.batch, engine.state.output
        for index, name, score, label, anomaly_map, mask, known in zip(
            *self.index_and_class(batch), *self.scores(output), *self.maps(output), strict=True
        ):
            content: dict[str, Any] = {
                "anomaly_map": np.asarray(convert_to_numpy(anomaly_map)[0], np.float32),
                "mask": np.asarray(convert_to_numpy(mask)[0] > 0, np.uint8),
                "mask_known": bool(known),
                "anomaly_score": float(score),
                "image_label": int(label),
                "class": str(name),
            }
            stream = io.BytesIO()
            np.savez_compressed(stream, **content)
            write_atomically(self.folder / f"{int(index):05d}.npz", stream.getvalue())
