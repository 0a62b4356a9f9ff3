# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""What a folder of results holds: ``results.json`` for programs, ``inputs.csv`` and ``scores.csv`` for people."""

from __future__ import annotations

import csv
import io
import json
import os
import platform
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from monai_anomalyclip import RESEARCH_USE_ONLY, __version__
from monai_anomalyclip.atomic_file import write_atomically
from monai_anomalyclip.ranking import most_suspicious_first
from monai_anomalyclip.writers.finished import InputState
from monai_anomalyclip.writers.record import (
    SCHEMA_VERSION,
    Count,
    InputRecord,
    MadeWith,
    Model,
    Record,
    Seconds,
    Text,
    Tool,
    json_text,
)

__all__ = [
    "INPUT_COLUMNS",
    "SCORE_COLUMNS",
    "RunDocument",
    "Summary",
    "check_table",
    "input_row",
    "made_with",
    "ranked_records",
    "results_schema",
    "score_rows",
    "table_line",
]

_DISTRIBUTIONS = ("torch", "monai", "open_clip", "pydicom", "highdicom", "nibabel")


class Summary(Record):
    """Number of inputs, in all and of each status, and of files that were left aside."""

    inputs: Count
    ok: Count
    failed: Count
    skipped_files: Count


class RunDocument(Record):
    """``results.json``: what a folder holds, made from the records of its inputs."""

    schema_version: Literal["2.0"] = "2.0"
    research_use: Annotated[str, Field(pattern=r"^Research use only\.")] = RESEARCH_USE_ONLY
    tool: Tool
    versions: dict[str, str | None] = Field(description="Of Python and libraries; null for an absent one.")
    model: Model
    settings: dict[str, Any] = Field(description="The options as they were resolved.")
    device: Text
    started: Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00$")] = Field(
        description="When the reading of the first input began, in UTC."
    )
    duration_s: Seconds = Field(description="Reading, scoring and writing of all inputs together.")
    summary: Summary
    skipped: dict[Text, Count] = Field(description="Number of files and series left aside, by reason.")
    inputs: tuple[InputRecord, ...]

    @model_validator(mode="after")
    def _check_counts(self) -> RunDocument:
        if twice := [name for name, count in Counter(record.name for record in self.inputs).items() if count > 1]:
            raise ValueError(f"two inputs are called {twice[0]!r}")
        if self.summary != (counted := _summary(self.inputs, self.skipped)):
            raise ValueError(f"the results count {self.summary} but hold {counted}: they were changed")
        return self

    @classmethod
    def of(
        cls,
        records: Sequence[InputRecord],
        made: MadeWith,
        skipped: Mapping[str, int] | None = None,
        started: datetime | None = None,
    ) -> RunDocument:
        """The document of some records.

        Args:
            records: one per input.
            made: what they were made with.
            skipped: how many files were left aside, by reason.
            started: when the first was begun, with a time zone; now, when it is not given.
        """
        begun = (started or datetime.now(timezone.utc)).astimezone(timezone.utc)
        timings = [record.timings for record in records if record.timings is not None]
        skipped = dict(sorted((skipped or {}).items()))
        return cls(
            **{name: getattr(made, name) for name in ("tool", "versions", "model", "device")},
            settings=dict(sorted(made.settings.items())),
            started=begun.isoformat(timespec="seconds"),
            duration_s=sum(timing.read_s + timing.score_s + timing.write_s for timing in timings),
            summary=_summary(records, skipped),
            skipped=skipped,
            inputs=tuple(records),
        )

    def to_json(self) -> str:
        """The document as text."""
        return json_text(self)

    @classmethod
    def from_json(cls, text: str) -> RunDocument:
        """Read what :meth:`to_json` gave.

        Raises:
            ValueError: no JSON, another version of the layout, or values that a field cannot have.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            if first["loc"] == ("schema_version",):
                raise ValueError(
                    f"These results do not have the schema version {SCHEMA_VERSION} that this program reads: use the "
                    "version of monai_anomalyclip that wrote them."
                ) from None
            where = ".".join(map(str, first["loc"])) or "the whole text"
            raise ValueError(f"These are no results of this program ({where}: {first['msg']}).") from None

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the document: the file appears, or is replaced, as a whole."""
        write_atomically(Path(path), self.to_json().encode())

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> RunDocument:
        """Read a file that :meth:`write` wrote.

        Raises:
            ValueError: as for :meth:`from_json`.
        """
        return cls.from_json(Path(path).read_text(encoding="utf-8"))


def made_with(model: Model, settings: Mapping[str, Any], device: str) -> MadeWith:
    """Say what this program makes results with: itself, the libraries that are here, and what is given."""
    versions: dict[str, str | None] = {"python": platform.python_version()}
    for name in _DISTRIBUTIONS:
        try:
            versions[name] = metadata.version({"open_clip": "open_clip_torch"}.get(name, name))
        except metadata.PackageNotFoundError:
            versions[name] = None
    tool = Tool(name="monai_anomalyclip", version=__version__)
    return MadeWith(tool=tool, versions=versions, model=model, settings=dict(settings), device=device)


def results_schema() -> str:
    """The text of ``results.schema.json``."""
    schema = _without_titles(RunDocument.model_json_schema(mode="serialization"))
    about = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "results.json of monai_anomalyclip",
        "description": "What a folder of results holds. Research use only. Scores are not calibrated. Nothing in it "
        "names a patient, a file's UIDs or absolute paths.",
    }
    return json.dumps({**about, **{key: value for key, value in schema.items() if key not in about}}, indent=2) + "\n"


