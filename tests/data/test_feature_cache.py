# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import logging
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.data import CacheDataset, DataLoader, Dataset, PersistentDataset
from monai.transforms import Compose, Identityd, Lambda, OneOf, RandFlipd
from torch import Tensor
from torch.utils.data import default_collate

from monai_anomalyclip.data import (
    EncodeImaged,
    FeatureKey,
    feature_dataset,
)
from monai_anomalyclip.networks import AnomalyCLIP
from tests.data.encoded_pictures import IMAGES, Items, preprocessing, read


def plain_function(item: dict[str, Any]) -> dict[str, Any]:
    return item


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


def test_sequence_of_transforms(net: AnomalyCLIP, items: Items, encodings: list[int]) -> None:
    steps = preprocessing().transforms
    assert isinstance(steps, list | tuple)
    dataset = feature_dataset(items, list(steps), net, cache="memory", progress=False)
    read(dataset, epochs=2)
    assert encodings == [1] * IMAGES
    assert set(feature_dataset(items, list(steps), net, cache="off")[0]) >= {"image", "label"}


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
