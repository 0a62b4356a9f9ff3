# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Hashable
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
from monai.transforms import Compose, Identityd, Lambda, OneOf, RandFlipd, SelectItemsd, ToDeviced
from PIL import Image
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import default_collate

from monai_anomalyclip.data import (
    EncodeImaged,
    FeatureKey,
    LoadFramed,
    LoadMaskd,
    UnreadableInputError,
    feature_cache,
    feature_dataset,
)
from monai_anomalyclip.engines import PrepareAnomalyBatch
from monai_anomalyclip.losses import GlocalLoss
from monai_anomalyclip.networks import AnomalyCLIP, resolve_precision
from monai_anomalyclip.transforms import CLIPMaskPreprocessd, CLIPPreprocessd

SMALL_CLIP: dict[str, Any] = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 28, "layers": 2, "width": 64, "patch_size": 14},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 1, "layers": 2},
    "quick_gelu": True,
}
IMAGES = 5
Items = list[dict[str, Any]]


@pytest.fixture(scope="module")
def small_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of the small CLIP, so that several networks can share one backbone."""
    path = tmp_path_factory.mktemp("weights") / "clip.pt"
    torch.manual_seed(5)
    with pytest.warns(UserWarning, match="random weights"):
        torch.save(AnomalyCLIP(SMALL_CLIP, None, **SETTINGS).clip.state_dict(), path)
    return path


SETTINGS: dict[str, Any] = {
    "image_size": 28,
    "feature_layers": (1, 2),
    "dpam_start": 1,
    "deep_prompt_depth": 2,
    "prompt_length": 4,
}


@pytest.fixture
def make_net(small_weights: Path) -> Callable[..., AnomalyCLIP]:
    def build(weights: Path | None = small_weights, **settings: Any) -> AnomalyCLIP:
        return AnomalyCLIP(SMALL_CLIP, weights, **{**SETTINGS, **settings})

    return build


@pytest.fixture
def net(make_net: Callable[..., AnomalyCLIP]) -> AnomalyCLIP:
    return make_net()


@pytest.fixture
def items(tmp_path: Path) -> Items:
    """Random pictures of 84 x 84 pixels; every second one has a mask, the last is anomalous without one."""
    generator = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    data: Items = []
    for index in range(IMAGES):
        path = tmp_path / "images" / f"{index}.png"
        Image.fromarray(generator.integers(0, 256, (84, 84, 3), dtype=np.uint8)).save(path)
        data.append({"image": str(path), "image_label": int(index % 2 == 1 or index == IMAGES - 1), "class": "noise"})
        if index % 2 == 1:
            mask = np.zeros((84, 84), np.uint8)
            mask[10 * index : 10 * index + 30, 20:60] = 255
            data[-1]["label"] = str(path.with_name(f"{index}_mask.png"))
            Image.fromarray(mask).save(data[-1]["label"])
    return data


def preprocessing(image_size: int = 28) -> Compose:
    return Compose(
        [
            LoadFramed("image"),
            LoadMaskd("label"),
            CLIPPreprocessd("image", image_size=image_size),
            CLIPMaskPreprocessd("label", image_size=image_size),
            SelectItemsd(["image", "label", "image_label", "has_label"]),
        ]
    )


@pytest.fixture
def encodings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Number of images of each call of the frozen encoder, of whatever network."""
    calls: list[int] = []
    encode_image = AnomalyCLIP.encode_image

    def counted(self: AnomalyCLIP, image: Tensor) -> Any:
        calls.append(len(image))
        return encode_image(self, image)

    monkeypatch.setattr(AnomalyCLIP, "encode_image", counted)
    return calls


def read(dataset: Dataset, epochs: int = 1) -> Items:
    return [dataset[index] for _ in range(epochs) for index in range(len(dataset))]


