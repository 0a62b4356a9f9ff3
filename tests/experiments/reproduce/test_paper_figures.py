# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The transcribed figures: against the text of the paper where it is at hand, and against each other."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from pathlib import Path

import pytest

from monai_anomalyclip.data.datasets import data_sets
from monai_anomalyclip.experiments.reproduce import METHODS, METRICS, TABLES, Experiment
from monai_anomalyclip.experiments.reproduce.experiment import COUNTS, TIMES
from monai_anomalyclip.experiments.reproduce.paper_figures import (
    PAPER_NAMES,
    paper_classes,
    paper_figure,
    paper_figures,
)

TEXT = Path(__file__).parents[4] / "shared" / "paper" / "anomalyclip_iclr2024.txt"
NUMBERS = {
    **{"1": 171, "2": 130, "3": 36, "4": 40, "5": 32, "6": 51, "7": 40, "8": 34, "9": 16, "10": 32, "11": 32},
    **{"12": 78, "13": 140, "14": 100},
    **dict.fromkeys(("15", "16", "17", "18"), 16 * 6),
    **dict.fromkeys(("19", "20", "21", "22"), 13 * 6),
    **dict.fromkeys(("23", "24", "25", "26"), 7 * 6),
}

# The first words of each table's head in the text, in the order of the print, with the number of its lines of figures.
# Table 6 is part of the appendix on baselines, and 8, 12 and 13 stand before their captions.
HEADS = [
    ("1", "Task\tCategory\tDatasets\t$ \\mathcal{C} $\tCLIP", 14),
    ("2", "Task\tCategory\tDatasets\t$ \\mathcal{C} $\tCLIP", 10),
    ("3", "\tCategory\tDatasets\tVAND\tAnomalyCLIP", 9),
    ("4", "Table 4: Module ablation", 5),
    ("5", "Local.\tGlobal.", 4),
    ("6", "Dataset\tCategory\tModalities", 17),
    ("7", "m1 m2 m2", 5),
    ("8", "Methods\tTraining time", 6),
    ("9", "Table 9: Study", 2),
    ("10", "Module\tMVT", 4),
    ("11", "Table 11: Ablation", 4),
    ("12", "Task\tCategory\tDatasets\t$ \\mathcal{C} $\tAnomalyCLIP", 12),
    ("13", "Task\tCategory\tDatasets\tdamaged", 14),
    ("14", "Table 14: Ablation", 10),
    *((str(15 + index), "Object name\tCLIP", rows) for index, rows in enumerate([16] * 4 + [13] * 4 + [7] * 4)),
]


def printed() -> dict[str, list[float]]:
    """All figures of each table in the order of the text, read line by line, knowing nothing of what they mean."""
    lines = iter(TEXT.read_text(encoding="utf-8").splitlines())
    found: dict[str, list[float]] = {}
    for table, head, rows in HEADS:
        next(line for line in lines if line.startswith(head))
        found[table] = []
        while rows:
            cells = next(lines).split("\t")[1:]
            pairs = [cell for cell in cells if re.search(r"\([\d-]", cell)]
            if int(table) >= 15:
                figures = cells
            elif not pairs:
                continue
            elif table in ("4", "5", "7", "9", "10", "11"):  # what is on is marked by 1 there
                figures = pairs
            else:
                figures = [cell for cell in cells if cell in pairs or re.fullmatch(r" *[1-9][\d.]*(?: min)? *", cell)]
            numbers = [number for cell in figures for number in re.findall(r"\d+(?:\.\d+)?", cell)]
            if table == "5" and len(numbers) == 10:  # the text repeats the pair of the row above
                numbers = numbers[2:]
            found[table] += map(float, numbers)
            rows -= 1
    return found


