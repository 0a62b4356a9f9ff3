# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Frozen encoders that turn an image into patch features, and what tells one from another."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
import torchvision.transforms.functional as tvf
from torch import Tensor, nn

from monai_anomalyclip.transforms.clip_preprocess import antialiasing_device
from monai_anomalyclip.transforms.intensity import check_unit_range

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["EncoderIdentity", "PatchEncoder", "join_stages", "tensors_digest"]

MAX_GRID = 64
"""Most patches along a side."""


@dataclass(frozen=True)
class EncoderIdentity:
    """What features depend on besides the image: equal identities give equal features.

    Attributes:
        name: such as "efficientnet-lite0", "timm:resnet18", "clip:ViT-L-14-336-quickgelu".
        settings: image size, grid, stages, normalisation, as JSON values.
        digest: SHA-256 of the encoder's tensors, in their order: of their shapes and values, not of a file.
    """

    name: str
    settings: Mapping[str, Any]
    digest: str

    def to_json(self) -> str:
        """As a line of JSON."""
        return json.dumps({"name": self.name, "settings": dict(self.settings), "digest": self.digest}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> EncoderIdentity:
        """Read what :meth:`to_json` wrote.

        Raises:
            ValueError: it is something else.
        """
        try:
            content = json.loads(text)
            name, settings, digest = content["name"], content["settings"], content["digest"]
            if not (isinstance(name, str) and isinstance(settings, dict) and isinstance(digest, str)):
                raise TypeError
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ValueError(f"No encoder is described by {text[:80]!r}: make the reference again.") from error
        return cls(name, settings, digest)

    def difference(self, other: EncoderIdentity) -> str:
        """One phrase that says in what two encoders differ; "" when they give the same features."""
        if self.name != other.name:
            return f"it was made with the encoder {self.name}, not {other.name}"
        mine, theirs = (json.loads(json.dumps(dict(one.settings))) for one in (self, other))
        for key in sorted({*mine, *theirs}):
            if mine.get(key) != theirs.get(key):
                return f"it was made with {key}={mine.get(key)}, not {theirs.get(key)}"
        if self.digest != other.digest:
            return f"its encoder's weights have the digest {self.digest[:12]}, these {other.digest[:12]}"
        return ""


def tensors_digest(tensors: Sequence[Tensor]) -> str:
    """SHA-256 of shapes and values of tensors, as float32 or as the whole numbers that they are."""
    digest = hashlib.sha256()
    for tensor in tensors:
        exact = tensor.detach().cpu()
        exact = exact.float() if exact.is_floating_point() else exact.long()
        digest.update(f"{exact.dtype}{tuple(exact.shape)}".encode())
        digest.update(exact.contiguous().numpy().tobytes())
    return digest.hexdigest()


class PatchEncoder(nn.Module):
    """Images in [0, 1] in, patch features out; frozen, always in evaluation mode.

    Images of any size are squashed to a square, so one grid of patches serves all of them.

    Args:
        stages: gives feature maps (B, C_s, h_s, w_s), one per stage, of normalised images (B, 3, S, S).
        name: of the encoder, see :class:`EncoderIdentity`.
        image_size: side S of the square.
        n_stages: number of feature maps.
        grid: patches along a side.
        mean: of the normalisation, per channel.
        std: likewise.
        normalise: bring each stage's features to unit length.
        settings: whatever else the features depend on, as JSON values.
        prepare: takes the place of squashing and normalising.
        weights: the module whose tensors make the digest, by default `stages`.

    Raises:
        ValueError: an argument is out of range.

    Example::

        encoder = efficientnet_lite0()
        features = encoder(torch.rand(2, 3, 480, 640))  # (2, 324, 472)
    """

    def __init__(
        self,
        stages: Callable[[Tensor], Sequence[Tensor]],
        name: str,
        *,
        image_size: int,
        n_stages: int,
        grid: int = 18,
        mean: Sequence[float] = (0.485, 0.456, 0.406),
        std: Sequence[float] = (0.229, 0.224, 0.225),
        normalise: bool = True,
        settings: Mapping[str, Any] | None = None,
        prepare: Callable[[Tensor], Tensor] | None = None,
        weights: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if image_size < 32:
            raise ValueError(f"image_size={image_size} must be at least 32 pixels.")
        if not 1 <= grid <= MAX_GRID:
            raise ValueError(f"grid={grid} must lie between 1 and {MAX_GRID} patches.")
        self.stages = stages
        self.name = name
        self.image_size = image_size
        self.grid = (grid, grid)
        self.normalise = normalise
        self._n_stages = n_stages
        self._prepare = prepare
        self._weights = (weights if weights is not None else stages,)  # in a tuple: no second name for its parameters
        self._settings = {
            "image_size": image_size,
            "grid": grid,
            "normalise": normalise,
            "mean": [float(value) for value in mean],
            "std": [float(value) for value in std],
            **(settings or {}),
        }
        self.register_buffer("_mean", torch.tensor(mean).reshape(3, 1, 1), persistent=False)
        self.register_buffer("_std", torch.tensor(std).reshape(3, 1, 1), persistent=False)
        self.requires_grad_(False)
        self.eval()

    @cached_property
    def identity(self) -> EncoderIdentity:
        """Name, settings and digest of the weights; the digest is taken when it is first asked for."""
        (module,) = self._weights
        tensors = list(module.state_dict().values()) if isinstance(module, nn.Module) else []
        return EncoderIdentity(self.name, self._settings, tensors_digest(tensors))

    @property
    def prepares_itself(self) -> bool:
        """Whether images are prepared in a way of its own, in place of squashing and normalising."""
        return self._prepare is not None

    @property
    def largest_distance(self) -> float:
        """Between patches of unit length per stage; 1 where lengths are left as they are, for then there is none."""
        return 2 * math.sqrt(self._n_stages) if self.normalise else 1.0

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        device: torch.device = self._mean.device  # type: ignore[assignment]
        return device

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Encode images.

        Args:
            images: (B, 3, H, W) or gray (B, 1, H, W), float in [0, 1], of any size.

        Returns:
            (B, patches, features) float32, patches row by row.

        Raises:
            ValueError: another shape, NaN, values out of [0, 1], or weights that give NaN.
        """
        if images.ndim != 4 or images.shape[1] not in (1, 3) or images.numel() == 0:
            raise ValueError(f"Expected images (B, 3, H, W) or (B, 1, H, W), got shape {tuple(images.shape)}.")
        check_unit_range(images)
        return join_stages(self.feature_maps(images), self.grid, normalise=self.normalise)

    @torch.no_grad()
    def feature_maps(self, images: Tensor) -> Sequence[Tensor]:
        """Feature maps of the stages, (B, C_s, h_s, w_s), of images as :meth:`forward` takes them."""
        if self._prepare is not None:
            return self.stages(self._prepare(images.to(self.device)))
        size = [self.image_size, self.image_size]
        shown = images.to(antialiasing_device(self.device, images.shape[-2:], size), torch.float32)
        square = tvf.resize(shown, size, interpolation=tvf.InterpolationMode.BILINEAR, antialias=True).to(self.device)
        return self.stages((square.clamp(0, 1).expand(-1, 3, -1, -1) - self._mean) / self._std)

    def train(self, mode: bool = True) -> Self:
        """It stays in evaluation mode: statistics of its normalisation layers are those of its training."""
        return super().train(False)


def join_stages(
    stages: Sequence[Tensor], grid: tuple[int, int], *, normalise: bool = True, check: bool = True
) -> Tensor:
    """Join feature maps of several stages to one feature vector per patch.

    Each map is averaged over 3 x 3, resampled to the grid, and each of its vectors is divided by its length.

    Args:
        stages: feature maps (B, C_s, h_s, w_s).
        grid: patches (rows, columns).
        normalise: bring the vectors of each stage to unit length.
        check: look for NaN and infinities, which cannot be traced.

    Returns:
        (B, rows * columns, sum of C_s), float32, patches row by row.

    Raises:
        ValueError: a feature is NaN or infinite.

    Example::

        join_stages([torch.rand(1, 40, 36, 36), torch.rand(1, 112, 18, 18)], (18, 18)).shape  # (1, 324, 152)
    """
    joined = []
    for stage in stages:
        smooth = F.avg_pool2d(stage.float(), 3, stride=1, padding=1, count_include_pad=False)
        if smooth.shape[-2:] != grid:
            smooth = F.interpolate(smooth, size=grid, mode="bilinear", align_corners=False, antialias=True)
        joined.append(F.normalize(smooth, dim=1, eps=1e-6) if normalise else smooth)
    features = torch.cat(joined, dim=1).flatten(2).transpose(1, 2)
    if check and not bool(features.isfinite().all()):
        raise ValueError("The encoder gave features that are NaN or infinite: its weights do not fit, or are damaged.")
    return features
