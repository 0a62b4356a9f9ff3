# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The frozen CLIP: built and loaded through open_clip, checked, fingerprinted.

Only the transformer towers of OpenAI's CLIP architecture can be driven by the dual-path pass, and every one of its
activation functions has to be the one that the weights were trained with. Both are checked here, once.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.constants import OPENAI_DATASET_MEAN
from open_clip.model import CLIP
from open_clip.pretrained import download_pretrained, get_pretrained_cfg, list_pretrained_tags_by_model
from open_clip.transformer import ResidualAttentionBlock
from torch import nn

from monai_anomalyclip.networks.clip_weights import ClipWeights, clip_file, read_clip_weights, tensors_digest

__all__ = ["Backbone", "build_backbone", "describe_clip"]

logger = logging.getLogger(__name__)

_REQUIRED = {"embed_dim", "vision_cfg", "text_cfg"}
_OPTIONAL = {"quick_gelu", "init_logit_scale", "init_logit_bias"}

_VOCABULARY = 49408


@dataclass(frozen=True)
class Backbone:
    """A frozen CLIP and what identifies it.

    Attributes:
        clip: the open_clip model in eval mode, float32, without gradients.
        name: the open_clip name, or "custom" for a config dictionary.
        sha256: digest of all weights (names, shapes and float32 values), independent of the file format they came in.
    """

    clip: CLIP
    name: str
    sha256: str


def build_backbone(model_name: str | Mapping[str, Any], pretrained: str | Path | None) -> Backbone:
    """Build the frozen CLIP and load its weights.

    Args:
        model_name: an open_clip model name such as "ViT-L-14-336-quickgelu", or a config dictionary with the keys
            ``embed_dim``, ``vision_cfg``, ``text_cfg`` and optionally ``quick_gelu``.
        pretrained: an open_clip tag ("openai", ...), a local file (see
            :mod:`~monai_anomalyclip.networks.clip_weights`), a folder of Hugging Face's with one, or None for random
            weights.

    Returns:
        the backbone, frozen and in eval mode.

    Raises:
        ValueError: when the architecture cannot be driven or QuickGELU does not match the weights.
        FileNotFoundError: when the weights can be neither found nor fetched.
    """
    name = model_name if isinstance(model_name, str) else "custom"
    config = _model_config(model_name)
    try:
        clip = CLIP(**config)
    except (TypeError, AssertionError, ValueError, RuntimeError) as error:
        raise ValueError(f"open_clip cannot build '{name}' from its config: {error}") from error
    _check_architecture(clip, name)
    if pretrained is None:
        warnings.warn(
            f"CLIP '{name}' has random weights (pretrained=None): its anomaly maps mean nothing; for tests and "
            f"benchmarks only.",
            stacklevel=3,
        )
    else:
        _load_weights(clip, name, pretrained, quick_gelu=bool(config.get("quick_gelu", False)))
    clip.requires_grad_(False)
    clip.eval()
    return Backbone(clip, name, tensors_digest(clip.state_dict()))


def describe_clip(path: str | Path, model_name: str | Mapping[str, Any]) -> tuple[ClipWeights, str]:
    """Look into a file of weights, without building the network.

    Args:
        path: the file, or a folder with one (see :func:`~monai_anomalyclip.networks.clip_weights.clip_file`).
        model_name: as for :func:`build_backbone`.

    Returns:
        what it holds, and the digest that :class:`Backbone` would have.

    Raises:
        ValueError: it cannot be read, or does not fit the model.
    """
    weights = read_clip_weights(clip_file(path))
    with torch.device("meta"):
        wanted = {key: value.shape for key, value in CLIP(**_model_config(model_name)).state_dict().items()}
    found = {key: value.shape for key, value in weights.tensors.items()}
    wrong = sorted(key for key in wanted.keys() | found.keys() if wanted.get(key) != found.get(key))
    if wrong:
        name = model_name if isinstance(model_name, str) else "custom"
        raise ValueError(
            f"'{Path(path).name}' does not fit '{name}': {wrong[0]} has {_size(found.get(wrong[0]))} in place of "
            f"{_size(wanted.get(wrong[0]))}, and {len(wrong)} tensors differ in all."
        )
    return weights, tensors_digest(weights.tensors)


def _size(shape: torch.Size | None) -> str:
    return "no tensor" if shape is None else f"the shape {tuple(shape)}"


