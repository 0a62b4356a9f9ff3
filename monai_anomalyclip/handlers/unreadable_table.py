# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""A table of the images that an evaluation had to leave out."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import ignite.distributed as idist
from ignite.engine import Engine, Events

from monai_anomalyclip.atomic_file import replaced_when_complete
from monai_anomalyclip.data.readable_items import ReadableItems

__all__ = ["UnreadableTable"]


class UnreadableTable:
    """Writes ``unreadable.csv`` (index in the datalist, file name, reason) before the evaluation begins.

    When all images can be read there is no such file; one of an earlier run is removed. The first process writes.

    Args:
        output_dir: folder of the table.
        items: what the evaluator sees.
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
