# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""What a GPU would see, without one: nothing is mixed, and the host waits no more often than is said here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Events
from monai.data import DataLoader, Dataset, MetaTensor
from monai.engines import SupervisedTrainer
from monai.transforms import Lambdad, ToDeviced

from monai_anomalyclip.data.feature_cache import EncodeImaged, feature_dataset
from monai_anomalyclip.demo.network import demo_network
from monai_anomalyclip.engines import PrepareAnomalyBatch
from monai_anomalyclip.inferers import AnomalySliceInferer
from monai_anomalyclip.losses import GlocalLoss
from monai_anomalyclip.metrics import ImageAUROCMetric, PixelAUROCMetric
from monai_anomalyclip.metrics.thresholds import PixelThresholdMetric
from monai_anomalyclip.networks import AnomalyCLIP
from monai_anomalyclip.reference import PatchEncoder

from pretend_device import PretendTensor, moved, pretend_device  # isort: skip


def network() -> AnomalyCLIP:
    torch.manual_seed(0)
    made: AnomalyCLIP = demo_network(prompt_length=12, deep_prompt_depth=4, deep_prompt_length=4).eval()
    return made


def test_the_pretend_device_refuses_and_counts() -> None:
    with pretend_device() as device:
        there = torch.ones(3, device="cuda:0")
        assert there.device == torch.device("cuda:0")
        with pytest.raises(RuntimeError, match="expected all tensors to be on cuda:0"):
            there + torch.ones(3)
        assert float(there.sum()) == 3
        assert device.waits == {"aten._local_scalar_dense.default": 1}
        assert torch.equal((there * 2).cpu(), torch.full((3,), 2.0))
        assert (device.to_host, device.to_device) == (1, 0)
        assert device.waits["copy to the host"] == 1
        assert isinstance(torch.ones(2).to("cuda"), PretendTensor)
        assert device.to_device == 1
        there.nonzero()
        there[there > 0]
        assert sum(device.waits.values()) == 4


def test_scoring_a_volume_waits_for_copies_alone() -> None:
    volume = MetaTensor(torch.rand((1, 1, 40, 50, 6), generator=torch.Generator().manual_seed(0)))
    inferer = AnomalySliceInferer(112, slice_axis=2, slice_batch_size=2, sigma=1.0)
    expected = inferer(volume, network())
    with pretend_device() as device:
        there = moved(network())
        inferer(volume, there)  # encodes the prompts, and moves the mean and the deviation of the normalisation there
        device.forget()
        found = inferer(volume, there)
        # Of each of the three batches: one event, when its maps and numbers have come.
        assert device.waits.pop("event") == 3
        assert device.to_host == 6
        # Once for the volume: whether the prompts are those that are encoded already.
        assert device.waits == {"aten.equal.default": 1}
        assert device.to_device == 3
    for name, value in expected.items():
        torch.testing.assert_close(torch.as_tensor(found[name]), torch.as_tensor(value), rtol=0, atol=2e-6)


def test_pictures_of_all_sizes_go_there_in_one_batch() -> None:
    generator = torch.Generator().manual_seed(0)
    sizes = [(30, 40), (700, 20), (5, 5)]
    pictures = [torch.randint(0, 256, (3, *size), generator=generator, dtype=torch.uint8) for size in sizes]
    inferer = AnomalySliceInferer(112, slice_batch_size=8, sigma=1.0)
    expected = inferer.together(pictures, network())
    with pretend_device() as device:
        found = inferer.together(pictures, moved(network()))
        assert device.kernels["aten.convolution.default"] == 1  # the patches of all
    for one, other in zip(found, expected, strict=True):
        for name, value in other.items():
            torch.testing.assert_close(one[name], value, rtol=0, atol=2e-6)


def tuning_items(count: int) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(1)
    items = []
    for index in range(count):
        mask = torch.zeros(1, 112, 112, dtype=torch.uint8)
        mask[:, 20:50, 30:70] = index % 2
        image = torch.randn((3, 112, 112), generator=generator)
        items.append({"image": image, "label": mask, "image_label": index % 2, "has_label": 1})
    return items


def losses_of_tuning(clip: AnomalyCLIP, items: list[dict[str, Any]], device: str, steps: Any = None) -> list[float]:
    optimizer = torch.optim.Adam(clip.parameters(), lr=1e-3, foreach=False)
    loss, prepare, losses = GlocalLoss(), PrepareAnomalyBatch("logits"), []
    for epoch in range(3):
        for batch in DataLoader(Dataset(items), batch_size=2):
            if steps is not None and epoch:
                steps.forget()
            inputs, targets, args, kwargs = prepare(batch, device)
            optimizer.zero_grad()
            value = loss(clip(inputs, *args, **kwargs), targets)
            value.backward()
            optimizer.step()
            if steps is not None and epoch:
                assert (dict(steps.waits), steps.to_host, steps.to_device) == ({}, 0, 0)
            losses.append(value.detach())
    return [float(value) for value in losses]