@pytest.mark.parametrize(("cache", "kind"), [("memory", CacheDataset), ("disk", PersistentDataset)])
def test_each_image_is_encoded_once(
    cache: Any, kind: type, net: AnomalyCLIP, items: Items, tmp_path: Path, encodings: list[int]
) -> None:
    dataset = feature_dataset(items, preprocessing(), net, cache=cache, cache_dir=tmp_path / "cache", progress=False)
    assert isinstance(dataset, kind)
    epochs = [read(dataset) for _ in range(3)]
    assert encodings == [1] * IMAGES
    for item in read(dataset):
        assert set(item) == {"global_features", "patch_features", "label", "image_label", "has_label"}
    for later in epochs[1:]:
        for first, again in zip(epochs[0], later, strict=True):
            assert set(first) == set(again)
            for key in ("global_features", "patch_features", "label"):
                assert torch.equal(torch.as_tensor(first[key]), torch.as_tensor(again[key]))


@pytest.mark.parametrize("attention", ["vv", "qq+kk+vv"])
def test_features_are_those_of_the_encoder(
    attention: str, make_net: Callable[..., AnomalyCLIP], items: Items, tmp_path: Path
) -> None:
    net = make_net(dpam_attention=attention)
    dataset = feature_dataset(items, preprocessing(), net, cache="memory", progress=False)
    for item, source in zip(read(dataset), items, strict=True):
        image = torch.as_tensor(preprocessing()(source)["image"]).as_subclass(Tensor)
        with torch.no_grad():
            global_features, patch_features = net.encode_image(image[None])
        torch.testing.assert_close(torch.as_tensor(item["global_features"]).as_subclass(Tensor), global_features[0])
        expected = torch.stack([layer[0] for layer in patch_features])
        torch.testing.assert_close(torch.as_tensor(item["patch_features"]).as_subclass(Tensor), expected)
        assert expected.shape == ((2, 5, 16) if attention == "vv" else (2, 3, 5, 16))


def test_off_keeps_the_images(net: AnomalyCLIP, items: Items, encodings: list[int]) -> None:
    dataset = feature_dataset(items, preprocessing(), net, cache="off")
    assert type(dataset) is Dataset
    for item, source in zip(read(dataset, epochs=1), items, strict=True):
        assert set(item) == {"image", "label", "image_label", "has_label"}
        assert torch.equal(item["image"], preprocessing()(source)["image"])
    assert encodings == []


def test_labels_go_along(net: AnomalyCLIP, items: Items) -> None:
    data = read(feature_dataset(items, preprocessing(), net, cache="memory", progress=False))
    assert [int(item["image_label"]) for item in data] == [0, 1, 0, 1, 1]
    assert [int(item["has_label"]) for item in data] == [1, 1, 1, 1, 0]
    assert [bool(item["label"].any()) for item in data] == [False, True, False, True, False]


def test_disk_cache_outlives_the_data_set(
    make_net: Callable[..., AnomalyCLIP], items: Items, tmp_path: Path, encodings: list[int]
) -> None:
    for round_ in range(2):  # the second time with a new network and other prompts, on the same backbone
        net = make_net(prompt_length=4 + round_, temperature=0.07 + round_, normal_words=(f"thing{round_}",))
        dataset = feature_dataset(items, preprocessing(), net, cache="disk", cache_dir=tmp_path / "c", progress=False)
        read(dataset)
        assert encodings == [1] * IMAGES


def rewrite(path: str) -> None:
    """Other pixels; also another time, should the clock or the size not tell."""
    with Image.open(path) as picture:
        pixels = np.asarray(picture)
    before = os.stat(path).st_mtime_ns
    Image.fromarray(pixels[::-1].copy()).save(path)
    os.utime(path, ns=(before + 1_000_000, before + 1_000_000))


@pytest.mark.parametrize(
    "settings",
    [{"image_size": 42}, {"feature_layers": (2,)}, {"dpam_attention": "qq"}, {"dpam_start": 2}],
    ids=lambda settings: next(iter(settings)),
)
def test_disk_cache_is_not_used_with_other_settings(
    settings: dict[str, Any],
    make_net: Callable[..., AnomalyCLIP],
    items: Items,
    tmp_path: Path,
    encodings: list[int],
) -> None:
    options: dict[str, Any] = {"cache": "disk", "cache_dir": tmp_path / "c", "progress": False}
    read(feature_dataset(items, preprocessing(), make_net(), **options))
    other = make_net(**settings)
    read(feature_dataset(items, preprocessing(other.image_size), other, **options))
    assert encodings == [1] * 2 * IMAGES


