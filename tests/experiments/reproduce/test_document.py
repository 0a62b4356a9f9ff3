# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from monai_anomalyclip.experiments.reproduce import Experiment, Group, Table
from monai_anomalyclip.experiments.reproduce.data_folders import ImageSet
from monai_anomalyclip.experiments.reproduce.document import MEAN, table_document
from monai_anomalyclip.experiments.reproduce.runner import Outcome

ROW = Experiment("AnomalyCLIP", ("isic", "endo"), "mvtec")
ABLATION = Experiment("qq", ("isic", "endo"), "mvtec", overlays=("experiments/attention_qq",), paper="")


def table(*rows: Experiment) -> Table:
    return Table("2", "Table 2", "The method.", (Group("rows", rows),), metrics=("image_auroc", "pixel_auroc"))


@pytest.fixture
def outcome() -> Outcome:
    """Two seeds on ISIC, where there are no image metrics, and one on Endo; the ablation only on ISIC."""
    found = Outcome()
    found.scores[ROW.key, "isic"] = {
        111: {"image_auroc": math.nan, "pixel_auroc": 0.9},
        112: {"image_auroc": math.nan, "pixel_auroc": 0.88},
    }
    found.scores[ROW.key, "endo"] = {111: {"pixel_auroc": 0.8}, 112: {"pixel_auroc": 0.86}}
    found.scores[ABLATION.key, "isic"] = {111: {"pixel_auroc": 0.5}}
    found.images["isic", "testing"] = ImageSet(Path("isic.json"), 4, 4, ("skin",), ("The paper has 379.",))
    return found


def rows_of(document: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    (group,) = document["groups"]
    return {(row["experiment"], row["tested_on"]): row["metrics"] for row in group["rows"]}


def test_ours_the_papers_and_the_difference(outcome: Outcome) -> None:
    rows = rows_of(table_document(table(ROW, ABLATION), outcome, {}))
    isic = rows["AnomalyCLIP", "isic"]["pixel_auroc"]
    # Table 2 of the paper: ISIC 89.7, Endo 84.1.
    assert isic["seeds"] == {"111": 90.0, "112": 88.0}
    assert (isic["mean"], isic["low"], isic["high"], isic["paper"]) == (89.0, 88.0, 90.0, 89.7)
    assert isic["difference"] == pytest.approx(-0.7)
    assert isic["paper_source"] == "AnomalyCLIP (ICLR 2024), table 2"
    assert rows["AnomalyCLIP", "endo"]["pixel_auroc"]["difference"] == pytest.approx(83.0 - 84.1)
    assert "paper" not in rows["qq", "isic"]["pixel_auroc"]


def test_what_was_not_run_has_the_papers_figure_alone(outcome: Outcome) -> None:
    row = Experiment("AnomalyCLIP", ("isic", "tn3k"), "mvtec")
    rows = rows_of(table_document(table(row), outcome, {}))
    # Table 2 of the paper: TN3K (81.5, 50.4).
    assert rows["AnomalyCLIP", "tn3k"] == {
        "pixel_auroc": {"paper": 81.5, "paper_source": "AnomalyCLIP (ICLR 2024), table 2"}
    }
    assert "mean" in rows["AnomalyCLIP", "isic"]["pixel_auroc"]


def test_classes_and_their_mean() -> None:
    found = Outcome()
    row = Experiment("CLIP", ("mpdd",), method="clip")
    found.scores[row.key, "mpdd"] = {
        111: {"image_auroc": 0.5, "image_auroc/connector": 0.7, "image_auroc/tubes": 0.3, "pixel_auroc": 0.1}
    }
    given = Table("25", "Table 25", "The method.", (Group("g", (row,)),), metrics=("image_auroc",), per_class=True)
    rows = rows_of(table_document(given, found, {}))
    # Table 25 of the paper: connector 75, tubes 87.3, metal plate 34.9, mean 54.3.
    assert rows["CLIP", "connector"]["image_auroc"]["difference"] == pytest.approx(70 - 75)
    assert rows["CLIP", "tubes"]["image_auroc"]["difference"] == pytest.approx(30 - 87.3)
    assert rows["CLIP", "metal_plate"]["image_auroc"].keys() == {"paper", "paper_source"}
    assert rows["CLIP", MEAN]["image_auroc"]["difference"] == pytest.approx(50 - 54.3)
    assert len(rows) == 7


def test_counts_are_no_per_cent() -> None:
    found = Outcome()
    row = Experiment("images", ("sdd", "mpdd"), paper="test part")
    found.scores[row.key, "sdd"] = {111: {"classes": 1.0, "normal": 180.0, "anomalous": 74.0}}
    given = Table("6", "Table 6", "", (Group("g", (row,)),), metrics=("classes", "normal", "anomalous"))
    rows = rows_of(table_document(given, found, {}))
    assert {name: value["difference"] for name, value in rows["images", "sdd"].items()} == {
        "classes": 0.0,
        "normal": -1.0,
        "anomalous": 0.0,
    }
    assert ("images", MEAN) not in rows


@pytest.mark.parametrize(
    ("backbone", "comparable"), [(None, True), ("ViT-L-14-336-quickgelu", True), ("custom", False), ("ViT-B-16", False)]
)
def test_only_the_papers_clip_is_comparable(outcome: Outcome, backbone: str | None, comparable: bool) -> None:
    outcome.backbone = backbone
    assert table_document(table(ROW), outcome, {})["comparable"] == comparable


def test_mean_over_data_sets_only_when_all_were_run(outcome: Outcome) -> None:
    rows = rows_of(table_document(table(ROW, ABLATION), outcome, {}))
    mean = rows["AnomalyCLIP", MEAN]["pixel_auroc"]
    assert mean["seeds"] == {"111": 85.0, "112": 87.0}
    assert "paper" not in mean
    assert ("qq", MEAN) not in rows
    assert ("qq", "endo") not in rows


def test_undefined_and_absent_metrics_are_absent(outcome: Outcome) -> None:
    document = table_document(table(ROW), outcome, {})
    assert all("image_auroc" not in metrics for metrics in rows_of(document).values())
    assert json.loads(json.dumps(document, allow_nan=False)) == document


def test_problems_once_per_reason_without_paths(outcome: Outcome) -> None:
    outcome.not_run = {(ROW.key, "tn3k"): "tn3k: absent", (ABLATION.key, "tn3k"): "tn3k: absent"}
    outcome.failed = {(ABLATION.key, "endo"): "cannot read '/home/someone/endo/a.png'"}
    rows = (Experiment("AnomalyCLIP", ("isic", "tn3k"), "mvtec"), Experiment("qq", ("endo", "tn3k"), "mvtec",
            overlays=("experiments/attention_qq",)))  # fmt: skip
    document = table_document(table(*rows), outcome, {})
    assert document["not_run"] == [{"reason": "tn3k: absent", "rows": ["AnomalyCLIP on tn3k", "qq on tn3k"]}]
    assert document["failed"] == [{"reason": "cannot read '[path]'", "rows": ["qq on endo"]}]


def test_says_what_it_was_made_with(outcome: Outcome) -> None:
    document = table_document(table(ROW), outcome, {"bundle": "anomalyclip", "seeds": [111, 112]})
    assert document["settings"] == {"bundle": "anomalyclip", "seeds": [111, 112]}
    assert document["data_sets"] == {
        "isic": [{"purpose": "testing", "images": 4, "anomalous": 4, "notes": ["The paper has 379."]}]
    }
    assert "Research use only" in document["notice"]
