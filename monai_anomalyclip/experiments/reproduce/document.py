# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""A table with its results, over several seeds: as plain values, as JSON and as Markdown."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai_anomalyclip import RESEARCH_USE_ONLY, __version__
from monai_anomalyclip.atomic_file import replaced_when_complete
from monai_anomalyclip.experiments.reproduce.experiment import (
    COUNTS,
    LABELS,
    TIMES,
    Experiment,
    Group,
    Spread,
    Table,
    mean_over_sets,
)
from monai_anomalyclip.experiments.reproduce.paper_figures import paper_classes, paper_figure
from monai_anomalyclip.experiments.reproduce.runner import Outcome
from monai_anomalyclip.writers.record import redacted

__all__ = ["MEAN", "markdown", "table_document", "write_table"]


MEAN = "mean"
"""In place of a data set: over all that an experiment is tested on."""

_DIGITS = 4
_PAPER_BACKBONES = ("ViT-L-14-336-quickgelu", "ViT-L-14-336")


def table_document(table: Table, outcome: Outcome, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that is known of a table.

    Args:
        table: the table.
        outcome: what came of it.
        settings: what it was made with (bundle, seeds, epochs, ...), to be kept with it.

    Returns:
        plain values, in per cent (counts and times as they are); metrics that were not computed or are undefined are
        absent. Each row has the metrics of an experiment on a data set, or on one of its classes, or on the mean where
        all were run: ``mean``, ``low``, ``high``, ``seeds``, and where the paper has a figure ``paper``, ``difference``
        (ours minus the paper's) and ``paper_source``; with verdicts ``interval`` and ``verdict``. What was not run has
        the paper's figure alone. ``comparable`` says whether it was made with the paper's CLIP: if not, no difference
        means anything.
    """
    names = dict.fromkeys(name for name, _ in outcome.images)
    return {
        "table": table.name,
        "title": table.title,
        "varies": table.varies,
        "remark": table.remark,
        "notice": RESEARCH_USE_ONLY,
        "unit": "per cent",
        "version": __version__,
        "settings": dict(settings),
        "metrics": list(table.metrics),
        "backbone": outcome.backbone,
        "comparable": outcome.backbone is None or outcome.backbone in _PAPER_BACKBONES,
        "groups": [_group(group, table, outcome) for group in table.groups],
        "data_sets": {
            name: [
                {"purpose": purpose, "images": found.images, "anomalous": found.anomalous, "notes": list(found.notes)}
                for (known, purpose), found in outcome.images.items()
                if known == name
            ]
            for name in names
        },
        "not_run": _problems(table, outcome.not_run),
        "failed": _problems(table, outcome.failed),
    }


def _group(group: Group, table: Table, outcome: Outcome) -> dict[str, Any]:
    rows = [row for experiment in group.experiments for row in _rows(experiment, table, outcome)]
    return {"title": group.title, "means_only": group.means_only, "rows": rows}


def _rows(experiment: Experiment, table: Table, outcome: Outcome) -> list[dict[str, Any]]:
    metrics = table.metrics
    spreads: dict[str, dict[str, Spread | None]] = {
        name: {metric: outcome.spread(experiment, name, metric) for metric in metrics} for name in experiment.tested_on
    }
    if table.per_class:
        (name,) = experiment.tested_on
        by_seed = outcome.scores.get((experiment.key, name), {})
        found = (key.partition("/")[2] for values in by_seed.values() for key in values)
        classes = dict.fromkeys([*paper_classes(table.name), *filter(None, found)])
        by_class = {
            one: {metric: outcome.spread(experiment, name, f"{metric}/{one}") for metric in metrics} for one in classes
        }
        spreads = {**by_class, MEAN: spreads[name]}
    elif (
        len(spreads) > 1
        and all((experiment.key, name) in outcome.scores for name in experiment.tested_on)
        and not set(metrics) <= set(COUNTS)
    ):
        spreads[MEAN] = {metric: mean_over_sets([values[metric] for values in spreads.values()]) for metric in metrics}
    rows = [
        {
            "experiment": experiment.title,
            "method": experiment.method,
            "overlays": list(experiment.overlays),
            "tuned_on": experiment.tuned_on,
            "given_prompts": experiment.given_prompts,
            "tested_on": name,
            "metrics": {
                metric: compared
                for metric, spread in values.items()
                if (compared := _compared(spread, table, outcome, experiment, name, metric))
            },
        }
        for name, values in spreads.items()
    ]
    run = {MEAN, *(name for name in experiment.tested_on if (experiment.key, name) in outcome.scores)}
    return [row for row in rows if row["metrics"] or row["tested_on"] in run]


def _compared(
    spread: Spread | None, table: Table, outcome: Outcome, experiment: Experiment, tested_on: str, metric: str
) -> dict[str, Any]:
    figure = paper_figure(experiment.paper_table or table.name, experiment, tested_on, metric)
    values: dict[str, Any] = {}
    if spread is not None:
        values |= {
            "mean": round(spread.mean, _DIGITS),
            "low": round(spread.low, _DIGITS),
            "high": round(spread.high, _DIGITS),
            "seeds": {str(seed): round(value, _DIGITS) for seed, value in spread.seeds.items()},
        }
    if figure is not None:
        values |= {"paper": figure.value, "paper_source": figure.source}
        if spread is not None:
            values["difference"] = round(spread.mean - figure.value, _DIGITS)
            if table.verdicts:
                values |= _verdict(values, outcome, experiment, tested_on, metric)
    return values


_EQUAL = 0.15  # two figures that are rounded to one decimal, and some arithmetic


def _verdict(
    values: Mapping[str, Any], outcome: Outcome, experiment: Experiment, tested_on: str, metric: str
) -> dict[str, Any]:
    """How far ours agrees with the paper's, and the interval that says so, in per cent."""
    found: dict[str, Any] = {}
    same = "pixel_aupro" if metric == "pixel_aupro_200" else metric  # whole images are drawn; the metrics move together
    own, low, high = (outcome.spread(experiment, tested_on, name) for name in (same, f"{same}_low", f"{same}_high"))
    if own is not None and low is not None and high is not None:
        shift = values["mean"] - own.mean
        found["interval"] = [round(end.mean + shift, _DIGITS) for end in (low, high)]
    if abs(values["difference"]) <= _EQUAL:
        found["verdict"] = "equal"
    elif "interval" not in found:
        found["verdict"] = "no interval"
    elif found["interval"][0] <= values["paper"] <= found["interval"][1]:
        found["verdict"] = "within the spread"
    else:
        found["verdict"] = "differs"
    return found


def _problems(table: Table, reasons: Mapping[tuple[str, str], str]) -> list[dict[str, Any]]:
    """One entry per reason, without paths, with the rows that it concerns."""
    concerned: dict[str, list[str]] = {}
    for experiment in table.experiments:
        for name in experiment.tested_on:
            if (reason := reasons.get((experiment.key, name))) is not None:
                reason = redacted(reason)
                row = f"{experiment.title} on {name}"
                if row not in (rows := concerned.setdefault(reason, [])):
                    rows.append(row)
    return [{"reason": reason, "rows": rows} for reason, rows in concerned.items()]


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
    for file, text in zip(written, (_as_json(document), markdown(document)), strict=True):
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
        if "verdict" in parts:
            columns.append((metric, "verdict"))
            head.append("verdict")
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
    if part == "verdict":
        return str(value[part])
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


def _as_json(document: Mapping[str, Any]) -> str:
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
