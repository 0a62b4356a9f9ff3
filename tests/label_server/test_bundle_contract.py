# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""What MONAI Label's bundle tasks do with a bundle, done here without MONAI Label.

Sources: its ``monailabel/tasks/infer/bundle.py``, ``infer/basic_infer.py`` and ``train/bundle.py``, release 0.8.5.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import monai
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.bundle.config_item import ConfigItem
from monai.data import MetaTensor, decollate_batch
from PIL import Image

from monai_anomalyclip.demo.phantoms import sample_phantom
from monai_anomalyclip.demo.volumes import make_volume, write_nifti
from monai_anomalyclip.networks import read_prompts

REPOSITORY = Path(__file__).parents[2]
BUNDLES = ["anomalyclip", "anomalyclip_demo"]
DEMO = "anomalyclip_demo"


def config(bundle: str, name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((REPOSITORY / "bundles" / bundle / "configs" / f"{name}.json").read_text())
    return content


@pytest.fixture
def demo(new_bundle: Callable[[], Path]) -> Path:
    return new_bundle()


@pytest.fixture
def studies(tmp_path: Path) -> Path:
    """A volume and a picture, no two of whose axes have the same length."""
    phantom = make_volume("brain_mr", 0, size=64, slices=6)
    write_nifti(tmp_path / "studies" / "brain.nii.gz", phantom.image[:, 8:56], phantom.affine)
    write_nifti(tmp_path / "labels" / "brain.nii.gz", phantom.mask[:, 8:56].astype(np.uint8), phantom.affine)
    write_nifti(tmp_path / "labels" / "normal.nii.gz", np.zeros((64, 48, 6), np.uint8), phantom.affine)
    colon = sample_phantom("endoscopy", True, 1)
    Image.fromarray(colon.image[8:104]).save(tmp_path / "studies" / "colon.png")
    Image.fromarray(colon.mask[8:104].astype(np.uint8)).save(tmp_path / "labels" / "colon.png")
    return tmp_path / "studies"


def answer(bundle: Path, image: Path, **params: Any) -> tuple[dict[str, Any], Any]:
    """The answer's data before MONAI Label writes its file, and the network that gave it."""
    parser = ConfigParser()
    parser.read_config(str(bundle / "configs" / "inference.json"))
    parser.config.update({"bundle_root": str(bundle)})
    network = parser.get_parsed_content("network_def", instantiate=True)
    options = parser.get_parsed_content("displayable_configs", instantiate=True)
    data: dict[str, Any] = {"device": "cpu", **options, **params, "image": str(image), "image_path": str(image)}

    parser["displayable_configs"].update({key: data[key] for key in options})
    parser.parse()
    parser.config.update({"device": "cpu"})
    parser.ref_resolver.items["device"] = ConfigItem(config="cpu", id="device")
    for transform in parser.get_parsed_content("preprocessing", instantiate=True).transforms:
        data = transform(data)
    checkpoint = torch.load(bundle / "models" / "model.pt", map_location="cpu")
    network.load_state_dict(checkpoint.get("model", checkpoint), strict=False)
    network.eval()
    inferer = parser.get_parsed_content("inferer", instantiate=True)
    with torch.no_grad():
        data["pred"] = decollate_batch(inferer(data["image"][None], network))[0]
    for transform in parser.get_parsed_content("postprocessing", instantiate=True).transforms:
        data = transform(data)
    return data, network


@pytest.mark.parametrize("bundle", BUNDLES)
def test_names_and_ids(bundle: str) -> None:
    assert not re.search("deepedit|deepgrow|detection|classification", bundle)
    metadata = config(bundle, "metadata")
    data_format = metadata["network_data_format"]
    assert next(iter(data_format["inputs"])) == "image"
    assert next(iter(data_format["outputs"])) == "pred"
    labels = {name: int(index) for index, name in data_format["outputs"]["pred"]["channel_def"].items()}
    assert labels == {"background": 0, "anomaly": 1, "anomaly_0.75": 2, "anomaly_0.9": 3}
    inference, train = config(bundle, "inference"), config(bundle, "train")
    assert inference["levels"] == [0.5, 0.75, 0.9]  # what the labels' names say
    assert {"network_def", "preprocessing", "inferer", "postprocessing", "device", "bundle_root"} <= set(inference)
    assert set(inference["displayable_configs"]) == {"threshold", "display"}
    assert {"network", "run", "device", "bundle_root", "initialize"} <= set(train)
    assert "displayable_configs" not in train  # MONAI Label fails on training requests that leave one out
    assert "max_epochs" in train["train"]["trainer"]
    assert all("data" in train[part]["dataset"] for part in ("train", "validate"))
    assert all(isinstance(handler, dict) for handler in train["train"]["handlers"])
    assert not [path for path in (REPOSITORY / "bundles" / bundle / "models").glob("*.pt") if len(path.name) < 8]


def test_prompts_in_effect_are_those_of_the_file(demo: Path, studies: Path) -> None:
    data, network = answer(demo, studies / "brain.nii.gz")
    expected = read_prompts(demo / "models" / "model.pt")
    torch.testing.assert_close(network.prompts.contexts[0].detach(), expected.context_normal)
    torch.testing.assert_close(network.prompts.deep_prompts[-1].detach(), expected.deep_prompts[-1])
    assert json.loads(json.dumps(data["result"])) == data["result"]
    assert "Research use only" in data["result"]["note"]
    assert 0 <= data["result"]["anomaly_score"] <= 1


def test_prompts_of_another_backbone_are_refused(demo: Path, studies: Path) -> None:
    state = torch.load(demo / "models" / "model.pt", weights_only=True)
    state._metadata[""]["prompt_record"]["backbone"]["sha256"] = "0" * 64
    torch.save(state, demo / "models" / "model.pt")
    with pytest.raises(ValueError, match="tuned with the CLIP"):
        answer(demo, studies / "brain.nii.gz")


def test_file_without_prompts_is_refused(demo: Path, studies: Path) -> None:
    torch.save({"prompt_learner": {"ctx_pos": torch.zeros(1, 1, 12, 64)}}, demo / "models" / "model.pt")
    with pytest.raises(ValueError, match="nothing of what this network learns"):
        answer(demo, studies / "brain.nii.gz")


@pytest.mark.parametrize("display", [["mask", "levels", "heat map"], "mask", ["levels"], "heat map"], ids=str)
def test_volume_keeps_its_grid(demo: Path, studies: Path, display: Any) -> None:
    data, _ = answer(demo, studies / "brain.nii.gz", display=display, threshold=[0.2])
    shown, heat = data["pred"], data["anomaly_map"][0]
    assert shown.shape == (64, 48, 6)
    assert isinstance(shown, MetaTensor)
    torch.testing.assert_close(shown.affine, data["image"].affine)
    kind = display if isinstance(display, str) else display[0]
    assert shown.dtype == (torch.float32 if kind == "heat map" else torch.uint8)
    expected = {"mask": heat >= 0.2, "heat map": heat, "levels": (heat >= 0.5) + 1 * (heat >= 0.75) + (heat >= 0.9)}
    np.testing.assert_allclose(shown.numpy(), expected[kind].numpy())


@pytest.mark.parametrize("display", ["mask", "levels", "heat map"])
def test_picture_has_the_axes_of_monai(demo: Path, studies: Path, display: str) -> None:
    data, _ = answer(demo, studies / "colon.png", display=display, threshold=0.2)
    shown, heat = data["pred"], data["anomaly_map"][0].numpy()
    assert shown.dtype == torch.uint8
    assert shown.shape == (112, 96)  # width first
    assert list(data["image"].meta["spatial_shape"]) == [112, 96]  # MONAI Label resizes to this
    expected = {
        "mask": heat >= 0.2,
        "heat map": np.rint(255 * heat),
        "levels": sum(heat >= v for v in (0.5, 0.75, 0.9)),
    }
    np.testing.assert_array_equal(shown.numpy().T, expected[display])


@pytest.mark.parametrize("options", [{"display": "rainbow"}, {"display": []}, {"threshold": 2}], ids=str)
def test_wrong_options_are_refused(demo: Path, studies: Path, options: dict[str, Any]) -> None:
    with pytest.raises(RuntimeError) as caught:
        answer(demo, studies / "colon.png", **options)
    cause: BaseException | None = caught.value
    while cause.__cause__ is not None:
        cause = cause.__cause__
    assert isinstance(cause, ValueError)
    assert next(iter(options)) in str(cause)


def tune(bundle: Path, pairs: list[dict[str, str]], validation: list[dict[str, str]], **overrides: Any) -> None:
    """Run the bundle's tuning as MONAI Label's BundleTrainTask does."""
    handlers = config(DEMO, "train")["train"]["handlers"]
    loader = {
        "_target_": "CheckpointLoader",
        "load_path": str(bundle / "models" / "model.pt"),
        "load_dict": {"model": "$@network"},
        "strict": False,
    }
    monai.bundle.run(
        run_id="run",
        meta_file=str(bundle / "configs" / "metadata.json"),
        config_file=str(bundle / "configs" / "train.json"),
        **{
            "bundle_root": str(bundle),
            "train#trainer#max_epochs": 6,
            "train#dataset#data": pairs,
            "device": "cpu",
            "train#handlers": [loader, *handlers],
            "validate#dataset#data": validation,
            **overrides,
        },
    )


def pair(studies: Path, image: str, label: str) -> dict[str, str]:
    return {"image": str(studies / image), "label": str(studies.parent / "labels" / label)}


def test_tuning_on_labels_changes_the_prompts_that_inference_loads(demo: Path, studies: Path) -> None:
    before, _ = answer(demo, studies / "brain.nii.gz")
    untuned = read_prompts(demo / "models" / "model.pt")
    pairs = [pair(studies, "brain.nii.gz", "brain.nii.gz"), pair(studies, "colon.png", "colon.png")]
    tune(demo, pairs, pairs[:1])
    after, _ = answer(demo, studies / "brain.nii.gz")
    assert after["result"]["anomaly_score"] > before["result"]["anomaly_score"] + 0.1
    assert [path.name for path in sorted((demo / "models").glob("*.pt"))] == ["model.pt"]
    assert not (demo / "runs" / "train" / "checkpoints").exists()  # a later request does not resume from this one
    tuned = read_prompts(demo / "models" / "model.pt")
    assert tuned.backbone == untuned.backbone


def test_tuning_goes_on_from_the_prompts_of_the_file(demo: Path, studies: Path) -> None:
    before = read_prompts(demo / "models" / "model.pt")
    tune(demo, [pair(studies, "colon.png", "colon.png")], [], learning_rate=0.0)
    torch.testing.assert_close(read_prompts(demo / "models" / "model.pt").context_normal, before.context_normal)


def test_tuning_on_a_normal_study_alone(demo: Path, studies: Path) -> None:
    before, _ = answer(demo, studies / "brain.nii.gz")
    tune(demo, [pair(studies, "brain.nii.gz", "normal.nii.gz")], [])
    after, _ = answer(demo, studies / "brain.nii.gz")
    assert after["result"]["anomaly_score"] < before["result"]["anomaly_score"]


def test_tuning_without_labels_says_what_to_do(demo: Path) -> None:
    with pytest.raises(RuntimeError) as caught:
        tune(demo, [], [])
    text, cause = "", caught.value
    while cause is not None:
        text, cause = str(cause), cause.__cause__
    assert "There is no final label to tune the prompts on" in text
