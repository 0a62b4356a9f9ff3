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
ABLATION = Experiment("qq", ("isic", "endo"), "mvtec", overlays=("experiments/attention_qq",))


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
    assert "authors' repository" in isic["paper_source"]
    assert rows["AnomalyCLIP", "endo"]["pixel_auroc"]["difference"] == pytest.approx(83.0 - 84.1)
    assert "paper" not in rows["qq", "isic"]["pixel_auroc"]


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
