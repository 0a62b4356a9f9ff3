# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Retrieval from labelled auxiliary patches, without training: what do the most similar ones say?"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn

from monai_anomalyclip.atomic_file import replaced_when_complete
from monai_anomalyclip.losses import Logits
from monai_anomalyclip.networks.backbone import build_backbone
from monai_anomalyclip.networks.devices import autocast, check_precision
from monai_anomalyclip.networks.dpam import DualPathVision, parse_dpam_attention
from monai_anomalyclip.networks.frozen_clip import (
    FrozenCLIPNetwork,
    check_feature_layers,
    check_settings,
    square_grid,
)
from monai_anomalyclip.networks.prompt_checkpoint import RECORD_KEY, save_tensors

__all__ = ["MemoryBuilder", "Retrieval", "read_memory"]

_TENSORS = ("image_keys", "image_values", "patch_keys", "patch_values")
_QUERIES_AT_A_TIME = 256


def read_memory(path: str | Path) -> Mapping[str, Tensor]:
    """Read a memory that :class:`MemoryBuilder` or :meth:`Retrieval.save_prompts` wrote; nothing in it is executed.

    Returns:
        the keys and values, with the record of the backbone in the metadata.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when the file holds no memory, or values that are not finite.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no memory at '{path}': make one (run training with configs/methods/retrieval.json as the last "
            "--config_file)."
        )
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged, or a pickle that would run code: torch refuses it
        raise ValueError(
            f"'{path}' cannot be read safely (weights_only) as a memory: {type(error).__name__}."
        ) from error
    if not isinstance(content, Mapping) or not all(isinstance(content.get(name), Tensor) for name in _TENSORS):
        raise ValueError(f"'{path}' holds no memory for retrieval.")
    if not all(bool(content[name].isfinite().all()) for name in _TENSORS):
        raise ValueError(f"The memory in '{path}' has values that are not finite.")
    return content


class Retrieval(FrozenCLIPNetwork):
    """Compares an image and its patches with labelled ones of auxiliary images, whose labels are then averaged.

    Keys are AnomalyCLIP's visual features (with DPAM) of the auxiliary images and of some of their patches, of unit
    length; a value is the image's label, or the share of a patch that its mask covers. With cosines s_i to the keys and
    values v_i, the abnormal probability is sum_i softmax(s / t)_i v_i, for the image and for each patch. The map is
    the mean over the tapped layers, upsampled bilinearly. There is no text, and nothing is optimised.

    Source: the idea of MRAD-TF (ICLR 2026), a memory that is retrieved from without training. This is our own
    reading of it, not its authors' code: choice of the patches, features and temperature are ours.

    Args:
        model_name: open_clip model name, or a config dictionary (see
            :func:`~monai_anomalyclip.networks.build_backbone`).
        pretrained: open_clip tag, local weights file, or None for random weights (with a warning).
        image_size: side of the square input in pixels; a multiple of the patch size.
        feature_layers: vision blocks, from 1, whose patch features are compared; None for the last one.
        dpam_start: first vision block with DPAM's path; None for the end of the tower's first quarter, i.e. 6 of 24.
        dpam_attention: as for :class:`~monai_anomalyclip.networks.AnomalyCLIP`, but no ensemble.
        temperature: t of the softmax.

    Raises:
        ValueError: for settings that the backbone cannot take.
        FileNotFoundError: when the CLIP weights can be neither found nor fetched.

    Example::

        network = Retrieval(pretrained="ViT-L-14-336px.pt")
        network.load_prompts("memory.pt")
    """

    image_keys: Tensor
    image_values: Tensor
    patch_keys: Tensor
    patch_values: Tensor

    def __init__(
        self,
        model_name: str | Mapping[str, Any] = "ViT-L-14-336-quickgelu",
        pretrained: str | Path | None = "openai",
        *,
        image_size: int = 518,
        feature_layers: Sequence[int] | None = None,
        dpam_start: int | None = None,
        dpam_attention: str = "vv",
        temperature: float = 0.02,
    ) -> None:
        check_settings(image_size, temperature)
        kinds = parse_dpam_attention(dpam_attention)
        if len(kinds) != 1:
            raise ValueError(f"dpam_attention='{dpam_attention}': retrieval takes one kind of attention, no ensemble.")
        backbone = build_backbone(model_name, pretrained)
        layers = len(backbone.clip.visual.transformer.resblocks)
        taps = check_feature_layers([layers] if feature_layers is None else feature_layers, layers)
        start = math.ceil(layers / 4) if dpam_start is None else dpam_start
        if not 1 <= start <= layers:
            raise ValueError(f"dpam_start={start} must lie between 1 and {layers}.")
        settings = {
            "image_size": image_size,
            "feature_layers": taps,
            "dpam_start": start,
            "dpam_attention": dpam_attention,
            "temperature": temperature,
        }
        super().__init__(backbone, image_size=image_size, temperature=temperature, settings=settings)
        self._vision = DualPathVision(taps, start, kinds)
        width = int(self.clip.visual.output_dim)
        self.prompts = nn.Module()  # none: nothing is learned
        self.register_buffer("image_keys", torch.zeros(0, width))
        self.register_buffer("image_values", torch.zeros(0))
        self.register_buffer("patch_keys", torch.zeros(len(taps), 0, width))
        self.register_buffer("patch_values", torch.zeros(0))

    def _encode(self, visual: VisionTransformer, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        return self._vision(visual, image)

    def encode_prompts(self) -> Tensor:
        """(0, D): there are no prompts."""
        return self.image_keys[:0]

    def logits(
        self, global_features: Tensor, patch_features: Sequence[Tensor], *, grid: tuple[int, int] | None = None
    ) -> Logits:
        """Logarithms of the summed weights of normal and of abnormal labels; their softmax gives the probabilities.

        Args:
            global_features: (B, D), as :meth:`encode_image` gives them.
            patch_features: per tapped layer (B, N, D), class token first.
            grid: patches per column and row; may be left out for square images.

        Returns:
            ``image_logits`` (B, 2) and ``patch_logits``, one (B, 2, h, w) tensor per tapped layer.

        Raises:
            ValueError: when the memory is empty, or the number of patches does not match the grid.
        """
        if not len(self.image_keys):
            raise ValueError("The memory is empty: fill it (MemoryBuilder), or load one with load_prompts.")
        with torch.autocast(self.image_keys.device.type, enabled=False):
            patch_logits = []
            for features, keys in zip(patch_features, self.patch_keys, strict=True):
                height, width = grid or square_grid(features.shape[-2] - 1)
                if height * width != features.shape[-2] - 1:
                    raise ValueError(f"{features.shape[-2] - 1} patches do not form a grid of {height} x {width}.")
                found = self._retrieve(features[:, 1:], keys, self.patch_values)
                patch_logits.append(found.transpose(1, 2).reshape(-1, 2, height, width))
            image_logits = self._retrieve(global_features, self.image_keys, self.image_values)
        return {"image_logits": image_logits, "patch_logits": patch_logits}

    def _retrieve(self, features: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """(..., D) to (..., 2)."""
        queries = _unit(features)
        queries = queries.to(torch.promote_types(queries.dtype, keys.dtype))
        keys = keys.to(queries.dtype)
        weights = torch.stack([1 - values, values]).to(queries.dtype).log()  # of a label that a key has not: -inf
        flat, found = queries.flatten(0, -2), []
        for start in range(0, len(flat), _QUERIES_AT_A_TIME):  # all of them at once would be gigabytes
            similarity = flat[start : start + _QUERIES_AT_A_TIME] @ keys.T / self.temperature
            found.append(torch.stack([(similarity + weight).logsumexp(dim=-1) for weight in weights], dim=-1))
        return torch.cat(found).reshape(*features.shape[:-1], 2)

    def set_memory(self, image_keys: Tensor, image_values: Tensor, patch_keys: Tensor, patch_values: Tensor) -> None:
        """Put keys and values in the place of those that are there.

        Args:
            image_keys: (K, D), of unit length.
            image_values: (K,), 1 for anomalous images, else 0.
            patch_keys: (layers, M, D), of unit length.
            patch_values: (M,), share of each patch that is anomalous.

        Raises:
            ValueError: when shapes do not match, or one of the two labels is missing.
        """
        given = dict(zip(_TENSORS, (image_keys, image_values, patch_keys, patch_values), strict=True))
        layers, width = self.patch_keys.shape[0], self.patch_keys.shape[2]
        wanted = {
            "image_keys": (len(image_values), width),
            "image_values": (len(image_values),),
            "patch_keys": (layers, len(patch_values), width),
            "patch_values": (len(patch_values),),
        }
        for name, shape in wanted.items():
            if tuple(given[name].shape) != shape:
                raise ValueError(
                    f"The memory's {name} have shape {tuple(given[name].shape)}, this network needs {shape}."
                )
        for name in ("image_values", "patch_values"):
            if not bool((given[name] > 0).any() and (given[name] < 1).any()):
                raise ValueError(
                    f"The memory's {name} need normal and anomalous ones, got {len(given[name])} of one kind."
                )
        device = self.image_keys.device
        for name, value in given.items():
            setattr(self, name, value.detach().to(device, torch.promote_types(value.dtype, torch.float32)))

    def save_prompts(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write the memory with its settings and the backbone's identity, as a bundle's ``model.pt``.

        Raises:
            FileExistsError: when the file exists and ``overwrite`` is false.
            ValueError: for another suffix than ``.pt``.
        """
        path = Path(path)
        if path.suffix != ".pt":
            raise ValueError(f"The memory is written as .pt, not as '{path.name}'.")
        if path.exists() and not overwrite:
            raise FileExistsError(f"'{path}' exists; give another name or overwrite=True.")
        path.parent.mkdir(parents=True, exist_ok=True)
        with replaced_when_complete(path) as unfinished:
            save_tensors(self.state_dict(), unfinished)

    def load_prompts(self, path: str | Path, check_backbone: bool = True) -> None:
        """Load a memory.

        Args:
            path: the file.
            check_backbone: whether a memory of another CLIP, or of other blocks, is refused.

        Raises:
            FileNotFoundError: when there is no such file.
            ValueError: when the file holds no memory, one of another shape, or the backbone is another one.
        """
        state = read_memory(path)
        if check_backbone:
            self.check_record(getattr(state, "_metadata", {}).get("", {}).get(RECORD_KEY, {}))
        self.set_memory(*(state[name] for name in _TENSORS))

    def check_record(self, record: Mapping[str, Any]) -> None:
        """Refuse a memory of another backbone or of features that were taken otherwise.

        Raises:
            ValueError: when the keys are no features of this network.
        """
        super().check_record(record)
        for name in ("feature_layers", "dpam_start", "dpam_attention"):
            theirs = record.get("settings", {}).get(name, self.settings[name])
            if theirs != self.settings[name]:
                raise ValueError(f"This memory was made with {name}={theirs}, the network has {self.settings[name]}.")