def _without_titles(schema: Any) -> Any:
    """They repeat the names of the fields."""
    if isinstance(schema, dict):
        return {key: _without_titles(value) for key, value in schema.items() if key != "title"}
    return [_without_titles(value) for value in schema] if isinstance(schema, list) else schema


def _summary(records: Sequence[InputRecord], skipped: Mapping[str, int]) -> Summary:
    status = Counter(record.status for record in records)
    return Summary(inputs=len(records), ok=status["ok"], failed=status["failed"], skipped_files=sum(skipped.values()))


SCORE_COLUMNS = (
    "name", "slice", "instance_number", "position_mm", "anomaly_score", "score_margin", "map_max", "area_fraction",
    "threshold", "status", "reason",
)  # fmt: skip
INPUT_COLUMNS = (
    "rank", "name", "kind", "modality", "anomaly_score", "score_margin", "p_value", "k", "smallest_p",
    "reference_score", "reference_p_value", "fused_score", "slice", "instance_number", "position_mm",
    "anomalous_volume_ml", "anomalous_fraction", "threshold", "threshold_source", "geometry", "warnings",
    "status", "reason",
)  # fmt: skip


def ranked_records(records: Iterable[InputRecord]) -> list[InputRecord]:
    """Those that were scored, the most suspicious first; what is equal in all respects by name."""
    scored = sorted((record for record in records if record.status == "ok"), key=lambda record: record.name)
    order = most_suspicious_first(
        [record.anomaly_score for record in scored],
        [record.score_margin for record in scored],
        [record.map_max for record in scored],
        [record.anomalous_fraction for record in scored],
    )
    return [scored[index] for index in order]


def check_table(path: str | os.PathLike[str], expected: Sequence[str]) -> None:
    """Refuse a file that is not such a table.

    Raises:
        ValueError: the file exists and has other columns.
    """
    if not Path(path).exists():
        return
    with Path(path).open(newline="", encoding="utf-8", errors="replace") as stream:
        columns = tuple(next(csv.reader(stream), ()))
    if columns != tuple(expected):
        raise ValueError(
            f"{Path(path).name!r} in the output folder is not a table of this program (its columns are "
            f"{', '.join(columns)}): choose another output folder."
        )


def input_row(record: InputRecord) -> dict[str, Any]:
    """The row of ``inputs.csv`` of an input that was scored, but for its rank.

    ``slice``, ``instance_number`` and ``position_mm`` are those of the most suspicious slice or frame.
    """
    row = {name: getattr(record, name) for name in INPUT_COLUMNS if name in InputRecord.model_fields}
    if record.kind != "frame" and record.most_suspicious:
        peak = record.most_suspicious[0]
        row |= {"slice": peak.index, "instance_number": peak.instance_number, "position_mm": peak.position_mm}
    row |= _comparisons(record)
    geometry = record.geometry.verdict if record.geometry else ""
    return {**row, "geometry": geometry, "warnings": " | ".join(record.warnings)}


def _comparisons(record: InputRecord) -> dict[str, Any]:
    """Columns of the comparisons with normals: `k` and smallest p of the first, what the reference says beside."""
    row: dict[str, Any] = {"fused_score": record.fused.score if record.fused else None}
    if record.compared:
        row |= {"k": record.compared[0].k, "smallest_p": record.compared[0].smallest_p}
    for one in record.compared:
        if one.method == "reference":
            row |= {"reference_score": one.score, "reference_p_value": one.p_value}
    return row


def table_line(columns: Sequence[str], row: Mapping[str, Any]) -> str:
    """A row as a line of CSV, with its end; numbers to six digits, what is not in the columns left out."""
    stream = io.StringIO(newline="")
    values = (row.get(column, "") for column in columns)
    csv.writer(stream, lineterminator="\n").writerow(f"{x:.6g}" if isinstance(x, float) else x for x in values)
    return stream.getvalue()


def score_rows(state: InputState) -> Iterator[dict[str, Any]]:
    """The rows of ``scores.csv`` of an input.

    A picture has one row; a volume or film one per slice or frame (``slice`` counts from 0) and a last one whose
    ``slice`` is ``all``. ``status`` is ``ok``, ``failed`` (with a ``reason``) or ``unfinished``: a run was stopped
    before it had done this input again.
    """
    record = state.shown()
    if state.state == "unfinished" or record is None:
        yield {"name": state.name, "status": "failed" if state.refused else "unfinished", "reason": state.refused}
        return
    if record.status != "ok":
        yield {"name": state.name, "status": record.status, "reason": record.reason}
        return
    last = {"name": state.name, "threshold": record.threshold, "status": "ok"}
    if record.kind != "frame":
        known = {
            "anomaly_score": record.scores,
            "map_max": state.slices.map_max,
            "area_fraction": state.slices.area_fraction,
            "score_margin": state.slices.margin,
            "instance_number": state.slices.instance_number,
            "position_mm": state.slices.position_mm,
        }
        columns = {name: values for name, values in known.items() if values}
        for index, values in enumerate(zip(*columns.values(), strict=True)):
            yield {**last, "slice": index, **dict(zip(columns, values, strict=True))}
        last["slice"] = "all"
    yield {
        **last,
        "anomaly_score": record.anomaly_score,
        "score_margin": record.score_margin,
        "map_max": record.map_max,
        "area_fraction": record.anomalous_fraction,
    }
