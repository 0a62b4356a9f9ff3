# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Fit a full-shot method to every class of a datalist, one after the other, and keep what is measured."""

from __future__ import annotations

import copy
import hashlib
import json
import math
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine
from monai.utils import set_determinism

from monai_anomalyclip.atomic_file import replaced_when_complete
from monai_anomalyclip.experiments.fullshot.evaluation import METRICS, classes_of, evaluate_class
from monai_anomalyclip.experiments.fullshot.network import (
    BACKBONES,
    FullShotNetwork,
    anomalib_needed,
    weights_sha256,
)
from monai_anomalyclip.experiments.fullshot.own_normals import OwnNormals
from monai_anomalyclip.experiments.fullshot.patchcore import PatchCore
from monai_anomalyclip.experiments.fullshot.rd4ad import RD4AD
from monai_anomalyclip.handlers.metric_table import MetricTable

__all__ = ["OPTIONS", "FullShotResults", "run_full_shot"]


class FullShotResults:
    """``fullshot.json``, and the same metrics as tables ``metrics_per_class.csv`` and ``.md``.

    ``fullshot.json`` has ``settings``, ``classes`` (by name, what
    :func:`~monai_anomalyclip.experiments.fullshot.evaluate_class` returns) and ``mean`` (of each metric, over classes
    for which it is defined); undefined values are null there, nan in the CSV. The files are complete at every moment.

    Args:
        output_dir: folder of the files, made when the first class is added.
        settings: everything that the figures depend on, as JSON values.

    Raises:
        ValueError: the folder holds results of other settings, or a damaged file.

    Example::

        results = FullShotResults("runs/patchcore", {"method": "patchcore"})
        results.add("bottle", evaluate_class(network, images))
        print(results.markdown())
    """

    def __init__(self, output_dir: str | Path, settings: Mapping[str, Any]) -> None:
        self.output_dir = Path(output_dir)
        self.path = self.output_dir / "fullshot.json"
        self.settings = dict(settings)
        self.classes: dict[str, dict[str, Any]] = {}
        if self.path.is_file():
            self.classes = self._read()
            self._write_tables()  # the run before may have been killed before it could

    def add(self, name: str, result: Mapping[str, Any]) -> None:
        """Add a class and write the files."""
        metrics = {metric: _defined(value) for metric, value in result["metrics"].items()}
        self.classes[name] = {**result, "metrics": metrics}
        mean = self.mean()
        content = {
            "settings": self.settings,
            "classes": self.classes,
            "mean": {metric: _defined(value) for metric, value in mean.items()},
        }
        self.output_dir.mkdir(parents=True, exist_ok=True)
        with replaced_when_complete(self.path) as unfinished:
            unfinished.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        self._write_tables()

    def mean(self) -> dict[str, float]:
        """Mean of each metric over the classes for which it is defined, else NaN."""
        means = {}
        for metric in METRICS:
            values = [value for row in self.classes.values() if (value := row["metrics"][metric]) is not None]
            means[metric] = sum(values) / len(values) if values else math.nan
        return means

    def metrics(self) -> dict[str, float]:
        """The means, and each class's metrics as "metric/class", NaN where undefined: as an evaluation gives them."""
        values: dict[str, float] = self.mean()
        for name, row in self.classes.items():
            values |= {f"{key}/{name}": math.nan if one is None else one for key, one in row["metrics"].items()}
        return values

    def markdown(self) -> str:
        """The table as Markdown, in per cent."""
        return (self.output_dir / "metrics_per_class.md").read_text(encoding="utf-8")

    def _write_tables(self) -> None:
        # The evaluations' own table, which reads an engine's metrics.
        engine = Engine(lambda engine, batch: None)
        engine.state.metrics.update(self.metrics())
        MetricTable(self.output_dir, METRICS)(engine)

    def _read(self) -> dict[str, dict[str, Any]]:
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            settings, classes = dict(content["settings"]), dict(content["classes"])
            _ = [row["metrics"][metric] for row in classes.values() for metric in METRICS]  # KeyError when not complete
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"'{self.path}' is damaged or of another version: choose another output folder."
            ) from error
        changed = [key for key in {**settings, **self.settings} if settings.get(key) != self.settings.get(key)]
        if changed:
            values = ", ".join(f"{key} {settings.get(key)}, not {self.settings.get(key)}" for key in changed)
            raise ValueError(f"'{self.path}' holds results of other settings ({values}): choose another output folder.")
        return classes


