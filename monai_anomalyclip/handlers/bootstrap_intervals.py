# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Confidence intervals of an evaluator's metrics, by resampling its images."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, Literal

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from monai.utils import convert_to_tensor
from torch import Tensor

from monai_anomalyclip.metrics.bootstrap import Interval, bootstrap_maps, bootstrap_scores

__all__ = ["BootstrapIntervals"]

_IMAGE: dict[str, Literal["auroc", "ap"]] = {"image_auroc": "auroc", "image_ap": "ap"}
_PIXEL: dict[str, Literal["auroc", "ap", "aupro"]] = {
    "pixel_auroc": "auroc",
    "pixel_ap": "ap",
    "pixel_aupro": "aupro",
}


class BootstrapIntervals:
    """Puts the ends of percentile intervals into ``engine.state.metrics``.

    ``image_auroc_low/CLASS`` and ``image_auroc_high/CLASS`` belong to ``image_auroc/CLASS``, ``image_auroc_low`` and
    ``image_auroc_high`` to the mean over classes, for which each class is resampled by itself; likewise ``image_ap``,
    and with ``maps`` also ``pixel_auroc``, ``pixel_ap`` and ``pixel_aupro``, for which whole images are drawn. The
    first process has them all, the same ones however many processes there are.

    Args:
        index_and_class: gives index and class of each item from ``engine.state.batch``, e.g. ``from_engine(["index",
            "class"])``.
        scores: gives (scores, labels) from ``engine.state.output``.
        maps: gives (maps, masks, whether the masks are known) from ``engine.state.output``: all maps are then kept in
            memory. None for no intervals of pixel metrics.
        resamples: number of resamples.
        level: of the intervals, in (0, 1).
        seed: of the draws.

    Example::

        BootstrapIntervals(
            from_engine(["index", "class"]), from_engine(["pred_anomaly_score", "label_image_label"])
        ).attach(evaluator)
    """

    def __init__(
        self,
        index_and_class: Callable[..., Any],
        scores: Callable[..., Any],
        maps: Callable[..., Any] | None = None,
        *,
        resamples: int = 1000,
        level: float = 0.95,
        seed: int = 0,
    ) -> None:
        self.index_and_class = index_and_class
        self.scores = scores
        self.maps = maps
        self._options: dict[str, Any] = {"resamples": resamples, "level": level, "seed": seed}
        self._images: list[tuple[int, str, float, int]] = []
        self._masks: list[tuple[int, str, Tensor, Tensor]] = []

    def attach(self, engine: Engine) -> None:
        """Attach to an evaluator on every process, before what writes its metrics."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._reset)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._add)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._report)

    def _reset(self, _: Engine) -> None:
        self._images, self._masks = [], []

    def _add(self, engine: Engine) -> None:
        indices, names = self.index_and_class(engine.state.batch)
        scores, labels = self.scores(engine.state.output)
        for index, name, score, label in zip(indices, names, scores, labels, strict=True):
            self._images.append((int(index), str(name), float(score), int(label)))
        if self.maps is not None:
            for index, name, scored, mask, known in zip(indices, names, *self.maps(engine.state.output), strict=True):
                if known:
                    self._masks.append((int(index), str(name), _plain(scored), _plain(mask).bool()))

    def _report(self, engine: Engine) -> None:
        # In the datalist's order, so that a seed draws the same images whatever process saw them.
        images = sorted(item for part in idist.all_gather(self._images) for item in part)
        masks = sorted((item for part in idist.all_gather(self._masks) for item in part), key=lambda item: item[0])
        if idist.get_rank() > 0:
            return
        found = [*self._image_intervals(images), *self._pixel_intervals(masks)]
        for name, suffix, interval in found:
            engine.state.metrics[f"{name}_low{suffix}"] = interval.low
            engine.state.metrics[f"{name}_high{suffix}"] = interval.high

    def _image_intervals(self, images: list[tuple[int, str, float, int]]) -> Iterator[tuple[str, str, Interval]]:
        for own, classes, suffix in _classes([name for _, name, _, _ in images]):
            scores, labels = [images[index][2] for index in own], [images[index][3] for index in own]
            if all(map(math.isfinite, scores)):  # else the metric is undefined, too
                for name, metric in _IMAGE.items():
                    yield name, suffix, bootstrap_scores(scores, labels, metric, classes=classes, **self._options)

    def _pixel_intervals(self, images: list[tuple[int, str, Tensor, Tensor]]) -> Iterator[tuple[str, str, Interval]]:
        for own, classes, suffix in _classes([name for _, name, _, _ in images]):
            maps, masks = [images[index][2] for index in own], [images[index][3] for index in own]
            if all(scored.isfinite().all() for scored in maps):
                for name, metric in _PIXEL.items():
                    yield name, suffix, bootstrap_maps(maps, masks, metric, classes=classes, **self._options)


def _classes(names: list[str]) -> Iterator[tuple[list[int], list[str] | None, str]]:
    """The images of each class with the suffix of its metrics, then all of them for the mean over classes."""
    if not names:
        return
    for name in sorted(set(names)):
        yield [index for index, other in enumerate(names) if other == name], None, f"/{name}"
    yield list(range(len(names))), names, ""


def _plain(image: Any) -> Tensor:
    plain: Tensor = convert_to_tensor(image, track_meta=False)
    return torch.as_tensor(plain).detach().cpu()