def test_disk_cache_is_not_used_with_another_backbone(
    net: AnomalyCLIP, small_weights: Path, make_net: Callable[..., AnomalyCLIP], items: Items, tmp_path: Path
) -> None:
    weights = torch.load(small_weights, weights_only=True)
    weights["visual.proj"] = weights["visual.proj"] + 1e-3
    torch.save(weights, tmp_path / "other.pt")
    other = make_net(tmp_path / "other.pt")
    options: dict[str, Any] = {"cache": "disk", "cache_dir": tmp_path / "c", "progress": False}
    first, second = (read(feature_dataset(items, preprocessing(), each, **options)) for each in (net, other))
    for ours, theirs in zip(first, second, strict=True):
        assert not torch.equal(torch.as_tensor(ours["global_features"]), torch.as_tensor(theirs["global_features"]))


@pytest.mark.parametrize("changed", ["image", "label", "image_label"])
def test_disk_cache_is_not_used_for_a_changed_item(
    changed: str, net: AnomalyCLIP, items: Items, tmp_path: Path, encodings: list[int]
) -> None:
    options: dict[str, Any] = {"cache": "disk", "cache_dir": tmp_path / "c", "progress": False}
    before = read(feature_dataset(items, preprocessing(), net, **options))
    if changed == "image_label":
        items[0]["image_label"] = 1
        index = 0
    else:
        index = 1
        rewrite(items[index][changed])
    after = read(feature_dataset(items, preprocessing(), net, **options))
    assert encodings == [1] * (IMAGES + 1)
    key = {"image": "global_features"}.get(changed, changed)
    same = [torch.equal(torch.as_tensor(a[key]), torch.as_tensor(b[key])) for a, b in zip(before, after, strict=True)]
    assert [number for number, equal in enumerate(same) if not equal] == [index]


def test_items_are_added_to_a_disk_cache(net: AnomalyCLIP, items: Items, tmp_path: Path, encodings: list[int]) -> None:
    options: dict[str, Any] = {"cache": "disk", "cache_dir": tmp_path / "c", "progress": False}
    read(feature_dataset(items[:2], preprocessing(), net, **options))
    read(feature_dataset(items, preprocessing(), net, **options))
    assert encodings == [1] * IMAGES


def test_keys(make_net: Callable[..., AnomalyCLIP], items: Items) -> None:
    key = FeatureKey(make_net())
    keys = [key(item) for item in items]
    assert len(set(keys)) == IMAGES
    assert keys == [key(dict(reversed(item.items()))) for item in items]
    assert FeatureKey(make_net(prompt_length=7, temperature=1.0, abnormal_words=("broken thing",)))(items[0]) == keys[0]
    for settings in ({"image_size": 42}, {"feature_layers": (2,)}, {"dpam_attention": "qq"}, {"dpam_start": 2}):
        assert FeatureKey(make_net(**settings))(items[0]) != keys[0]
    assert keys[0].decode().isalnum()  # a file name


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4], [4, 0, 1, 2, 3], [1, 4, 0, 3, 2]])
@pytest.mark.parametrize("collate", [None, default_collate], ids=["monai", "torch"])
@pytest.mark.parametrize("cache", ["memory", "disk"])
def test_fresh_and_cached_items_share_a_batch(
    cache: Any, collate: Any, order: list[int], net: AnomalyCLIP, items: Items, tmp_path: Path
) -> None:
    """After a kill in the first epoch a part of the items is on disk, the others are computed."""
    options: dict[str, Any] = {"cache": cache, "cache_dir": tmp_path / "c", "progress": False}
    read(feature_dataset(items[:2], preprocessing(), net, **options))
    dataset = feature_dataset(items, preprocessing(), net, **options)
    loader = DataLoader(dataset, batch_size=IMAGES, sampler=order, **({"collate_fn": collate} if collate else {}))
    for batch in (next(iter(loader)) for _ in range(2)):
        assert {key: tuple(value.shape) for key, value in batch.items()} == {
            "global_features": (IMAGES, 16),
            "patch_features": (IMAGES, 2, 5, 16),
            "label": (IMAGES, 1, 28, 28),
            "image_label": (IMAGES,),
            "has_label": (IMAGES,),
        }
        assert batch["image_label"].tolist() == [items[index]["image_label"] for index in order]