def _model_config(model_name: str | Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(model_name, str):
        config = None if ":" in model_name else open_clip.get_model_config(model_name)
        if config is None:
            raise ValueError(
                f"'{model_name}' is not one of open_clip's built-in models (open_clip.list_models() lists them); hub "
                f"names are not "
                "supported: give a config dictionary and a local weights file instead."
            )
    else:
        config = dict(model_name)
        missing, unknown = _REQUIRED - set(config), set(config) - _REQUIRED - _OPTIONAL
        if missing or unknown:
            raise ValueError(
                f"The CLIP config dictionary lacks {sorted(missing)} and has unknown {sorted(unknown)}: it takes "
                f"embed_dim, "
                f"vision_cfg, text_cfg and optionally {', '.join(sorted(_OPTIONAL))}."
            )
    vision, text = config["vision_cfg"], config["text_cfg"]
    reason = None
    if vision.get("timm_model_name"):
        reason = f"its vision tower is the timm trunk '{vision['timm_model_name']}'"
    elif isinstance(vision.get("layers"), list | tuple):
        reason = "its vision tower is a ResNet"
    elif text.get("hf_model_name"):
        reason = f"its text tower is the Hugging Face model '{text['hf_model_name']}'"
    elif config.get("custom_text") or config.get("multimodal_cfg"):
        reason = "its text tower is not CLIP's own"
    if reason:
        raise _cannot_drive(model_name if isinstance(model_name, str) else "custom", reason)
    return {key: value for key, value in config.items() if key in _REQUIRED | _OPTIONAL}


def _cannot_drive(name: str, reason: str) -> ValueError:
    return ValueError(
        f"AnomalyCLIP cannot drive '{name}': {reason}. It needs a CLIP with plain ViT and causal text towers, "
        "such as 'ViT-L-14-336-quickgelu' or 'ViT-B-16-quickgelu'."
    )


def _check_architecture(clip: CLIP, name: str) -> None:
    visual = clip.visual
    reason = None
    if visual.attn_pool is not None or visual.pool_type != "tok":
        reason = "its vision tower does not pool by the class token"
    elif visual.patch_size[0] != visual.patch_size[1] or visual.grid_size[0] != visual.grid_size[1]:
        reason = "its patches or its trained image size are not square"
    elif (
        clip.attn_mask is None or clip.text_pool_type != "argmax" or not isinstance(clip.text_projection, nn.Parameter)
    ):
        reason = "its text tower is not causal with a feature at end-of-text"
    elif clip.vocab_size != _VOCABULARY:
        reason = f"its vocabulary has {clip.vocab_size} tokens instead of CLIP's {_VOCABULARY}"
    else:
        for block in (*visual.transformer.resblocks, *clip.transformer.resblocks):
            if type(block) is not ResidualAttentionBlock or block.attn.in_proj_weight is None:
                reason = f"it has {type(block).__name__} blocks"
                break
    if reason:
        raise _cannot_drive(name, reason)


def _load_weights(clip: CLIP, name: str, pretrained: str | Path, *, quick_gelu: bool) -> None:
    tag = get_pretrained_cfg(name, str(pretrained))
    if tag:
        _check_activation(name, str(pretrained), wanted=bool(tag.get("quick_gelu", False)), given=quick_gelu)
        if tuple(tag.get("mean", OPENAI_DATASET_MEAN)) != OPENAI_DATASET_MEAN:
            raise ValueError(
                f"The weights '{pretrained}' of '{name}' were trained with another image normalisation (mean "
                f"{tag['mean']}) than "
                "CLIP's, which the pre-processing uses: choose another tag."
            )
        path = _fetch(name, str(pretrained), tag)
    else:
        path = clip_file(pretrained)
        if not path.is_file():
            base = name.removesuffix("-quickgelu")
            if get_pretrained_cfg(base, str(pretrained)):
                _check_activation(name, str(pretrained), wanted=False, given=True)
            tags = ", ".join(list_pretrained_tags_by_model(name)) or "none"
            raise FileNotFoundError(
                f"CLIP weights '{pretrained}' are neither a file nor an open_clip tag of '{name}' (tags: {tags})."
            )
    weights = read_clip_weights(path)
    if weights.from_openai:
        _check_activation(name, str(pretrained), wanted=True, given=quick_gelu)
    try:
        clip.load_state_dict(weights.tensors, strict=True)
    except RuntimeError as error:
        detail = " ".join(str(error).split())[:300]
        raise ValueError(f"The weights '{pretrained}' do not fit '{name}': {detail}") from error


def _check_activation(name: str, pretrained: str, *, wanted: bool, given: bool) -> None:
    if wanted == given:
        return
    needed, computed = ("QuickGELU", "GELU") if wanted else ("GELU", "QuickGELU")
    base = name.removesuffix("-quickgelu")
    way_out = f"use model_name='{base}{'-quickgelu' if wanted else ''}'"
    if name == "custom":
        way_out = f"set quick_gelu to {str(wanted).lower()} in the config"
    raise ValueError(
        f"The weights '{pretrained}' were trained with {needed} but '{name}' computes {computed}, which would lower "
        f"accuracy "
        f"silently: {way_out}."
    )


def _fetch(name: str, tag: str, config: dict[str, Any]) -> Path:
    from monai_anomalyclip.weights.fetched import fetched_clip  # files of one's own need no downloads

    if (fetched := fetched_clip(str(config.get("url", "")))) is not None:
        return fetched
    try:
        return Path(download_pretrained(config))
    except Exception as error:  # whichever of the hub's many errors: the way out is the same
        raise FileNotFoundError(
            f"The CLIP weights '{tag}' of '{name}' are not in the local cache and could not be fetched "
            f"({type(error).__name__}); connect to the internet once, download the file elsewhere and give its path as "
            "`pretrained`, or make a bundle on a machine that is connected and carry it here: "
            "monai-anomalyclip weights bundle -o anomalyclip_ready"
        ) from error
