# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""What the full-shot methods share: a frozen ImageNet network, RGB pixels in, map and score out."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import load_state_dict
from torch import Tensor, nn

from monai_anomalyclip.atomic_file import sha256_of

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["BACKBONES", "FullShotNetwork", "anomalib_needed", "check_backbone", "fill_backbone", "weights_sha256"]

BACKBONES = (
    "wide_resnet50_2", "wide_resnet101_2", "resnet18", "resnet34", "resnet50", "resnet101", "resnet152",
    "resnext50_32x4d", "resnext101_32x8d",
)  # fmt: skip
"""timm's names of the networks for which anomalib has RD4AD's decoder; PatchCore takes the same."""


def check_backbone(name: str) -> None:
    """Check a backbone's name before anything is built.

    Raises:
        ValueError: unless it is one of :data:`BACKBONES`.
    """
    if name not in BACKBONES:
        raise ValueError(f"The backbone '{name}' is not one of {', '.join(BACKBONES)}.")


def weights_sha256(weights: str | Path | None) -> str | None:
    """SHA-256 of a weights file, None for random weights.

    Raises:
        FileNotFoundError: when there is no such file.
    """
    if weights is None:
        return None
    if not Path(weights).is_file():
        raise FileNotFoundError(
            f"There are no backbone weights at '{weights}': give a state dict of torchvision or timm (.pth, "
            ".safetensors), or 'none' for random weights."
        )
    return sha256_of(weights)


def fill_backbone(extractor: nn.Module, name: str, weights: str | Path | None) -> None:
    """Load weights into the layers that a method taps; the layers behind them may be in the file or not.

    Nothing in the file is executed and nothing is downloaded.

    Args:
        extractor: timm's network, cut off behind the last tapped layer, filled in place.
        name: of the backbone, for the messages.
        weights: a state dict as torchvision or timm publish it (.pth, .pt, .safetensors, also under "state_dict" or
            "model"), or None to leave the random weights, with a warning.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when it cannot be read, is of another backbone, or holds values that are not finite.
    """
    if weights is None:
        warnings.warn(
            f"The backbone '{name}' has random weights (weights=None): its figures are not those of the method, which "
            "needs ImageNet weights; for tests and demonstrations only.",
            stacklevel=3,
        )
        return
    weights_sha256(weights)
    try:
        content = load_state_dict(str(weights), use_ema=False, weights_only=True)
    except Exception as error:  # damaged, no state dict, or a pickle that would run code: torch refuses it
        raise ValueError(
            f"'{weights}' cannot be read safely (weights_only) as backbone weights: {type(error).__name__}."
        ) from error
    # Counters of the batch normalisation: absent from old files, and without effect in a frozen network.
    wanted = {key: value for key, value in extractor.state_dict().items() if not key.endswith("num_batches_tracked")}
    wrong = [
        key
        for key, value in wanted.items()
        if not isinstance(content.get(key), Tensor) or content[key].shape != value.shape
    ]
    if wrong:
        raise ValueError(
            f"'{weights}' does not fit the backbone '{name}': {len(wrong)} of {len(wanted)} tensors are missing or of "
            f"another shape, the first of them {wrong[0]}."
        )
    if not all(bool(content[key].isfinite().all()) for key in wanted):
        raise ValueError(f"The weights in '{weights}' are not all finite.")
    extractor.load_state_dict({key: content[key] for key in wanted}, strict=False)