class MemoryBuilder:
    """Stands where a bundle has its trainer: one pass over the auxiliary images fills the memory and writes it.

    Of each image at most ``keys_per_image`` patches are kept, drawn at random: up to half of them touch the mask, the
    others do not. Anomalous images without a mask give an image key alone.

    Args:
        network: to fill.
        data_loader: batches of images or of cached features, with targets.
        prepare_batch: e.g. :class:`~monai_anomalyclip.engines.PrepareAnomalyBatch`.
        path: file to write.
        keys_per_image: patches of an image that are kept.
        seed: of the draw.
        precision: in which images are encoded; cached features have been encoded already.

    Raises:
        ValueError: unless ``keys_per_image`` is at least 2.

    Example::

        MemoryBuilder(network, loader, PrepareAnomalyBatch("logits"), "models/retrieval/model.pt").run()
    """

    def __init__(
        self,
        network: Retrieval,
        data_loader: Iterable[Mapping[str, Any]],
        prepare_batch: Callable[..., Any],
        path: str | Path,
        *,
        keys_per_image: int = 32,
        seed: int = 111,
        precision: str = "float32",
    ) -> None:
        check_precision(precision)
        if keys_per_image < 2:
            raise ValueError(f"keys_per_image={keys_per_image} must be at least 2: normal and anomalous ones.")
        self.network = network
        self.data_loader = data_loader
        self.prepare_batch = prepare_batch
        self.path = Path(path)
        self.keys_per_image = keys_per_image
        self.seed = seed
        self.precision = precision

    @torch.no_grad()
    def run(self) -> None:
        """Fill the memory and write it.

        Raises:
            ValueError: when there are no normal or no anomalous images, or no masks.
        """
        generator = torch.Generator().manual_seed(self.seed)
        device = self.network.clip.logit_scale.device
        image_keys, image_values, patch_keys, patch_values = [], [], [], []
        for batch in self.data_loader:
            given, target, *_ = self.prepare_batch(batch, device)
            if isinstance(given, Mapping):
                features, layers = given["global_features"], given["patch_features"]
            else:
                with autocast(self.precision, device):
                    features, tapped = self.network.encode_image(given)
                layers = torch.stack(tapped, dim=1)
            image_keys.append(_unit(features))
            image_values.append(target["image_label"].flatten().float())
            side = square_grid(layers.shape[-2] - 1)
            shares = F.adaptive_avg_pool2d(target["label"].float(), side).flatten(1)
            known = target["has_label"].flatten().bool() | (image_values[-1] == 0)
            for patches, share in zip(layers[known][:, :, 1:], shares[known], strict=True):
                chosen = self._choose(share, generator)
                patch_keys.append(_unit(patches[:, chosen]))
                patch_values.append(share[chosen])
        if not patch_keys:
            raise ValueError("There are no images with known masks to make a memory of.")
        self.network.set_memory(
            torch.cat(image_keys), torch.cat(image_values), torch.cat(patch_keys, dim=1), torch.cat(patch_values)
        )
        self.network.save_prompts(self.path, overwrite=True)

    def _choose(self, share: Tensor, generator: torch.Generator) -> Tensor:
        order = torch.randperm(len(share), generator=generator).to(share.device)
        touched = order[share[order] > 0][: self.keys_per_image // 2]
        return torch.cat([touched, order[share[order] == 0][: self.keys_per_image - len(touched)]])


def _unit(features: Tensor) -> Tensor:
    """Of unit length, never in reduced precision."""
    return F.normalize(features.to(torch.promote_types(features.dtype, torch.float32)), dim=-1)
