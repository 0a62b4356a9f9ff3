# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The anomaly map over several views of an image: larger, and mirrored; test-time augmentation of the map alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from monai.inferers.inferer import Inferer
from torch import Tensor
from torch.nn import functional

from monai_anomalyclip.networks.devices import FittingBatches, autocast, check_precision
from monai_anomalyclip.transforms.anomaly_map import resize_anomaly_map

__all__ = ["Views", "ViewsInferer"]

_LARGEST = 4.0


class Views:
    """What an image is looked at as.

    The map becomes the mean of the maps of all views, each brought back onto the image's grid. The score stays that of
    the image as it is. Off by default: whether it helps depends on the kind of images (see docs/experiments.md).

    Args:
        scales: sides relative to the network's input, 0.5 to 4, each once. 1 is among them or not.
        flip: also look at each scale mirrored left to right.

    Raises:
        ValueError: a scale is out of range, or none is given.

    Example:
        >>> Views(scales=(1, 1.5), flip=True).count
        4
    """

    def __init__(self, scales: Sequence[float] = (1.0,), flip: bool = False) -> None:
        self.scales = tuple(float(scale) for scale in scales)
        if not self.scales or len(set(self.scales)) < len(self.scales):
            raise ValueError(f"scales={list(scales)} must be at least one number, each once.")
        if wrong := [scale for scale in self.scales if not 0.5 <= scale <= _LARGEST]:
            raise ValueError(f"A scale of {wrong[0]} is out of range: 0.5 to {_LARGEST:g} times the network's input.")
        self.flip = bool(flip)

    @property
    def count(self) -> int:
        """Number of views."""
        return len(self.scales) * (1 + self.flip)

    @property
    def plain(self) -> bool:
        """Whether the image is looked at as it is, and no other way."""
        return self.scales == (1.0,) and not self.flip

    def mean_map(self, images: Tensor, first: Tensor, map_of: Callable[[Tensor], Tensor], patch: int) -> Tensor:
        """The mean map over the views.

        Args:
            images: CLIP-normalised, (B, 3, H, W).
            first: their map as they are, (B, 1, H, W), which is not computed again.
            map_of: gives the map (B, 1, h, w) of other images, whose sides are multiples of `patch`.
            patch: side of the network's patches.

        Returns:
            (B, 1, H, W), in [0, 1] where the maps are.
        """
        total = torch.zeros_like(first, dtype=torch.float32)
        for scale in self.scales:
            height, width = (max(patch, round(side * scale / patch) * patch) for side in images.shape[-2:])
            as_it_is = (height, width) == tuple(images.shape[-2:])
            shown = images if as_it_is else functional.interpolate(
                images, size=(height, width), mode="bicubic", align_corners=False, antialias=True
            )  # fmt: skip
            maps = [first if as_it_is else map_of(shown)]
            if self.flip:
                maps.append(map_of(shown.flip(-1)).flip(-1))
            for found in maps:
                total += found.float() if as_it_is else resize_anomaly_map(found.float(), images.shape[-2:])
        return total / self.count


class ViewsInferer(Inferer):
    """Run a network on batches, as MONAI's SimpleInferer does, in the chosen precision.

    Maps are means over several views where that is asked for. A batch that does not fit into the device's memory goes
    through in parts.

    Args:
        scales: see :class:`Views`.
        flip: see :class:`Views`.
        precision: in which images are encoded (see :func:`~monai_anomalyclip.networks.resolve_precision`); cached
            features have been encoded already.

    Raises:
        ValueError: an argument is out of range.

    Example::

        inferer = ViewsInferer(scales=(1.0, 1.5), flip=True)
        output = inferer(images, network)  # images (B, 3, H, W), CLIP-normalised
        print(output["anomaly_map"].shape)
    """

    def __init__(self, scales: Sequence[float] = (1.0,), flip: bool = False, precision: str = "float32") -> None:
        super().__init__()
        self.views = Views(scales, flip)
        check_precision(precision)
        self.precision = precision
        self._fitting = FittingBatches()

    def __call__(
        self, inputs: Tensor | Mapping[str, Tensor], network: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Any:
        """The network's output for a batch.

        Args:
            inputs: CLIP-normalised images (B, 3, H, W), or cached features, of which there are no other views.
            network: gives a dictionary with "anomaly_map", or passes through.
            args: passed on.
            kwargs: passed on.

        Raises:
            ValueError: other views of cached features are asked for.
        """
        if isinstance(inputs, Mapping):
            result = network(inputs, *args, **kwargs)
            if not self.views.plain and _has_map(result):
                raise ValueError("scales and flip need the images, not their cached features: --feature_cache off.")
            return result

        def shown(images: Tensor) -> Any:
            with autocast(self.precision, images.device):
                result = network(images, *args, **kwargs)
                if self.views.plain or not _has_map(result):
                    return result
                patch = getattr(getattr(network, "module", network), "patch_size", None)
                if patch is None:
                    raise ValueError("scales and flip need a network that takes images of any size.")
                averaged = self.views.mean_map(images, result["anomaly_map"], lambda view: network(view), patch)
            return {**result, "anomaly_map": averaged}

        return _joined(self._fitting(shown, inputs))


def _joined(parts: Sequence[Any]) -> Any:
    """What a network gives for parts of a batch, as it would give it for the whole batch."""
    first = parts[0]
    if len(parts) == 1:
        return first
    if isinstance(first, Mapping):
        return {name: _joined([part[name] for part in parts]) for name in first}
    return torch.cat(list(parts)) if isinstance(first, Tensor) else [_joined(one) for one in zip(*parts, strict=True)]


def _has_map(result: Any) -> bool:
    return isinstance(result, Mapping) and "anomaly_map" in result
