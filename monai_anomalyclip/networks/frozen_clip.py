# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""What AnomalyCLIP and the methods it is compared with share: a frozen CLIP and two prompts give a map and a score."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import isqrt
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn

from monai_anomalyclip.networks.backbone import Backbone
from monai_anomalyclip.networks.dpam import compute_tower
from monai_anomalyclip.networks.prompt_match import check_backbone_record, register_state_dict_hooks

if TYPE_CHECKING:
    from typing_extensions import Self

    from monai_anomalyclip.losses import Logits

__all__ = ["FrozenCLIPNetwork", "check_feature_layers", "check_settings", "cosine", "square_grid"]

_FEATURE_SETTINGS = ("vision", "image_size", "feature_layers", "dpam_start", "dpam_attention")


class FrozenCLIPNetwork(nn.Module, ABC):
    """A frozen CLIP that compares images and their patches with a normal and an abnormal prompt.

    The frozen CLIP is in eval mode whatever ``train()`` says and is absent from ``state_dict()``, which holds what is
    learned only. Deep copies share it, so that moving or casting one of them moves or casts the CLIP of all.

    A derived class sets ``prompts``, a module that makes the two text features (2, D) from a CLIP, and says how images
    are encoded.

    Args:
        backbone: the frozen CLIP.
        image_size: side of the square input in pixels that the pre-processing aims at.
        temperature: softmax temperature; CLIP's own logit scale is not used.
        settings: keyword arguments that the network was built with, kept with what is learned; and as "vision" the
            name of the vision pass, unless it is AnomalyCLIP's.

    Raises:
        ValueError: when the image size is no multiple of the patch size.
    """

    prompts: nn.Module
    not_exportable: str = ""
    """Why the network cannot become one file; empty where it can."""

    def __init__(self, backbone: Backbone, *, image_size: int, temperature: float, settings: dict[str, Any]) -> None:
        super().__init__()
        self.clip: CLIP = backbone.clip
        self.backbone_name = backbone.name
        self.backbone_sha256 = backbone.sha256
        self.patch_size = int(self.clip.visual.patch_size[0])
        self._check_size(image_size, image_size)
        self.image_size = image_size
        self.temperature = temperature
        self.settings = settings
        self._encoded_prompts: tuple[Tensor, Tensor] | None = None
        self._fixed_prompts: Tensor | None = None
        self._compiled_encode: Callable[[VisionTransformer, Tensor], tuple[Tensor, list[Tensor]]] | None = None
        register_state_dict_hooks(self)

    @property
    def feature_settings(self) -> dict[str, Any]:
        """What the features of :meth:`encode_image` depend on, besides the image and the backbone."""
        return {key: self.settings[key] for key in _FEATURE_SETTINGS if key in self.settings}

    @property
    def patch_feature_width(self) -> int:
        """Last dimension of the patch features that :meth:`encode_image` gives."""
        return int(self.clip.visual.output_dim)

    def encode_image(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Features of the whole image and of its patches, not normalised.

        Args:
            image: CLIP-normalised, shape (B, 3, H, W), H and W multiples of the patch size.

        Returns:
            global features (B, D), and one tensor of patch features per tapped layer, class token first, shape (B,
            N, D) with N = 1 + H W / patch², or (B, A, N, D) for an ensemble of A attention kinds.

        Raises:
            ValueError: for another shape.
        """
        if image.ndim != 4 or image.shape[1] != 3:
            raise ValueError(f"The image batch must have shape (B, 3, H, W), got {tuple(image.shape)}.")
        self._check_size(*image.shape[-2:])
        return (self._compiled_encode or self._encode)(compute_tower(self.clip.visual), image)

    def compile_encoder(self, enabled: bool = True) -> None:
        """Compile the vision pass with ``torch.compile``; it pays over many images only (see docs/performance.md).

        Compiling happens when the first batch is encoded, and once more for the first of another size. Results differ
        in rounding. Copies of the network are not compiled.

        Args:
            enabled: whether to; False goes back to the uncompiled pass.
        """
        self._compiled_encode = torch.compile(self._encode) if enabled else None

    @abstractmethod
    def _encode(self, visual: VisionTransformer, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        """:meth:`encode_image` of a batch whose shape is known to be right, with the tower or its copy."""

    def encode_prompts(self) -> Tensor:
        """Text features (2, D) of unit length, row 0 normal, row 1 abnormal.

        Unless gradients of the prompts are recorded, they are computed once per state of the prompts. They are never in
        reduced precision.
        """
        if self._fixed_prompts is not None:
            return self._fixed_prompts
        with torch.autocast(self.clip.logit_scale.device.type, enabled=False):
            learned = list(self.prompts.parameters())
            if learned and torch.is_grad_enabled():
                recorded: Tensor = self.prompts(self.clip)
                return recorded
            # Compared by content: version counters miss fused optimisers and writes through `.data`.
            with torch.inference_mode(False), torch.no_grad():
                content = [self.clip.logit_scale.detach(), *(parameter.detach() for parameter in learned)]
                state = torch.cat([part.flatten() for part in content])
                if self._encoded_prompts is None or not _same(self._encoded_prompts[0], state):
                    self._encoded_prompts = (state, self.prompts(self.clip))
            return self._encoded_prompts[1].clone()

    @contextmanager
    def fixed_prompts(self) -> Iterator[None]:
        """A context in which nobody changes the prompts: they are encoded once, without gradients.

        Outside, each call of :meth:`encode_prompts` looks whether they changed, for which a GPU has to finish first.
        """
        before = self._fixed_prompts  # of a context around this one
        with torch.no_grad():
            self._fixed_prompts = self.encode_prompts()
        try:
            yield
        finally:
            self._fixed_prompts = before

    def logits(
        self, global_features: Tensor, patch_features: Sequence[Tensor], *, grid: tuple[int, int] | None = None
    ) -> Logits:
        """Similarity of features with the two prompts: cosine over temperature, before softmax.

        Args:
            global_features: (B, D), as :meth:`encode_image` gives them.
            patch_features: per tapped layer (B, N, D) or (B, A, N, D), class token first.
            grid: patches per column and row; may be left out for square images.

        Returns:
            ``image_logits`` (B, 2) and ``patch_logits``, one (B, 2, h, w) tensor per tapped layer; an ensemble is
            averaged.

        Raises:
            ValueError: when the number of patches does not match the grid.
        """
        text = self.encode_prompts()
        with torch.autocast(text.device.type, enabled=False):
            image_logits = cosine(global_features, text) / self.temperature
            patch_logits = []
            for features in patch_features:
                height, width = grid or square_grid(features.shape[-2] - 1)
                if height * width != features.shape[-2] - 1:
                    raise ValueError(f"{features.shape[-2] - 1} patches do not form a grid of {height} x {width}.")
                similarity = cosine(features[..., 1:, :], text) / self.temperature
                if similarity.ndim == 4:
                    similarity = similarity.mean(dim=1)
                patch_logits.append(similarity.transpose(1, 2).reshape(-1, 2, height, width))
        return {"image_logits": image_logits, "patch_logits": patch_logits}

    def forward(
        self,
        image: Tensor | Mapping[str, Tensor],
        output: Literal["anomaly_map", "prediction", "logits", "all"] = "anomaly_map",
    ) -> Any:
        """Anomaly map of a batch of images, or one of the other outputs.

        Args:
            image: CLIP-normalised images (B, 3, H, W); or, for tuning on cached features, a mapping with
                ``global_features`` (B, D) and ``patch_features`` (B, layers, ...) of square images as
                :meth:`encode_image` gives them.
            output: "anomaly_map" for the map, "prediction" for what :meth:`predict` returns, "logits" for what
                :meth:`logits` returns, "all" for both in one dictionary.

        Returns:
            by default one tensor (B, 1, H, W) in [0, 1]: the abnormal probability, mean over the tapped layers, not
            smoothed.
        """
        if isinstance(image, Mapping):
            global_features, patch_features = image["global_features"], list(image["patch_features"].unbind(dim=1))
            grid = square_grid(patch_features[0].shape[-2] - 1)
        else:
            global_features, patch_features = self.encode_image(image)
            grid = (image.shape[-2] // self.patch_size, image.shape[-1] // self.patch_size)
        logits = self.logits(global_features, patch_features, grid=grid)
        if output == "logits":
            return logits
        anomaly_map = self._anomaly_map(logits, (grid[0] * self.patch_size, grid[1] * self.patch_size))
        if output == "anomaly_map":
            return anomaly_map
        normal, abnormal = logits["image_logits"].unbind(dim=1)
        prediction = {
            "anomaly_map": anomaly_map,
            "anomaly_score": logits["image_logits"].softmax(dim=1)[:, 1],
            "anomaly_margin": abnormal - normal,
        }
        if output == "prediction":
            return prediction
        if output == "all":
            return {**prediction, **logits}
        raise ValueError(f"output='{output}' is not one of 'anomaly_map', 'prediction', 'logits', 'all'.")

    def predict(self, image: Tensor) -> dict[str, Tensor]:
        """Anomaly map and image-level score.

        Args:
            image: CLIP-normalised, shape (B, 3, H, W), H and W multiples of the patch size.

        Returns:
            ``anomaly_map`` (B, 1, H, W) and ``anomaly_score`` (B,), both in [0, 1], and ``anomaly_margin`` (B,), the
            difference of the two image logits: the score is its logistic function, which rounds to 1 where the margin
            still ranks. Neither is calibrated.
        """
        prediction: dict[str, Tensor] = self(image, output="prediction")
        return prediction

    def _anomaly_map(self, logits: Logits, size: tuple[int, int]) -> Tensor:
        """(B, 1, H, W) from what :meth:`logits` returns."""
        probability = torch.stack([layer.softmax(dim=1)[:, 1:] for layer in logits["patch_logits"]]).mean(dim=0)
        # Upsampling is linear: the mean over layers may come first, and the abnormal channel is enough.
        return F.interpolate(probability, size=size, mode="bilinear", align_corners=False)

    def check_record(self, record: Mapping[str, Any]) -> None:
        """Refuse a state dict whose record names another backbone.

        Raises:
            ValueError: when what is loaded was tuned with another CLIP.
        """
        own = {"name": self.backbone_name, "sha256": self.backbone_sha256}
        check_backbone_record(record.get("backbone", {}), own, "this state dict")

    def train(self, mode: bool = True) -> Self:
        """Set the training mode of what is learned; the frozen CLIP stays in eval mode."""
        super().train(mode)
        self.clip.eval()
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        memo[id(self.clip)] = self.clip  # frozen: sharing it is safe, and saves gigabytes per copy
        clone = self.__class__.__new__(self.__class__)
        memo[id(self)] = clone
        clone.__dict__.update(
            copy.deepcopy(
                {**self.__dict__, "_encoded_prompts": None, "_fixed_prompts": None, "_compiled_encode": None}, memo
            )
        )
        return clone

    def _check_size(self, height: int, width: int) -> None:
        if height <= 0 or width <= 0 or height % self.patch_size or width % self.patch_size:
            raise ValueError(
                f"The image size {height} x {width} must be a positive multiple of the patch size {self.patch_size}."
            )


def check_settings(image_size: object, temperature: float) -> None:
    """Check what needs no backbone, before the backbone is loaded.

    Raises:
        ValueError: for an image size that is no whole number, or a temperature that is not positive.
    """
    if not temperature > 0:
        raise ValueError(f"temperature={temperature} must be positive.")
    if not isinstance(image_size, int):
        raise ValueError(f"image_size={image_size!r} must be a whole number of pixels.")


def check_feature_layers(feature_layers: object, layers: int) -> list[int]:
    """The tapped blocks as a list.

    Raises:
        ValueError: unless they are ascending numbers between 1 and ``layers``.
    """
    if not isinstance(feature_layers, Sequence) or isinstance(feature_layers, str):
        raise ValueError(f"feature_layers={feature_layers!r} must be a sequence of block numbers such as (24,).")
    taps = [int(layer) for layer in feature_layers]
    if not taps or taps != sorted(set(taps)) or not 1 <= taps[0] <= taps[-1] <= layers:
        raise ValueError(f"feature_layers={tuple(feature_layers)} must be ascending numbers between 1 and {layers}.")
    return taps


def cosine(features: Tensor, text: Tensor) -> Tensor:
    """Cosine similarity of features (..., D) with unit-length text features (2, D): (..., 2)."""
    precise = torch.promote_types(features.dtype, text.dtype)
    return F.normalize(features.to(precise), dim=-1) @ text.to(precise).T


def _same(left: Tensor, right: Tensor) -> bool:
    return left.dtype == right.dtype and left.device == right.device and torch.equal(left, right)


def square_grid(patches: int) -> tuple[int, int]:
    """Rows and columns of a square grid.

    Raises:
        ValueError: when ``patches`` is no square number.
    """
    side = isqrt(patches)
    if side * side != patches:
        raise ValueError(f"{patches} patches do not form a square: give grid=(rows, columns).")
    return side, side
