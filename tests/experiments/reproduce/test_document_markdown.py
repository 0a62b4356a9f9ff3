# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from monai_anomalyclip.experiments.reproduce.document import markdown, write_table


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
