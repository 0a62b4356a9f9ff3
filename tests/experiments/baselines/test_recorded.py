# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Every method, and prompt tuning, against numbers that its authors' own code gave on a tiny CLIP (tests/data)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from monai_anomalyclip.experiments.baselines import VAND, CoOp, PlainCLIP, VANDLoss, WinCLIP
from monai_anomalyclip.losses import GlocalLoss
from monai_anomalyclip.networks import AnomalyCLIP, FrozenCLIPNetwork
from monai_anomalyclip.transforms import smooth_anomaly_map

Arrays = dict[str, Tensor]
Read = Callable[[str], Arrays]

CLIP = {
    "embed_dim": 48,
    "vision_cfg": {"image_size": 84, "layers": 4, "width": 128, "patch_size": 14},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 128, "heads": 2, "layers": 3},
    "quick_gelu": True,
}
STEPS = 4


@pytest.fixture(scope="module")
def recorded(data_dir: Path) -> Read:
    """``recorded("coop")``: the arrays of a file, floating ones in float32 at least."""

    def read(name: str) -> Arrays:
        with np.load(data_dir / "baselines" / f"{name}.npz") as file:
            arrays = {key: torch.from_numpy(file[key]) for key in file.files}
        return {key: value.float() if value.dtype == torch.float16 else value for key, value in arrays.items()}

    return read


