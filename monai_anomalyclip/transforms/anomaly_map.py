# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Post-processing of anomaly maps: smoothing, back to the native size, threshold, and the score in plain numbers."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config.type_definitions import KeysCollection, NdarrayOrTensor
from monai.data.meta_tensor import MetaTensor
from monai.transforms.transform import MapTransform, Transform
from monai.utils.misc import ensure_tuple_rep
from monai.utils.type_conversion import convert_to_dst_type, convert_to_tensor
from torch import Tensor
from torch.nn import functional

from monai_anomalyclip.ranking import most_suspicious_first
from monai_anomalyclip.transforms.clip_preprocess import antialiasing_device, image_size_pair, resized_meta

__all__ = [
    "ResizeAnomalyMap",
    "ResizeAnomalyMapD",
    "ResizeAnomalyMapDict",
    "ResizeAnomalyMapd",
    "SmoothAnomalyMap",
    "SmoothAnomalyMapD",
    "SmoothAnomalyMapDict",
    "SmoothAnomalyMapd",
    "SummarizeAnomalyD",
    "SummarizeAnomalyDict",
    "SummarizeAnomalyd",
    "ThresholdAnomalyMap",
    "ThresholdAnomalyMapD",
    "ThresholdAnomalyMapDict",
    "ThresholdAnomalyMapd",
    "resize_anomaly_map",
    "smooth_anomaly_map",
]


def smooth_anomaly_map(anomaly_map: Tensor, sigma: float = 4.0) -> Tensor:
    """Smooth each map with a Gaussian, equal to ``scipy.ndimage.gaussian_filter(sigma, mode="reflect", truncate=4)``.

    Scipy's "reflect" repeats the edge pixel (d c b a | a b c d | d c b a); torch's padding of that name does not.

    Args:
        anomaly_map: (B, 1, H, W); H and W may be smaller than the kernel.
        sigma: standard deviation in pixels; 0 changes nothing.

    Returns:
        (B, 1, H, W) on the map's device, float64 for float64 and float32 for everything else.

    Raises:
        ValueError: another shape, or sigma is negative or not finite.
    """
    if anomaly_map.ndim != 4 or anomaly_map.shape[1] != 1 or anomaly_map.numel() == 0:
        raise ValueError(f"Expected anomaly maps of shape (B, 1, H, W), got {tuple(anomaly_map.shape)}.")
    _check_sigma(sigma)
    values = anomaly_map if anomaly_map.dtype == torch.float64 else anomaly_map.float()
    radius = int(4.0 * sigma + 0.5)
    if radius == 0:
        return values
    kernel = np.exp(-0.5 * (np.arange(radius + 1) / sigma) ** 2)
    kernel /= kernel[0] + 2 * kernel[1:].sum()
    smooth = values
    for dim in (-2, -1):
        smooth = _convolve_symmetric(smooth, kernel.tolist(), dim)
    return _within(smooth, values)


def _convolve_symmetric(values: Tensor, half_kernel: Sequence[float], dim: int) -> Tensor:
    """Convolve along one axis with an even kernel, given from its centre outwards.

    A sum over the kernel's few taps, smallest first, rather than a convolution call, which autocast and TF32 would
    round.
    """
    size, radius = values.shape[dim], len(half_kernel) - 1
    index = torch.arange(-radius, size + radius, device=values.device) % (2 * size)
    padded = values.index_select(dim, torch.minimum(index, 2 * size - 1 - index))
    total = torch.zeros_like(values)
    for offset in range(radius, 0, -1):
        pair = padded.narrow(dim, radius - offset, size) + padded.narrow(dim, radius + offset, size)
        total = total.add(pair, alpha=half_kernel[offset])
    return total.add(values, alpha=half_kernel[0])


def resize_anomaly_map(anomaly_map: Tensor, size: Sequence[int]) -> Tensor:
    """Resize maps (B, 1, h, w) to (B, 1, *size), bilinear, ``align_corners=False``, antialiased where it shrinks."""
    device = anomaly_map.device
    shown = anomaly_map.to(antialiasing_device(device, anomaly_map.shape[-2:], size))
    resized = functional.interpolate(shown, size=tuple(size), mode="bilinear", align_corners=False, antialias=True)
    return _within(resized, shown).to(device)


def _within(found: Tensor, given: Tensor) -> Tensor:
    """A weighted mean lies within the values of its map; the sum of rounded weights may lead out of them, above 1."""
    least, most = given.amin((-2, -1), keepdim=True), given.amax((-2, -1), keepdim=True)
    torch.maximum(found, least, out=found)  # a ninth of the time that clamp takes with tensors on a CPU
    return torch.minimum(found, most, out=found)


