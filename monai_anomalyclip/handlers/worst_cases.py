# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Pictures of the images that an evaluation went worst on."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import numpy as np
import numpy.typing as npt
from ignite.engine import Engine, Events
from monai.utils import convert_to_numpy
from PIL import Image

from monai_anomalyclip.atomic_file import write_atomically
from monai_anomalyclip.data.frames import read_frame
from monai_anomalyclip.data.masks import read_mask
from monai_anomalyclip.writers.overlays import jpeg, side_by_side

__all__ = ["WorstCases"]

_SIDE = 384  # longer side of a panel, in pixels


@dataclass(frozen=True)
class _Case:
    index: int
    name: str  # of the class
    anomalous: bool
    score: float
    dice: float  # of map and mask; NaN where there is no mask
    inside: float  # mean of the map in the mask
    anomaly_map: npt.NDArray[np.float32]  # (h, w), of the network


# Why an image is shown: which ones can be, and what they are sorted by, the worst first.
_KINDS: dict[str, tuple[Callable[[_Case], bool], Callable[[_Case], tuple[float, ...]]]] = {
    "anomalous_low_score": (lambda case: case.anomalous, lambda case: (case.score,)),
    "normal_high_score": (lambda case: not case.anomalous, lambda case: (-case.score,)),
    "anomalous_low_overlap": (lambda case: not math.isnan(case.dice), lambda case: (case.dice, case.inside)),
}


