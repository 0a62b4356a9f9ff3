# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Figures that the AnomalyCLIP paper reports: those that were read or found cited, and no others."""

from __future__ import annotations

from dataclasses import dataclass

from monai_anomalyclip.experiments.reproduce.experiment import Experiment

__all__ = ["PAPER_FIGURES", "PaperFigure", "paper_figure"]

_REPOSITORY = "result tables in the authors' repository (GitHub, zqhang/AnomalyCLIP)"
_ISSUE = "issue 33 of GitHub, zqhang/AnomalyCLIP"
_CITED = (
    "AnomalyCLIP, ICLR 2024, medical data sets after tuning on colonoscopy: as cited in research notes, not verified "
    "against the paper"
)


@dataclass(frozen=True)
class PaperFigure:
    """A figure of the paper.

    Args:
        method: one of :data:`~monai_anomalyclip.experiments.reproduce.METHODS`.
        tuned_on: name of the auxiliary data set; None when nothing is learned.
        tested_on: name of the data set.
        metric: one of :data:`~monai_anomalyclip.experiments.reproduce.METRICS`; published PRO is ``pixel_aupro_200``.
        value: in per cent.
        source: where it was read, or what cites it.
    """

    method: str
    tuned_on: str | None
    tested_on: str
    metric: str
    value: float
    source: str


_Pairs = dict[str, tuple[float, float]]


def _figures(
    method: str, tuned_on: str | None, metrics: tuple[str, str], values: _Pairs, source: str = _REPOSITORY
) -> list[PaperFigure]:
    return [
        PaperFigure(method, tuned_on, tested_on, metric, value, source)
        for tested_on, pair in values.items()
        for metric, value in zip(metrics, pair, strict=True)
    ]


_PIXEL = ("pixel_auroc", "pixel_aupro_200")
_IMAGE = ("image_auroc", "image_ap")

PAPER_FIGURES = (
    *_figures(
        "winclip",
        None,
        _PIXEL,
        {
            "isic": (83.3, 55.1),
            "cvc-colondb": (70.3, 32.5),
            "cvc-clinicdb": (51.2, 13.8),
            "kvasir": (69.7, 24.5),
            "endo": (68.2, 28.3),
            "tn3k": (70.7, 39.8),
        },
    ),
    *_figures(
        "vand",
        "mvtec",
        _PIXEL,
        {
            "isic": (89.4, 77.2),
            "cvc-colondb": (78.4, 64.6),
            "cvc-clinicdb": (80.5, 60.7),
            "kvasir": (75.0, 36.2),
            "endo": (81.9, 54.9),
            "tn3k": (73.6, 37.8),
        },
    ),
    *_figures(
        "anomalyclip",
        "mvtec",
        _PIXEL,
        {
            "isic": (89.7, 78.4),
            "cvc-colondb": (81.9, 71.3),
            "cvc-clinicdb": (82.9, 67.8),
            "kvasir": (78.9, 45.6),
            "endo": (84.1, 63.6),
            "tn3k": (81.5, 50.4),
        },
    ),
    *_figures(
        "anomalyclip",
        "mvtec",
        _IMAGE,
        {
            "headct": (93.4, 91.6),
            "brainmri": (90.3, 92.2),
            "br35h": (94.6, 94.7),
            "covid-19": (80.1, 58.7),
        },
    ),
    *_figures("anomalyclip", "mvtec", _PIXEL, {"visa": (95.5, 87.0)}, _ISSUE),
    PaperFigure("anomalyclip", "mvtec", "visa", "image_auroc", 82.1, _ISSUE),
    *_figures(
        "anomalyclip",
        "colondb-endo",
        _PIXEL,
        {"cvc-clinicdb": (92.4, 82.9), "kvasir": (92.5, 61.5), "endo": (93.2, 84.8)},
        _CITED,
    ),
)
"""All of them. Whoever reads more in the paper may add them here, with the source."""

_BY_PLACE = {(figure.method, figure.tuned_on, figure.tested_on, figure.metric): figure for figure in PAPER_FIGURES}


def paper_figure(experiment: Experiment, tested_on: str, metric: str) -> PaperFigure | None:
    """The paper's figure that an experiment's is to be compared with; None where none was read.

    Args:
        experiment: figures of the method as published hold for one without overlays only.
        tested_on: name of the data set.
        metric: name of the metric.
    """
    if experiment.overlays:
        return None
    return _BY_PLACE.get((experiment.method, experiment.tuned_on, tested_on, metric))
