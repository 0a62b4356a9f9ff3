# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""``python -m monai_anomalyclip.experiments.fullshot`` on phantoms."""

from __future__ import annotations

import csv
import json
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from monai_anomalyclip.demo.phantom_sets import write_datalist
from monai_anomalyclip.experiments.fullshot import __main__ as command
from monai_anomalyclip.experiments.fullshot import running

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


def run(datalist: Path, output: Path, *options: str, method: str = "patchcore") -> int:
    given = ["--method", method, "--datalist", str(datalist), "--output_dir", str(output), "--image_size", "64"]
    return command.main(
        [*given, "--backbone", "resnet18", "--weights", "none", "--testing_section", "validation", *options]
    )


def metrics(output: Path) -> dict[str, Any]:
    classes = json.loads((output / "fullshot.json").read_text())["classes"]
    return {name: (row["metrics"], row["fit"]) for name, row in classes.items()}


@needs_anomalib
@pytest.mark.parametrize(("method", "options"), [("patchcore", []), ("rd4ad", ["--epochs", "2"])])
def test_every_class_is_measured(
    method: str,
    options: list[str],
    datalist: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def connect(*given: Any) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", connect)
    assert run(datalist, tmp_path, *options, method=method) == 0
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
    shown = capsys.readouterr().out
    assert "[2/3] tile: 2 normal images, 4 to test." in shown
    assert f"| mean | {100 * float(rows['mean']['image_auroc']):.1f} |" in shown


@needs_anomalib
def test_a_stopped_run_goes_on_and_equals_one_without_a_stop(
    datalist: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(datalist, tmp_path / "whole") == 0  # PatchCore, whose coreset starts at a feature drawn at random
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
    capsys.readouterr()
    assert run(datalist, tmp_path / "stopped") == 0
    assert "[1/3] wood: done before." in capsys.readouterr().out
    assert metrics(tmp_path / "stopped") == metrics(tmp_path / "whole")


@needs_anomalib
def test_a_folder_of_another_run_is_refused(datalist: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(datalist, tmp_path) == 0
    assert run(datalist, tmp_path, "--coreset_ratio", "0.5") == 1
    assert "other settings (coreset_ratio 0.1, not 0.5): choose another output folder." in capsys.readouterr().err


def test_without_anomalib_one_sentence(
    datalist: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "anomalib", None)
    assert run(datalist, tmp_path / "out") == 1
    shown = capsys.readouterr().err
    assert shown.startswith("error: PatchCore and RD4AD need anomalib, which cannot be imported")
    assert "pip install anomalib." in shown
    assert shown.count("\n") == 1
    assert not (tmp_path / "out").exists()


@needs_anomalib
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--epochs", "3"], "--epochs is an option of rd4ad, not of patchcore."),
        (["--batch_size", "0"], "--batch_size 0 must be at least 1."),
        (["--weights", "absent.pth"], "There are no backbone weights at 'absent.pth'"),
        (["--image_size", "70"], "image_size=70 must be a multiple of 32"),
        (["--testing_section", "testing"], "has no entries under 'testing'"),
        (["--testing_section", "training"], "must not be tested on what it has learnt from"),
        (["--datalist", "absent.json"], "There is no datalist at 'absent.json'"),
    ],
)
def test_mistakes_are_one_sentence(
    options: list[str], message: str, datalist: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(datalist, tmp_path / "out", *options) == 1
    shown = capsys.readouterr().err.splitlines()[-1]
    assert shown.startswith("error: ")
    assert message in shown
    assert not (tmp_path / "out").exists()


def test_weights_have_no_default(datalist: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        command.main(["--method", "rd4ad", "--datalist", str(datalist), "--output_dir", str(tmp_path)])
    assert stopped.value.code == 2
    assert "--weights" in capsys.readouterr().err
