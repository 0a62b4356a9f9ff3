# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def forward(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("forward")


def test_a_tiny_run(thin_model: Path, tmp_path: Path) -> None:
    output = tmp_path / "figures.json"
    command = [sys.executable, str(BENCHMARKS / "forward.py"), "--model", str(thin_model), "--image-size", "84"]
    command += ["--dpam-start", "2", "--repeats", "2", "--dtype", "float32", "--baselines", "published"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run([*command, "--output", str(output)], capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    assert "dual_path" in result.stdout
    record: dict[str, Any] = json.loads(output.read_text())
    assert record["setup"]["image_size"] == 84
    figures = record["figures"]["float32"]
    assert set(figures) == {"dual_path", "published"}
    for one in figures.values():
        assert one["difference_from_plain_float32"] < 1e-5
        assert 0 < one["seconds_min"] <= one["seconds_median"] <= one["seconds_max"]
        assert one["peak_mib"] > one["above_model_mib"] >= 0
    ratio = figures["published"]["seconds_median"] / figures["dual_path"]["seconds_median"]
    assert figures["published"]["times_slower_than_dual_path"] == pytest.approx(ratio)


@pytest.mark.parametrize("start", [1, 3, 4])
def test_all_passes_compute_the_same(forward: ModuleType, thin_model: Path, start: int) -> None:
    setup = forward.Setup(str(thin_model), 84, 2, start, "cpu", torch.get_num_threads())
    clip, image = forward.build(setup)
    features = {
        variant: forward.make_pass(variant, clip.double(), image.double(), setup, "float32")()
        for variant in (forward.OURS, *forward.READINGS)
    }
    assert len(features) == 3
    for computed in features.values():
        assert computed[0].shape == (2, 16)
        assert computed[1].shape == (2, 37, 16)
        assert forward.relative_difference(computed, features["textbook"]) < 1e-6  # handed out as float32
    changed = (features["textbook"][0], features["textbook"][1] + 1)
    assert forward.relative_difference(changed, features["textbook"]) > 1e-2


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["--help"], 0, "examples:"),
        (["--repeats", "0"], 2, "--repeats"),
        (["--dtype", "float16"], 2, "--dtype"),
        (["--output", __file__], 2, "exists; give another name"),
        (["--device", "cuda:7"], 2, "no GPU"),
    ],
)
def test_arguments(
    forward: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    status: int,
    said: str,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit) as left:
        forward.main(arguments)
    assert left.value.code == status
    assert said in "".join(capsys.readouterr())
