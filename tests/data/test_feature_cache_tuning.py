# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from ignite.engine import Engine, Events
from monai.data import CacheDataset, DataLoader, Dataset, DistributedSampler, PersistentDataset
from monai.engines import SupervisedTrainer
from monai.transforms import Compose, ToDeviced
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from monai_anomalyclip.data import (
    EncodeImaged,
    FeatureKey,
    feature_cache,
    feature_dataset,
)
from monai_anomalyclip.engines import PrepareAnomalyBatch
from monai_anomalyclip.losses import GlocalLoss
from monai_anomalyclip.networks import AnomalyCLIP, resolve_precision
from tests.data.encoded_pictures import IMAGES, Items, preprocessing


@pytest.fixture
def tiny_net(tiny_config: dict[str, Any], data_dir: Path) -> AnomalyCLIP:
    net = AnomalyCLIP(
        tiny_config["clip"],
        data_dir / "tiny" / "clip_weights_fp16.safetensors",
        image_size=84,
        feature_layers=(3, 6, 9, 12),
        dpam_start=5,
        deep_prompt_depth=5,
    )
    net.load_prompts(data_dir / "tiny" / "prompt_learner.pth")
    return net


def tuned_losses(net: AnomalyCLIP, dataset: Dataset, epochs: int = 2) -> list[float]:
    losses: list[float] = []
    trainer = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=epochs,
        train_data_loader=DataLoader(
            dataset,
            batch_size=2,
            sampler=DistributedSampler(dataset, num_replicas=1, rank=0, shuffle=True, seed=3),
        ),
        network=net,
        optimizer=torch.optim.Adam(net.prompts.parameters(), 1e-3, betas=(0.5, 0.999)),
        loss_function=GlocalLoss(),
        prepare_batch=PrepareAnomalyBatch("logits"),
        decollate=False,
    )

    def note(engine: Engine) -> None:
        losses.append(engine.state.output["loss"].item())

    trainer.add_event_handler(Events.ITERATION_COMPLETED, note)
    trainer.run()
    return losses


def total_loss(net: AnomalyCLIP, dataset: Dataset) -> tuple[Tensor, GlocalLoss]:
    batch = next(iter(DataLoader(dataset, batch_size=IMAGES)))
    inputs, targets, _, extra = PrepareAnomalyBatch("logits")(batch, "cpu")
    loss = GlocalLoss()
    return loss(net(inputs, **extra), targets), loss


class _Waits(TorchDispatchMode):
    """Counts what makes the host wait for a GPU."""

    count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += function._schema.name in ("aten::_local_scalar_dense", "aten::nonzero", "aten::equal")
        return function(*args, **(kwargs or {}))


def test_tuning_gives_the_same_losses_with_and_without_cache(
    tiny_net: AnomalyCLIP, items: Items, tmp_path: Path, encodings: list[int]
) -> None:
    start = {name: value.clone() for name, value in tiny_net.state_dict().items()}
    losses: dict[str, list[float]] = {}
    prompts: dict[str, Tensor] = {}
    images: dict[str, int] = {}
    for cache in ("off", "memory", "disk"):
        tiny_net.load_state_dict(start)
        encodings.clear()
        dataset = feature_dataset(
            items,
            preprocessing(84),
            tiny_net,
            cache=cache,
            cache_dir=tmp_path / "c",
            progress=False,
        )
        losses[cache] = tuned_losses(tiny_net, dataset)
        prompts[cache] = torch.cat([value.flatten() for value in tiny_net.state_dict().values()])
        images[cache] = sum(encodings)
    assert images == {"off": 2 * IMAGES, "memory": IMAGES, "disk": IMAGES}
    assert len(losses["off"]) == 6
    assert not torch.equal(prompts["off"], torch.cat([value.flatten() for value in start.values()]))
    assert losses["disk"] == losses["memory"]
    assert torch.equal(prompts["disk"], prompts["memory"])
    np.testing.assert_allclose(losses["memory"], losses["off"], rtol=2e-5)  # batches of another size round differently
    torch.testing.assert_close(prompts["memory"], prompts["off"], rtol=1e-3, atol=1e-5)