def _defined(value: float) -> float | None:
    return None if math.isnan(value) else value


_NETWORKS: dict[str, type[PatchCore] | type[RD4AD]] = {"patchcore": PatchCore, "rd4ad": RD4AD}

OPTIONS: dict[str, dict[str, Any]] = {
    "patchcore": {"coreset_ratio": 0.1, "num_neighbors": 9},
    "rd4ad": {"epochs": 200, "learning_rate": 0.005},
    "own-normals": {"encoder": "efficientnet-lite0"},
}
"""By method, the options that it alone has, with their defaults."""


def run_full_shot(
    method: str,
    datalist: Path,
    output_dir: Path,
    *,
    weights: Path | None,
    device: torch.device,
    testing_section: str = "testing",
    backbone: str = BACKBONES[0],
    image_size: int = 256,
    batch_size: int = 16,
    seed: int = 111,
    options: dict[str, Any] | None = None,
    say: Callable[[str], object] = print,
) -> FullShotResults:
    """Fit and measure every class that is not finished in ``output_dir``.

    Args:
        method: "patchcore", "rd4ad", or "own-normals", which has its own encoder and size and needs no weights.
        datalist: with each class's normal images under "training".
        output_dir: folder of the results.
        weights: the backbone's ImageNet weights; None for random ones.
        device: to compute on.
        testing_section: list to test on.
        backbone: timm's name of it.
        image_size: side in pixels, a multiple of 32.
        batch_size: images at a time.
        seed: of everything that is drawn, for each class anew.
        options: of :data:`OPTIONS`, where they differ.
        say: takes a line for each class.

    Returns:
        the results of all classes.

    Raises:
        ImportError: when anomalib is not installed.
        OSError: when a file is missing.
        ValueError: for settings or a datalist that do not fit, or results of other settings in ``output_dir``.
    """
    ours = method == "own-normals"
    if not ours:
        with anomalib_needed():
            import anomalib  # noqa: F401  # told before anything is read
    options = {**OPTIONS[method], **(options or {})}
    classes = classes_of(datalist, testing_section)
    settings = {
        "method": method,
        "datalist_sha256": hashlib.sha256(datalist.read_bytes()).hexdigest(),
        "testing_section": testing_section,
        "batch_size": batch_size,
        "seed": seed,
        **options,
    }
    if not ours:
        settings |= {"backbone": backbone, "image_size": image_size, "weights_sha256": weights_sha256(weights)}
        settings["anomalib"] = version("anomalib")
    results = FullShotResults(output_dir, settings)
    set_determinism(seed=seed)
    fresh: FullShotNetwork
    if ours:
        fresh = OwnNormals(**options, seed=seed)
    else:
        fresh = _NETWORKS[method](backbone, weights=weights, image_size=image_size, **options)
    for number, images in enumerate(classes, start=1):
        if images.name in results.classes:
            say(f"[{number}/{len(classes)}] {images.name}: done before.")
            continue
        numbers = f"{len(images.normal)} normal images, {len(images.testing)} to test"
        say(f"[{number}/{len(classes)}] {images.name}: {numbers}.")
        set_determinism(seed=seed)  # for each class, so that a resumed run equals an uninterrupted one
        network = copy.deepcopy(fresh).to(device)
        results.add(images.name, evaluate_class(network, images, batch_size=batch_size))
    return results
