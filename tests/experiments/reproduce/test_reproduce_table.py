# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from pathlib import Path

import pytest

from monai_anomalyclip.experiments.reproduce.reproduce_table import reproduce_table


def quiet(line: str) -> None:
    """Takes a line on the progress."""


def test_table_of_the_paper_from_three_data_sets(thin: Path, data: Path, tmp_path: Path) -> None:
    """Methods that learn nothing on two of ten sets, with the classes' words."""
    document, outcome = reproduce_table(
        "2", data, tmp_path, methods=["clip", "winclip"], further=[thin], max_epochs=1, say=quiet
    )
    assert set(outcome.scores) == {
        (f"untuned/{method}", name) for method in ("clip", "winclip") for name in ("cvc-clinicdb", "headct")
    }
    assert not outcome.failed
    assert json.loads((tmp_path / "table-2.json").read_text()) == document
    (group,) = document["groups"]
    (clinic,) = (row for row in group["rows"] if (row["method"], row["tested_on"]) == ("winclip", "cvc-clinicdb"))
    assert clinic["metrics"]["pixel_auroc"]["paper"] == 51.2
    assert "image_auroc" not in clinic["metrics"]
    text = (tmp_path / "table-2.md").read_text()
    assert "- not run: tn3k: there is no datalist tn3k.json" in text
    assert "The paper has 0 normal and 612 anomalous images of CVC-ClinicDB, here are 0 and 4" in text
    noted = json.loads((tmp_path / "runs/untuned/winclip/headct/result.json").read_text())
    assert noted["settings"]["class words"] == {"brain": "brain"}
    assert str(tmp_path) not in (tmp_path / "table-2.json").read_text()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"name": "27"}, "There is no table '27': choose one of 1, 2, 3"),
        ({"methods": ["padim"]}, "There is no method 'padim'"),
        ({"seeds": 0}, "at least one seed and one epoch, got 0"),
        ({"max_epochs": 0}, "at least one seed and one epoch, got 1 and 0"),
        ({"data": None}, "Give the folder of the data sets"),
    ],
)
def test_wrong_use_is_told(arguments: dict[str, object], sentence: str, data: Path, tmp_path: Path) -> None:
    given = {"name": "2", "data": data, "output": tmp_path, **arguments}
    with pytest.raises(ValueError, match=sentence):
        reproduce_table(**given)  # type: ignore[arg-type]