@pytest.mark.skipif(not TEXT.is_file(), reason="the text of the paper (../shared/paper) is not on this machine")
def test_every_figure_is_the_papers() -> None:
    found = printed()
    for table in NUMBERS:
        ours = [figure for figure in paper_figures() if figure.table == table]
        values = [figure.value for figure in ours]
        if table in ("1", "12"):  # the number of classes is printed with both levels, and transcribed once
            once = iter(found[table])
            classes = {figure.row: figure.value for figure in ours if figure.metric == "classes"}
            rows = list(classes)
            repeated = []
            for level in range(2):
                for row in rows:
                    figures = [f.value for f in ours if f.row == row and f.metric.startswith(("image", "pixel")[level])]
                    assert next(once) == classes[row]
                    repeated += figures
                    assert [next(once) for _ in figures] == figures, (table, row)
            assert next(once, None) is None
            assert len(repeated) + len(classes) == len(values)
        else:
            assert found[table] == values, table


def test_number_of_figures() -> None:
    counted: dict[str, int] = defaultdict(int)
    for figure in paper_figures():
        counted[figure.table] += 1
    assert counted == NUMBERS
    assert sum(counted.values()) == 1796


def test_each_place_has_one_figure() -> None:
    places = [
        (one.table, frozenset((one.row.casefold(), one.column.casefold())), one.metric) for one in paper_figures()
    ]
    assert len(set(places)) == len(places)
    for figure in paper_figures():
        assert figure.metric in {**METRICS, **COUNTS, **TIMES}
        assert figure.metric not in ("pixel_aupro", "pixel_ap")  # published PRO is that of 200 thresholds
        if figure.metric in METRICS:
            assert 0 <= figure.value <= 100


def test_figures_known_by_heart() -> None:
    """Read in the print by eye: corners of tables, and where the text extraction is damaged."""
    known = {
        ("1", "MVTec AD", "CLIP", "image_auroc"): 74.1,
        ("1", "DTD-Synthetic", "AnomalyCLIP", "pixel_aupro_200"): 92.3,
        ("1", "SDD", "VAND", "pixel_aupro_200"): 65.1,
        ("2", "TN3K", "WinCLIP", "pixel_aupro_200"): 39.8,
        ("2", "COVID-19", "CoOp", "image_ap"): 9.2,
        ("3", "ISIC", "VAND", "pixel_auroc"): 58.8,
        ("4", "+T2", "VisA", "pixel_aupro_200"): 85.3,
        ("5", "neither", "VisA", "image_ap"): 69.1,
        ("5", "local", "MVTec AD", "pixel_auroc"): 91.0,
        ("5", "local and global", "MVTec AD", "pixel_auroc"): 91.1,
        ("6", "DAGM", "test part", "normal"): 6996,
        ("7", "without T2", "VisA", "image_ap"): 72.9,
        ("8", "AnomalyCLIP without DPAM", "inference", "images_per_second"): 10.21,
        ("9", "Shared", "VisA", "image_ap"): 84.4,
        ("10", "Q-K, Q-Q, K-K, V-V", "VisA", "image_auroc"): 80.7,
        ("11", "focal", "MVTec AD", "pixel_aupro_200"): 78.1,
        ("12", "SDD", "PatchCore", "pixel_aupro_200"): 46.3,
        ("13", "MPDD", "blemished", "image_ap"): 84.1,
        ("14", "TN3K", "blemished", "pixel_aupro_200"): 51.1,
        ("15", "Grid", "AnomalyCLIP", "pixel_auroc"): 97.3,
        ("18", "Wood", "CoOp", "image_ap"): 99.4,
        ("20", "Macaroni1", "VAND", "pixel_aupro_200"): 93.2,
        ("26", "Mean", "AnomalyCLIP", "image_ap"): 82.0,
    }
    values = {(one.table, one.row, one.column, one.metric): one.value for one in paper_figures()}
    assert {place: values[place] for place in known} == known


