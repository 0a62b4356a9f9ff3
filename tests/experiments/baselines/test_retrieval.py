# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from monai_anomalyclip.engines import PrepareAnomalyBatch
from monai_anomalyclip.experiments.baselines import MemoryBuilder, Retrieval, read_memory

Make = Callable[..., Any]
SIDE = 84


def looked_up(queries: np.ndarray, keys: np.ndarray, values: np.ndarray, temperature: float) -> np.ndarray:
    """The oracle: for each query, a loop over all keys."""
    answers = []
    for query in queries:
        weights = [
            np.exp(np.dot(query, key) / np.linalg.norm(query) / np.linalg.norm(key) / temperature) for key in keys
        ]
        answers.append(sum(weight * value for weight, value in zip(weights, values, strict=True)) / sum(weights))
    return np.array(answers)


def unit(keys: Tensor) -> Tensor:
    return keys / keys.norm(dim=-1, keepdim=True)


def filled(network: Retrieval, keys: int = 300) -> Retrieval:
    generator = torch.Generator().manual_seed(5)
    layers, _, width = network.patch_keys.shape
    labels = torch.tensor([0.0, 1.0, 1.0, 0.0, 1.0])
    shares = torch.rand(keys, generator=generator).mul(3).sub(1).clamp(0, 1)
    network.set_memory(
        unit(torch.randn(5, width, generator=generator)),
        labels,
        unit(torch.randn(layers, keys, width, generator=generator)),
        shares,
    )
    return network


@pytest.fixture
def network(make: Make) -> Retrieval:
    made: Retrieval = make(Retrieval, feature_layers=[2, 4], dpam_start=2, temperature=0.1)
    return made


@torch.no_grad()
def test_score_and_map_equal_a_loop_over_all_keys(network: Retrieval, image: Tensor, wide_image: Tensor) -> None:
    filled(network)
    for pixels in (image, wide_image):
        features, layers = network.encode_image(pixels)
        predicted = network.predict(pixels)
        wanted = looked_up(features.numpy(), network.image_keys.numpy(), network.image_values.numpy(), 0.1)
        np.testing.assert_allclose(predicted["anomaly_score"].numpy(), wanted, rtol=1e-5)
        logits = network.logits(features, layers, grid=(pixels.shape[-2] // 14, pixels.shape[-1] // 14))
        for found, patches, keys in zip(logits["patch_logits"], layers, network.patch_keys, strict=True):
            queries = patches[:, 1:].flatten(0, 1).numpy()
            wanted = looked_up(queries, keys.numpy(), network.patch_values.numpy(), 0.1)
            np.testing.assert_allclose(found.softmax(dim=1)[:, 1].flatten().numpy(), wanted, rtol=1e-5, atol=1e-7)
        assert predicted["anomaly_map"].shape == (len(pixels), 1, *pixels.shape[2:])


@torch.no_grad()
def test_what_is_in_the_memory_is_recognised(network: Retrieval, image: Tensor) -> None:
    """At a low temperature a patch gets the label of its own key."""
    network.temperature = 1e-3
    features, layers = network.encode_image(image)
    shares = torch.zeros(36).index_fill(0, torch.tensor([7, 8]), 1.0)
    keys = torch.stack([layer[0, 1:] for layer in layers])
    network.set_memory(unit(features), torch.tensor([0.0, 1.0]), unit(keys), shares)
    (found, _) = network.logits(features, layers)["patch_logits"]
    assert torch.equal(found[0].softmax(dim=0)[1].flatten() > 0.5, shares > 0.5)
    assert (network.predict(image)["anomaly_score"] > 0.5).tolist() == [False, True]


def batches(count: int = 3) -> list[dict[str, Tensor]]:
    """Image 0 normal; 1 with a mask over 2 x 2 patches; 2 anomalous without a mask."""
    generator = torch.Generator().manual_seed(9)
    found = []
    for number in range(count):
        mask = torch.zeros(1, 1, SIDE, SIDE)
        if number == 1:
            mask[..., :28, :21] = 1
        found.append(
            {
                "image": torch.randn(1, 3, SIDE, SIDE, generator=generator, dtype=torch.float64),
                "label": mask,
                "image_label": torch.tensor([int(number > 0)]),
                "has_label": torch.tensor([number < 2]),
            }
        )
    return found


def build(network: Retrieval, path: Path, data: list[dict[str, Tensor]], **settings: Any) -> None:
    MemoryBuilder(network, data, PrepareAnomalyBatch("logits"), path, **settings).run()


def test_memory_is_made_of_images_and_masks(network: Retrieval, tmp_path: Path) -> None:
    build(network, tmp_path / "model.pt", batches(), keys_per_image=6)
    assert network.image_values.tolist() == [0, 1, 1]
    assert network.patch_keys.shape[:2] == (2, 12)  # none of the image whose mask is unknown
    assert (network.patch_values[:6] == 0).all()
    touched = network.patch_values[6:]
    assert (touched > 0).sum() == 3
    assert set(touched[touched > 0].tolist()) <= {0.5, 1.0}  # of 14 columns, 14 and 7
    torch.testing.assert_close(network.patch_keys.norm(dim=-1), torch.ones(2, 12, dtype=torch.float64))
    with torch.no_grad():
        features, _ = network.encode_image(batches()[2]["image"])
    torch.testing.assert_close(network.image_keys[2], features[0] / features[0].norm())


def test_images_are_encoded_in_the_chosen_precision(network: Retrieval, tmp_path: Path) -> None:
    network.clip = copy.deepcopy(network.clip).float()  # other tests share it
    data = [{**batch, "image": batch["image"].float()} for batch in batches()]
    keys = []
    for precision in ("float32", "bfloat16"):
        build(network, tmp_path / f"{precision}.pt", data, precision=precision)
        keys.append(network.image_keys.clone())
    assert not torch.equal(*keys)
    torch.testing.assert_close(*keys, rtol=0, atol=2e-2)


def test_the_same_from_cached_features_and_from_a_file(network: Retrieval, make: Make, tmp_path: Path) -> None:
    data = batches()
    build(network, tmp_path / "a.pt", data)
    cached = []
    for batch in data:
        with torch.no_grad():
            features, layers = network.encode_image(batch.pop("image"))
        cached.append({**batch, "global_features": features, "patch_features": torch.stack(layers, dim=1)})
    other = make(Retrieval, feature_layers=[2, 4], dpam_start=2)
    build(other, tmp_path / "b.pt", cached)
    read = make(Retrieval, feature_layers=[2, 4], dpam_start=2)
    read.load_prompts(tmp_path / "b.pt")
    for name, value in network.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], value)
        assert torch.equal(read.state_dict()[name], other.state_dict()[name])
    assert sorted(read_memory(tmp_path / "b.pt")) == ["image_keys", "image_values", "patch_keys", "patch_values"]


