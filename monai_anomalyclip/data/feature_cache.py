# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The frozen encoder runs once per image for the whole tuning: its features are kept in memory or on disk."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any, Literal

import ignite.distributed as idist
import psutil
import torch
from monai.config import KeysCollection
from monai.data import CacheDataset, Dataset, PersistentDataset
from monai.transforms import Compose, MapTransform, RandomizableTrait, ToDeviced, Transform
from monai.utils import convert_to_tensor
from torch import Tensor
from torch.utils.data import get_worker_info
from tqdm import tqdm

from monai_anomalyclip.networks import FrozenCLIPNetwork, resolve_precision
from monai_anomalyclip.networks.devices import FittingBatches, autocast, check_precision

__all__ = ["EncodeImageD", "EncodeImageDict", "EncodeImaged", "FeatureKey", "feature_dataset"]

logger = logging.getLogger(__name__)

# Share of the free memory that features may take: of the GPU's, else of the computer's, else they go to disk.
_MEMORY_SHARE = 0.5
_BYTES = {"float32": 4, "float16": 2}
_TOGETHER = 32  # images that the encoder sees at once, where that is faster than one
_READERS = 4  # threads that read them
_FEATURES = ("global_features", "patch_features")
_LABELS = ("image_label", "has_label")
_KEPT = (*_FEATURES, "label", *_LABELS)


class EncodeImaged(MapTransform):
    """Replace a CLIP-normalised image by the features of the frozen encoder.

    Reads the image (3, H, W) under its key, removes it, and writes ``global_features`` (D,) and ``patch_features``
    (layers, N, D), or (layers, A, N, D) for an ensemble.

    Args:
        keys: key of the image.
        network: whose encoder is used, on the device it lies on.
        feature_dtype: "float32" or "float16".
        precision: of matrix products (see :func:`~monai_anomalyclip.networks.resolve_precision`).
        output_device: where the features are put.

    Raises:
        ValueError: for another ``feature_dtype`` or ``precision``.

    Example::

        item = EncodeImaged("image", network)({"image": preprocessed})  # (3, H, W) becomes features
    """

    def __init__(
        self,
        keys: KeysCollection,
        network: FrozenCLIPNetwork,
        feature_dtype: str = "float32",
        precision: str = "float32",
        output_device: str | torch.device = "cpu",
    ) -> None:
        super().__init__(keys)
        check_precision(precision)
        self.precision = precision
        if feature_dtype not in _BYTES:
            raise ValueError(f"feature_dtype='{feature_dtype}' is not one of {', '.join(_BYTES)}.")
        self.network = network
        self.dtype: torch.dtype = getattr(torch, feature_dtype)
        self.output_device = torch.device(output_device)
        self._fitting = FittingBatches()

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        return self.together([data])[0]

    def together(self, items: Sequence[Mapping[Hashable, Any]]) -> list[dict[Hashable, Any]]:
        """What a call gives for each item; their images, of one size, are shown to the encoder as one batch."""
        outputs = [dict(item) for item in items]
        for key in self.key_iterator(outputs[0]):
            images = torch.stack([convert_to_tensor(output.pop(key), track_meta=False) for output in outputs])
            for output, *features in zip(outputs, *self._encoded(images), strict=True):
                # Of their own: a slice would keep its whole batch in memory.
                output |= dict(zip(_FEATURES, (feature.clone() for feature in features), strict=True))
                # As tensors they can lie on a GPU beside the features: a step copies nothing there.
                output |= {name: torch.tensor(int(output[name])) for name in _LABELS if name in output}
        # Plain tensors, as a disk cache returns them: fresh and cached items may meet in one batch.
        return [convert_to_tensor(output, track_meta=False, convert_numeric=False) for output in outputs]

    def _encoded(self, images: Tensor) -> tuple[Tensor, Tensor]:
        device = self.network.clip.logit_scale.device

        def encode(part: Tensor) -> tuple[Tensor, Tensor]:
            with torch.no_grad(), autocast(self.precision, device):  # here: a thread does not inherit it
                global_features, patch_features = self.network.encode_image(part)
            found = (global_features, torch.stack(patch_features, dim=1))
            whole, patches = (features.to(self.output_device, self._rounded(features.dtype)) for features in found)
            return whole, patches

        if device.type == "cuda":
            images = images.pin_memory()
        there = images.to(device, non_blocking=device.type == "cuda")
        whole, patches = zip(*self._fitting(encode, there), strict=True)
        return torch.cat(whole), torch.cat(patches)

    def _rounded(self, dtype: torch.dtype) -> torch.dtype:
        """What features of this type are kept in: float32 means as they are, of whatever type the network is."""
        cast = resolve_precision(self.precision, self.network.clip.logit_scale.device) != "float32"
        return dtype if self.dtype == torch.float32 and not cast else self.dtype


