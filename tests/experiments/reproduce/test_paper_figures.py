# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

from monai_anomalyclip.experiments.reproduce import METHODS, METRICS, TABLES, Experiment
from monai_anomalyclip.experiments.reproduce.paper_figures import PAPER_FIGURES, paper_figure

PAGE = (Path(__file__).parents[3] / "docs" / "benchmarks.md").read_text()


def test_each_place_has_one_figure_with_a_source() -> None:
    places = [(figure.method, figure.tuned_on, figure.tested_on, figure.metric) for figure in PAPER_FIGURES]
    assert len(set(places)) == len(places)
    for figure in PAPER_FIGURES:
        assert figure.method in METHODS
        assert figure.metric in METRICS
        assert 0 < figure.value < 100
        assert figure.source


def test_published_pro_is_compared_with_200_thresholds_only() -> None:
    assert "pixel_aupro" not in {figure.metric for figure in PAPER_FIGURES}


def test_every_figure_has_its_row_in_tables_1_to_3() -> None:
    reached = {
        figure
        for name in ("1", "2", "3")
        for experiment in TABLES[name].experiments
        for tested_on in experiment.tested_on
        for metric in METRICS
        if (figure := paper_figure(experiment, tested_on, metric))
    }
    assert reached == set(PAPER_FIGURES)


def test_figures_are_of_the_method_without_overlays() -> None:
    given = {"title": "row", "tested_on": ("isic",), "tuned_on": "mvtec"}
    figure = paper_figure(Experiment(**given), "isic", "pixel_auroc")  # type: ignore[arg-type]
    assert figure is not None
    assert figure.value == 89.7
    changed = Experiment(**given, overlays=("experiments/shared_context",))  # type: ignore[arg-type]
    assert paper_figure(changed, "isic", "pixel_auroc") is None
    assert paper_figure(Experiment("row", ("isic",), "visa"), "isic", "pixel_auroc") is None


def test_documentation_shows_the_same_figures() -> None:
    section = PAGE.partition("## The paper's figures")[2]
    shown = [
        float(cell)
        for line in section.splitlines()
        for cell in line.split("|")
        if cell.strip().replace(".", "").isdigit()
    ]
    assert sorted(shown) == sorted(figure.value for figure in PAPER_FIGURES)
