# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import average_precision_score, roc_auc_score

from monai_anomalyclip.data import load_datalist
from monai_anomalyclip.data.masks import read_mask
from monai_anomalyclip.experiments.reproduce.data_folders import DataFolder
from monai_anomalyclip.experiments.reproduce.workflows import BundleRuns
from monai_anomalyclip.networks import AnomalyCLIP
from monai_anomalyclip.transforms import CLIPPreprocess, smooth_anomaly_map

Runs = Callable[..., BundleRuns]


def test_evaluation_equals_scikit_learn_on_the_tuned_prompts(
    runs: Runs, data: Path, thin: Path, tmp_path: Path
) -> None:
    source = DataFolder(data, tmp_path / "lists")
    training, testing = source.find("mvtec", "training"), source.find("headct", "testing")
    bundle = runs()
    prompts = bundle.tune([], datalist=training.datalist, folder=tmp_path / "run", seed=7, max_epochs=1)
    metrics = bundle.evaluate([], datalist=testing.datalist, folder=tmp_path / "tested", prompts=prompts)

    backbone = json.loads(thin.read_text())["backbone"]
    network = AnomalyCLIP(backbone["model_name"], backbone["pretrained"], image_size=backbone["image_size"])
    fresh = network.state_dict()["prompts.context_normal"].clone()
    network.load_prompts(prompts)
    assert not torch.equal(network.state_dict()["prompts.context_normal"], fresh)
    entries = load_datalist(testing.datalist, "testing")
    images = [CLIPPreprocess(network.image_size)(Image.open(entry["image"])) for entry in entries]
    with torch.inference_mode():
        scores = network.predict(torch.stack(images))["anomaly_score"].numpy()
    labels = [entry["image_label"] for entry in entries]
    assert metrics["image_auroc"] == pytest.approx(roc_auc_score(labels, scores))
    if "image_ap" in metrics:
        assert metrics["image_ap"] == pytest.approx(average_precision_score(labels, scores))


def test_pixels_equal_scikit_learn(runs: Runs, data: Path, thin: Path, tmp_path: Path) -> None:
    """A set without normal images, and words instead of learned prompts."""
    testing = DataFolder(data, tmp_path / "lists").find("cvc-clinicdb", "testing")
    metrics = runs().evaluate(
        ["experiments/fixed_words"], datalist=testing.datalist, folder=tmp_path / "tested", prompts=None
    )
    backbone = json.loads(thin.read_text())["backbone"]
    network = AnomalyCLIP(
        backbone["model_name"], backbone["pretrained"], image_size=backbone["image_size"], prompt_length=0,
        deep_prompt_depth=1, deep_prompt_length=0, normal_words=("a photo of a normal object",),
        abnormal_words=("a photo of an anomalous object",),
    )  # fmt: skip
    entries = load_datalist(testing.datalist, "testing")
    images = [CLIPPreprocess(network.image_size)(Image.open(entry["image"])) for entry in entries]
    with torch.inference_mode():
        maps = smooth_anomaly_map(network.predict(torch.stack(images))["anomaly_map"], 1.0).numpy()
    masks = np.stack([read_mask(entry["label"]) for entry in entries])
    assert metrics["pixel_auroc"] == pytest.approx(roc_auc_score(masks.ravel(), maps.ravel()), abs=1e-6)
    assert np.isnan(metrics["image_auroc"])


def test_class_word_reaches_the_network(runs: Runs, data: Path, tmp_path: Path) -> None:
    testing = DataFolder(data, tmp_path / "lists").find("cvc-clinicdb", "testing")
    values = [
        runs().evaluate(
            ["methods/clip"], datalist=testing.datalist, folder=tmp_path / str(word), prompts=None, class_word=word
        )
        for word in (None, "object", "brain")
    ]
    by_default, named, other = (value["pixel_auroc"] for value in values)
    assert by_default == named
    assert named != pytest.approx(other, abs=1e-4)