class _Ahead:
    """Encodes many items in batches: one alone on a CPU, where it keeps all cores busy and gives the same numbers
    whatever its company; up to 32 elsewhere, while the next are read."""

    def __init__(self, prepare: Compose, encode: EncodeImaged, kept: Compose, progress: bool) -> None:
        self._prepare, self._encode, self._kept, self._progress = prepare, encode, kept, progress
        self._size = 1 if encode.network.clip.logit_scale.device.type == "cpu" else _TOGETHER

    def __call__(self, data: Sequence[Any]) -> Iterator[Any]:
        bar = tqdm(total=len(data), desc="Encoding the images", disable=not self._progress or not data)
        with bar, ThreadPool(1 if self._size == 1 else _READERS) as readers:
            for start in range(0, len(data), self._size):
                items = readers.map(self._prepare, data[start : start + self._size])
                yield from map(self._kept, self._encode.together(items))
                bar.update(len(items))


class _FeatureStore(PersistentDataset):
    """MONAI's disk cache; a file that a killed run left damaged is made anew."""

    _made: Any = None

    def fill(self, ahead: _Ahead) -> None:
        """Encode in batches what is missing, of this process's share where several share the folder."""
        own = self.data[idist.get_rank() :: idist.get_world_size()]
        missing = [item for item in own if not self._file(item).is_file()]
        for item, self._made in zip(missing, ahead(missing), strict=True):
            self._cachecheck(item)
        self._made = None

    def _file(self, item: Any) -> Path:
        return Path(self.cache_dir) / f"{self.hash_func(item).decode()}.pt"

    def _pre_transform(self, item_transformed: Any) -> Any:
        return super()._pre_transform(item_transformed) if self._made is None else self._made

    def _cachecheck(self, item_transformed: Any) -> Any:
        try:
            return super()._cachecheck(item_transformed)
        except (EOFError, OSError, RuntimeError):
            damaged = self._file(item_transformed)
            if not damaged.is_file():
                raise  # the item itself cannot be read
            damaged.unlink()
            return super()._cachecheck(item_transformed)


class _FeatureMemory(CacheDataset):
    """MONAI's cache in memory, or on a GPU."""

    def __init__(self, data: Sequence[Any], steps: Compose, ahead: _Ahead, on_gpu: bool) -> None:
        self._ahead, self._on_gpu = ahead, on_gpu
        super().__init__(data, steps, progress=False, copy_cache=False)

    def _fill_cache(self, indices: Sequence[int] | None = None) -> list[Any]:
        chosen = range(self.cache_num) if indices is None else indices
        return list(self._ahead([self.data[index] for index in chosen]))

    def _transform(self, index: int) -> Any:
        if self._on_gpu and get_worker_info() is not None:
            raise RuntimeError(
                "The features lie on the GPU, where the processes of a DataLoader cannot read them: set num_workers to "
                "0, which loses nothing, or keep them elsewhere (--feature_cache disk)."
            )
        return super()._transform(index)


class FeatureKey:
    """Cache key of an item: backbone, what of the settings changes the features, and the files' path, size and times.

    Args:
        network: whose encoder makes the features.
        feature_dtype: what they are kept in.
        precision: of the matrix products.

    Example::

        dataset = PersistentDataset(entries, transform, cache_dir="features", hash_func=FeatureKey(network))
    """

    def __init__(self, network: FrozenCLIPNetwork, feature_dtype: str = "float32", precision: str = "float32") -> None:
        resolved = resolve_precision(precision, network.clip.logit_scale.device)
        rounded = [] if feature_dtype == "float32" else [feature_dtype]
        rounded += [] if resolved == "float32" else [f"products in {resolved}"]
        self.prefix = json.dumps([network.backbone_sha256, network.feature_settings, *rounded], sort_keys=True)

    def __call__(self, item: Mapping[str, Any]) -> bytes:
        parts: list[Any] = [self.prefix]
        for key, value in sorted(item.items()):
            parts.append([key, str(value)])
            if isinstance(value, str | os.PathLike) and Path(value).is_file():
                status = Path(value).stat()
                parts.append([status.st_size, status.st_mtime_ns, status.st_ctime_ns])  # the last cannot be set back
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest().encode()


