# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from PIL import Image

from monai_anomalyclip.handlers import WorstCases

# Per image: score, map inside the lesion, map outside. Every second one is anomalous.
VALUES = [
    (0.1, 0.0, 0.1), (0.9, 0.9, 0.1), (0.8, 0.0, 0.2), (0.2, 0.4, 0.1), (0.3, 0.0, 0.1), (0.7, 0.2, 0.1),
    (0.95, 0.0, 0.9), (0.6, 0.7, 0.6), (0.5, 0.0, 0.1), (0.4, 0.8, 0.1),
]  # fmt: skip


@pytest.fixture
def items(tmp_path: Path) -> list[dict[str, Any]]:
    folder = tmp_path / "DOE^JANE"
    folder.mkdir()
    made = []
    for index, (score, inside, outside) in enumerate(VALUES):
        truth = np.zeros((40, 60), np.uint8)
        truth[10:20, 30:45] = 255 * (index % 2)
        item: dict[str, Any] = {"index": index, "class": "brain / MR", "image": str(folder / f"picture{index}.png")}
        Image.fromarray(np.full((40, 60, 3), 60 + index, np.uint8)).save(item["image"])
        if index % 2:
            item["label"] = str(folder / f"mask{index}.png")
            Image.fromarray(truth).save(item["label"])
        small = torch.as_tensor(truth[::2, ::3] > 0)[None]  # (20, 20), as the network sees it
        item["mask"] = small.float()
        item["map"] = torch.where(small, inside, outside)
        item |= {"score": score, "image_label": index % 2, "known": 1}
        made.append(item)
    return made


def attached(output: Path, items: list[dict[str, Any]], **options: Any) -> Engine:
    def columns(*keys: str) -> Any:
        return lambda batch: tuple([item[key] for item in batch] for key in keys)

    engine = Engine(lambda _, batch: batch)
    WorstCases(
        output,
        items,
        columns("index", "class"),
        columns("score", "image_label"),
        columns("map", "mask", "known"),
        **options,
    ).attach(engine)
    return engine


def run(
    output: Path, items: list[dict[str, Any]], shown: Sequence[dict[str, Any]] | None = None, **options: Any
) -> None:
    seen = items if shown is None else shown
    attached(output, items, **options).run([seen[i : i + 3] for i in range(0, len(seen), 3)])


def table(output: Path) -> list[dict[str, str]]:
    with (output / "worst_cases" / "worst_cases.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def pictures(output: Path) -> list[str]:
    return sorted(path.name for path in (output / "worst_cases").glob("*.jpg"))


def test_kinds_take_turns_and_no_image_comes_twice(items: list[dict[str, Any]], tmp_path: Path) -> None:
    run(tmp_path, items, count=7)
    rows = table(tmp_path)
    # By hand: anomalous by score 3, 9, 7, 5, 1; normal by score 6, 2, 8, 4, 0; Dice is 0 for 5 (0.2) and 3 (0.4).
    assert [(row["why"], int(row["index"])) for row in rows] == [
        ("anomalous low score", 3),
        ("normal high score", 6),
        ("anomalous low overlap", 5),
        ("anomalous low score", 9),
        ("normal high score", 2),
        ("anomalous low overlap", 7),
        ("anomalous low score", 1),
    ]
    assert [float(row["anomaly_score"]) for row in rows] == [VALUES[int(row["index"])][0] for row in rows]
    lesion = 5 * 5  # of 20 x 20 pixels
    assert [row["dice"] for row in rows[:3]] == ["0.0", "", "0.0"]
    assert float(rows[5]["dice"]) == pytest.approx(2 * lesion / (lesion + 400))
    assert float(rows[6]["dice"]) == 1
    assert pictures(tmp_path) == [row["picture"] for row in rows]
    assert rows[0]["picture"] == "01_anomalous_low_score_00003_brain_MR.jpg"
    assert "DOE" not in (tmp_path / "worst_cases" / "worst_cases.csv").read_text()


def test_pictures_show_map_and_truth(items: list[dict[str, Any]], tmp_path: Path) -> None:
    run(tmp_path, items, count=3)
    wide, narrow = (
        np.asarray(Image.open(tmp_path / "worst_cases" / pictures(tmp_path)[number]), np.int16) for number in (2, 1)
    )
    assert narrow.shape[1] < wide.shape[1]  # a normal image has no third panel
    panels = [wide[:256, start : start + 384] for start in (0, 388, 776)]
    assert np.abs(panels[0] - (60 + 5)).max() <= 6
    inside = slice(5 * 256 // 20 + 8, 10 * 256 // 20 - 8), slice(10 * 384 // 20 + 8, 15 * 384 // 20 - 8)
    outlined = (np.abs(panels[2] - np.array([0, 255, 255])).max(axis=-1) < 60).nonzero()
    rows, columns = (64, 127), (192, 287)  # the lesion's rows 10 to 19 of 40 and columns 30 to 44 of 60
    assert (outlined[0].min(), outlined[0].max()) == pytest.approx(rows, abs=2)
    assert (outlined[1].min(), outlined[1].max()) == pytest.approx(columns, abs=2)
    assert np.abs(panels[2][inside] - 65).max() <= 8  # only the outline is drawn
    shade = panels[1][inside].reshape(-1, 3).mean(axis=0) - 65  # the map's 0.2 is violet
    assert shade[2] > 4
    assert shade[1] < -8


def test_batches_of_images_without_masks_or_finite_maps(items: list[dict[str, Any]], tmp_path: Path) -> None:
    items[3]["known"] = 0
    items[5]["map"] = items[5]["map"].clone().fill_(float("nan"))
    items[9]["score"] = float("nan")
    run(tmp_path, items)
    rows = {int(row["index"]): row for row in table(tmp_path)}
    assert set(rows) == set(range(10)) - {5, 9}
    assert (rows[3]["why"], rows[3]["dice"]) == ("anomalous low score", "")
    assert rows[7]["why"] == "anomalous low overlap"


def test_pictures_of_an_earlier_run_go_and_other_files_stay(items: list[dict[str, Any]], tmp_path: Path) -> None:
    run(tmp_path, items, count=5)
    (tmp_path / "worst_cases" / "notes.jpg").write_text("mine")
    run(tmp_path, items, shown=items[:2])
    assert pictures(tmp_path) == [
        "01_anomalous_low_score_00001_brain_MR.jpg",
        "02_normal_high_score_00000_brain_MR.jpg",
        "notes.jpg",
    ]


def test_processes_pool_their_cases(
    items: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path / "one", items, count=6)
    gathered: list[Any] = []
    with monkeypatch.context() as other:
        other.setattr("ignite.distributed.get_rank", lambda: 1)
        other.setattr("ignite.distributed.all_gather", lambda mine: gathered.append(mine) or [mine])
        run(tmp_path / "other", items, shown=items[1::2] + items[4:5], count=6)
    assert not (tmp_path / "other").exists()
    monkeypatch.setattr("ignite.distributed.all_gather", lambda mine: [mine, *gathered])
    run(tmp_path / "two", items, shown=[items[index] for index in (0, 2, 6, 8)], count=6)
    assert table(tmp_path / "two") == table(tmp_path / "one")


def test_more_than_there_are(items: list[dict[str, Any]], tmp_path: Path) -> None:
    run(tmp_path, items, count=99)
    assert sorted(int(row["index"]) for row in table(tmp_path)) == list(range(10))