class SmoothAnomalyMap(Transform):
    """Smooth an anomaly map with a Gaussian, equal to scipy's (see :func:`smooth_anomaly_map`).

    Args:
        sigma: standard deviation in pixels; 0 changes nothing.

    Raises:
        ValueError: sigma is negative or not finite.

    Example:
        >>> SmoothAnomalyMap(sigma=2)(torch.ones(1, 8, 8)).shape
        torch.Size([1, 8, 8])
    """

    def __init__(self, sigma: float = 4.0) -> None:
        _check_sigma(sigma)
        self.sigma = sigma

    def __call__(self, img: NdarrayOrTensor) -> NdarrayOrTensor:
        """Smooth a map (1, H, W) or maps (B, 1, H, W); container type and metadata are kept.

        Raises:
            ValueError: another shape.
        """
        smoothed = smooth_anomaly_map(_batched(img), self.sigma).reshape(img.shape)
        result: NdarrayOrTensor = convert_to_dst_type(smoothed, img, dtype=smoothed.dtype)[0]
        return result


class ResizeAnomalyMap(Transform):
    """Resize an anomaly map, usually back to the native size of its picture.

    Args:
        spatial_size: native (H, W), or one number for a square.

    Raises:
        ValueError: the size is not positive.

    Example:
        >>> ResizeAnomalyMap(4)(torch.tensor([[[0.1, 0.9]]])).shape
        torch.Size([1, 4, 4])
    """

    def __init__(self, spatial_size: int | Sequence[int]) -> None:
        self.spatial_size = image_size_pair(spatial_size)

    def __call__(self, img: NdarrayOrTensor) -> Tensor:
        """Resize a map (1, h, w) or maps (B, 1, h, w); a MetaTensor keeps its metadata, the affine scaled.

        Raises:
            ValueError: another shape.
        """
        maps = _batched(img)
        resized = resize_anomaly_map(maps, self.spatial_size).reshape(*img.shape[:-2], *self.spatial_size)
        return resized_meta(resized, img)


class ThresholdAnomalyMap(Transform):
    """Mark as anomalous where the map is at least the threshold.

    Args:
        threshold: in [0, 1]; a list of one number is accepted too (MONAI Label sends its options that way).

    Raises:
        ValueError: the threshold is not one number in [0, 1].

    Example:
        >>> ThresholdAnomalyMap(0.5)(torch.tensor([[[0.1, 0.9]]])).tolist()
        [[[0, 1]]]
    """

    def __init__(self, threshold: float | Sequence[float] = 0.5) -> None:
        values = np.ravel(threshold)
        if values.size != 1 or values.dtype.kind not in "fiu" or not 0 <= values[0] <= 1:
            raise ValueError(f"threshold must be one number in [0, 1], got {threshold!r}.")
        self.threshold = float(values[0])

    def __call__(self, img: NdarrayOrTensor) -> NdarrayOrTensor:
        """Return a uint8 mask (0 normal, 1 anomaly) of the map's shape, container type and metadata.

        Raises:
            ValueError: the map holds NaN, which would silently count as normal.
        """
        values: Tensor = convert_to_tensor(img, track_meta=False)
        if values.numel() and values.amax().isnan():  # which is NaN where there is one
            raise ValueError("The anomaly map holds NaN: a mask made from it would call those pixels normal.")
        if values.device.type == "cpu" and values.dtype == torch.float32:
            reached = torch.from_numpy(values.numpy() >= self.threshold)  # a sixth of the time that torch takes
        else:
            reached = values >= self.threshold
        mask = reached.view(torch.uint8)  # laid out as the map is, however large
        if isinstance(img, MetaTensor):
            return MetaTensor(mask).copy_meta_from(img)
        return mask if isinstance(img, Tensor) else mask.numpy()


