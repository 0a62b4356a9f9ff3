# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""What a full-shot run has measured so far, kept so that a run that was stopped goes on with the next class."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ignite.engine import Engine

from monai_anomalyclip.atomic_file import replaced_when_complete
from monai_anomalyclip.experiments.fullshot.evaluation import METRICS
from monai_anomalyclip.handlers.metric_table import MetricTable

__all__ = ["FullShotResults"]


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
