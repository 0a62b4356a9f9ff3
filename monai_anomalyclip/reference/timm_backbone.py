# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Backbones of timm as encoders: feature maps of a CNN, intermediate features of a ViT (DINOv2, DINOv3).

EfficientNet-Lite0 trained on ImageNet is one of them; its weights come as a Python package of 17 MB.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from monai_anomalyclip.reference.encoder_weights import (
    fill_by_order,
    packaged_lite0,
    read_weights,
    warn_of_random_weights,
)
from monai_anomalyclip.reference.encoders import PatchEncoder

__all__ = ["LITE0", "efficientnet_lite0", "timm_encoder"]

_RESIZED = ("pos_embed", "relative_position")  # what timm fits to another image size
_SIDE = 288
_IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


LITE0 = "efficientnet-lite0"
"""The encoder's name."""
_ARCHITECTURE = "tf_efficientnet_lite0"
_STAGES = {2: 2, 3: 4, 4: 6}  # timm's number of the feature map: the block that ends with it


def timm_encoder(
    model: str,
    weights: str | Path | None = None,
    *,
    stages: Sequence[int] = (-3, -2, -1),
    image_size: int | None = None,
    grid: int = 18,
    normalise: bool = True,
) -> PatchEncoder:
    """A backbone of timm.

    Args:
        model: timm's name, such as "resnet18", "vit_small_patch14_dinov2", "vit_small_patch16_dinov3".
        weights: a local state dict, "hub" for timm's own (fetched where it is not in the cache), or None for random
            ones (with a warning).
        stages: which feature maps, as timm's ``out_indices``; the last three by default.
        image_size: side of the square that images are squashed to; by default 288, or for a ViT the multiple of its
            patch next to it.
        grid: patches along a side.
        normalise: bring each stage's features to unit length.

    Raises:
        FileNotFoundError: there is no such file of weights, or timm's cannot be fetched.
        ValueError: timm has no such model, it has no feature maps, or the weights are of another one.

    Example::

        timm_encoder("vit_small_patch14_dinov2", "dinov2_vits14.pth")
    """
    options: dict[str, Any] = {"features_only": True, "out_indices": tuple(stages)}
    own = read_weights(weights) if weights not in (None, "hub") else None
    if weights == "hub":
        options["pretrained"] = True
    elif own is not None:
        options |= {"pretrained": True, "pretrained_cfg_overlay": {"file": str(weights), "hf_hub_id": None, "url": ""}}
    else:
        warn_of_random_weights(model)
    trunk = _create(model, options)
    if own is not None:
        _check_filled(trunk, own, Path(str(weights)).name)
        _check_not_larger(model, own, Path(str(weights)).name)
    mean, std = (_pretrained_cfg(trunk).get(key) or usual for key, usual in _IMAGENET.items())
    reduction = max(int(step) for step in trunk.feature_info.reduction())
    multiple = reduction if _is_vit(trunk) else 1
    side = image_size if image_size is not None else max(multiple, round(_SIDE / multiple) * multiple)
    if side % multiple:
        raise ValueError(f"image_size={side} is no multiple of the patch of {model}, {multiple} pixels.")
    return PatchEncoder(
        trunk,
        f"timm:{model}",
        image_size=side,
        n_stages=len(stages),
        grid=grid,
        mean=mean,
        std=std,
        normalise=normalise,
        settings={"stages": list(stages)},
    )


def _create(model: str, options: Mapping[str, Any], *, any_size: bool = True) -> Any:
    """The backbone, a ViT at any image size; timm's many errors become one sentence."""
    if not timm.is_model(model):
        raise ValueError(f"timm has no model {model!r}: python -c 'import timm; print(timm.list_models())' lists them.")
    extra: dict[str, Any] = {"dynamic_img_size": True} if any_size else {}
    try:
        return timm.create_model(model, **options, **extra)
    except OSError as error:
        raise FileNotFoundError(
            f"The weights of timm's {model} are not in the cache and cannot be fetched ({type(error).__name__}): "
            "give a file of weights."
        ) from error
    except Exception as error:
        if extra and isinstance(error, TypeError) and "dynamic_img_size" in str(error):  # only transformers know it
            return _create(model, options, any_size=False)
        said = str(error).splitlines()[0] if str(error) else ""
        raise ValueError(f"timm's {model} cannot be made ({type(error).__name__}: {said}).") from error