class SmoothAnomalyMapd(MapTransform):
    """Dictionary form of :class:`SmoothAnomalyMap`.

    Args:
        keys: keys of the maps.
        sigma: standard deviation in pixels; 0 changes nothing.
        allow_missing_keys: do not raise when a key is missing.

    Example:
        >>> SmoothAnomalyMapd("map")({"map": torch.ones(1, 8, 8)})["map"].shape
        torch.Size([1, 8, 8])
    """

    def __init__(self, keys: KeysCollection, sigma: float = 4.0, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.smooth = SmoothAnomalyMap(sigma)

    def __call__(self, data: Mapping[Hashable, NdarrayOrTensor]) -> dict[Hashable, NdarrayOrTensor]:
        """Return a copy of the item with the maps smoothed."""
        item = dict(data)
        for key in self.key_iterator(item):
            item[key] = self.smooth(item[key])
        return item


class ResizeAnomalyMapd(MapTransform):
    """Dictionary form of :class:`ResizeAnomalyMap`.

    Args:
        keys: keys of the maps.
        spatial_size: (H, W) to resize to, or
        like: key of the native picture (C, H, W) whose size is taken. Give one of the two.
        allow_missing_keys: do not raise when a key is missing.

    Raises:
        ValueError: not exactly one of the two is given.

    Example:
        >>> item = {"map": torch.rand(1, 2, 2), "image": torch.rand(3, 6, 8)}
        >>> ResizeAnomalyMapd("map", like="image")(item)["map"].shape
        torch.Size([1, 6, 8])
    """

    def __init__(
        self,
        keys: KeysCollection,
        spatial_size: int | Sequence[int] | None = None,
        like: Hashable | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if (spatial_size is None) == (like is None):
            raise ValueError(f"Give either spatial_size or like, got spatial_size={spatial_size!r}, like={like!r}.")
        self.spatial_size = spatial_size
        self.like = like

    def __call__(self, data: Mapping[Hashable, NdarrayOrTensor]) -> dict[Hashable, NdarrayOrTensor]:
        """Return a copy of the item with the maps resized."""
        item = dict(data)
        size = self.spatial_size if self.spatial_size is not None else tuple(item[self.like].shape[-2:])
        for key in self.key_iterator(item):
            item[key] = ResizeAnomalyMap(size)(item[key])
        return item


class ThresholdAnomalyMapd(MapTransform):
    """Dictionary form of :class:`ThresholdAnomalyMap`.

    Args:
        keys: keys of the maps.
        threshold: in [0, 1], or a list of one such number.
        output_keys: where the masks go, one per key; by default they replace the maps.
        allow_missing_keys: do not raise when a key is missing.

    Raises:
        ValueError: the threshold is not one number in [0, 1], or the numbers of keys and output keys differ.

    Example:
        >>> ThresholdAnomalyMapd("map", 0.5, output_keys="pred")({"map": torch.tensor([[[0.1, 0.9]]])})["pred"].tolist()
        [[[0, 1]]]
    """

    def __init__(
        self,
        keys: KeysCollection,
        threshold: float | Sequence[float] = 0.5,
        output_keys: KeysCollection | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.to_mask = ThresholdAnomalyMap(threshold)
        self.output_keys = self.keys if output_keys is None else ensure_tuple_rep(output_keys, len(self.keys))

    def __call__(self, data: Mapping[Hashable, NdarrayOrTensor]) -> dict[Hashable, NdarrayOrTensor]:
        """Return a copy of the item with the masks."""
        item = dict(data)
        for key, output_key in self.key_iterator(item, self.output_keys):
            item[output_key] = self.to_mask(item[key])
        return item


def _check_sigma(sigma: float) -> None:
    if not (sigma >= 0 and np.isfinite(sigma)):
        raise ValueError(f"sigma must be a finite number of pixels, 0 or more, got {sigma}.")


def _batched(img: NdarrayOrTensor) -> Tensor:
    """A plain tensor (B, 1, H, W) of a map (1, H, W) or maps (B, 1, H, W)."""
    maps: Tensor = convert_to_tensor(img, track_meta=False)
    if maps.ndim not in (3, 4) or maps.shape[-3] != 1:
        raise ValueError(f"Expected an anomaly map (1, H, W) or maps (B, 1, H, W), got shape {tuple(maps.shape)}.")
    return maps if maps.ndim == 4 else maps[None]


SmoothAnomalyMapD = SmoothAnomalyMapDict = SmoothAnomalyMapd
ResizeAnomalyMapD = ResizeAnomalyMapDict = ResizeAnomalyMapd
ThresholdAnomalyMapD = ThresholdAnomalyMapDict = ThresholdAnomalyMapd


class SummarizeAnomalyd(MapTransform):
    """Write ``result`` = {"anomaly_score": highest score, "slice": its index}, which MONAI Label returns with the mask.

    Among equal scores the slice of the highest ``anomaly_margin`` counts, where the network gives that.

    Args:
        keys: key of the scores (n_slices,), one for a frame.

    Example:
        >>> SummarizeAnomalyd()({"anomaly_score": torch.tensor([0.25, 0.75])})["result"]
        {'anomaly_score': 0.75, 'slice': 1}
    """

    def __init__(self, keys: KeysCollection = "anomaly_score", allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        output = dict(data)
        for key in self.key_iterator(output):
            scores = torch.as_tensor(output[key]).flatten().tolist()
            margins = output.get("anomaly_margin")
            index = most_suspicious_first(
                scores, None if margins is None else torch.as_tensor(margins).flatten().tolist()
            )[0]
            output["result"] = {"anomaly_score": scores[index], "slice": index}
        return output


SummarizeAnomalyD = SummarizeAnomalyDict = SummarizeAnomalyd