@pytest.fixture(scope="module")
def weights(recorded: Read, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recorded CLIP as a file; embeddings of words that no prompt has are zero."""
    state = recorded("clip")
    table = torch.zeros(49408, 128)
    table[state.pop("token_ids")] = state.pop("token_rows")
    file = tmp_path_factory.mktemp("clip") / "clip.safetensors"
    save_file({**state, "token_embedding.weight": table}, file)
    return file


@pytest.fixture(scope="module")
def inputs(recorded: Read) -> Arrays:
    return recorded("inputs")


@pytest.fixture
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def error(ours: Tensor, theirs: Tensor) -> float:
    """Norm of the difference over the norm of what was recorded."""
    ours, theirs = ours.detach().double(), theirs.double()
    return float((ours.reshape(theirs.shape) - theirs).norm() / theirs.norm())


def set_values(values: dict[str, nn.Parameter], recording: Arrays, prefix: str) -> None:
    with torch.no_grad():
        for name, parameter in values.items():
            parameter.copy_(recording[prefix + name].reshape(parameter.shape))


def tune(
    network: FrozenCLIPNetwork,
    loss: nn.Module,
    optimizer: torch.optim.Optimizer,
    inputs: Arrays,
    values: dict[str, nn.Parameter],
) -> tuple[list[float], Arrays]:
    """Four steps on two images each: the losses, and the gradients of the first step."""
    losses, gradients = [], {}
    for step in range(STEPS):
        part = slice(2 * step, 2 * step + 2)
        target = {
            "image_label": inputs["labels8"][part],
            "label": inputs["masks8"][part],
            "has_label": torch.ones(2),  # as the published code does, which knows no unknown mask
        }
        optimizer.zero_grad()
        total = loss(network(inputs["images8"][part], output="logits"), target)
        total.backward()
        if step == 0:
            gradients = {name: value.grad.clone() for name, value in values.items() if value.grad is not None}
        optimizer.step()
        losses.append(float(total.detach()))
    return losses, gradients


@pytest.mark.parametrize(("name", "layers"), [("one_layer", (4,)), ("four_layers", (1, 2, 3, 4))])
def test_prompt_tuning(
    name: str, layers: tuple[int, ...], recorded: Read, weights: Path, inputs: Arrays, one_thread: None
) -> None:
    recording = recorded(f"anomalyclip_{name}")
    network = AnomalyCLIP(
        CLIP, weights, image_size=84, feature_layers=layers, dpam_start=2, deep_prompt_depth=3, deep_prompt_length=4
    )
    prompts = network.prompts
    values = {
        "ctx_pos": prompts.context_normal,
        "ctx_neg": prompts.context_abnormal,
        "deep0": prompts.deep_prompts[0],
        "deep1": prompts.deep_prompts[1],
    }
    set_values(values, recording, "init.")
    image_feature, patch_features = network.encode_image(inputs["images8"][:2])
    assert error(image_feature, recording["image0"]) < 2e-6
    for index, feature in enumerate(patch_features):
        assert error(feature, recording[f"patch0_{index}"]) < 2e-6
    assert error(network.encode_prompts(), recording["text0"]) < 2e-6

    loss = GlocalLoss(4.0)
    optimizer = torch.optim.Adam(prompts.parameters(), lr=1e-3, betas=(0.5, 0.999))
    losses, gradients = tune(network, loss, optimizer, inputs, values)
    assert losses == pytest.approx(recording["losses"].tolist(), rel=2e-6)
    for key, gradient in gradients.items():
        assert error(gradient, recording[f"grad0.{key}"]) < 1e-5, key
    for key, value in values.items():
        assert error(value, recording[f"step4.{key}"]) < 1e-4, key

    set_values(values, recording, "step4.")
    with torch.no_grad():
        predicted = network.predict(inputs["images8"][6:8])
    assert error(predicted["anomaly_score"], recording["test_score"]) < 1e-5
    # Ours is the mean over the layers, theirs the sum.
    assert error(predicted["anomaly_map"] * len(layers), recording["test_map_sum"]) < 1e-5
    smooth = smooth_anomaly_map(predicted["anomaly_map"] * len(layers), sigma=4.0)
    assert error(smooth, recording["test_map_smooth"]) < 1e-5


@pytest.mark.parametrize("ensemble", ["single", "imagenet", "winclip"])
@torch.no_grad()
def test_clip_and_clip_ac(ensemble: str, recorded: Read, weights: Path, inputs: Arrays) -> None:
    recording = recorded("clip_and_clip_ac")
    network = PlainCLIP(CLIP, weights, image_size=84, ensemble=ensemble)
    assert error(network.encode_prompts(), recording[f"{ensemble}.text"]) < 2e-6
    predicted = network.predict(inputs["images8"])
    assert error(predicted["anomaly_score"], recording[f"{ensemble}.score"]) < 1e-5
    assert error(predicted["anomaly_map"][:2], recording[f"{ensemble}.map"]) < 1e-5


def test_coop(recorded: Read, weights: Path, inputs: Arrays, one_thread: None) -> None:
    recording = recorded("coop")
    network = CoOp(CLIP, weights, image_size=84)
    assert 1 / network.temperature == pytest.approx(float(recording["logit_scale_exp"]), rel=1e-6)
    values = {"": network.prompts.context_normal}
    set_values(values, recording, "init")
    image_feature, _ = network.encode_image(inputs["images8"])
    assert error(image_feature, recording["image"]) < 2e-6
    assert error(network.encode_prompts(), recording["text"]) < 2e-6
    with torch.no_grad():
        assert error(network.predict(inputs["images8"])["anomaly_score"], recording["prob"]) < 1e-5
    optimizer = torch.optim.SGD(network.prompts.parameters(), lr=0.002, momentum=0.9, weight_decay=5e-4)
    losses, gradients = tune(network, GlocalLoss(0.0), optimizer, inputs, values)
    assert losses == pytest.approx(recording["losses"].tolist(), rel=2e-6)
    assert error(gradients[""], recording["grad0"]) < 1e-5
    assert error(values[""], recording["step4"]) < 1e-5


@pytest.mark.parametrize(
    ("settings", "text", "ending"),
    [
        ({"ensemble": "winclip_21"}, "text_21_raw_mean", ""),
        ({}, "text_22_raw_mean", None),
        ({"unit_sentences": True}, "text_22_unit_mean", "_with_text_22_unit"),
    ],
)
@torch.no_grad()
def test_winclip(
    settings: dict[str, Any], text: str, ending: str | None, recorded: Read, weights: Path, inputs: Arrays
) -> None:
    recording = recorded("winclip")
    network = WinCLIP(CLIP, weights, image_size=84, **settings)
    assert error(network.encode_prompts(), recording[text]) < 2e-6
    image_feature, windows = network.encode_image(inputs["images4"])
    assert error(image_feature, recording["image"]) < 2e-6
    for scale, features in zip((2, 3), windows, strict=True):
        assert error(features, recording[f"windows{scale}"]) < 2e-6
    if ending is not None:
        predicted = network.predict(inputs["images4"])
        assert error(predicted["anomaly_score"], recording[f"score{ending}"]) < 1e-5
        assert error(predicted["anomaly_map"][:2], recording[f"map{ending}"]) < 1e-5


def linear_layers(network: VAND) -> dict[str, nn.Parameter]:
    return {f"fc.{key}": value for key, value in network.adapters.named_parameters()}


@pytest.mark.parametrize(("name", "published"), [("vand", False), ("vand_gelu", True)])
def test_vand(name: str, published: bool, recorded: Read, weights: Path, inputs: Arrays, one_thread: None) -> None:
    recording, quick = recorded(name), recorded("vand")
    network = VAND(CLIP, weights, image_size=84, published_backbone=published)
    values = linear_layers(network)
    set_values(values, quick, "init.")  # the same start in both recordings
    with torch.no_grad():
        _, tokens = network.encode_image(inputs["images8"][:2])
        assert error(tokens[3], recording["tok3"]) < 2e-6
        assert error(network.encode_prompts(), recording["text"]) < 2e-6
        predicted = network.predict(inputs["images8"])
        assert error(predicted["anomaly_score"], recording["score"]) < 1e-5
        assert error(predicted["anomaly_map"][:2] * 4, recording["map"]) < 1e-5  # ours is the mean, theirs the sum
    optimizer = torch.optim.Adam(network.adapters.parameters(), lr=1e-3, betas=(0.5, 0.999))
    losses, gradients = tune(network, VANDLoss(), optimizer, inputs, values)
    assert losses == pytest.approx(recording["losses"].tolist(), rel=2e-6)
    if not published:
        for key, gradient in gradients.items():
            assert error(gradient, recording[f"grad0.{key}"]) < 1e-5, key


def test_the_two_ways_to_run_vand_differ(recorded: Read) -> None:
    """The option is worth its name: plain GELU on weights of QuickGELU gives other maps."""
    assert error(recorded("vand_gelu")["map"], recorded("vand")["map"]) > 1e-3
