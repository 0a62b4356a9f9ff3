# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""A table with its results as plain values: what is written as JSON and shown as Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from monai_anomalyclip import RESEARCH_USE_ONLY, __version__
from monai_anomalyclip.experiments.reproduce.experiment import COUNTS, Experiment, Group, Table
from monai_anomalyclip.experiments.reproduce.paper_figures import paper_classes, paper_figure
from monai_anomalyclip.experiments.reproduce.runner import Outcome
from monai_anomalyclip.experiments.reproduce.spread import Spread, mean_over_sets
from monai_anomalyclip.writers.redaction import redacted

__all__ = ["MEAN", "table_document"]

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
        (ours minus the paper's) and ``paper_source``. What was not run has the paper's figure alone. ``comparable``
        says whether it was made with the paper's CLIP: if not, no difference means anything.
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
                if (compared := _compared(spread, table, experiment, name, metric))
            },
        }
        for name, values in spreads.items()
    ]
    run = {MEAN, *(name for name in experiment.tested_on if (experiment.key, name) in outcome.scores)}
    return [row for row in rows if row["metrics"] or row["tested_on"] in run]


def _compared(
    spread: Spread | None, table: Table, experiment: Experiment, tested_on: str, metric: str
) -> dict[str, Any]:
    figure = paper_figure(table.name, experiment, tested_on, metric)
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
    return values


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
