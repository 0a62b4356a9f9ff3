# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Tables on data sets in two original layouts and a datalist: what is run, left out, missing, and failing."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from monai_anomalyclip.experiments.reproduce import Experiment, Group, Table
from monai_anomalyclip.experiments.reproduce.data_folders import DataFolder
from monai_anomalyclip.experiments.reproduce.journal import RunFolder
from monai_anomalyclip.experiments.reproduce.runner import Outcome, TableRun
from monai_anomalyclip.experiments.reproduce.workflows import BundleRuns

REPOSITORY = Path(__file__).parents[3]
Runs = Callable[..., BundleRuns]
TESTS = ("cvc-clinicdb", "headct")

TUNED = Experiment("AnomalyCLIP", TESTS, "mvtec")
CLIP = Experiment("CLIP", TESTS, method="clip")


def run(runs: BundleRuns, data: Path, output: Path, *rows: Experiment, **settings: Any) -> tuple[Outcome, list[str]]:
    table = Table("t", "T", "", (Group("rows", rows),))
    lines: list[str] = []
    source = DataFolder(data, output / "datalists")
    given = TableRun(table, runs, source, output, **{"max_epochs": 1, "say": lines.append, **settings})
    return given.run(), lines


def same(left: dict[str, float], right: dict[str, float]) -> bool:
    """Whether all metrics are equal, undefined ones included."""
    return left.keys() == right.keys() and np.array_equal([*left.values()], [*right.values()], equal_nan=True)


@pytest.fixture(scope="module")
def finished(thin: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome, list[int]]:
    """Folder and outcome of a run with two seeds, and how many results there were whenever it was saved."""
    output = tmp_path_factory.mktemp("finished")
    bundle = BundleRuns(REPOSITORY / "bundles/anomalyclip", REPOSITORY / "configs", output / "features", (thin,))
    saved: list[int] = []
    outcome, _ = run(
        bundle, data, output, TUNED, CLIP, seeds=(111, 112), save=lambda so_far: saved.append(len(so_far.scores))
    )
    return output, outcome, saved


@pytest.fixture
def copied(finished: tuple[Path, Outcome, list[int]], tmp_path: Path) -> Path:
    """A copy of that folder, to go on in."""
    return Path(shutil.copytree(finished[0], tmp_path / "copy"))


