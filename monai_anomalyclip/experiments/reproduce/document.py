# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""A table with its results as plain values: what is written as JSON and shown as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from monai_anomalyclip import RESEARCH_USE_ONLY, __version__
from monai_anomalyclip.experiments.reproduce.experiment import Experiment, Group, Table
from monai_anomalyclip.experiments.reproduce.paper_figures import paper_figure
from monai_anomalyclip.experiments.reproduce.runner import Outcome
from monai_anomalyclip.experiments.reproduce.spread import Spread, mean_over_sets
from monai_anomalyclip.writers.redaction import redacted

__all__ = ["MEAN", "table_document"]

MEAN = "mean"
"""In place of a data set: over all that an experiment is tested on."""

_DIGITS = 4


def table_document(table: Table, outcome: Outcome, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that is known of a table.

    Args:
        table: the table.
        outcome: what came of it.
        settings: what it was made with (bundle, seeds, epochs, ...), to be kept with it.

    Returns:
        plain values, in per cent; metrics that were not computed or are undefined are absent. Each row has the metrics
        of an experiment on a data set, or on their mean where all were run: ``mean``, ``low``, ``high``, ``seeds``,
        and where the paper's figure is known ``paper``, ``difference`` (ours minus the paper's) and ``paper_source``.
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
    rows = [row for experiment in group.experiments for row in _rows(experiment, table.metrics, outcome)]
    return {"title": group.title, "means_only": group.means_only, "rows": rows}


def _rows(experiment: Experiment, metrics: Sequence[str], outcome: Outcome) -> list[dict[str, Any]]:
    spreads = {
        name: {metric: outcome.spread(experiment, name, metric) for metric in metrics}
        for name in experiment.tested_on
        if (experiment.key, name) in outcome.scores
    }
    whole = len(spreads) == len(experiment.tested_on)
    if whole and len(spreads) > 1:
        means = {metric: mean_over_sets([values[metric] for values in spreads.values()]) for metric in metrics}
        spreads[MEAN] = means
    return [
        {
            "experiment": experiment.title,
            "method": experiment.method,
            "overlays": list(experiment.overlays),
            "tuned_on": experiment.tuned_on,
            "given_prompts": experiment.given_prompts,
            "tested_on": name,
            "metrics": {
                metric: _compared(spread, experiment, name, metric)
                for metric, spread in values.items()
                if spread is not None
            },
        }
        for name, values in spreads.items()
    ]


def _compared(spread: Spread, experiment: Experiment, tested_on: str, metric: str) -> dict[str, Any]:
    values: dict[str, Any] = {
        "mean": round(spread.mean, _DIGITS),
        "low": round(spread.low, _DIGITS),
        "high": round(spread.high, _DIGITS),
        "seeds": {str(seed): round(value, _DIGITS) for seed, value in spread.seeds.items()},
    }
    if (figure := paper_figure(experiment, tested_on, metric)) is not None:
        values |= {
            "paper": figure.value,
            "difference": round(spread.mean - figure.value, _DIGITS),
            "paper_source": figure.source,
        }
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
