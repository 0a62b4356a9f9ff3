# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from monai_anomalyclip.experiments.reproduce import Experiment, Group, Table
from monai_anomalyclip.experiments.reproduce.data_folders import ImageSet
from monai_anomalyclip.experiments.reproduce.document import MEAN, markdown, table_document, write_table
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


@pytest.mark.parametrize(
    ("bounds", "verdict"),
    [
        ({}, "no interval"),
        ({"low": 0.88, "high": 0.92}, "within the spread"),
        ({"low": 0.88, "high": 0.895}, "differs"),
    ],
)
def test_verdict_on_the_papers_figure(outcome: Outcome, bounds: dict[str, float], verdict: str) -> None:
    """Ours is 89.0, the paper's 89.7."""
    for metrics in outcome.scores[ROW.key, "isic"].values():
        metrics |= {f"pixel_auroc_{end}": value for end, value in bounds.items()}
    found = rows_of(table_document(replace(table(ROW), verdicts=True), outcome, {}))["AnomalyCLIP", "isic"]
    assert found["pixel_auroc"]["verdict"] == verdict
    assert found["pixel_auroc"].get("interval") == ([100 * value for value in bounds.values()] or None)


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


def value(mean: float, seeds: int = 1, **paper: Any) -> dict[str, Any]:
    by_seed = {str(111 + index): mean for index in range(seeds)}
    return {"mean": mean, "low": mean - 1, "high": mean + 1, "seeds": by_seed, **paper}


def row(
    tested_on: str, experiment: str = "AnomalyCLIP", tuned_on: str | None = "mvtec", **metrics: Any
) -> dict[str, Any]:
    return {"experiment": experiment, "tuned_on": tuned_on, "tested_on": tested_on, "metrics": metrics}


@pytest.fixture
def document() -> dict[str, Any]:
    published = {"paper": 89.7, "difference": -0.7, "paper_source": "the paper"}
    return {
        "table": "2",
        "title": "Table 2: medical",
        "varies": "The method.",
        "remark": "",
        "notice": "Research use only.",
        "comparable": True,
        "settings": {"bundle": "anomalyclip", "seeds": [111, 112], "further configurations": []},
        "metrics": ["image_auroc", "pixel_auroc"],
        "groups": [
            {
                "title": "methods",
                "means_only": False,
                "rows": [row("isic", pixel_auroc=value(89.0, 2, **published)), row("mean", pixel_auroc=value(85.0, 2))],
            },
            {
                "title": "attention",
                "means_only": True,
                "rows": [row("isic", "q|q", pixel_auroc=value(1.0)), row("mean", "q|q", pixel_auroc=value(2.0))],
            },
            {"title": "nothing", "means_only": False, "rows": []},
        ],
        "data_sets": {"isic": [{"notes": ["fewer images."]}, {"notes": ["fewer images."]}]},
        "not_run": [{"reason": "tn3k: absent", "rows": [f"row {number}" for number in range(6)]}],
        "failed": [{"reason": "out of memory", "rows": ["VAND on isic"]}],
    }


def test_markdown(document: dict[str, Any]) -> None:
    assert markdown(document) == (
        "# Table 2: medical\n\nThe method.\n\n"
        "In per cent; with several seeds mean (lowest to highest). Made with bundle anomalyclip, seeds 111, 112.\n\n"
        "## Methods\n\n"
        "| experiment | tested on | pixel AUROC | the paper's | difference |\n|---|---|---|---|---|\n"
        "| AnomalyCLIP | isic | 89.0 (88.0 to 90.0) | 89.7 | -0.7 |\n"
        "| AnomalyCLIP | mean | 85.0 (84.0 to 86.0) |  |  |\n\n"
        "## Attention\n\n"
        "| experiment | pixel AUROC |\n|---|---|\n| q\\|q | 2.0 |\n\n"
        "## Nothing\n\nNothing was run.\n\n"
        "The paper's figures: the paper.\n\n"
        "## Not run\n\n- not run: tn3k: absent (row 0; row 1; row 2; row 3; and 2 more)\n\n"
        "## Failed\n\n- failed: out of memory (VAND on isic)\n\n"
        "## Data\n\n- isic: fewer images.\n\n"
        "Research use only.\n"
    )


def test_another_clip_says_in_the_same_line_that_the_difference_means_nothing(document: dict[str, Any]) -> None:
    text = markdown({**document, "comparable": False})
    assert "| experiment | tested on | pixel AUROC | the paper's | difference | mind |" in text
    assert "| isic | 89.0 (88.0 to 90.0) | 89.7 | -0.7 | another CLIP: the difference means nothing |" in text
    assert "| AnomalyCLIP | mean | 85.0 (84.0 to 86.0) |  |  |  |" in text
    assert "another CLIP than the paper's: no difference to the paper's figures means anything." in text


def test_what_was_not_run_shows_the_papers_figure(document: dict[str, Any]) -> None:
    rows = [row("isic", pixel_auroc=value(89.0)), row("tn3k", pixel_auroc={"paper": 81.5, "paper_source": "the paper"})]
    text = markdown({**document, "groups": [{"title": "g", "means_only": False, "rows": rows}]})
    assert "| AnomalyCLIP | tn3k | not run | 81.5 |" in text


def test_counts_and_times_have_their_own_digits(document: dict[str, Any]) -> None:
    counted = row("sdd", normal=value(180.0, paper=181.0, difference=-1.0, paper_source="p"))
    timed = row("visa", images_per_second=value(0.126, paper=8.92, difference=-8.794, paper_source="p"))
    group = {"title": "g", "means_only": False, "rows": [counted, timed]}
    text = markdown({**document, "metrics": ["normal", "images_per_second"], "groups": [group]})
    assert "| AnomalyCLIP | sdd | 180 | 181 | -1 |  |  |  |" in text
    assert "| AnomalyCLIP | visa |  |  |  | 0.13 | 8.92 | -8.79 |" in text


def test_tuning_set_is_shown_where_it_varies(document: dict[str, Any]) -> None:
    rows = [row("visa", tuned_on=name, pixel_auroc=value(50.0)) for name in ("mvtec", "colondb-endo", None)]
    text = markdown({**document, "remark": "not known", "groups": [{"title": "g", "means_only": False, "rows": rows}]})
    assert "| experiment | tuned on | tested on | pixel AUROC |" in text
    assert "| AnomalyCLIP | nothing | visa | 50.0 |" in text
    assert "Mind: not known." in text


def test_files_are_replaced_when_complete(document: dict[str, Any], tmp_path: Path) -> None:
    files = write_table(document, tmp_path / "out")
    assert [file.name for file in files] == ["table-2.json", "table-2.md"]
    assert json.loads(files[0].read_text()) == document
    assert files[1].read_text() == markdown(document)
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_table({**document, "settings": {"epochs": float("nan")}}, tmp_path / "out")
    assert json.loads(files[0].read_text()) == document
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["table-2.json", "table-2.md"]
    assert write_table({**document, "table": "figure-6"}, tmp_path)[1].name == "figure-6.md"