def files_of(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_runs_every_experiment_with_every_seed(finished: tuple[Path, Outcome, list[int]]) -> None:
    output, outcome, saved = finished
    assert outcome.failed == outcome.not_run == {}
    assert {place: sorted(seeds) for place, seeds in outcome.scores.items()} == {
        ("mvtec/anomalyclip", "cvc-clinicdb"): [111, 112],
        ("mvtec/anomalyclip", "headct"): [111, 112],
        ("untuned/clip", "cvc-clinicdb"): [111],
        ("untuned/clip", "headct"): [111],
    }
    assert saved == [2, 4]
    assert 0 <= outcome.scores["mvtec/anomalyclip", "headct"][111]["image_auroc"] <= 1
    assert math.isnan(outcome.scores["mvtec/anomalyclip", "cvc-clinicdb"][111]["image_auroc"])
    folders = [RunFolder(output / "runs/mvtec/anomalyclip").of_seed(seed) for seed in (111, 112)]
    assert folders[0].prompts.read_bytes() != folders[1].prompts.read_bytes()


def test_finished_runs_are_left_out(
    runs: Runs, data: Path, finished: tuple[Path, Outcome, list[int]], copied: Path
) -> None:
    """By another table that has the same row under another name, and one more data set to test on: not there."""
    written = files_of(copied / "runs")
    other = Experiment("default", (*TESTS, "isic"), "mvtec")
    again, lines = run(runs(), data, copied, other, CLIP, seeds=(111, 112))
    assert files_of(copied / "runs") == written
    assert sum("tuned already" in line for line in lines) == 2
    for place, by_seed in finished[1].scores.items():
        for seed, metrics in by_seed.items():
            assert same(again.scores[place][seed], metrics)
    assert list(again.not_run) == [("mvtec/anomalyclip", "isic")]
    assert again.not_run["mvtec/anomalyclip", "isic"].startswith("isic: there is no datalist isic.json and no folder")


def test_interrupted_tuning_goes_on(runs: Runs, data: Path, tmp_path: Path) -> None:
    row = Experiment("AnomalyCLIP", ("headct",), "mvtec")
    whole, _ = run(runs(), data, tmp_path / "whole", row, max_epochs=2)
    shutil.copytree(tmp_path / "whole", tmp_path / "killed")
    folder = RunFolder(tmp_path / "killed/runs/mvtec/anomalyclip").of_seed(111)
    # As when the run was killed in its second epoch.
    folder.prompts.unlink()
    (folder.path / "tuning/checkpoints/checkpoint_epoch=2.pt").unlink()
    shutil.rmtree(folder.path / "headct")
    first = (folder.path / "tuning/checkpoints/checkpoint_epoch=1.pt").stat().st_mtime_ns
    outcome, lines = run(runs(), data, tmp_path / "killed", row, max_epochs=2)
    assert not any("already" in line for line in lines)
    assert (folder.path / "tuning/checkpoints/checkpoint_epoch=1.pt").stat().st_mtime_ns == first
    assert same(outcome.scores["mvtec/anomalyclip", "headct"][111], whole.scores["mvtec/anomalyclip", "headct"][111])


def test_other_settings_are_no_silent_resume(runs: Runs, data: Path, copied: Path) -> None:
    outcome, _ = run(runs(), data, copied, TUNED, max_epochs=2)
    assert outcome.scores == {}
    assert {"holds a run with other settings (epochs)" in reason for reason in outcome.failed.values()} == {True}


def test_failing_experiment_does_not_stop_the_others(runs: Runs, data: Path, tmp_path: Path) -> None:
    configs = tmp_path / "configs"
    shutil.copytree(REPOSITORY / "configs", configs)
    (configs / "broken.json").write_text(json.dumps({"network_def#prompt_length": -3}))
    broken = Experiment("broken", ("headct",), "mvtec", overlays=("broken",))
    # The first network is built before anything is tuned: once with the broken one first, once with it last.
    for rows in ((broken, CLIP), (CLIP, broken)):
        outcome, lines = run(runs(configs=configs), data, tmp_path / "out", *rows)
        assert outcome.failed == {("mvtec/anomalyclip+broken", "headct"): "prompt_length=-3 must not be negative"}
        assert set(outcome.scores) == {("untuned/clip", name) for name in TESTS}
        assert any("failed, headct: prompt_length=-3" in line for line in lines)


def test_missing_data_weights_and_prompts(runs: Runs, data: Path, thin: Path, tmp_path: Path) -> None:
    no_tuning_set = Experiment("tuned on VisA", ("headct",), "visa")
    nothing_to_test_on = Experiment("tested on TN3K", ("tn3k",), "mvtec")
    given = Experiment("given", ("headct",), "mvtec", given_prompts=True)
    outcome, _ = run(runs(), data, tmp_path, no_tuning_set, nothing_to_test_on, given)
    assert outcome.scores == outcome.failed == {}
    assert outcome.not_run["visa/anomalyclip", "headct"].startswith("visa: there is no datalist visa.json")
    assert outcome.not_run["mvtec/anomalyclip", "tn3k"].startswith("tn3k: there is no datalist tn3k.json")
    assert outcome.not_run["given_mvtec/anomalyclip", "headct"].startswith("there are no prompts prompts/mvtec.pt")
    assert not (tmp_path / "runs").exists()

    content = json.loads(thin.read_text())
    content["backbone"]["pretrained"] = "absent.safetensors"
    (tmp_path / "absent.json").write_text(json.dumps(content))
    bundle = runs()
    weightless = BundleRuns(bundle.bundle, bundle.configs, tmp_path / "features", (tmp_path / "absent.json",))
    outcome, _ = run(weightless, data, tmp_path, TUNED, CLIP)
    assert outcome.scores == outcome.failed == {}
    assert len(outcome.not_run) == 4
    assert all("CLIP weights 'absent.safetensors'" in reason for reason in outcome.not_run.values())


def test_given_prompts_are_evaluated_and_not_tuned(
    runs: Runs, data: Path, finished: tuple[Path, Outcome, list[int]], tmp_path: Path
) -> None:
    output, tuned, _ = finished
    with_prompts = tmp_path / "data"
    shutil.copytree(data, with_prompts)
    (with_prompts / "prompts").mkdir()
    shutil.copy(RunFolder(output / "runs/mvtec/anomalyclip/seed-111").prompts, with_prompts / "prompts/mvtec.pt")
    given = Experiment("given", ("headct",), "mvtec", given_prompts=True)
    outcome, _ = run(runs(), with_prompts, tmp_path / "given", given, seeds=(111, 112))
    assert list(outcome.scores) == [("given_mvtec/anomalyclip", "headct")]
    (by_seed,) = outcome.scores.values()
    assert list(by_seed) == [111]
    assert same(by_seed[111], tuned.scores["mvtec/anomalyclip", "headct"][111])
    assert not list((tmp_path / "given").rglob("tuning.json"))


def test_other_prompts_are_evaluated_anew(runs: Runs, data: Path, copied: Path) -> None:
    folder = RunFolder(copied / "runs/mvtec/anomalyclip")
    shutil.copy(folder.of_seed(112).prompts, folder.of_seed(111).prompts)
    outcome, lines = run(runs(), data, copied, Experiment("a", ("headct",), "mvtec"), seeds=(111, 112))
    by_seed = outcome.scores["mvtec/anomalyclip", "headct"]
    assert same(by_seed[111], by_seed[112])
    assert sum("tested already" in line for line in lines) == 1


def test_missing_overlay_is_told_before_anything_runs(runs: Runs, data: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"There is no overlay 'absent\.json'"):
        run(runs(), data, tmp_path, CLIP, Experiment("x", ("headct",), "mvtec", overlays=("absent",)))
    assert not (tmp_path / "runs").exists()


def test_damaged_datalist_fails_alone(runs: Runs, data: Path, tmp_path: Path) -> None:
    shutil.copytree(data, tmp_path / "data")
    (tmp_path / "data" / "isic.json").write_text("{")
    outcome, _ = run(runs(), tmp_path / "data", tmp_path, Experiment("CLIP", ("isic", "headct"), method="clip"))
    assert list(outcome.scores) == [("untuned/clip", "headct")]
    assert list(outcome.failed) == [("untuned/clip", "isic")]


@pytest.fixture
def evaluated(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What would have been evaluated; the first class's AUROC is 0.25, the second's 0.75, and their AP is undefined."""
    calls: list[dict[str, Any]] = []

    def evaluate(self: BundleRuns, overlays: Any, **settings: Any) -> dict[str, float]:
        entries = json.loads(settings["datalist"].read_text())["testing"]
        calls.append({**settings, "classes": sorted({entry["class"] for entry in entries}), "images": len(entries)})
        return {"image_auroc": (0.25, 0.75)[len(calls) - 1], "image_ap": math.nan}

    monkeypatch.setattr(BundleRuns, "evaluate", evaluate)
    return calls


def test_each_class_is_told_its_name(
    runs: Runs, data: Path, tmp_path: Path, evaluated: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    row = Experiment("CLIP", ("mvtec",), method="clip")
    outcome, _ = run(runs(), data, tmp_path, row)
    # MVTec AD's two classes of the fixture, six images each.
    assert [(call["class_word"], call["classes"], call["images"]) for call in evaluated] == [
        ("bottle", ["bottle"], 6),
        ("cable", ["cable"], 6),
    ]
    assert not any(call["object_words"] for call in evaluated)
    assert len({call["folder"] for call in evaluated}) == 2
    metrics = outcome.scores["untuned/clip", "mvtec"][111]
    assert {name: value for name, value in metrics.items() if "auroc" in name} == {
        "image_auroc": 0.5,
        "image_auroc/bottle": 0.25,
        "image_auroc/cable": 0.75,
    }
    assert math.isnan(metrics["image_ap"])
    again, lines = run(runs(), data, tmp_path, row)
    assert len(evaluated) == 2  # finished
    assert same(again.scores["untuned/clip", "mvtec"][111], metrics)
    assert any("tested already" in line for line in lines)


def test_words_of_two_parts_lose_their_underscore(
    runs: Runs, data: Path, tmp_path: Path, evaluated: list[dict[str, Any]]
) -> None:
    shutil.copytree(data, tmp_path / "data")
    content = json.loads((tmp_path / "data" / "headct.json").read_text())
    for entry in content["testing"]:
        entry["class"] = "metal_nut"
    (tmp_path / "data" / "headct.json").write_text(json.dumps(content))
    run(runs(), tmp_path / "data", tmp_path / "out", Experiment("WinCLIP", ("headct",), method="winclip"))
    (call,) = evaluated
    assert (call["class_word"], call["classes"]) == ("metal nut", ["metal_nut"])


class FullShot:
    """In the place of a run of PatchCore or RD4AD."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []

    def __call__(self, method: str, datalist: Path, output: Path, **settings: Any) -> FullShot:
        sections = json.loads(datalist.read_text())
        self.calls.append((method, {**settings, "sections": sections}))
        return self

    def metrics(self) -> dict[str, float]:
        return {"image_auroc": 0.5, "image_auroc/bottle": 0.5}


def test_full_shot_methods_learn_from_the_published_training_part(
    runs: Runs, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full_shot = FullShot()
    monkeypatch.setattr("monai_anomalyclip.experiments.fullshot.run_full_shot", full_shot)
    shutil.copytree(data, tmp_path / "data")
    for product in ("bottle", "cable"):
        good = tmp_path / "data/mvtec_anomaly_detection" / product / "train/good"
        shutil.copytree(good.parents[1] / "test/good", good)
    rows = [Experiment(name, ("mvtec", "visa"), method=name) for name in ("patchcore", "rd4ad")]
    outcome, _ = run(runs(), tmp_path / "data", tmp_path / "out", *rows)
    assert outcome.scores == {}
    assert outcome.not_run["untuned/patchcore", "mvtec"].startswith("there are no ImageNet weights weights/wide_res")
    assert outcome.not_run["untuned/rd4ad", "visa"].startswith("visa: there is no datalist visa.json")

    (tmp_path / "data/weights").mkdir()
    (tmp_path / "data/weights/wide_resnet50_2-95faca4d.pth").touch()
    outcome, _ = run(runs(), tmp_path / "data", tmp_path / "out", *rows, max_epochs=3)
    assert outcome.scores["untuned/rd4ad", "mvtec"][111]["image_auroc/bottle"] == 0.5
    assert [(method, given["options"]) for method, given in full_shot.calls] == [
        ("patchcore", {}),
        ("rd4ad", {"epochs": 3}),
    ]

    def failing(method: str, *arguments: Any, **settings: Any) -> FullShot:
        if method == "patchcore":
            raise RuntimeError("out of memory")
        return full_shot(method, *arguments, **settings)

    monkeypatch.setattr("monai_anomalyclip.experiments.fullshot.run_full_shot", failing)
    outcome, _ = run(runs(), tmp_path / "data", tmp_path / "again", *rows, max_epochs=3)
    assert list(outcome.failed) == [("untuned/patchcore", "mvtec")]
    assert "out of memory" in outcome.failed["untuned/patchcore", "mvtec"]
    assert outcome.scores["untuned/rd4ad", "mvtec"][111]["image_auroc"] == 0.5
    for _, given in full_shot.calls:
        assert given["weights"].name == "wide_resnet50_2-95faca4d.pth"
        assert {entry["image_label"] for entry in given["sections"]["training"]} == {0}
        assert len(given["sections"]["training"]) == 6
        assert len(given["sections"]["testing"]) == 12


def test_a_table_of_counts_builds_and_runs_nothing(runs: Runs, data: Path, tmp_path: Path) -> None:
    row = Experiment("images", ("mvtec", "headct", "isic"), paper="test part")
    table = Table("6", "T", "", (Group("g", (row,)),), metrics=("classes", "normal", "anomalous"))
    source = DataFolder(data, tmp_path / "datalists")
    outcome = TableRun(table, runs(), source, tmp_path, say=lambda line: None).run()
    assert outcome.scores[row.key, "mvtec"] == {111: {"classes": 2.0, "normal": 6.0, "anomalous": 6.0}}
    assert outcome.scores[row.key, "headct"] == {111: {"classes": 1.0, "normal": 3.0, "anomalous": 3.0}}
    assert list(outcome.not_run) == [(row.key, "isic")]
    assert outcome.backbone is None
    spread = outcome.spread(row, "mvtec", "normal")
    assert spread is not None
    assert spread.mean == 6
    assert not (tmp_path / "runs").exists()