def test_mistakes_are_one_sentence(network: Retrieval, make: Make, image: Tensor, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="The memory is empty"):
        network(image)
    with pytest.raises(ValueError, match="image_values need normal and anomalous ones, got 1 of one kind"):
        build(network, tmp_path / "model.pt", batches(1))
    with pytest.raises(ValueError, match="no images with known masks"):
        build(network, tmp_path / "model.pt", batches()[2:])
    with pytest.raises(ValueError, match="keys_per_image=1 must be at least 2"):
        build(network, tmp_path / "model.pt", batches(), keys_per_image=1)
    assert not (tmp_path / "model.pt").exists()
    with pytest.raises(ValueError, match="no ensemble"):
        make(Retrieval, dpam_attention="qq+kk")
    with pytest.raises(FileNotFoundError, match=r"There is no memory at .*configs/methods/retrieval\.json"):
        network.load_prompts(tmp_path / "absent.pt")
    torch.save({"prompts.context_normal": torch.zeros(3)}, tmp_path / "prompts.pt")
    with pytest.raises(ValueError, match="holds no memory for retrieval"):
        network.load_prompts(tmp_path / "prompts.pt")
    (tmp_path / "text.pt").write_text("no memory")
    with pytest.raises(ValueError, match=r"text.pt' cannot be read safely \(weights_only\) as a memory: "):
        network.load_prompts(tmp_path / "text.pt")
    with pytest.raises(ValueError, match=r"dpam_start=99 must lie between 1 and \d+"):
        make(Retrieval, feature_layers=[2, 4], dpam_start=99)
    build(network, tmp_path / "model.pt", batches())
    features, layers = network.encode_image(image)
    with pytest.raises(ValueError, match="36 patches do not form a grid of 5 x 7"):
        network.logits(features, layers, grid=(5, 7))
    assert network.encode_prompts().shape == (0, features.shape[-1])
    with pytest.raises(ValueError, match=r"written as \.pt, not as 'model.safetensors'"):
        network.save_prompts(tmp_path / "model.safetensors")
    torch.save(
        {**read_memory(tmp_path / "model.pt"), "image_keys": torch.tensor([[float("nan")]])}, tmp_path / "nan.pt"
    )
    with pytest.raises(ValueError, match=r"nan.pt' has values that are not finite"):
        network.load_prompts(tmp_path / "nan.pt")
    with pytest.raises(FileExistsError, match="exists"):
        network.save_prompts(tmp_path / "model.pt")
    with pytest.raises(ValueError, match="made with dpam_start=2, the network has 3"):
        make(Retrieval, feature_layers=[2, 4], dpam_start=3).load_prompts(tmp_path / "model.pt")
    other = make(Retrieval, feature_layers=[4], dpam_start=2)
    with pytest.raises(ValueError, match=r"made with feature_layers=\[2, 4\], the network has \[4\]"):
        other.load_prompts(tmp_path / "model.pt")
    with pytest.raises(ValueError, match=r"patch_keys have shape \(2, "):
        other.load_prompts(tmp_path / "model.pt", check_backbone=False)