def test_means_over_classes_are_those_of_table_1() -> None:
    values = {(one.table, one.row, one.column, one.metric): one.value for one in paper_figures()}
    off = {("22", "WinCLIP")}  # the paper contradicts itself here: its classes give 81.0, not 81.2
    for table in map(str, range(15, 27)):
        columns: dict[tuple[str, str], list[float]] = defaultdict(list)
        for (number, row, column, metric), value in values.items():
            if number == table and row != "Mean":
                columns[column, metric].append(value)
        data_set = {15: "MVTec AD", 19: "VisA", 23: "MPDD"}[15 + 4 * ((int(table) - 15) // 4)]
        for (column, metric), of_classes in columns.items():
            mean = values[table, "Mean", column, metric]
            assert mean == values["1", data_set, column, metric]
            near = abs(mean - math.fsum(of_classes) / len(of_classes)) <= 0.1  # both are rounded
            assert near == ((table, column) not in off), (table, column)


def test_names_are_those_of_the_data_sets_and_their_classes() -> None:
    assert set(PAPER_NAMES) == set(data_sets()) - {"colondb-endo", "folder"}
    for table, name in (("15", "mvtec"), ("19", "visa"), ("23", "mpdd")):
        assert set(paper_classes(table)) == {one.casefold() for one in data_sets()[name].info.classes}
    for name, title in PAPER_NAMES.items():
        info = data_sets()[name].info
        assert info.title in (title, *("ISIC 2016",) * (name == "isic"))
        row = Experiment("images", (name,), paper="test part")
        counts = [paper_figure("6", row, name, kind) for kind in ("normal", "anomalous", "classes")]
        assert [one.value for one in counts if one] == [*(info.paper_counts or ()), len(info.classes)], name


def test_a_figure_by_its_place() -> None:
    row = Experiment("AnomalyCLIP", ("isic",), "mvtec")
    figure = paper_figure("2", row, "isic", "pixel_auroc")
    assert figure is not None
    assert (figure.value, figure.source) == (89.7, "AnomalyCLIP (ICLR 2024), table 2")
    assert paper_figure("1", row, "isic", "pixel_auroc") is None
    assert paper_figure("2", row, "isic", "pixel_aupro") is None
    assert paper_figure("2", Experiment("other", ("isic",), "mvtec", paper="other"), "isic", "pixel_auroc") is None
    assert paper_figure("demo", row, "isic", "pixel_auroc") is None


def test_every_figure_has_its_row() -> None:
    """What the tables run covers what the paper prints; but for the numbers of classes, which table 6 has, too."""
    reached = set()
    for table in TABLES.values():
        for experiment in table.experiments:
            places = paper_classes(table.name) if table.per_class else ()
            for tested_on in (*experiment.tested_on, *places, "mean"):
                for metric in (*METRICS, *COUNTS, *TIMES):
                    reached.add(paper_figure(table.name, experiment, tested_on, metric))
    missing = [one for one in paper_figures() if one not in reached and one.metric not in COUNTS]
    assert missing == []
    assert {one.table for one in paper_figures()} <= set(TABLES)
    assert {METHODS[name].title for name in METHODS} >= {one.column for one in paper_figures() if one.table == "1"} - {
        "classes"
    }


def test_documentation_shows_the_same_figures() -> None:
    page = (Path(__file__).parents[3] / "docs" / "benchmarks.md").read_text()
    sections = re.findall(
        r"^### Table (\d): [^\n]*, (image|pixel) AUROC / (?:AP|PRO)\n\n(.*?)\n\n", page, re.MULTILINE | re.DOTALL
    )
    shown = set()
    for table, level, body in sections:
        head, _, *lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in body.splitlines()]
        metrics = ("image_auroc", "image_ap") if level == "image" else ("pixel_auroc", "pixel_aupro_200")
        for row, *cells in lines:
            for column, cell in zip(head[1:], cells, strict=True):
                for metric, value in zip(metrics, cell.split(" / "), strict=False):
                    if value:
                        shown.add((table, row, column, metric, float(value)))
    expected = {
        (one.table, one.row, one.column, one.metric, one.value)
        for one in paper_figures()
        if one.table in ("1", "2", "3") and one.metric in METRICS
    }
    assert shown == expected
