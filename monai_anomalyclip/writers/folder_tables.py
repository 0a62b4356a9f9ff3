# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Tables of a folder of results in one pass over its records, of which one at a time is in memory."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import IO, NamedTuple

from monai_anomalyclip.atomic_file import replaced_when_complete, unfinished_path
from monai_anomalyclip.ranking import most_suspicious_first
from monai_anomalyclip.writers.finished import InputState
from monai_anomalyclip.writers.record import MadeWith, json_text
from monai_anomalyclip.writers.tables import (
    INPUT_COLUMNS,
    SCORE_COLUMNS,
    RunDocument,
    Summary,
    input_row,
    score_rows,
    table_line,
)

__all__ = ["FolderTables", "Ranked"]

_MOST_PICTURES = 500  # records that are kept: about 10 kB each


class Ranked(NamedTuple):
    """What is kept of an input that was scored: what it is ranked by, and its row of the table without the rank."""

    name: str
    score: float | None
    margin: float | None
    map_max: float | None
    fraction: float | None
    row: str


class FolderTables:
    """Takes records, sorted by name, and writes ``inputs.csv``, ``scores.csv`` and ``results.json``.

    Use it through :meth:`writing`. Memory grows by some hundred bytes per input.

    Attributes:
        failed: names of inputs that failed, in order.
        finished: when each finished one was done.
        pictures: records of some pictures, so that the report need not read them again; those of volumes are large.
    """

    def __init__(self, folder: Path, inputs: IO[str], scores: IO[str], records: IO[str], held: Path) -> None:
        self._folder, self._inputs, self._scores, self._records, self._held = folder, inputs, scores, records, held
        self._ranked: list[Ranked] = []
        self._others: list[str] = []
        self._status: Counter[str] = Counter()
        self._started: list[datetime] = []
        self._seconds = 0.0
        self.failed: list[str] = []
        self.finished: list[datetime] = []
        self.pictures: dict[str, InputState] = {}

    @classmethod
    @contextmanager
    def writing(cls, folder: Path) -> Iterator[FolderTables]:
        """Within the block take records; at its end, when nothing was raised, the files are replaced.

        Args:
            folder: where they lie.

        Raises:
            OSError: they cannot be written.
        """
        held = unfinished_path(folder / "results.json.inputs")
        with ExitStack() as stack:
            stack.callback(held.unlink, missing_ok=True)
            streams = []
            for path in (folder / "inputs.csv", folder / "scores.csv"):
                unfinished = stack.enter_context(replaced_when_complete(path))
                streams.append(stack.enter_context(_private(unfinished)))
            records = stack.enter_context(_private(held))
            streams[0].write(",".join(INPUT_COLUMNS) + "\n")
            streams[1].write(",".join(SCORE_COLUMNS) + "\n")
            yield cls(folder, streams[0], streams[1], records, held)

    def add(self, state: InputState) -> None:
        """Take the record of an input."""
        if len(self.pictures) < _MOST_PICTURES and len(state.slices.map_max) <= 1:
            self.pictures[state.name] = state
        for row in score_rows(state):
            self._scores.write(table_line(SCORE_COLUMNS, row))
        record = state.shown() if state.state != "unfinished" else None
        if state.started:
            self._started.append(datetime.fromisoformat(state.started))
        if record is None or record.status != "ok":
            self._others += [table_line(INPUT_COLUMNS, row) for row in score_rows(state)]
        else:
            order = (record.anomaly_score, record.score_margin, record.map_max, record.anomalous_fraction)
            self._ranked.append(Ranked(record.name, *order, table_line(INPUT_COLUMNS, input_row(record))))
        if record is None:
            return
        text = json_text(record).rstrip("\n").replace("\n", "\n    ")
        self._records.write(f"{',' * bool(self._status)}\n    {text}")
        self._status[record.status] += 1
        if record.status != "ok":
            self.failed.append(record.name)
        if (times := record.timings) is not None:
            spent = times.read_s + times.score_s + times.write_s
            self._seconds += spent
            if state.started:
                self.finished.append(self._started[-1] + timedelta(seconds=spent))

    def finish(self, made: MadeWith, left_out: Mapping[str, int]) -> tuple[RunDocument, list[str]]:
        """Write what needs all records.

        Args:
            made: what the results were made with.
            left_out: how many files were left aside, by reason.

        Returns:
            the document without its inputs but with their numbers, and the names of those that were scored, ranked.
        """
        columns = ((one.score, one.margin, one.map_max, one.fraction) for one in self._ranked)
        order = most_suspicious_first(*map(list, zip(*columns, strict=True))) if self._ranked else []
        for rank, index in enumerate(order, start=1):
            self._inputs.write(f"{rank}{self._ranked[index].row}")  # whose first column is empty
        self._inputs.writelines(self._others)
        document = RunDocument.of((), made, left_out, min(self._started, default=None))
        numbers = Summary(
            inputs=self._status.total(),
            ok=self._status["ok"],
            failed=self._status["failed"],
            skipped_files=document.summary.skipped_files,
        )
        document = document.model_copy(update={"summary": numbers, "duration_s": round(self._seconds, 3)})
        self._write_document(document)
        return document, [self._ranked[index].name for index in order]

    def _write_document(self, document: RunDocument) -> None:
        head, _, tail = document.to_json().rpartition('"inputs": []')
        self._records.flush()
        with replaced_when_complete(self._folder / "results.json") as unfinished, _private(unfinished) as stream:
            stream.write(f'{head}"inputs": [')
            with self._held.open(encoding="utf-8") as records:
                shutil.copyfileobj(records, stream)
            stream.write(("\n  ]" if self._status else "]") + tail)


@contextmanager
def _private(path: Path) -> Iterator[IO[str]]:
    """A new text file that only its owner may read."""
    path.unlink(missing_ok=True)
    path.touch(0o600)
    with path.open("w", encoding="utf-8", newline="") as stream:
        yield stream
