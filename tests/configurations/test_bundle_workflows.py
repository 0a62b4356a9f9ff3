# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Both bundles as MONAI workflows on a tiny backbone: properties, tuning, resuming, inference, processes, bad input."""

from __future__ import annotations

import csv
import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow
from PIL import Image

from monai_anomalyclip.engines import InputsFailedError
from monai_anomalyclip.networks import AnomalyCLIP

REPOSITORY = Path(__file__).parents[2]
BUNDLES = ["anomalyclip", "anomalyclip_demo"]
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def tiny(data_dir: Path, tiny_config: dict[str, Any]) -> dict[str, Any]:
    """Keyword arguments of AnomalyCLIP on the tiny reference CLIP."""
    return {
        "model_name": tiny_config["clip"],
        "pretrained": str(data_dir / "tiny" / "clip_weights_fp16.safetensors"),
        "image_size": 84,
        "feature_layers": [12],
        "dpam_start": 5,
        "prompt_length": 12,
        "deep_prompt_depth": 5,
        "deep_prompt_length": 4,
    }


@pytest.fixture(scope="session")
def overlay(tiny: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second configuration file that puts the tiny CLIP into any bundle."""
    path = tmp_path_factory.mktemp("overlay") / "tiny.json"
    path.write_text(json.dumps({"network_def": {"_target_": "monai_anomalyclip.networks.AnomalyCLIP", **tiny}}))
    return path


def configs(bundle: str, overlay: Path, *names: str) -> list[str]:
    return [*(str(REPOSITORY / "bundles" / bundle / "configs" / f"{name}.json") for name in names), str(overlay)]


def train_workflow(
    bundle: str, overlay: Path, data: Path, output: Path, *names: str, **overrides: Any
) -> ConfigWorkflow:
    arguments = {
        "bundle_root": str(REPOSITORY / "bundles" / bundle),
        "dataset_dir": str(data),
        "output_dir": str(output),
    }
    arguments |= {"model_dir": str(output / "models"), "max_epochs": 1, "device": "$torch.device('cpu')"}
    return ConfigWorkflow(
        configs(bundle, overlay, "train", *names),
        workflow_type="train",
        logging_file=False,
        **{**arguments, **overrides},
    )


def inference_workflow(
    bundle: str, overlay: Path, data: Path, output: Path, prompts: Path, **overrides: Any
) -> ConfigWorkflow:
    arguments = {
        "bundle_root": str(REPOSITORY / "bundles" / bundle),
        "dataset_dir": str(data),
        "output_dir": str(output),
    }
    arguments |= {"prompts": str(prompts), "device": "$torch.device('cpu')", "keep_names": True}
    return ConfigWorkflow(
        configs(bundle, overlay, "inference"), workflow_type="infer", logging_file=False, **{**arguments, **overrides}
    )


@pytest.fixture(scope="session")
def prompts(tiny: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("prompts") / "model.pt"
    AnomalyCLIP(**tiny).save_prompts(path)
    return path


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    folder = tmp_path / "frames"
    folder.mkdir()
    for index in range(3):
        pixels = np.random.default_rng(index).integers(0, 256, (40, 60, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"frame{index}.png")
    return folder


@pytest.mark.parametrize("bundle", BUNDLES)
def test_training_has_all_properties_and_runs(bundle: str, overlay: Path, few_phantoms: Path, tmp_path: Path) -> None:
    workflow = train_workflow(bundle, overlay, few_phantoms, tmp_path)
    workflow.initialize()
    assert workflow.check_properties() == []
    workflow.run()
    workflow.finalize()
    saved = torch.load(tmp_path / "models" / "model.pt", weights_only=True)
    assert set(saved) == set(workflow.network_def.state_dict())
    assert list((tmp_path / "tensorboard").glob("events*"))


def test_training_without_validation_set(overlay: Path, few_phantoms: Path, tmp_path: Path) -> None:
    content = json.loads((few_phantoms / "datalist.json").read_text())
    (tmp_path / "training_only.json").write_text(json.dumps({"training": content["training"]}))
    for folder in ("images", "masks"):
        shutil.copytree(few_phantoms / "training" / folder, tmp_path / "training" / folder, dirs_exist_ok=True)
    workflow = train_workflow(
        "anomalyclip", overlay, tmp_path, tmp_path / "out", datalist=str(tmp_path / "training_only.json")
    )
    workflow.initialize()
    workflow.run()
    assert (tmp_path / "out" / "models" / "model.pt").is_file()
    assert not (tmp_path / "out" / "models" / "model_best.pt").exists()


def test_finished_tuning_encodes_nothing(
    overlay: Path, few_phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded = []
    encode = AnomalyCLIP.encode_image
    monkeypatch.setattr(AnomalyCLIP, "encode_image", lambda *values: encoded.append(values) or encode(*values))
    counts, prompts = [], []
    for changes in ({}, {}, {"max_epochs": 2}, {"max_epochs": 2, "resume": False}):
        workflow = train_workflow("anomalyclip", overlay, few_phantoms, tmp_path, **changes)
        encoded.clear()
        workflow.initialize()
        workflow.run()
        workflow.finalize()
        counts.append(len(encoded))
        prompts.append(torch.load(tmp_path / "models" / "model.pt", weights_only=True))
    images = counts[0]
    assert images > 0
    assert counts == [images, 0, images, images]
    assert all(torch.equal(value, prompts[1][key]) for key, value in prompts[0].items())
    assert not all(torch.equal(value, prompts[2][key]) for key, value in prompts[1].items())


@pytest.mark.parametrize("bundle", BUNDLES)
def test_inference_has_all_properties_and_runs(
    bundle: str, overlay: Path, prompts: Path, frames: Path, tmp_path: Path
) -> None:
    workflow = inference_workflow(bundle, overlay, frames, tmp_path / "results", prompts)
    workflow.initialize()
    assert workflow.check_properties() == []
    workflow.run()
    workflow.finalize()
    with (tmp_path / "results" / "scores.csv").open() as table:
        rows = list(csv.DictReader(table))
    assert [(row["name"], row["status"]) for row in rows] == [(f"frame{index}", "ok") for index in range(3)]
    for index in range(3):
        with Image.open(tmp_path / "results" / f"frame{index}_heat.png") as heat:
            assert heat.size == (60, 40)


@pytest.mark.parametrize("bundle", BUNDLES)
def test_names_of_results_tell_nothing_by_default(
    bundle: str, overlay: Path, prompts: Path, frames: Path, tmp_path: Path
) -> None:
    results = tmp_path / "results"
    names = []
    for attempt in range(2):
        if attempt:  # what comes later does not change the names of what is there
            (frames / "frame0.png").rename(frames / "zz.png")
            (frames / "frame00.png").write_bytes((frames / "frame1.png").read_bytes())
        arguments = {"bundle_root": str(REPOSITORY / "bundles" / bundle), "dataset_dir": str(frames)}
        workflow = ConfigWorkflow(
            configs(bundle, overlay, "inference"), workflow_type="infer", logging_file=False,
            output_dir=str(results), prompts=str(prompts), device="$torch.device('cpu')", **arguments,
        )  # fmt: skip
        workflow.initialize()
        workflow.run()
        with (results / "scores.csv").open() as table:
            names.append({row["name"] for row in csv.DictReader(table)})
    assert sorted(name.partition("_")[0] for name in names[0]) == ["frame", "frame", "frame"]
    assert names[0] < names[1]
    assert len(names[1]) == 5
    assert all(re.fullmatch(r"frame_[0-9a-f]{16}", name) for name in names[1])
    assert not list(results.glob("frame[0-9]*"))


@pytest.mark.parametrize("bundle", BUNDLES)
def test_evaluation_overlay(bundle: str, overlay: Path, prompts: Path, few_phantoms: Path, tmp_path: Path) -> None:
    workflow = train_workflow(bundle, overlay, few_phantoms, tmp_path, "evaluate", prompts=str(prompts))
    workflow.initialize()
    workflow.run()
    assert workflow.check_properties() == []
    metrics = workflow.parser.get_parsed_content("validate#evaluator").state.metrics
    assert {"image_auroc", "pixel_auroc", "pixel_aupro", "loss_global"} <= set(metrics)
    assert (tmp_path / "metrics.csv").read_text().count("\n") == len(metrics)


def test_paper_text_overlay_taps_four_layers(tiny: dict[str, Any], few_phantoms: Path, tmp_path: Path) -> None:
    """The overlay comes last, after one that makes a CLIP of 24 thin layers."""
    config = {**tiny["model_name"], "vision_cfg": {**tiny["model_name"]["vision_cfg"], "layers": 24, "width": 64}}
    thin = tmp_path / "thin.json"
    thin.write_text(
        json.dumps(
            {
                "network_def#model_name": config,
                "network_def#pretrained": None,
                "network_def#image_size": 84,
                "network_def#deep_prompt_depth": 5,
            }
        )
    )
    files = [*configs("anomalyclip", thin, "train"), str(REPOSITORY / "configs" / "paper_text.json")]
    workflow = ConfigWorkflow(
        files,
        workflow_type="train",
        logging_file=False,
        bundle_root=str(REPOSITORY / "bundles" / "anomalyclip"),
        dataset_dir=str(few_phantoms),
        output_dir=str(tmp_path / "out"),
        model_dir=str(tmp_path / "out"),
        max_epochs=1,
    )
    workflow.initialize()
    with pytest.warns(UserWarning, match="random weights"):
        workflow.run()
    assert workflow.network_def.settings["feature_layers"] == [6, 12, 18, 24]
    assert workflow.parser.get_parsed_content("loss").lambda_local == 1.0
    assert workflow.train_dataset[0]["patch_features"].shape == (4, 37, 64)


def test_cache_on_and_off_give_the_same_prompts(overlay: Path, few_phantoms: Path, tmp_path: Path) -> None:
    states = []
    for cache in ("memory", "disk", "off"):
        workflow = train_workflow(
            "anomalyclip", overlay, few_phantoms, tmp_path / cache, feature_cache=cache, max_epochs=2
        )
        workflow.initialize()
        workflow.run()
        states.append(torch.load(tmp_path / cache / "models" / "model.pt", weights_only=True))
    for state in states[1:]:
        for key, value in state.items():
            torch.testing.assert_close(value, states[0][key], rtol=0, atol=1e-5)


def command(files: list[str], run_id: str, **overrides: Any) -> list[str]:
    options = [f"--{key}={value}" for key, value in overrides.items()]
    return [sys.executable, "-m", "monai.bundle", "run", run_id, f"--config_file={files}", *options]


def test_two_processes_equal_one(overlay: Path, few_phantoms: Path, tmp_path: Path, run: Run) -> None:
    bundle = REPOSITORY / "bundles" / "anomalyclip"
    shared = {"bundle_root": bundle, "dataset_dir": few_phantoms, "max_epochs": 2}
    one = command(configs("anomalyclip", overlay, "train"), "training", **shared, batch_size=8,
                  output_dir=tmp_path / "one", model_dir=tmp_path / "one")  # fmt: skip
    two = command(configs("anomalyclip", overlay, "train", "multi_gpu_train"), "training", **shared, batch_size=4,
                  output_dir=tmp_path / "two", model_dir=tmp_path / "two")  # fmt: skip
    two[:2] = ["torchrun", "--standalone", "--nproc_per_node=2", "-m"]
    logs = [run(" ".join(f'"{part}"' for part in line)).stdout for line in (one, two)]
    losses = [re.findall(r"(\w+) (\d+\.\d+)", "".join(re.findall("loss terms: .*", log))) for log in logs]
    assert len(losses[0]) == 2 * 5  # epochs x (four terms and their total)
    assert [name for name, _ in losses[0]] == [name for name, _ in losses[1]]
    # Printed with four digits.
    np.testing.assert_allclose(*([float(value) for _, value in one] for one in losses), rtol=0, atol=1.5e-4)
    states = [torch.load(tmp_path / name / "model.pt", weights_only=True) for name in ("one", "two")]
    for key, value in states[0].items():
        torch.testing.assert_close(value, states[1][key], rtol=0, atol=1e-6)


def test_killed_tuning_goes_on_with_the_same_result(overlay: Path, few_phantoms: Path, tmp_path: Path) -> None:
    def start(output: Path, epochs: int) -> subprocess.Popen[str]:
        line = command(
            configs("anomalyclip", overlay, "train"), "training", bundle_root=REPOSITORY / "bundles" / "anomalyclip",
            dataset_dir=few_phantoms, max_epochs=epochs, output_dir=output, model_dir=output,
        )  # fmt: skip
        return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)

    epochs = 12
    with start(tmp_path / "killed", epochs) as process:
        assert process.stdout is not None
        assert any("Epoch 3/" in line for line in process.stdout)
        process.send_signal(signal.SIGKILL)
    left = list((tmp_path / "killed").rglob("*.pt"))
    assert not (tmp_path / "killed" / "model.pt").exists()
    for path in left:
        torch.load(path, weights_only=True)  # nothing half-written
    outputs = {}
    for name in ("killed", "whole"):
        with start(tmp_path / name, epochs) as process:
            outputs[name] = process.communicate()[0]
        assert process.returncode == 0
    assert "Resuming after epoch" in outputs["killed"]
    assert "Resuming" not in outputs["whole"]
    for file in ("model.pt", "model_best.pt"):
        states = [torch.load(tmp_path / name / file, weights_only=True) for name in ("killed", "whole")]
        assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())


def test_killed_inference_goes_on(overlay: Path, prompts: Path, tmp_path: Path) -> None:
    frames, results = tmp_path / "frames", tmp_path / "results"
    frames.mkdir()
    for index in range(24):
        pixels = np.random.default_rng(index).integers(0, 256, (150, 200, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(frames / f"frame{index:02}.png")
    line = command(
        configs("anomalyclip", overlay, "inference"), "run", bundle_root=REPOSITORY / "bundles" / "anomalyclip",
        dataset_dir=frames, output_dir=results, prompts=prompts,
    )  # fmt: skip
    with subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        shown = b""
        while b"[5/24]" not in shown and (part := process.stderr.read(1)):
            shown += part
        process.send_signal(signal.SIGKILL)
    finished = {path: path.stat().st_mtime_ns for path in results.glob("*.png")}
    assert 0 < len(finished) < 72
    for path in finished:
        with Image.open(path) as picture:
            picture.load()  # nothing half-written
    again = subprocess.run(line, capture_output=True, text=True, check=True)
    assert "inputs are" in again.stdout  # some were left out
    with (results / "scores.csv").open() as table:
        assert [row["status"] for row in csv.DictReader(table)] == ["ok"] * 24
    assert len(list(results.glob("*_heat.png"))) == 24
    assert sum(path.stat().st_mtime_ns == time for path, time in finished.items()) >= len(finished) - 3


def test_bad_inputs_are_refused_one_by_one(overlay: Path, prompts: Path, frames: Path, tmp_path: Path) -> None:
    good = (frames / "frame0.png").read_bytes()
    (frames / "truncated.png").write_bytes(good[: len(good) // 2])
    workflow = inference_workflow("anomalyclip", overlay, frames, tmp_path / "results", prompts)
    workflow.initialize()
    with pytest.raises(RuntimeError) as caught:
        workflow.run()
    assert isinstance(caught.value.__cause__, InputsFailedError)
    assert "1 of 4 inputs failed: truncated" in str(caught.value.__cause__)
    written = {path.name for path in (tmp_path / "results").glob("*_heat.png")}
    assert written == {f"frame{index}_heat.png" for index in range(3)}
    assert not [path for path in (tmp_path / "results").rglob("*") if "tmp" in path.name]


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ({"prompts": "absent.pt"}, "There are no prompts at 'absent.pt': tune some"),
        ({"dataset_dir": "absent"}, "Input 'absent' does not exist"),
        ({"network_def#pretrained": "absent.safetensors"}, "CLIP weights 'absent.safetensors' are neither a file nor"),
    ],
)
def test_command_line_ends_with_the_sentence_that_helps(
    overrides: dict[str, str],
    sentence: str,
    overlay: Path,
    prompts: Path,
    frames: Path,
    run_command: Callable[..., subprocess.CompletedProcess[str]],
    tmp_path: Path,
) -> None:
    arguments = {"bundle_root": REPOSITORY / "bundles" / "anomalyclip", "dataset_dir": frames, "prompts": prompts}
    arguments |= {"output_dir": tmp_path / "results"}
    line = command(configs("anomalyclip", overlay, "inference"), "run", **{**arguments, **overrides})
    failed = run_command(shlex.join(["python", *line[1:]]), tmp_path, check=False)
    assert failed.returncode != 0
    assert sentence in failed.stderr.strip().splitlines()[-1]


def test_prompts_of_another_backbone_are_refused(
    overlay: Path, tiny: dict[str, Any], frames: Path, tmp_path: Path
) -> None:
    with pytest.warns(UserWarning, match="random weights"):
        AnomalyCLIP(**{**tiny, "pretrained": None}).save_prompts(tmp_path / "other.pt")
    workflow = inference_workflow("anomalyclip", overlay, frames, tmp_path / "results", tmp_path / "other.pt")
    with pytest.raises(RuntimeError) as caught:
        workflow.initialize()
    assert "were tuned with the CLIP" in str(caught.value.__cause__)


def test_real_frames_and_volumes(overlay: Path, prompts: Path, real_data: Path, tmp_path: Path) -> None:
    frames = inference_workflow(
        "anomalyclip", overlay, real_data / "frames" / "brain_mri_tumour_41" / "images", tmp_path / "frames", prompts
    )
    frames.initialize()
    frames.run()
    assert len(list((tmp_path / "frames").glob("*_heat.png"))) == 41
    volumes = inference_workflow("anomalyclip", overlay, real_data / "nifti", tmp_path / "volumes", prompts)
    volumes.initialize()
    with pytest.raises(RuntimeError) as caught:
        volumes.run()
    assert "5 of 11 inputs failed" in str(caught.value.__cause__)
    with (tmp_path / "volumes" / "scores.csv").open() as table:
        scores = [float(row["anomaly_score"]) for row in csv.DictReader(table) if row["status"] == "ok"]
    assert scores
    assert np.isfinite(scores).all()