def feature_dataset(
    data: Sequence[Mapping[str, Any]],
    transform: Sequence[Callable[..., Any]] | Callable[..., Any],
    network: FrozenCLIPNetwork,
    *,
    cache: Literal["auto", "memory", "disk", "off"] = "auto",
    cache_dir: str | Path | None = None,
    feature_dtype: str = "float32",
    precision: str = "float32",
    progress: bool = True,
) -> Dataset:
    """Data set for tuning, with the frozen features computed once.

    With the network on a GPU, features and masks that fit into half of its free memory are kept there.

    Args:
        data: items for ``transform``.
        transform: gives each item a CLIP-normalised ``image`` (3, S, S), its mask and labels; nothing random.
        network: whose encoder makes the features; to be moved to its device before the first item is read.
        cache: "memory", "disk" (kept between runs), "auto" (memory unless the features take more than half of what is
            free), or "off": items keep their image and the network encodes it anew in every epoch.
        cache_dir: folder of the disk cache; remove it when ``transform`` changes, which the cache cannot see.
        feature_dtype: "float32", or "float16": half the memory, losses that agree to 1e-3.
        precision: of the encoder's matrix products (see :func:`~monai_anomalyclip.networks.resolve_precision`).
        progress: whether a progress bar shows the encoding.

    Returns:
        MONAI's CacheDataset, PersistentDataset or Dataset.

    Raises:
        ValueError: for an unknown ``cache``, ``feature_dtype`` or ``precision``, a disk cache without a folder, or a
            transform that cannot be cached.
    """
    if cache not in ("auto", "memory", "disk", "off"):
        raise ValueError(f"cache='{cache}' is not one of 'auto', 'memory', 'disk', 'off'.")
    if cache == "off" or not data:  # a set without images, such as a validation that nobody wants, has no features
        return Dataset(data, Compose(transform))
    encode = EncodeImaged("image", network, feature_dtype, precision)
    needed = len(data) * _bytes_per_item(network, feature_dtype)
    device = network.clip.logit_scale.device
    on_gpu = cache in ("auto", "memory") and _fits_on_gpu(device, needed)
    if on_gpu:
        cache = "memory"
        logger.info(f"The features of {len(data)} images take {needed / 2**20:.0f} MiB: kept on {device}.")
    elif cache == "auto":
        # Processes of one computer keep all features each.
        free = psutil.virtual_memory().available / idist.get_nproc_per_node()
        cache = "memory" if needed <= _MEMORY_SHARE * free else "disk"
        logger.info(f"The features of {len(data)} images take {needed / 2**20:.0f} MiB: kept in {cache}.")
    if on_gpu:
        encode.output_device = device
    kept = Compose([ToDeviced(_KEPT, device, allow_missing_keys=True)] if on_gpu else [])
    # Flattened, because MONAI caches up to the first random transform and takes a nested Compose for one.
    prepare = Compose(transform).flatten()
    steps = Compose([prepare, encode, kept]).flatten()
    behind = [s for s in steps.transforms if isinstance(s, RandomizableTrait) or not isinstance(s, Transform)]
    if behind:
        raise ValueError(
            f"Features cannot be cached behind {', '.join(type(step).__name__ for step in behind)}, which is random or "
            "not one of MONAI's Transforms: use cache='off', or wrap a plain function in monai.transforms.Lambda."
        )
    ahead = _Ahead(prepare, encode, kept, progress)
    if cache == "memory":
        return _FeatureMemory(data, steps, ahead, on_gpu)
    if cache_dir is None:
        raise ValueError(f"The features of {len(data)} images are to be cached on disk: give cache_dir, a folder.")
    store = _FeatureStore(data, steps, cache_dir=cache_dir, hash_func=FeatureKey(network, feature_dtype, precision))
    if device.type != "cpu":
        store.fill(ahead)
    return store


def _fits_on_gpu(device: torch.device, needed: int) -> bool:
    return device.type == "cuda" and needed <= _MEMORY_SHARE * torch.cuda.mem_get_info(device)[0]


def _bytes_per_item(network: FrozenCLIPNetwork, feature_dtype: str) -> int:
    side = network.image_size // network.patch_size
    kinds = len(network.settings.get("dpam_attention", "qk").split("+"))
    tokens = len(network.settings["feature_layers"]) * kinds * (1 + side * side)
    mask = network.image_size**2
    return _BYTES[feature_dtype] * tokens * network.patch_feature_width + 4 * mask


EncodeImageD = EncodeImageDict = EncodeImaged