def test_losses_of_half_precision_features_agree_to_a_thousandth(
    net: AnomalyCLIP, items: Items, tmp_path: Path
) -> None:
    terms, gradients = [], []
    for dtype, stored in (("float32", torch.float32), ("float16", torch.float16)):
        dataset = feature_dataset(items, preprocessing(), net, cache="memory", feature_dtype=dtype, progress=False)
        assert dataset[0]["patch_features"].dtype == dataset[0]["global_features"].dtype == stored
        net.zero_grad()
        total, loss = total_loss(net, dataset)
        total.backward()
        terms.append(torch.stack(list(loss.last_terms.values())))
        gradients.append(torch.cat([p.grad.flatten() for p in net.prompts.parameters() if p.grad is not None]))
    assert not torch.equal(*terms)
    torch.testing.assert_close(*terms, rtol=1e-3, atol=0)
    assert (gradients[0] - gradients[1]).norm() < 1e-2 * gradients[0].norm()
    keys = {FeatureKey(net, dtype)(items[0]) for dtype in ("float32", "float16")}
    assert len(keys) == 2
    with pytest.raises(ValueError, match="feature_dtype='int8' is not one of float32, float16"):
        feature_dataset(items, preprocessing(), net, cache="memory", feature_dtype="int8")


def test_precision_holds_in_the_thread_that_encodes(net: AnomalyCLIP, items: Items) -> None:
    datasets = {
        name: feature_dataset(items, preprocessing(), net, cache="memory", precision=name, progress=False)
        for name in ("float32", "bfloat16", "auto")
    }
    exact, coarse = datasets["float32"][0], datasets["bfloat16"][0]
    prepared = Compose(preprocessing())(items[0])
    with ThreadPoolExecutor(1) as pool:
        elsewhere = pool.submit(EncodeImaged("image", net, precision="bfloat16"), prepared).result()
    for name in ("global_features", "patch_features"):
        assert coarse[name].dtype == torch.float32
        assert not torch.equal(coarse[name], exact[name])
        assert (coarse[name] - exact[name]).norm() < 2e-2 * exact[name].norm()
        assert torch.equal(elsewhere[name], coarse[name])
    terms = []
    for dataset in (datasets["float32"], datasets["bfloat16"]):
        loss = total_loss(net, dataset)[1]
        terms.append(torch.stack(list(loss.last_terms.values())))
    torch.testing.assert_close(*terms, rtol=2e-2, atol=0)
    keys = {FeatureKey(net, precision=name)(items[0]) for name in ("float32", "bfloat16", "float16")}
    assert len(keys) == 3
    automatic = FeatureKey(net, precision="auto")(items[0])
    assert automatic == FeatureKey(net, precision=resolve_precision("auto", "cpu"))(items[0])
    with pytest.raises(ValueError, match="precision='int8' is not one of auto, float32"):
        EncodeImaged("image", net, precision="int8")


@pytest.mark.parametrize(("free", "fits"), [(10**9, True), (1000, False)])
def test_what_fits_is_kept_on_the_gpu(
    free: int, fits: bool, net: AnomalyCLIP, items: Items, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 10**9))
    assert feature_cache._fits_on_gpu(torch.device("cuda:1"), 1000) == fits
    assert not feature_cache._fits_on_gpu(torch.device("cpu"), 1)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=0))
    monkeypatch.setattr(feature_cache, "_fits_on_gpu", lambda device, needed: fits)
    moved: list[str] = []
    monkeypatch.setattr(ToDeviced, "__call__", lambda self, data: moved.extend(self.key_iterator(data)) or data)
    dataset = feature_dataset(items, preprocessing(), net, cache_dir=tmp_path / "c", progress=False)
    assert isinstance(dataset, CacheDataset if fits else PersistentDataset)
    dataset[0]
    assert sorted(set(moved)) == (
        ["global_features", "has_label", "image_label", "label", "patch_features"] if fits else []
    )
    loader = DataLoader(dataset, num_workers=1)
    if fits:
        with pytest.raises(RuntimeError, match=r"set num_workers to 0, which loses nothing"):
            next(iter(loader))
        monkeypatch.setattr(feature_cache, "get_worker_info", object)  # as in that process
        with pytest.raises(RuntimeError, match=r"set num_workers to 0, which loses nothing"):
            dataset[0]
    else:
        assert next(iter(loader))["patch_features"].shape[0] == 1


def test_no_step_waits_for_the_device(net: AnomalyCLIP, items: Items) -> None:
    dataset = feature_dataset(items, preprocessing(), net, cache="memory", progress=False)
    batch = next(iter(DataLoader(dataset, batch_size=IMAGES)))
    inputs, targets, _, extra = PrepareAnomalyBatch("logits")(batch, "cpu")
    with _Waits() as waits:
        loss = GlocalLoss()
        total = loss(net(inputs, **extra), targets)
        total.backward()
        assert waits.count == 0
        float(total.detach())
        assert waits.count == 1  # it would have been seen