@pytest.mark.parametrize("cache", ["memory", "disk"])
def test_items_are_plain_tensors(cache: Any, net: AnomalyCLIP, items: Items, tmp_path: Path) -> None:
    dataset = feature_dataset(items, preprocessing(), net, cache=cache, cache_dir=tmp_path / "c", progress=False)
    for item in read(dataset, epochs=2):
        for key in ("global_features", "patch_features", "label"):
            assert type(item[key]) is Tensor, key
            assert not item[key].requires_grad


def test_half_written_cache_file_is_made_anew(
    net: AnomalyCLIP, items: Items, tmp_path: Path, encodings: list[int]
) -> None:
    options: dict[str, Any] = {"cache": "disk", "cache_dir": tmp_path / "c", "progress": False}
    expected = read(feature_dataset(items, preprocessing(), net, **options))
    files = sorted((tmp_path / "c").iterdir())
    for file, length in zip(files, (0, 10, 2000, file_size(files[3]) - 10), strict=False):
        file.write_bytes(file.read_bytes()[:length])
    restored = read(feature_dataset(items, preprocessing(), net, **options))
    for left, right in zip(expected, restored, strict=True):
        assert torch.equal(torch.as_tensor(left["patch_features"]), torch.as_tensor(right["patch_features"]))
    assert len(encodings) == IMAGES + 4


def file_size(path: Path) -> int:
    return path.stat().st_size


def test_unreadable_image_is_not_taken_for_a_damaged_cache(net: AnomalyCLIP, items: Items, tmp_path: Path) -> None:
    Path(items[0]["image"]).write_bytes(b"no picture")
    options: dict[str, Any] = {"cache": "disk", "cache_dir": tmp_path / "c", "progress": False}
    dataset = feature_dataset(items, preprocessing(), net, **options)
    for _ in range(2):
        with pytest.raises(RuntimeError) as caught:
            dataset[0]
        assert isinstance(caught.value.__cause__, UnreadableInputError)
    assert list((tmp_path / "c").iterdir()) == []


def test_sequence_of_transforms(net: AnomalyCLIP, items: Items, encodings: list[int]) -> None:
    steps = preprocessing().transforms
    assert isinstance(steps, list | tuple)
    dataset = feature_dataset(items, list(steps), net, cache="memory", progress=False)
    read(dataset, epochs=2)
    assert encodings == [1] * IMAGES
    assert set(feature_dataset(items, list(steps), net, cache="off")[0]) >= {"image", "label"}


def plain_function(item: dict[str, Any]) -> dict[str, Any]:
    return item


@pytest.mark.parametrize("cache", ["memory", "disk"])
def test_plain_function_cannot_end_the_cache_silently(
    cache: Any, net: AnomalyCLIP, items: Items, tmp_path: Path, encodings: list[int]
) -> None:
    """MONAI caches up to the first plain function: the encoder behind it would run in every epoch."""
    options: dict[str, Any] = {"cache": cache, "cache_dir": tmp_path / "c", "progress": False}
    with pytest.raises(ValueError, match=r"cannot be cached.*function.*monai\.transforms\.Lambda"):
        feature_dataset(items, Compose([preprocessing(), plain_function]), net, **options)
    wrapped = Compose([preprocessing(), Lambda(plain_function)])
    read(feature_dataset(items, wrapped, net, **options), epochs=2)
    assert encodings == [1] * IMAGES
    assert "image" in feature_dataset(items, Compose([preprocessing(), plain_function]), net, cache="off")[0]