class WorstCases:
    """Writes pictures of the worst cases, and ``worst_cases.csv`` with their scores, into ``output_dir/worst_cases``.

    In turn: the anomalous image with the lowest score, the normal one with the highest, the anomalous one whose map
    overlaps least with its mask (Dice at the threshold; of equal ones the lowest mean of the map in the mask); then the
    next ones, until there are ``count``; no image twice. A picture shows the image, the map over it with the outline of
    where it reaches the threshold, and, where there is a mask, the image with the mask's outline. It is named
    ``NUMBER_WHY_INDEX_CLASS.jpg`` by the image's place in the datalist, never by its file. Pictures of an earlier run
    are removed. The first process writes.

    Args:
        output_dir: folder of the evaluation.
        entries: of the datalist: ``image`` (path), ``label`` (path of the mask, if there is one) and ``index``.
        index_and_class: gives index and class of each item from ``engine.state.batch``, e.g. ``from_engine(["index",
            "class"])``.
        scores: gives (scores, labels) from ``engine.state.output``.
        maps: gives (maps, masks, whether the masks are known) from ``engine.state.output``.
        threshold: of the maps.
        count: number of pictures.

    Example::

        WorstCases(
            "runs/evaluation", entries, from_engine(["index", "class"]),
            from_engine(["pred_anomaly_score", "label_image_label"]), from_engine(["pred_anomaly_map", "label_label"]),
        ).attach(evaluator)
    """

    def __init__(
        self,
        output_dir: str | Path,
        entries: Sequence[Mapping[str, Any]],
        index_and_class: Callable[..., Any],
        scores: Callable[..., Any],
        maps: Callable[..., Any],
        threshold: float = 0.5,
        count: int = 10,
    ) -> None:
        self.folder = Path(output_dir) / "worst_cases"
        self.entries = {int(entry["index"]): entry for entry in entries}
        self.index_and_class = index_and_class
        self.scores = scores
        self.maps = maps
        self.threshold = threshold
        self.count = count
        self._ranked: dict[str, list[_Case]] = {}

    def attach(self, engine: Engine) -> None:
        """Attach to an evaluator, on every process."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._reset)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._add)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._write)

    def _reset(self, _: Engine) -> None:
        self._ranked = {kind: [] for kind in _KINDS}

    def _add(self, engine: Engine) -> None:
        indices, names = self.index_and_class(engine.state.batch)
        scores, labels = self.scores(engine.state.output)
        maps, masks, known = self.maps(engine.state.output)
        for item in zip(indices, names, scores, labels, maps, masks, known, strict=True):
            case = self._case(*item)
            if math.isfinite(case.score) and np.isfinite(case.anomaly_map).all():
                for kind in _KINDS:
                    self._ranked[kind] = self._worst(kind, [*self._ranked[kind], case])

    def _case(self, index: Any, name: Any, score: Any, label: Any, scored: Any, mask: Any, known: Any) -> _Case:
        anomaly_map = np.array(convert_to_numpy(scored)[0], dtype=np.float32)  # a copy: the batch is not kept
        dice = inside = math.nan
        truth = convert_to_numpy(mask)[0] > 0
        if known and truth.any():
            found = anomaly_map >= np.float32(self.threshold)
            dice = float(2 * (truth & found).sum() / (truth.sum() + found.sum()))
            inside = float(anomaly_map[truth].mean())
        return _Case(int(index), str(name), bool(label), float(score), dice, inside, anomaly_map)

    def _worst(self, kind: str, cases: Sequence[_Case]) -> list[_Case]:
        belongs, order = _KINDS[kind]
        # Equally bad ones by their place in the datalist, so that it does not matter which process saw them.
        return sorted(filter(belongs, cases), key=lambda case: (order(case), case.index))[: self.count]

    def _write(self, _: Engine) -> None:
        parts: list[dict[str, list[_Case]]] = idist.all_gather(self._ranked)
        if idist.get_rank() > 0:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        for kind in _KINDS:
            for old in self.folder.glob(f"[0-9][0-9]*_{kind}_*.jpg"):
                old.unlink()
        rows: list[Sequence[Any]] = [("picture", "why", "index", "class", "anomaly_score", "dice")]
        for number, (kind, case) in enumerate(self._chosen(parts), start=1):
            name = f"{number:02d}_{kind}_{case.index:05d}_{re.sub(r'[^A-Za-z0-9-]+', '_', case.name)[:40]}.jpg"
            write_atomically(self.folder / name, jpeg(self._picture(case, kind), thin=True))
            dice = "" if math.isnan(case.dice) else case.dice
            rows.append((name, kind.replace("_", " "), case.index, case.name, case.score, dice))
        stream = io.StringIO()
        csv.writer(stream, lineterminator="\n").writerows(rows)
        write_atomically(self.folder / "worst_cases.csv", stream.getvalue().encode())

    def _chosen(self, parts: Sequence[Mapping[str, list[_Case]]]) -> list[tuple[str, _Case]]:
        left = {kind: self._worst(kind, [case for part in parts for case in part[kind]]) for kind in _KINDS}
        chosen: list[tuple[str, _Case]] = []
        while len(chosen) < self.count and any(left.values()):
            for kind in _KINDS:
                if left[kind]:
                    case = left[kind][0]
                    chosen.append((kind, case))
                    left = {other: [c for c in cases if c.index != case.index] for other, cases in left.items()}
        return chosen[: self.count]

    def _picture(self, case: _Case, kind: str) -> npt.NDArray[np.uint8]:
        entry = self.entries[case.index]
        frame = Image.fromarray(read_frame(entry["image"]))
        scale = _SIDE / max(frame.size)
        size = (max(1, round(frame.width * scale)), max(1, round(frame.height * scale)))
        anomaly_map = np.asarray(Image.fromarray(case.anomaly_map).resize(size, Image.Resampling.BILINEAR))
        truth = None
        if entry.get("label"):
            truth = np.asarray(Image.fromarray(read_mask(entry["label"])).resize(size, Image.Resampling.NEAREST))
        overlap = "" if math.isnan(case.dice) else f", Dice {case.dice:.2f}"
        return side_by_side(
            np.asarray(frame.resize(size, Image.Resampling.BICUBIC)),
            np.clip(anomaly_map, 0, 1),
            (anomaly_map >= self.threshold).astype(np.uint8),
            f"{kind.replace('_', ' ')}: score {case.score:.3f}{overlap}  |  entry {case.index}, {case.name}",
            truth=truth,
        )
