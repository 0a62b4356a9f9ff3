# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""A table as Markdown and JSON files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai_anomalyclip.atomic_file import replaced_when_complete
from monai_anomalyclip.experiments.reproduce.document import MEAN
from monai_anomalyclip.experiments.reproduce.experiment import COUNTS, LABELS, TIMES

__all__ = ["markdown", "write_table"]

_SHOWN_ROWS = 4
_MEANINGLESS = "another CLIP: the difference means nothing"


def write_table(document: Mapping[str, Any], output: Path) -> tuple[Path, Path]:
    """Write ``table-NAME.json`` and ``table-NAME.md``, replacing those of an earlier run.

    Args:
        document: what :func:`monai_anomalyclip.experiments.reproduce.document.table_document` gives.
        output: folder, made when absent.

    Returns:
        both files.
    """
    output.mkdir(parents=True, exist_ok=True)
    name = document["table"] if not document["table"].isdigit() else f"table-{document['table']}"
    written = output / f"{name}.json", output / f"{name}.md"
    for file, text in zip(written, (_json(document), markdown(document)), strict=True):
        with replaced_when_complete(file) as unfinished:
            unfinished.write_text(text, encoding="utf-8")
    return written


def markdown(document: Mapping[str, Any]) -> str:
    """The table for people: per group a table in per cent, then what was not run and what failed."""
    lines = [f"# {document['title']}", "", document["varies"]]
    if document["remark"]:
        lines += ["", f"Mind: {document['remark']}."]
    lines += ["", _caption(document)]
    for group in document["groups"]:
        lines += ["", f"## {group['title'][:1].upper()}{group['title'][1:]}", "", *_table(group, document)]
    if sources := _sources(document):
        lines += ["", f"The paper's figures: {'; '.join(sources)}."]
    for heading, problems in (("Not run", document["not_run"]), ("Failed", document["failed"])):
        if problems:
            lines += ["", f"## {heading}", ""]
            lines += [f"- {heading.lower()}: {entry['reason']} ({_listed(entry['rows'])})" for entry in problems]
    notes = [(name, note) for name, uses in document["data_sets"].items() for use in uses for note in use["notes"]]
    if notes:
        lines += ["", "## Data", "", *dict.fromkeys(f"- {name}: {note}" for name, note in notes)]
    lines += ["", document["notice"]]
    return "\n".join(lines) + "\n"


def _caption(document: Mapping[str, Any]) -> str:
    shown = ", ".join(f"{name} {_plain(value)}" for name, value in document["settings"].items() if value)
    caption = f"In per cent; with several seeds mean (lowest to highest). Made with {shown}."
    if not document["comparable"] and _sources(document):
        caption += " This is another CLIP than the paper's: no difference to the paper's figures means anything."
    return caption


def _plain(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _table(group: Mapping[str, Any], document: Mapping[str, Any]) -> list[str]:
    rows, metrics = group["rows"], document["metrics"]
    if group["means_only"] and any(row["tested_on"] == MEAN for row in rows):
        rows = [row for row in rows if row["tested_on"] == MEAN]
    if not rows:
        return ["Nothing was run."]
    compared = any("difference" in value for row in rows for value in row["metrics"].values())
    meaningless = compared and not document["comparable"]
    tuned = len({row["tuned_on"] for row in rows if row["tuned_on"]}) > 1
    tested = not group["means_only"]
    head = ["experiment", *(["tuned on"] if tuned else []), *(["tested on"] if tested else [])]
    columns: list[tuple[str, str]] = []
    for metric in metrics:
        parts = {part for row in rows for part in row["metrics"].get(metric, ())}
        if parts:
            columns.append((metric, "mean"))
            head.append(LABELS[metric])
        if "paper" in parts:
            columns.append((metric, "paper"))
            head.append("the paper's")
        if "difference" in parts:
            columns.append((metric, "difference"))
            head.append("difference")
    if meaningless:
        head.append("mind")
    lines = [_line(head), _line(["---"] * len(head)).replace(" ", "")]
    for row in rows:
        names = [row["experiment"], *([row["tuned_on"] or "nothing"] if tuned else [])]
        names += [row["tested_on"]] if tested else []
        cells = [_cell(row["metrics"].get(metric), metric, part) for metric, part in columns]
        if meaningless:
            cells.append(_MEANINGLESS if any("difference" in value for value in row["metrics"].values()) else "")
        lines.append(_line([*names, *cells]))
    return lines


def _cell(value: Mapping[str, Any] | None, metric: str, part: str) -> str:
    if value is None:
        return ""
    if part not in value:
        return "not run" if part == "mean" else ""
    digits = 0 if metric in COUNTS else 2 if metric in TIMES else 1
    if part == "difference":
        return f"{value[part]:+.{digits}f}"
    if part == "mean" and len(value["seeds"]) > 1:
        return f"{value['mean']:.{digits}f} ({value['low']:.{digits}f} to {value['high']:.{digits}f})"
    return f"{value[part]:.{digits}f}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _listed(rows: Sequence[str]) -> str:
    more = f"; and {len(rows) - _SHOWN_ROWS} more" if len(rows) > _SHOWN_ROWS else ""
    return "; ".join(rows[:_SHOWN_ROWS]) + more


def _sources(document: Mapping[str, Any]) -> list[str]:
    values = [value for group in document["groups"] for row in group["rows"] for value in row["metrics"].values()]
    return list(dict.fromkeys(value["paper_source"] for value in values if "paper_source" in value))


def _json(document: Mapping[str, Any]) -> str:
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