def _check_filled(trunk: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Refuse a backbone with matrices that are not the file's: timm passes over what it does not find."""
    there: dict[tuple[int, ...], list[Tensor]] = {}
    for tensor in weights.values():
        there.setdefault(tuple(tensor.squeeze().shape), []).append(tensor)
    for name, tensor in trunk.state_dict().items():
        if tensor.ndim < 2 or any(part in name for part in _RESIZED):
            continue
        same = there.get(tuple(tensor.squeeze().shape), [])
        if not any(bool((tensor.squeeze() == one.squeeze().to(tensor)).all()) for one in same):
            raise ValueError(f"The weights '{source}' lack {name}: they belong to another network.")


def _check_not_larger(model: str, weights: Mapping[str, Tensor], source: str) -> None:
    """Refuse weights with more blocks than the network has, of which it would take the first ones.

    A matrix counts as one too many when others of its name, but for numbers, are the network's: a classifier, or what a
    training leaves beside the backbone, has a name of its own.
    """
    with torch.device("meta"):
        whole = timm.create_model(model, pretrained=False)
    left: Counter[tuple[int, ...]] = Counter(
        tuple(tensor.squeeze().shape) for tensor in whole.state_dict().values() if tensor.squeeze().ndim > 1
    )
    used, over = set(), {}
    for name, tensor in weights.items():
        shape, plain = tuple(tensor.squeeze().shape), re.sub(r"\d+", "", name)
        if len(shape) < 2 or any(part in name for part in _RESIZED):
            continue
        if left[shape] > 0:
            left[shape] -= 1
            used.add(plain)
        else:
            over[name] = plain
    if more := [name for name, plain in over.items() if plain in used]:
        raise ValueError(f"The weights '{source}' have {more[0]} besides: they belong to another network.")


def _pretrained_cfg(trunk: Any) -> dict[str, Any]:
    inner = getattr(trunk, "model", trunk)
    cfg: dict[str, Any] = dict(getattr(inner, "pretrained_cfg", None) or getattr(trunk, "pretrained_cfg", None) or {})
    return cfg


def _is_vit(trunk: Any) -> bool:
    """Whether its feature maps come from tokens, all of one size."""
    return hasattr(trunk, "model") and len(set(trunk.feature_info.reduction())) == 1


def efficientnet_lite0(
    weights: str | Path | None = None,
    *,
    stages: Sequence[int] = (2, 4, 6),
    image_size: int = 288,
    grid: int = 18,
    normalise: bool = True,
) -> PatchEncoder:
    """EfficientNet-Lite0 from its package (extra ``reference``), whose file's SHA-256 is checked.

    The defaults are those that were best in a trial on five sets of real images.

    Args:
        weights: another file with the same 296 tensors in the same order.
        stages: the blocks, of 2, 4 and 6, whose feature maps are used.
        image_size: side of the square that images are squashed to.
        grid: patches along a side.
        normalise: bring each stage's features to unit length.

    Raises:
        ImportError: the package is not installed.
        FileNotFoundError: there is no such file of weights.
        ValueError: the weights are other ones, or an argument is out of range.
    """
    if not stages or not set(stages) <= set(_STAGES.values()):
        raise ValueError(f"stages={list(stages)} must be some of {list(_STAGES.values())}.")
    file = packaged_lite0() if weights is None else Path(weights)
    if not file.is_file():
        raise FileNotFoundError(f"There are no encoder weights at '{file}': leave them out to use the package's.")
    try:
        # By order, so not through a reader that sorts: of safetensors the order is lost.
        content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(f"The encoder weights '{file.name}' cannot be read ({type(error).__name__}).") from error
    whole = timm.create_model(_ARCHITECTURE, pretrained=False)
    fill_by_order(whole, content, file.name)
    wanted = [number for number, block in _STAGES.items() if block in stages]
    trunk = timm.create_model(_ARCHITECTURE, pretrained=False, features_only=True, out_indices=wanted)
    tensors = whole.state_dict()
    trunk.load_state_dict({key: tensors[key] for key in trunk.state_dict()})
    return PatchEncoder(
        trunk,
        LITE0,
        image_size=image_size,
        n_stages=len(wanted),
        grid=grid,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        normalise=normalise,
        settings={"stages": sorted(stages)},
    )
