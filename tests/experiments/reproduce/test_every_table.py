# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Every table and figure, end to end, on miniature data sets of all 17 names with a thin CLIP."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from monai_anomalyclip.data.datasets import data_sets
from monai_anomalyclip.experiments.reproduce import METHODS, TABLES
from monai_anomalyclip.experiments.reproduce.experiment import TIMES
from monai_anomalyclip.experiments.reproduce.paper_figures import PAPER_NAMES
from monai_anomalyclip.experiments.reproduce.reproduce_table import reproduce_table

Make = Callable[[Sequence[str]], Path]

SIDE = 42
WITHOUT_MASKS = ("headct", "brainmri", "br35h", "covid-19")
PAPER = [table for table in TABLES.values() if table.name not in ("check", "own", "demo")]


def picture(file: Path, seed: int, *, lesion: bool) -> None:
    """A noisy picture and, beside it, the mask of its bright square."""
    rng = np.random.default_rng(seed)
    pixels, mask = rng.integers(0, 120, (SIDE, SIDE), dtype=np.uint8), np.zeros((SIDE, SIDE), np.uint8)
    if lesion:
        top, left = rng.integers(0, SIDE - 14, 2)
        pixels[top : top + 14, left : left + 14] = mask[top : top + 14, left : left + 14] = 255
    Image.fromarray(pixels).save(file)
    Image.fromarray(mask).save(file.with_name(f"{file.stem}_mask.png"))


@pytest.fixture(scope="module")
def miniatures(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """``miniatures(names)``: datalists of these data sets, one or two of their classes, four images of each."""
    root = tmp_path_factory.mktemp("miniatures")
    for number in range(4):
        picture(root / f"{number}.png", number, lesion=bool(number % 2))

    def make(names: Sequence[str]) -> Path:
        for name in names:
            info = data_sets()[name].info
            only_anomalies = info.paper_counts is not None and info.paper_counts[0] == 0
            entries = []
            for class_name in info.classes[:2]:
                for number in (1, 3) if only_anomalies else range(4):
                    mask = {} if name in WITHOUT_MASKS else {"label": f"{number}_mask.png"}
                    entries.append({"image": f"{number}.png", "image_label": number % 2, "class": class_name, **mask})
            content = {"training" if name == "colondb-endo" else "testing": entries}
            (root / f"{name}.json").write_text(json.dumps(content))
        return root

    return make


def check(name: str, data: Path, thin: Path, output: Path, **settings: object) -> None:
    document, outcome = reproduce_table(
        name, data, output, further=[thin], max_epochs=1, device="cpu", say=lambda line: None, **settings
    )  # type: ignore[arg-type]
    table = TABLES[name]
    assert outcome.failed == {}
    full_shot = {row.key for row in table.experiments if METHODS[row.method].full_shot}
    given = {row.key for row in table.experiments if row.given_prompts}
    assert {key for key, _ in outcome.not_run} == full_shot | given  # neither ImageNet's weights nor prompts are here
    assert document["comparable"] == (name == "6")  # where no CLIP is built
    rows = [row for group in document["groups"] for row in group["rows"]]
    for experiment in table.experiments:
        if experiment.key not in full_shot | given:
            found = {row["tested_on"] for row in rows if row["experiment"] == experiment.title}
            assert table.per_class or set(experiment.tested_on) <= found
    compared = [value for row in rows for value in row["metrics"].values() if "difference" in value]
    assert bool(compared) == (not name.startswith("figure"))
    for value in compared:
        assert value["difference"] == pytest.approx(value["mean"] - value["paper"], abs=1e-3)
    text = (output / (f"table-{name}.md" if name.isdigit() else f"{name}.md")).read_text()
    assert ("the difference means nothing" in text) == (bool(compared) and name != "6")


# A part of them for every day: told classes, partial losses, drawn prompts, counts, single classes.
DAILY = ("5", "6", "11", "15")


@pytest.mark.parametrize("name", DAILY)
def test_a_part_of_the_tables(
    name: str, miniatures: Make, thin: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    names = PAPER_NAMES if name == "6" else ("mvtec", "visa")
    check(name, miniatures([*names]), thin, tmp_path_factory.getbasetemp() / "daily")


@pytest.mark.nightly
@pytest.mark.parametrize("table", PAPER, ids=lambda table: table.name)
def test_every_table(table: object, miniatures: Make, thin: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    data = miniatures([*PAPER_NAMES, "colondb-endo"])
    check(table.name, data, thin, tmp_path_factory.getbasetemp() / "nightly")  # type: ignore[attr-defined]


def test_times_stand_beside_the_papers(miniatures: Make, thin: Path, tmp_path: Path) -> None:
    data = miniatures(["mvtec", "visa"])
    document, outcome = reproduce_table(
        "8", data, tmp_path, methods=["clip"], further=[thin], device="cpu", say=lambda line: None
    )
    (row,) = document["groups"][0]["rows"]
    assert row["metrics"]["images_per_second"]["paper"] == 13.23
    assert row["metrics"]["images_per_second"]["mean"] > 0
    assert "minutes_per_epoch" not in row["metrics"]
    assert set(TIMES) & set(row["metrics"])
    assert outcome.backbone == "custom"
