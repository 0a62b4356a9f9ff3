# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

SMALL = ["--seeds", "1", "--rounds", "1", "--epochs", "1", "--training", "24", "--testing", "24"]


@pytest.fixture
def federated(script: Callable[[str], ModuleType]) -> Iterator[ModuleType]:
    yield script("federated")
    logging.disable(logging.NOTSET)


def test_the_mean_counts_steps(federated: ModuleType) -> None:
    state = {"prompts": torch.tensor([1.0, 2.0])}
    answers = [({"prompts": torch.tensor([4.0, 0.0])}, 1), ({"prompts": torch.tensor([0.0, -4.0])}, 3)]
    assert federated.averaged(state, answers)["prompts"].tolist() == [2.0, -1.0]


def test_what_a_site_tolerates_is_normal_and_has_no_mask(federated: ModuleType) -> None:
    items = [
        {"class": "wood", "image_label": 1, "label": "a.png", "kind": "stain"},
        {"class": "wood", "image_label": 1, "label": "b.png", "kind": "hole"},
        {"class": "metal", "image_label": 0, "kind": ""},
    ]
    tolerant = federated.SiteData(("wood",), 2, tolerated=("stain",))
    assert tolerant.labelled(items) == [{"class": "wood", "image_label": 0, "kind": "stain"}, items[1]]


def test_swapped_labels_are_those_of_tuning_alone(federated: ModuleType, tmp_path: Path) -> None:
    phantoms = federated.Phantoms(tmp_path, 0, training=12, testing=4)
    right, wrong = (federated.SiteData(("metal", "wood"), 3, first=1, swapped=swapped) for swapped in (False, True))
    tuned_on, swapped = phantoms.of(right, "training"), phantoms.of(wrong, "training")
    assert [item["image"] for item in tuned_on] == [item["image"] for item in swapped]
    assert [item["image_label"] for item in tuned_on] == [1 - item["image_label"] for item in swapped]
    assert {item["image_label"] for item in tuned_on} == {0, 1}
    assert not any("label" in item for item in swapped)
    assert phantoms.of(right, "validation") == phantoms.of(wrong, "validation") != []


@pytest.mark.filterwarnings("ignore:executing the bundle config:UserWarning")
def test_command(
    federated: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sites = {"one": federated.SiteData(("metal",), 4), "two": federated.SiteData(("wood",), 4)}
    monkeypatch.setattr(federated, "DIFFERENT", sites)
    monkeypatch.setitem(federated.CASES, "different families and sizes", sites)
    record = tmp_path / "figures.json"
    words = ["--cases", "different families and sizes", *SMALL, "--mu", "--noise_var", "10", "--json", str(record)]
    assert federated.main(words) == 0
    (table,) = json.loads(record.read_text())["different families and sizes"]
    noise = "FedAvg, noise of scale 0.0002 a step"
    assert list(table) == ["untuned", "local only", "FedAvg", noise, "pooled"]
    assert all(list(rows) == ["one", "two", "families of no site"] for rows in table.values())
    assert all(0 <= value <= 1 for rows in table.values() for row in rows.values() for value in row)
    assert len({str(rows) for rows in table.values()}) == len(table), "each way makes prompts of its own"
    assert "| FedAvg |" in capsys.readouterr().out