def test_missing_bundle_overlay_or_file_is_said(runs: Runs, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"There is no bundle at .*configs/train\.json"):
        runs(bundle=tmp_path)
    with pytest.raises(FileNotFoundError, match=r"There is no overlay 'absent\.json'"):
        runs().files("train", ["experiments/absent"])
    whole = runs()
    with pytest.raises(FileNotFoundError, match="There is no configuration file"):
        BundleRuns(whole.bundle, whole.configs, tmp_path, (tmp_path / "absent.json",))


def test_order_of_the_files(runs: Runs, thin: Path) -> None:
    files = [Path(file).name for file in runs().files("evaluate", ["methods/vand", "experiments/loss_local"])]
    assert files == ["train.json", "evaluate.json", "thin.json", "vand.json", "loss_local.json"]


@pytest.mark.parametrize(
    ("object_words", "expected"),
    [
        (False, {"network_def#class_name": "metal nut"}),
        (True, {"network_def#normal_words": ["metal nut"], "network_def#abnormal_words": ["damaged metal nut"]}),
    ],
)
def test_a_class_word_goes_where_the_network_takes_it(
    object_words: bool, expected: dict[str, Any], runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {}

    class Stop(Exception):
        pass

    def workflow(self: BundleRuns, kind: str, overlays: Any, settings: dict[str, Any]) -> None:
        given.update(settings)
        raise Stop

    monkeypatch.setattr(BundleRuns, "_workflow", workflow)
    with pytest.raises(Stop):
        runs().evaluate(
            [], datalist=tmp_path, folder=tmp_path, prompts=None, class_word="metal nut", object_words=object_words
        )
    assert {key: value for key, value in given.items() if key.startswith("network_def")} == expected


@pytest.mark.parametrize("views", [{}, {"scales": [1.0, 0.75], "flip": True}])
def test_views_are_evaluated_without_cached_features(
    views: dict[str, Any], runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[dict[str, Any]] = []
    state = SimpleNamespace(
        parser=SimpleNamespace(get_parsed_content=lambda _: SimpleNamespace(state=SimpleNamespace(metrics={})))
    )
    monkeypatch.setattr(BundleRuns, "_run", lambda _, kind, overlays, settings: given.append(settings) or state)
    runs(views=views).evaluate([], datalist=tmp_path, folder=tmp_path, prompts=None)
    (settings,) = given
    wanted = {**views, "feature_cache": "off"} if views else {}
    assert {key: settings[key] for key in ("scales", "flip", "feature_cache") if key in settings} == wanted


def test_precision_reaches_tuning_and_evaluation(runs: Runs) -> None:
    for kind, overlays in (("train", []), ("evaluate", []), ("train", ["methods/retrieval"])):
        for given, expected in ((None, "float32"), ("bfloat16", "bfloat16")):
            parser = runs(precision=given)._workflow(kind, overlays, {"output_dir": "unused"}).parser
            parser.parse()
            assert parser.get_parsed_content("validate#inferer").precision == expected
            assert parser.get_parsed_content("precision") == expected
            if kind == "train" and not overlays:
                assert parser.get_parsed_content("train#inferer").precision == expected
        assert "@precision" in (parser["train#trainer#precision"] if overlays else parser["train#inferer#precision"])


def test_parts_of_a_method_that_learns_and_of_one_that_does_not(runs: Runs) -> None:
    network, loss, optimizer = runs().parts(["methods/vand"])
    (group,) = optimizer.param_groups
    assert {id(value) for value in group["params"]} == {id(value) for value in network.adapters.parameters()}
    assert type(loss).__name__ == "VANDLoss"
    _, loss, _ = runs().parts(["experiments/loss_focal"])
    assert type(loss).__name__ == "GlobalAndFocalLoss"
    _, loss, _ = runs().parts([])
    assert loss.dice_on_normal_images
    network, _, optimizer = runs().parts(["methods/winclip"])
    assert optimizer is None
    assert runs().check_weights(["methods/clip"]) == network.backbone_name == "custom"
    assert runs(device="cpu").torch_device() == torch.device("cpu")
