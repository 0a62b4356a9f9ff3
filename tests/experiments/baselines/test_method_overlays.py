# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Every overlay of configs/methods in both bundles: tuning where there is something to tune, evaluation, inference."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow
from PIL import Image

from monai_anomalyclip.demo.phantom_sets import write_datalist
from monai_anomalyclip.experiments.baselines import VAND, CoOp, PlainCLIP, Retrieval, WinCLIP

REPOSITORY = Path(__file__).parents[3]
METHODS = {
    "clip": PlainCLIP,
    "clip_ac": PlainCLIP,
    "coop": CoOp,
    "winclip": WinCLIP,
    "vand": VAND,
    "retrieval": Retrieval,
}
TUNED = ("coop", "vand")
TRAINED = (*TUNED, "retrieval")  # one fills its memory
BUNDLES = ("anomalyclip", "anomalyclip_demo")

pytestmark = pytest.mark.filterwarnings("ignore:.*random weights")


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantoms")
    write_datalist(folder, training=8, validation=6, testing=8, progress=False)
    return folder


@pytest.fixture(scope="module")
def small_backbone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a user gives to have another CLIP in the bundle."""
    config = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 42, "layers": 4, "width": 64, "patch_size": 14},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 1, "layers": 2},
        "quick_gelu": True,
    }
    weights = tmp_path_factory.mktemp("clip") / "clip.pt"
    torch.manual_seed(2)
    torch.save(PlainCLIP(config, None, image_size=42).clip.state_dict(), weights)
    return {"model_name": config, "pretrained": str(weights), "image_size": 42}


def workflow(
    bundle: str, names: list[str], method: str, output: Path, backbone: dict[str, Any], **overrides: Any
) -> ConfigWorkflow:
    folder = REPOSITORY / "bundles" / bundle
    files = [
        *(folder / "configs" / f"{name}.json" for name in names),
        REPOSITORY / "configs/methods" / f"{method}.json",
    ]
    arguments: dict[str, Any] = {
        "bundle_root": str(folder),
        "output_dir": str(output),
        "device": "$torch.device('cpu')",
        **overrides,
    }
    if bundle == "anomalyclip":  # the demonstration has its own CLIP
        arguments |= {f"backbone#{key}": value for key, value in backbone.items()}
    kind = "infer" if "inference" in names else "train"
    return ConfigWorkflow([str(file) for file in files], workflow_type=kind, logging_file=False, **arguments)


def run(given: ConfigWorkflow) -> ConfigWorkflow:
    given.initialize()
    given.run()
    given.finalize()
    return given


@pytest.mark.parametrize("bundle", BUNDLES)
@pytest.mark.parametrize("method", METHODS)
def test_tuning_and_evaluation(
    bundle: str, method: str, phantoms: Path, small_backbone: dict[str, Any], tmp_path: Path
) -> None:
    given: dict[str, Any] = {"dataset_dir": str(phantoms), "max_epochs": 1}
    if method in TRAINED:
        given["model_dir"] = str(tmp_path / "models")
        tuned = run(workflow(bundle, ["train"], method, tmp_path / "train", small_backbone, **given))
        state = torch.load(tmp_path / "models" / "model.pt", weights_only=True)
        learned = [name for name, value in tuned.network_def.named_parameters() if value.requires_grad]
        assert sorted(state) == sorted(learned or tuned.network_def.state_dict())
    evaluated = run(workflow(bundle, ["train", "evaluate"], method, tmp_path / "evaluate", small_backbone, **given))
    assert type(evaluated.network_def) is METHODS[method]
    metrics = evaluated.parser.get_parsed_content("validate#evaluator").state.metrics
    rows = dict(csv.reader((tmp_path / "evaluate" / "metrics.csv").open()))
    for name in ("image_auroc", "pixel_auroc"):
        assert 0 <= metrics[name] <= 1
        assert float(rows[name]) == pytest.approx(metrics[name])
    if method in TRAINED:
        for name, value in torch.load(tmp_path / "models" / "model.pt", weights_only=True).items():
            assert torch.equal(evaluated.network_def.state_dict()[name], value)


@pytest.mark.parametrize("method", TUNED)
def test_cache_on_and_off_learn_the_same(
    method: str, phantoms: Path, small_backbone: dict[str, Any], tmp_path: Path
) -> None:
    states = []
    for cache in ("memory", "disk", "off"):
        output = tmp_path / cache
        given = {"dataset_dir": str(phantoms), "max_epochs": 2, "model_dir": str(output), "feature_cache": cache}
        run(workflow("anomalyclip", ["train"], method, output, small_backbone, **given))
        states.append(torch.load(output / "model.pt", weights_only=True))
    output = tmp_path / "float16"
    given |= {"output_dir": str(output), "model_dir": str(output), "feature_cache": "memory"}
    run(workflow("anomalyclip", ["train"], method, output, small_backbone, **given, feature_dtype="float16"))
    for name, value in torch.load(output / "model.pt", weights_only=True).items():
        torch.testing.assert_close(value, states[0][name], rtol=0, atol=1e-3)
    start = workflow("anomalyclip", ["train"], method, tmp_path, small_backbone)
    start.initialize()
    for name, value in start.network_def.state_dict().items():
        assert not torch.equal(value, states[0][name])
    for state in states[1:]:
        for name, value in state.items():
            torch.testing.assert_close(value, states[0][name], rtol=0, atol=1e-5)


def test_inference(small_backbone: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "frames").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "frames" / "frame.png")
    data = {"dataset_dir": str(tmp_path / "frames")}
    run(workflow("anomalyclip", ["inference"], "winclip", tmp_path / "results", small_backbone, **data))
    with (tmp_path / "results" / "scores.csv").open() as table:
        (row,) = csv.DictReader(table)
    assert row["status"] == "ok"


def test_class_name_from_the_command_line(small_backbone: dict[str, Any], tmp_path: Path) -> None:
    named = {"network_def#class_name": "brain"}
    given = workflow("anomalyclip", ["train", "evaluate"], "clip", tmp_path, small_backbone, **named)
    given.initialize()
    assert given.network_def.settings["class_name"] == "brain"


def test_missing_layers_are_told_before_the_backbone_is_built(tmp_path: Path) -> None:
    absent = {"prompts": str(tmp_path / "absent.pt"), "backbone#pretrained": "absent.safetensors"}
    given = workflow("anomalyclip_demo", ["train", "evaluate"], "vand", tmp_path, {}, **absent)
    given.initialize()
    with pytest.raises(RuntimeError) as caught:
        given.run()
    assert "There are no linear layers of VAND at" in str(caught.value.__cause__)


def test_methods_keep_their_files_apart() -> None:
    """A method's run must not resume from, or write over, what another one left."""
    for key in ("output_dir", "model_dir"):
        given = [json.loads((REPOSITORY / "configs/methods" / f"{name}.json").read_text()).get(key) for name in METHODS]
        named = [value for value in given if value is not None]
        assert len(set(named)) == len(named) == (len(METHODS) if key == "output_dir" else len(TRAINED))


def test_no_method_takes_the_prompts_or_thresholds_of_another_one() -> None:
    given = {"bundle_root": "root", "output_dir": "out"}
    found = set()
    for name in METHODS:
        parser = ConfigParser({**json.loads((REPOSITORY / "configs/methods" / f"{name}.json").read_text()), **given})
        found.add(parser.get_parsed_content("prompts"))
    assert len(found) == len(METHODS)
    assert "root/models/model.pt" not in found