@contextmanager
def anomalib_needed() -> Iterator[None]:
    """Import anomalib inside this, without the warnings of its own imports.

    Raises:
        ImportError: when anomalib, or what it needs, is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    except ImportError as error:
        raise ImportError(
            f"PatchCore and RD4AD need anomalib, which cannot be imported ({error}): pip install anomalib."
        ) from error


class FullShotNetwork(nn.Module, ABC):
    """A model of anomalib that is fitted to the normal images of one class, with the face of the zero-shot networks.

    Maps and scores are distances, larger where more anomalous, not in [0, 1]: the metrics that are computed here
    depend on their order alone, so they are left as they are.

    A derived class sets ``model``, which is in evaluation mode except while :meth:`fit` runs.

    Args:
        image_size: side S of the square images in pixels, a multiple of 32 from 64 on (both ends of RD4AD's decoder
            must meet). Every derived class also takes ``weights``: a local file of the backbone's ImageNet weights, or
            None for random ones (with a warning).
        backbone: timm's name of the frozen network, one of :data:`BACKBONES`.

    Raises:
        ImportError: when anomalib is not installed.
        FileNotFoundError: when there is no such file of weights.
        ValueError: for settings out of range, or weights of another backbone.
    """

    model: Any  # of anomalib, which has no types
    mean: Tensor
    std: Tensor

    def __init__(self, image_size: int, backbone: str = BACKBONES[0]) -> None:
        super().__init__()
        check_backbone(backbone)
        if not isinstance(image_size, int) or image_size < 64 or image_size % 32:
            raise ValueError(f"image_size={image_size!r} must be a multiple of 32 pixels, at least 64.")
        self.image_size = image_size
        self.register_buffer("mean", torch.tensor(IMAGENET_DEFAULT_MEAN).reshape(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_DEFAULT_STD).reshape(3, 1, 1), persistent=False)

    @abstractmethod
    def fit(self, images: Sequence[Tensor], *, batch_size: int = 16, progress: bool = True) -> dict[str, Any]:
        """Learn what is normal, on the device that the network is on.

        Args:
            images: the normal images, each (3, S, S) uint8.
            batch_size: images at a time.
            progress: whether to show progress bars.

        Returns:
            what is worth recording of it, as JSON values.

        Raises:
            ValueError: without images.
        """

    def forward(self, image: Tensor, output: Literal["anomaly_map", "prediction"] = "anomaly_map") -> Any:
        """Anomaly map of a batch of images, or what :meth:`predict` returns.

        Args:
            image: RGB in 0..255, (B, 3, S, S) uint8.
            output: "anomaly_map" for the map, "prediction" for map and score.

        Returns:
            by default one tensor (B, 1, S, S), at least 0, smoothed by the method itself.

        Raises:
            ValueError: for another shape, type or output, or a PatchCore that was not fitted.
        """
        if output not in ("anomaly_map", "prediction"):
            raise ValueError(f"output='{output}' is not one of 'anomaly_map', 'prediction'.")
        prediction = self.model(self.normalize(image))
        if output == "anomaly_map":
            return prediction.anomaly_map
        return {"anomaly_map": prediction.anomaly_map, "anomaly_score": prediction.pred_score.flatten()}

    def predict(self, image: Tensor) -> dict[str, Tensor]:
        """Anomaly map and image-level score.

        Args:
            image: RGB in 0..255, (B, 3, S, S) uint8.

        Returns:
            ``anomaly_map`` (B, 1, S, S) and ``anomaly_score`` (B,), both at least 0.
        """
        prediction: dict[str, Tensor] = self(image, output="prediction")
        return prediction

    def normalize(self, image: Tensor) -> Tensor:
        """RGB in 0..255, (B, 3, S, S) uint8, to what the ImageNet backbones were trained on, on the network's device.

        Raises:
            ValueError: for another shape or type.
        """
        size = self.image_size
        if image.dtype != torch.uint8 or image.ndim != 4 or image.shape[1:] != (3, size, size):
            raise ValueError(
                f"The image batch must be uint8 of shape (B, 3, {size}, {size}), got "
                f"{image.dtype} {tuple(image.shape)}."
            )
        normalized: Tensor = (image.to(self.mean) / 255 - self.mean) / self.std
        return normalized

    def train(self, mode: bool = True) -> Self:
        """Set the mode of this module; the model leaves evaluation mode in :meth:`fit` alone."""
        super().train(mode)
        self.model.eval()
        return self
