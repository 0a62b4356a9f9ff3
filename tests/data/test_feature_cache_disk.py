# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from monai.data import CacheDataset, PersistentDataset
from PIL import Image
from torch import Tensor

from monai_anomalyclip.data import (
    UnreadableInputError,
    feature_dataset,
)
from monai_anomalyclip.networks import AnomalyCLIP
from tests.data.encoded_pictures import IMAGES, Items, preprocessing, read


def rewrite(path: str) -> None:
    """Other pixels; also another time, should the clock or the size not tell."""
    with Image.open(path) as picture:
        pixels = np.asarray(picture)
    before = os.stat(path).st_mtime_ns
    Image.fromarray(pixels[::-1].copy()).save(path)
    os.utime(path, ns=(before + 1_000_000, before + 1_000_000))


def file_size(path: Path) -> int:
    return path.stat().st_size


def with_free_memory(monkeypatch: pytest.MonkeyPatch, available: float) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=int(available)))


def test_disk_cache_outlives_the_data_set(
    make_net: Callable[..., AnomalyCLIP], items: Items, tmp_path: Path, encodings: list[int]
) -> None:
    for round_ in range(2):  # the second time with a new network and other prompts, on the same backbone
        net = make_net(prompt_length=4 + round_, temperature=0.07 + round_, normal_words=(f"thing{round_}",))
        dataset = feature_dataset(items, preprocessing(), net, cache="disk", cache_dir=tmp_path / "c", progress=False)
        read(dataset)
        assert encodings == [1] * IMAGES


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


def test_unreadable_image_is_not_taken_for_a_damaged_cache(net: AnomalyCLIP, items: Items, tmp_path: Path) -> None:
    Path(items[0]["image"]).write_bytes(b"no picture")
    options: dict[str, Any] = {"cache": "disk", "cache_dir": tmp_path / "c", "progress": False}
    dataset = feature_dataset(items, preprocessing(), net, **options)
    for _ in range(2):
        with pytest.raises(RuntimeError) as caught:
            dataset[0]
        assert isinstance(caught.value.__cause__, UnreadableInputError)
    assert list((tmp_path / "c").iterdir()) == []


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