def test_a_tuning_step_on_cached_features_copies_nothing_and_never_waits() -> None:
    here = network()
    encoded = [EncodeImaged("image", here)(item) for item in tuning_items(4)]
    expected = losses_of_tuning(here, encoded, "cpu")
    with pretend_device() as device:
        there = moved(network())
        keys = ("global_features", "patch_features", "label", "image_label", "has_label")
        items = [ToDeviced(keys, "cuda:0")(EncodeImaged("image", there)(item)) for item in tuning_items(4)]
        assert all(isinstance(item[key], PretendTensor) for item in items for key in keys)
        found = losses_of_tuning(there, items, "cuda:0", device)
    assert found == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("cache", ["memory", "disk"])
def test_features_are_encoded_in_batches(cache: Any, tmp_path: Path) -> None:
    items, settings = tuning_items(5), {"cache": cache, "cache_dir": tmp_path, "progress": False}
    plain = Lambdad(("image", "label"), lambda value: value)
    expected = feature_dataset(items, plain, network(), cache="memory", progress=False)
    with pretend_device() as device:
        there = moved(network())
        found = feature_dataset(items, plain, there, **settings)
        assert device.kernels["aten.convolution.default"] == 1  # the patches of all
        kept = [found[index] for index in range(len(items))]
        if cache == "memory":  # images and labels went there, and nothing came back
            assert (dict(device.waits), device.to_host) == ({}, 0)
            assert all(isinstance(value, PretendTensor) for item in kept for value in item.values())
        read_again = feature_dataset(items, plain, there, **settings)
        kept_again = [read_again[index] for index in range(len(items))]
        assert device.kernels["aten.convolution.default"] == (2 if cache == "memory" else 1)
        for one, again, other in zip(kept, kept_again, expected, strict=True):
            assert set(one) == set(again) == set(other)
            for name, value in other.items():
                torch.testing.assert_close(one[name].cpu(), value, rtol=0, atol=2e-5)
                assert torch.equal(one[name].cpu(), again[name].cpu())


def losses_of_a_trainer(clip: AnomalyCLIP, items: list[dict[str, Any]], device: str) -> list[float]:
    """MONAI's trainer as the bundles set it up."""
    trainer = SupervisedTrainer(
        device=torch.device(device),
        max_epochs=2,
        train_data_loader=DataLoader(Dataset(items), batch_size=2),
        network=clip,
        optimizer=torch.optim.Adam(clip.parameters(), lr=1e-3, foreach=False),
        loss_function=GlocalLoss(),
        prepare_batch=PrepareAnomalyBatch("logits"),
        decollate=False,
    )
    losses: list[torch.Tensor] = []
    trainer.add_event_handler(
        Events.ITERATION_COMPLETED, lambda engine: losses.append(engine.state.output["loss"].detach())
    )
    trainer.run()
    return [float(value) for value in losses]


def test_the_trainer_tunes_there_as_here() -> None:
    here = network()
    expected = losses_of_a_trainer(here, [EncodeImaged("image", here)(item) for item in tuning_items(4)], "cpu")
    with pretend_device():
        there = moved(network())
        items = [EncodeImaged("image", there)(item) for item in tuning_items(4)]  # on the CPU: the trainer moves them
        found = losses_of_a_trainer(there, items, "cuda:0")
    assert len(found) == 4
    assert found == pytest.approx(expected, abs=1e-5)


def test_evaluation_and_calibration_take_what_lies_there() -> None:
    generator = torch.Generator().manual_seed(2)
    maps = torch.rand((4, 1, 16, 16), generator=generator)
    masks = (torch.rand((4, 1, 16, 16), generator=generator) > 0.7).to(torch.uint8)
    scores, labels = torch.rand(4, generator=generator), torch.tensor([0, 1, 0, 1])
    with pretend_device():
        for metric, given in (
            (PixelAUROCMetric, (maps, masks)),
            (PixelThresholdMetric, (maps, masks)),
            (ImageAUROCMetric, (scores, labels)),
        ):
            here, there = metric(), metric()
            here(y_pred=given[0], y=given[1])
            there(y_pred=given[0].to("cuda:0"), y=given[1].to("cuda:0"))
            assert float(there.aggregate()) == float(here.aggregate())


def test_what_a_gpu_cannot_resize_an_encoder_resizes_before_it_goes_there() -> None:
    torch.manual_seed(0)
    patches = torch.nn.Conv2d(3, 6, 8, stride=8)
    encoder = PatchEncoder(lambda images: [patches(images)], "one", image_size=32, n_stages=1, grid=4, weights=patches)
    strip, square = torch.rand(1, 3, 6_000, 2), torch.rand(1, 3, 60, 20)
    expected = [encoder(strip), encoder(square)]
    with pretend_device() as device:
        moved(encoder), moved(patches)
        for images, given, there in ((strip, expected[0], 0), (square, expected[1], 1)):
            device.forget()
            assert torch.equal(encoder(images).cpu(), given)
            assert device.kernels["aten._upsample_bilinear2d_aa.default"] == there
