# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Tables of an evaluation: its metrics, one row per class, and the images that it had to leave out."""

from __future__ import annotations

import csv
import io
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import ignite.distributed as idist
from ignite.engine import Engine, Events

from monai_anomalyclip.atomic_file import replaced_when_complete
from monai_anomalyclip.data.readable_items import ReadableItems

__all__ = ["MetricTable", "UnreadableTable"]

logger = logging.getLogger(__name__)


class MetricTable:
    """Writes ``metrics_per_class.csv`` (as computed) and ``metrics_per_class.md`` (in per cent), and logs the latter.

    Rows are the classes, sorted, and their mean; columns are the metrics, with their intervals where
    :class:`~monai_anomalyclip.handlers.BootstrapIntervals` has made them: in columns of their own (``NAME_low``,
    ``NAME_high``) or in brackets. The engine's other metrics follow in the log. The first process writes.

    Args:
        output_dir: folder of the tables.
        metrics: names of the metrics, whose handlers have ``classes``.

    Example::

        MetricTable("runs/evaluation", ["image_auroc", "pixel_aupro"]).attach(evaluator)
    """

    def __init__(self, output_dir: str | Path, metrics: Sequence[str]) -> None:
        self.output_dir = Path(output_dir)
        self.metrics = list(metrics)

    def attach(self, engine: Engine) -> None:
        """Attach to an evaluator, after its metrics (MONAI's evaluators attach those first)."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Write the table.

        Raises:
            KeyError: the engine has no metric of such a name.
        """
        if idist.get_rank() > 0:
            return
        missing = [name for name in self.metrics if name not in engine.state.metrics]
        if missing:
            raise KeyError(f"The evaluator has no metric {missing[0]!r} (it has: {', '.join(engine.state.metrics)}).")
        values = engine.state.metrics
        rows = self._rows(values)
        columns = [key for name in self.metrics for key in (name, *_ends(name)) if key in values]
        stream = io.StringIO()
        csv.writer(stream, lineterminator="\n").writerows(
            [
                ["class", *columns],
                *([row, *(values.get(key + suffix, math.nan) for key in columns)] for row, suffix in rows),
            ]
        )
        lines = [f"| class | {' | '.join(self.metrics)} |", f"|---|{'---|' * len(self.metrics)}"]
        for row, suffix in rows:
            cells = [
                _cell(*(values.get(key + suffix, math.nan) for key in (name, *_ends(name)))) for name in self.metrics
            ]
            lines.append(f"| {row.replace('|', chr(92) + '|')} | {' | '.join(cells)} |")
        table = "\n".join(lines)
        self.output_dir.mkdir(parents=True, exist_ok=True)
        for suffix, text in (("csv", stream.getvalue()), ("md", table + "\n")):
            with replaced_when_complete(self.output_dir / f"metrics_per_class.{suffix}") as unfinished:
                unfinished.write_text(text, encoding="utf-8")
        logger.info(f"Metrics in per cent:\n{table}")
        others = [f"{key} {value:.4g}" for key, value in values.items() if key.partition("/")[0] not in columns]
        if others:
            logger.info(f"Further metrics: {', '.join(others)}")

    def _rows(self, values: Mapping[str, float]) -> list[tuple[str, str]]:
        """Names of the rows and what the keys of their values end with."""
        prefixes = tuple(f"{name}/" for name in self.metrics)
        classes = sorted({key.partition("/")[2] for key in values if key.startswith(prefixes)})
        return [*((name, f"/{name}") for name in classes), ("mean" if classes else "all", "")]


def _ends(name: str) -> tuple[str, str]:
    return f"{name}_low", f"{name}_high"


def _cell(value: float, low: float, high: float) -> str:
    if math.isnan(value):
        return "undefined"
    return f"{100 * value:.1f}" + ("" if math.isnan(low) else f" ({100 * low:.1f} to {100 * high:.1f})")


class UnreadableTable:
    """Writes ``unreadable.csv`` (index in the datalist, file name, reason) before the evaluation begins.

    When all images can be read there is no such file; one of an earlier run is removed. The first process writes.

    Args:
        output_dir: folder of the table.
        items: what the evaluator sees.

    Example::

        UnreadableTable("runs/evaluation", items).attach(evaluator)
    """

    def __init__(self, output_dir: str | Path, items: ReadableItems) -> None:
        self.path = Path(output_dir) / "unreadable.csv"
        self.items = items

    def attach(self, engine: Engine) -> None:
        """Attach to an evaluator."""
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Write the table."""
        if idist.get_rank() > 0:
            return
        if not self.items.unreadable:
            self.path.unlink(missing_ok=True)
            return
        stream = io.StringIO()
        rows = [(item.index, item.file, item.reason) for item in self.items.unreadable]
        csv.writer(stream, lineterminator="\n").writerows([("index", "file", "reason"), *rows])
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with replaced_when_complete(self.path) as unfinished:
            unfinished.write_text(stream.getvalue(), encoding="utf-8")