@pytest.mark.parametrize("cache", ["memory", "disk", "auto"])
@pytest.mark.parametrize(
    "random",
    [
        RandFlipd("image", prob=1.0),
        Compose([Identityd("image"), RandFlipd("image")]),
        OneOf([Identityd("image"), Identityd("image")]),
    ],
    ids=["transform", "nested", "OneOf"],
)
def test_random_transforms_are_refused(random: Any, cache: Any, net: AnomalyCLIP, items: Items, tmp_path: Path) -> None:
    transform = Compose([preprocessing(), random])
    with pytest.raises(ValueError, match=r"cannot be cached.*(RandFlipd|OneOf).*cache='off'"):
        feature_dataset(items, transform, net, cache=cache, cache_dir=tmp_path / "c", progress=False)
    assert len(feature_dataset(items, transform, net, cache="off")) == IMAGES


def with_free_memory(monkeypatch: pytest.MonkeyPatch, available: float) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=int(available)))


@pytest.mark.parametrize("attention", ["vv", "qq+kk+vv"])
def test_auto_goes_to_disk_when_memory_is_short(
    attention: str,
    make_net: Callable[..., AnomalyCLIP],
    items: Items,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    net = make_net(dpam_attention=attention)
    options: dict[str, Any] = {"cache": "auto", "cache_dir": tmp_path / "c", "progress": False}
    kept = read(feature_dataset(items, preprocessing(), net, cache="memory", progress=False))
    needed = sum(value.nbytes for item in kept for value in item.values() if isinstance(value, Tensor))
    with_free_memory(monkeypatch, 2.1 * needed)
    with caplog.at_level(logging.INFO):
        assert isinstance(feature_dataset(items, preprocessing(), net, **options), CacheDataset)
        with_free_memory(monkeypatch, 1.9 * needed)
        assert isinstance(feature_dataset(items, preprocessing(), net, **options), PersistentDataset)
    assert [record.message.rpartition(" ")[2] for record in caplog.records if "kept in" in record.message] == [
        "memory.",
        "disk.",
    ]
    with_free_memory(monkeypatch, 2 * 2.1 * needed)
    for processes, kind in ((2, CacheDataset), (3, PersistentDataset)):
        monkeypatch.setattr("ignite.distributed.get_nproc_per_node", lambda processes=processes: processes)
        assert isinstance(feature_dataset(items, preprocessing(), net, **options), kind)
    with_free_memory(monkeypatch, 0)
    with pytest.raises(ValueError, match=rf"features of {IMAGES} images are to be cached on disk: give cache_dir"):
        feature_dataset(items, preprocessing(), net, cache="auto", progress=False)


def test_nothing_is_said_of_a_set_without_images(net: AnomalyCLIP, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert len(feature_dataset([], preprocessing(), net)) == 0
    assert caplog.messages == []


def test_wrong_arguments(net: AnomalyCLIP, items: Items) -> None:
    with pytest.raises(ValueError, match="cache='ram' is not one of"):
        feature_dataset(items, preprocessing(), net, cache="ram")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="give cache_dir"):
        feature_dataset(items, preprocessing(), net, cache="disk")


def test_encode_image_keeps_the_item(net: AnomalyCLIP) -> None:
    image = torch.rand(3, 28, 28)
    item: dict[Hashable, Any] = {"image": image, "class": "a"}
    output = EncodeImaged("image", net)(item)
    assert item == {"image": image, "class": "a"}
    assert set(output) == {"class", "global_features", "patch_features"}
    assert output["global_features"].shape == (16,)
    assert not any(parameter.grad is not None for parameter in net.parameters())
    with pytest.raises(KeyError):
        EncodeImaged("image", net)({"class": "a"})


def test_settings_in_the_key_are_readable(net: AnomalyCLIP) -> None:
    sha256, settings = json.loads(FeatureKey(net).prefix)
    assert sha256 == net.backbone_sha256
    assert settings == {"image_size": 28, "feature_layers": [1, 2], "dpam_start": 1, "dpam_attention": "vv"}


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
    else:
        assert next(iter(loader))["patch_features"].shape[0] == 1


class _Waits(TorchDispatchMode):
    """Counts what makes the host wait for a GPU."""

    count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += function._schema.name in ("aten::_local_scalar_dense", "aten::nonzero", "aten::equal")
        return function(*args, **(kwargs or {}))


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
