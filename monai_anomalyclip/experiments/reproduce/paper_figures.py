# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The figures of the AnomalyCLIP paper's tables 1 to 26 (Zhou et al., ICLR 2024), as printed there."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType

from monai_anomalyclip.experiments.reproduce.experiment import METHODS, Experiment

__all__ = ["PAPER_NAMES", "PaperFigure", "paper_classes", "paper_figure", "paper_figures"]

_FILE = "paper_tables.csv"

PAPER_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "mvtec": "MVTec AD",
        "visa": "VisA",
        "mpdd": "MPDD",
        "btad": "BTAD",
        "sdd": "SDD",
        "dagm": "DAGM",
        "dtd-synthetic": "DTD-Synthetic",
        "isic": "ISIC",
        "cvc-clinicdb": "CVC-ClinicDB",
        "cvc-colondb": "CVC-ColonDB",
        "kvasir": "Kvasir",
        "endo": "Endo",
        "tn3k": "TN3K",
        "headct": "HeadCT",
        "brainmri": "BrainMRI",
        "br35h": "Br35H",
        "covid-19": "COVID-19",
    }
)
"""What the paper's tables call the data sets."""

_TIMES = {"minutes_per_epoch": "training", "images_per_second": "inference"}
_MEAN = "mean"


@dataclass(frozen=True)
class PaperFigure:
    """A figure of the paper.

    Args:
        table: number of its table.
        row: as the table calls it: a data set, a class of one, a method, or what an ablation varies.
        column: likewise.
        metric: one of :data:`~monai_anomalyclip.experiments.reproduce.METRICS` (in per cent), of
            :data:`~monai_anomalyclip.experiments.reproduce.experiment.COUNTS` or of
            :data:`~monai_anomalyclip.experiments.reproduce.experiment.TIMES`. The paper's PRO is ``pixel_aupro_200``.
        value: as printed.
    """

    table: str
    row: str
    column: str
    metric: str
    value: float

    @property
    def source(self) -> str:
        """Where it is printed."""
        return f"AnomalyCLIP (ICLR 2024), table {self.table}"


@lru_cache(maxsize=1)
def paper_figures() -> tuple[PaperFigure, ...]:
    """All of them, table by table in the order of the print."""
    with Path(__file__).with_name(_FILE).open(encoding="utf-8", newline="") as file:
        return tuple(
            PaperFigure(line["table"], line["row"], line["column"], line["metric"], float(line["value"]))
            for line in csv.DictReader(file)
        )


@lru_cache(maxsize=1)
def _by_place() -> dict[tuple[str, frozenset[str], str], PaperFigure]:
    # Some tables have the data sets in their rows, others in their columns: the two together name a cell.
    return {(one.table, _cell(one.row, one.column), one.metric): one for one in paper_figures()}


def _cell(row: str, column: str) -> frozenset[str]:
    return frozenset((row.casefold(), column.casefold()))


def paper_figure(table: str, experiment: Experiment, tested_on: str, metric: str) -> PaperFigure | None:
    """The paper's figure that an experiment's is to be compared with; None where the table has none.

    Args:
        table: number of the table.
        experiment: what its table calls it is ``experiment.paper``, or else the method's title.
        tested_on: name of the data set, of one of its classes, or "mean" for the mean over the classes.
        metric: name of the metric.

    Example::

        row = Experiment("AnomalyCLIP", ("isic",), "mvtec")
        paper_figure("2", row, "isic", "pixel_auroc").value  # 89.7
    """
    label = METHODS[experiment.method].title if experiment.paper is None else experiment.paper
    place = _TIMES.get(metric, PAPER_NAMES.get(tested_on, tested_on))
    return _by_place().get((table, _cell(label, place), metric))


def paper_classes(table: str) -> tuple[str, ...]:
    """The classes that a table has its rows for, tables 15 to 26, in lower case; without the mean."""
    rows = dict.fromkeys(one.row.casefold() for one in paper_figures() if one.table == table)
    return tuple(row for row in rows if row != _MEAN)
