# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from monai_anomalyclip.demo.volumes import write_nifti
from monai_anomalyclip.label import AnomalyModel, LabelledSlices, encode_labelled, tune_prompts
from monai_anomalyclip.label.demo_studies import demo_seeds, demo_volume
from monai_anomalyclip.label.prompt_tuning import _loss_of
from monai_anomalyclip.losses import GlocalLoss


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Path]]:
    """Two volumes with a lesion, a normal one, and one with a lesion that is held out."""
    folder = tmp_path_factory.mktemp("pairs")
    seeds = list(islice(demo_seeds("brain_mr"), 3))
    volumes = [demo_volume("brain_mr", seed) for seed in seeds]
    volumes.insert(2, demo_volume("brain_mr", 7, anomalous=False))
    return [
        {
            "image": write_nifti(folder / f"{number}.nii.gz", phantom.image, phantom.affine),
            "label": write_nifti(folder / f"{number}_l.nii.gz", phantom.mask.astype(np.uint8), phantom.affine),
        }
        for number, phantom in enumerate(volumes)
    ]


@pytest.fixture
def data(model: AnomalyModel, pairs: list[dict[str, Path]]) -> LabelledSlices:
    return encode_labelled(pairs[:3], model.network(), model.inferer)


def state(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in network.state_dict().items()}


@pytest.mark.parametrize("epochs", [5, 20])
def test_held_out_lesion_stands_out_afterwards(
    model: AnomalyModel, data: LabelledSlices, pairs: list[dict[str, Path]], epochs: int
) -> None:
    """Also after many epochs: the Dice term of normal slices, which makes every map zero, is not minimised."""
    lesion = np.asarray(demo_volume("brain_mr", list(islice(demo_seeds("brain_mr"), 3))[2]).mask)

    def contrast() -> float:
        values = np.asarray(model.predict(pairs[3]["image"]).anomaly_map)[0]
        return float(values[lesion].mean() - values[~lesion].mean())

    before = contrast()
    network = model.network()
    clip = {key: value.clone() for key, value in network.clip.state_dict().items()}
    report = tune_prompts(network, data, max_epochs=epochs)
    assert report.improved
    assert report.loss_after < report.loss_before
    assert (report.images, report.normal_images) == (3, 1)
    assert (report.slices, report.anomalous_slices) == (len(data.image_label), int(data.image_label.sum()))
    assert all(torch.equal(value, clip[key]) for key, value in network.clip.state_dict().items())
    model.save_prompts(network)
    assert before < 0.05
    assert contrast() > 0.25
    json.dumps(report.to_dict())


def test_same_seed_same_prompts(model: AnomalyModel, data: LabelledSlices) -> None:
    networks = [model.network() for _ in range(3)]
    for network, seed in zip(networks, (0, 0, 1), strict=True):
        tune_prompts(network, data, max_epochs=1, seed=seed)
    first, same, other = (state(network.prompts) for network in networks)
    assert all(torch.equal(first[key], same[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)


def test_prompts_stay_when_the_loss_does_not_fall(model: AnomalyModel, data: LabelledSlices) -> None:
    network = model.network()
    before = state(network.prompts)
    report = tune_prompts(network, data, max_epochs=1, learning_rate=1e6)
    assert not report.improved
    assert all(torch.equal(value, before[key]) for key, value in network.prompts.state_dict().items())


def test_normal_studies_alone_are_no_error(model: AnomalyModel, pairs: list[dict[str, Path]]) -> None:
    network = model.network()
    report = tune_prompts(network, encode_labelled(pairs[2:3], network, model.inferer), max_epochs=2)
    assert report.anomalous_slices == 0
    assert np.isfinite(report.loss_after)


@pytest.mark.parametrize("argument", ["max_epochs", "learning_rate", "batch_size"])
def test_arguments_must_be_positive(model: AnomalyModel, data: LabelledSlices, argument: str) -> None:
    with pytest.raises(ValueError, match=f"{argument} must be positive, got 0"):
        tune_prompts(model.network(), data, **{argument: 0})


def test_features_wait_on_the_cpu_and_batches_go_to_the_network(data: LabelledSlices) -> None:
    """PyTorch's device without memory stands in for a GPU, and plain zeros for what the network makes there."""

    def zeros(features: dict[str, torch.Tensor], output: str) -> dict[str, Any]:
        assert {value.device.type for value in features.values()} == {"meta"}
        count = len(features["global_features"])
        maps = torch.zeros(count, 2, 8, 8, device="meta")
        return {"image_logits": torch.zeros(count, 2, device="meta"), "patch_logits": [maps]}

    network: Any = zeros
    network.clip = SimpleNamespace(logit_scale=torch.zeros((), device="meta"))
    assert _loss_of(network, data, GlocalLoss(), torch.arange(2)).device.type == "meta"
    assert {value.device.type for value in (data.global_features, data.patch_features, data.label)} == {"cpu"}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_tuning_on_a_gpu_between_predictions(model: AnomalyModel, pairs: list[dict[str, Path]]) -> None:
    model.predict(pairs[3]["image"], device="cuda")
    network = model.network("cuda")
    data = encode_labelled(pairs[:3], network, model.inferer)
    assert {value.device.type for value in (data.global_features, data.patch_features, data.label)} == {"cpu"}
    assert tune_prompts(network, data, max_epochs=2).improved
    assert model.predict(pairs[3]["image"], device="cuda").prompts
