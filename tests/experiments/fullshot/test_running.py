# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""PatchCore and RD4AD, class by class, on phantoms."""

from __future__ import annotations

import csv
import json
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from monai_anomalyclip.demo.phantom_sets import write_datalist
from monai_anomalyclip.experiments.fullshot import run_full_shot, running

pytestmark = pytest.mark.filterwarnings("ignore:.*random weights")
needs_anomalib = pytest.mark.usefixtures("anomalib")


@pytest.fixture
def anomalib() -> None:
    pytest.importorskip("anomalib", reason="anomalib (the extra fullshot) is not installed")


@pytest.fixture(scope="module")
def datalist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three industrial families: two normal images each to learn from, four to test under "validation"."""
    path = write_datalist(tmp_path_factory.mktemp("phantoms"), training=24, validation=24, testing=1, size=64)
    content = json.loads(path.read_text())
    chosen = path.with_name("three.json")
    chosen.write_text(
        json.dumps(
            {
                key: [item for item in items if item["class"] in ("wood", "tile", "pill")]
                for key, items in content.items()
            }
        )
    )
    return chosen


def run(datalist: Path, output: Path, *, method: str = "patchcore", **settings: Any) -> list[str]:
    """What is said of the progress."""
    given: dict[str, Any] = {"testing_section": "validation", "backbone": "resnet18", "image_size": 64, "seed": 111}
    said: list[str] = []
    run_full_shot(
        method, datalist, output, weights=settings.pop("weights", None), device=torch.device("cpu"), say=said.append,
        **{**given, **settings},
    )  # fmt: skip
    return said


def metrics(output: Path) -> dict[str, Any]:
    classes = json.loads((output / "fullshot.json").read_text())["classes"]
    return {name: (row["metrics"], row["fit"]) for name, row in classes.items()}


@needs_anomalib
@pytest.mark.parametrize(("method", "options"), [("patchcore", {}), ("rd4ad", {"epochs": 2})])
def test_every_class_is_measured(
    method: str,
    options: dict[str, Any],
    datalist: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def connect(*given: Any) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", connect)
    said = run(datalist, tmp_path, method=method, options=options)
    content = json.loads((tmp_path / "fullshot.json").read_text())
    assert list(content["classes"]) == ["wood", "tile", "pill"]
    for row in content["classes"].values():
        assert (row["normal_images"], row["tested_images"], row["unreadable"]) == (2, 4, [])
        assert all(0 <= value <= 1 for value in row["metrics"].values())
    first = content["classes"]["wood"]["fit"]
    assert first == {"memory_bank": 12} if method == "patchcore" else len(first["training_loss"]) == 2
    assert content["settings"]["weights_sha256"] is None
    assert content["settings"]["seed"] == 111
    with (tmp_path / "metrics_per_class.csv").open() as table:
        rows = {row.pop("class"): row for row in csv.DictReader(table)}
    assert list(rows) == ["pill", "tile", "wood", "mean"]
    for name, value in content["classes"]["tile"]["metrics"].items():
        assert float(rows["tile"][name]) == value
        mean = sum(row["metrics"][name] for row in content["classes"].values()) / 3
        assert float(rows["mean"][name]) == pytest.approx(mean)
    assert "[2/3] tile: 2 normal images, 4 to test." in said
    shown = (tmp_path / "metrics_per_class.md").read_text()
    assert f"| mean | {100 * float(rows['mean']['image_auroc']):.1f} |" in shown


@needs_anomalib
def test_a_stopped_run_goes_on_and_equals_one_without_a_stop(
    datalist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(datalist, tmp_path / "whole")  # PatchCore, whose coreset starts at a feature drawn at random
    original, done = running.evaluate_class, []

    def stop_after_one(network: Any, images: Any, **settings: Any) -> dict[str, Any]:
        if done:
            raise KeyboardInterrupt
        done.append(images.name)
        return original(network, images, **settings)

    with monkeypatch.context() as patched:
        patched.setattr(running, "evaluate_class", stop_after_one)
        with pytest.raises(KeyboardInterrupt):
            run(datalist, tmp_path / "stopped")
    assert list(metrics(tmp_path / "stopped")) == done == ["wood"]
    assert "[1/3] wood: done before." in run(datalist, tmp_path / "stopped")
    assert metrics(tmp_path / "stopped") == metrics(tmp_path / "whole")


@needs_anomalib
def test_a_folder_of_another_run_is_refused(datalist: Path, tmp_path: Path) -> None:
    run(datalist, tmp_path)
    with pytest.raises(
        ValueError, match=r"other settings \(coreset_ratio 0\.1, not 0\.5\): choose another output folder"
    ):
        run(datalist, tmp_path, options={"coreset_ratio": 0.5})


def test_without_anomalib_one_sentence(datalist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "anomalib", None)
    with pytest.raises(
        ImportError, match=r"PatchCore and RD4AD need anomalib, which cannot be imported.*pip install anomalib"
    ):
        run(datalist, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@needs_anomalib
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weights": Path("absent.pth")}, "There are no backbone weights at 'absent.pth'"),
        ({"image_size": 70}, "image_size=70 must be a multiple of 32"),
        ({"testing_section": "testing"}, "has no entries under 'testing'"),
        ({"testing_section": "training"}, "must not be tested on what it has learnt from"),
    ],
)
def test_mistakes_are_one_sentence(settings: dict[str, Any], message: str, datalist: Path, tmp_path: Path) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        run(datalist, tmp_path / "out", **settings)
    assert not (tmp_path / "out").exists()


@needs_anomalib
def test_no_datalist(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"There is no datalist at 'absent\.json'"):
        run(Path("absent.json"), tmp_path / "out")
