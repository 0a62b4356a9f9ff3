# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import importlib.metadata
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import tomllib
import torch
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).parents[2]
CPYTHON = {
    "python_version": "3.12",
    "python_full_version": "3.12.3",
    "sys_platform": "linux",
    "platform_system": "Linux",
    "extra": "",
}
# What a machine with torch for science has, as requirements/gpu-acceptance.txt says.
THERE = {
    "contourpy", "huggingface-hub", "jinja2", "matplotlib", "numpy", "packaging", "pillow", "psutil", "regex",
    "safetensors", "scikit-learn", "scipy", "timm", "torch", "torchvision", "tqdm",
}  # fmt: skip
NOT_READ = {"pylibjpeg", "pylibjpeg-openjpeg", "python-gdcm", "simpleitk", "tensorboard"}  # readers, and a log


def test_every_section_runs_at_small_size(
    script: Callable[[str], ModuleType],
    thin_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for absent in ("SimpleITK", "av", "gdcm", "openjpeg", "tensorboard"):  # no wheels that are brought to a GPU
        monkeypatch.setitem(sys.modules, absent, None)
    acceptance = script("gpu_acceptance")
    target = tmp_path / "record.json"
    common = ["--device", "cpu", "--small", "--model", str(thin_model), "--json", str(target)]
    assert acceptance.main(common) == 0
    record = json.loads(target.read_text())
    assert list(record["sections"]) == list(acceptance.SECTIONS)
    assert not any("failed" in found or "not run" in found for found in record["sections"].values())
    verdicts = {row["what"]: row["verdict"] for row in record["table"]}
    assert verdicts.keys() == acceptance.GOALS.keys()
    assert verdicts["agreement.float32 map"] == "met"
    assert record["sections"]["agreement"]["bfloat16 score"] < 0.05
    assert verdicts["predict.pictures/s"] == verdicts["waits.operators that wait in a tuning step"] == "not measured"
    assert record["sections"]["predict"]["pictures/s"] > 0
    assert record["sections"]["annotation"]["map after"] == record["sections"]["annotation"]["loss"] == 0
    assert record["sections"]["processes"]["backend"] == "gloo"
    assert record["sections"]["forward"]["MATH, batch 2, images/s"] > 0
    assert record["sections"]["processes"]["loss"] < 1e-6
    assert (
        record["sections"]["processes"]["prompts of two"]
        < 1e-5
        < record["sections"]["processes"]["prompts moved"] / 100
    )
    evaluation = record["sections"]["evaluation"]
    assert evaluation["metrics"] == evaluation["thresholds"] == 0
    assert {"image_auroc", "pixel_aupro", "pixel_threshold", "image_threshold"} <= evaluation["of the CPU"].keys()
    assert "| goal | | measured | verdict |" in capsys.readouterr().out


def test_the_wheels_and_what_a_machine_has_are_all_that_is_needed() -> None:
    names = (REPOSITORY / "requirements" / "gpu-acceptance.txt").read_text().splitlines()
    brought = {canonicalize_name(name) for name in names if not name.startswith("#")}
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["dependencies"]
    needed = [Requirement(line) for line in project]
    for name in brought:
        needed += [Requirement(line) for line in importlib.metadata.requires(name) or ()]
    wanted = {canonicalize_name(one.name) for one in needed if one.marker is None or one.marker.evaluate(CPYTHON)}
    assert wanted - brought == THERE | NOT_READ


def test_other_metrics_are_told(script: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch) -> None:
    acceptance, learning = script("gpu_acceptance"), script("gpu_acceptance_learning")
    cuda = torch.device("cuda")

    def metrics(_: Path, place: torch.device, *configs: str) -> dict[str, float]:
        return {"auroc": 0.5, "f1": 0.25 if place == cuda and "calibrate" in configs else 0.5}

    monkeypatch.setattr(learning, "_metrics", metrics)
    found = learning.evaluation(None, cuda, acceptance.SMALL)
    assert (found["metrics"], found["thresholds"]) == (0, 0.25)
    verdicts = {row["what"]: row["verdict"] for row in acceptance.table({"evaluation": found}, cuda)}
    assert (verdicts["evaluation.metrics"], verdicts["evaluation.thresholds"]) == ("met", "missed")


def test_a_section_that_fails_is_told_and_the_others_run(
    script: Callable[[str], ModuleType], thin_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    acceptance = script("gpu_acceptance")

    def fail(*_: object) -> dict[str, float]:
        raise RuntimeError("no kernel image")

    def far(*_: object) -> dict[str, float]:
        return {"float32 map": 0.5}

    monkeypatch.setattr(acceptance, "SECTIONS", {"ceilings": fail, "agreement": far})
    target = tmp_path / "record.json"
    common = ["--device", "cpu", "--small", "--model", str(thin_model), "--json", str(target)]
    assert acceptance.main(common) == 1
    record = json.loads(target.read_text())
    assert record["sections"]["ceilings"]["failed"] == "RuntimeError: no kernel image"
    assert record["table"][0]["verdict"] == "missed"


def test_verdicts_of_a_gpu(script: Callable[[str], ModuleType]) -> None:
    acceptance = script("gpu_acceptance")
    sections = {"predict": {"CT s": 4.0, "pictures/s": 199}, "tuning": {"encoding s": 3.1}}
    rows = {row["what"]: row["verdict"] for row in acceptance.table(sections, torch.device("cuda"))}
    assert (rows["predict.CT s"], rows["predict.pictures/s"], rows["tuning.encoding s"]) == ("met", "missed", "missed")
    assert rows["memory.growth MiB"] == "not measured"
