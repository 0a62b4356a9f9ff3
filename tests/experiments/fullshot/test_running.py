# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""PatchCore and RD4AD, class by class, on phantoms."""

from __future__ import annotations

import csv
import json
import math
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from monai_anomalyclip.demo.phantom_sets import write_datalist
from monai_anomalyclip.experiments.fullshot import FullShotResults, run_full_shot, running
from monai_anomalyclip.experiments.fullshot.evaluation import METRICS

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


SETTINGS = {"method": "patchcore", "image_size": 64, "weights_sha256": None}


def result(*values: float) -> dict[str, Any]:
    assert len(values) == len(METRICS) == 6
    return {"metrics": dict(zip(METRICS, values, strict=True)), "normal_images": 3}


@pytest.fixture
def written(tmp_path: Path) -> Path:
    results = FullShotResults(tmp_path / "run", SETTINGS)
    assert not (tmp_path / "run").exists()
    results.add("nut", result(0.5, 0.25, 1.0, 0.75, math.nan, math.nan))
    results.add("a|b, c", result(1.0, 0.75, 0.5, math.nan, math.nan, math.nan))
    return tmp_path / "run"


def test_files(written: Path) -> None:
    assert sorted(path.name for path in written.iterdir()) == [
        "fullshot.json",
        "metrics_per_class.csv",
        "metrics_per_class.md",
    ]
    content = json.loads((written / "fullshot.json").read_text())
    assert content["settings"] == SETTINGS
    assert list(content["classes"]) == ["nut", "a|b, c"]
    assert content["classes"]["nut"]["normal_images"] == 3
    assert content["classes"]["nut"]["metrics"]["pixel_aupro"] is None
    assert list(content["mean"].values()) == [0.75, 0.5, 0.75, 0.75, None, None]
    with (written / "metrics_per_class.csv").open() as table:
        rows = list(csv.reader(table))
    assert rows[0] == ["class", "image_auroc", "image_ap", "pixel_auroc", "pixel_ap", "pixel_aupro", "pixel_aupro_200"]
    assert rows[1:] == [
        ["a|b, c", "1.0", "0.75", "0.5", "nan", "nan", "nan"],
        ["nut", "0.5", "0.25", "1.0", "0.75", "nan", "nan"],
        ["mean", "0.75", "0.5", "0.75", "0.75", "nan", "nan"],
    ]


def test_markdown_is_in_per_cent(written: Path) -> None:
    lines = FullShotResults(written, SETTINGS).markdown().splitlines()
    assert lines[3] == "| nut | 50.0 | 25.0 | 100.0 | 75.0 | undefined | undefined |"


def test_reading_again_goes_on(written: Path) -> None:
    results = FullShotResults(written, SETTINGS)
    assert set(results.classes) == {"nut", "a|b, c"}
    results.add("pill", result(0.0, 0.0, 0.0, 0.0, 0.5, 0.5))
    mean = json.loads((written / "fullshot.json").read_text())["mean"]
    assert mean["image_auroc"] == pytest.approx(0.5)
    assert mean["pixel_ap"] == pytest.approx(0.375)
    assert mean["pixel_aupro"] == 0.5


def test_tables_that_a_killed_run_did_not_write_are_made_up_for(written: Path) -> None:
    expected = (written / "metrics_per_class.csv").read_text()
    (written / "metrics_per_class.csv").unlink()
    (written / "metrics_per_class.md").write_text("of the class before")
    assert "nut" in FullShotResults(written, SETTINGS).markdown()
    assert (written / "metrics_per_class.csv").read_text() == expected


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({**SETTINGS, "image_size": 96}, r"other settings \(image_size 64, not 96\): choose another output folder"),
        ({**SETTINGS, "epochs": 3}, r"\(epochs None, not 3\)"),
        ({"method": "patchcore", "image_size": 64, "weights_sha256": "ab"}, r"\(weights_sha256 None, not ab\)"),
    ],
)
def test_other_settings_are_refused(settings: dict[str, Any], message: str, written: Path) -> None:
    before = (written / "fullshot.json").read_bytes()
    with pytest.raises(ValueError, match=message):
        FullShotResults(written, settings)
    assert (written / "fullshot.json").read_bytes() == before


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"settings": {}, "classes": 3}', '{"settings": {}, "classes": {"nut": {}}}']
)
def test_a_damaged_record_is_told(content: str, written: Path) -> None:
    (written / "fullshot.json").write_text(content)
    with pytest.raises(ValueError, match=r"fullshot\.json' is damaged or of another version"):
        FullShotResults(written, SETTINGS)


def test_a_failed_write_leaves_what_was_there(written: Path) -> None:
    before = (written / "fullshot.json").read_bytes()
    with pytest.raises(TypeError):
        FullShotResults(written, SETTINGS).add("pill", {**result(0, 0, 0, 0, 0, 0), "fit": object()})
    assert (written / "fullshot.json").read_bytes() == before
    assert len(list(written.iterdir())) == 3
