# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Do these prompts fit this network? Shapes, backbone and settings compared before anything is loaded."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from monai_anomalyclip.networks.prompt_checkpoint import RECORD_KEY, PromptCheckpoint

__all__ = [
    "check_backbone_match",
    "check_backbone_record",
    "check_shapes",
    "register_state_dict_hooks",
    "warn_other_settings",
]

# Settings that change what the prompts see or say without changing any shape.
_BEHAVIOUR = ("feature_layers", "dpam_start", "dpam_attention", "temperature", "normal_words", "abnormal_words")


def check_shapes(loaded: PromptCheckpoint, own: PromptCheckpoint, source: str) -> None:
    """Compare lengths, depth, width and sharing.

    Raises:
        ValueError: one sentence that names everything that differs.
    """
    differences = []
    for name, theirs, ours in (
        ("normal context", loaded.context_normal, own.context_normal),
        ("abnormal context", loaded.context_abnormal, own.context_abnormal),
    ):
        if theirs.shape != ours.shape:
            differences.append(f"{name} (words, length, width) {tuple(theirs.shape)} instead of {tuple(ours.shape)}")
    theirs_deep, ours_deep = [tuple(d.shape) for d in loaded.deep_prompts], [tuple(d.shape) for d in own.deep_prompts]
    if len(theirs_deep) != len(ours_deep):
        differences.append(f"deep_prompt_depth {len(theirs_deep) + 1} instead of {len(ours_deep) + 1}")
    elif theirs_deep != ours_deep:
        wrong = next(pair for pair in zip(theirs_deep, ours_deep, strict=True) if pair[0] != pair[1])
        differences.append(f"deep prompts (length, width) {wrong[0]} instead of {wrong[1]}")
    if (
        not differences
        and own.settings.get("shared_context")
        and not torch.equal(loaded.context_normal, loaded.context_abnormal)
    ):
        differences.append("separate contexts instead of a shared one")
    learned = [loaded.context_normal, loaded.context_abnormal, *loaded.deep_prompts]
    if not differences and not all(bool(tensor.isfinite().all()) for tensor in learned):
        differences.append("values that are not finite")
    if differences:
        raise ValueError(
            f"The prompts in {source} do not fit this network: {'; '.join(differences)}. Build AnomalyCLIP with the "
            f"settings they were tuned with."
        )


def check_backbone_record(loaded: Mapping[str, str], own: Mapping[str, str], source: str) -> None:
    """Compare the recorded backbones ``{"name", "sha256"}``; an empty record passes.

    Raises:
        ValueError: when what is loaded was tuned with another backbone.
    """
    theirs, ours = loaded.get("sha256"), own["sha256"]
    if theirs and theirs != ours:
        raise ValueError(
            f"The prompts in {source} were tuned with the CLIP '{loaded.get('name')}' (SHA-256 {theirs[:12]}...), this "
            f"network has '{own['name']}' ({ours[:12]}...); use that backbone, or check_backbone=False in "
            f"load_prompts."
        )


def check_backbone_match(loaded: PromptCheckpoint, own: PromptCheckpoint, source: str) -> None:
    """Compare the recorded backbone: by the SHA-256 of its weights, and by the embeddings of the template's words.

    Raises:
        ValueError: when the prompts were tuned with another backbone.
    """
    check_backbone_record(loaded.backbone, own.backbone, source)
    for index in set(loaded.token_rows) & set(own.token_rows):
        stored, row = loaded.token_rows[index].float(), own.token_rows[index]
        # A checkpoint may have passed through float16, hence the tolerance; another backbone is off by the norm of a
        # row.
        if stored.shape != row.shape or not torch.allclose(stored, row, rtol=1e-2, atol=1e-4):
            raise ValueError(
                f"The prompts in {source} were tuned with another CLIP: its embedding of token {index} differs from "
                f"that of "
                f"'{own.backbone['name']}'; use that backbone, or check_backbone=False in load_prompts."
            )


def warn_other_settings(loaded: PromptCheckpoint, own: PromptCheckpoint, source: str) -> None:
    """Warn once when the prompts were tuned with other layers, attention, temperature or words."""
    differing = [
        f"{key}={loaded.settings[key]} (here {own.settings[key]})"
        for key in _BEHAVIOUR
        if key in loaded.settings and _as_list(loaded.settings[key]) != _as_list(own.settings[key])
    ]
    if not loaded.settings and loaded.token_ids is not None and not _same_words(loaded, own):
        differing.append(f"other words than {own.settings['normal_words']} and {own.settings['abnormal_words']}")
    if differing:
        warnings.warn(f"The prompts in {source} were tuned with {', '.join(differing)}.", stacklevel=3)


def _same_words(loaded: PromptCheckpoint, own: PromptCheckpoint) -> bool:
    assert loaded.token_ids is not None
    assert own.token_ids is not None
    # Rows are padded with zeros to the text tower's length, which may differ.
    return [row[row > 0].tolist() for row in loaded.token_ids] == [row[row > 0].tolist() for row in own.token_ids]


def _as_list(value: object) -> object:
    """Tuples and lists compare equal: files know only lists."""
    return list(value) if isinstance(value, tuple) else value


_CLIP_PREFIX = "clip."


def register_state_dict_hooks(network: nn.Module) -> None:
    """Leave the frozen CLIP (attribute ``clip``) out of ``state_dict()``, tolerate its absence, and check the record.

    The record travels in the state dict's own metadata, where torch keeps modules' versions: the keys stay those of
    what is learned, and ``torch.save`` and ``torch.load(weights_only=True)`` carry it along.
    """
    register = (
        network.register_state_dict_post_hook,
        network.register_load_state_dict_pre_hook,
        network.register_load_state_dict_post_hook,
    )
    for method, hook in zip(register, (_drop_frozen_clip, _check_record, _tolerate_absent_clip), strict=True):
        method(hook)  # type: ignore[no-untyped-call]


def _drop_frozen_clip(
    module: nn.Module, state_dict: dict[str, Any], prefix: str, local_metadata: dict[str, Any]
) -> None:
    network: Any = module
    for key in [key for key in state_dict if key.startswith(prefix + _CLIP_PREFIX)]:
        del state_dict[key]
    backbone = {"name": network.backbone_name, "sha256": network.backbone_sha256}
    local_metadata[RECORD_KEY] = {"backbone": backbone, "settings": network.settings}


def _check_record(
    module: nn.Module, state_dict: dict[str, Any], prefix: str, local_metadata: dict[str, Any], *_: Any
) -> None:
    """Refuse a state dict whose record names another backbone; without a record only the shapes can be checked."""
    network: Any = module
    for key in [key for key in state_dict if key.startswith(prefix + _CLIP_PREFIX)]:
        del state_dict[key]  # the frozen CLIP, which copies share, is never loaded from a state dict
    record = local_metadata.get(RECORD_KEY)
    learned = [name for name, _ in network.named_parameters() if not name.startswith(_CLIP_PREFIX)]
    found = any(f"{prefix}{name}" in state_dict for name in learned)
    if learned and state_dict and not found:
        # With strict=False, as MONAI Label loads, the network would go on with prompts that nobody learned.
        raise ValueError(
            f"This state dict holds nothing of what this network learns ({learned[0]}, ...) but "
            f"{next(iter(state_dict))}: give a model.pt of this bundle, or load_prompts() for other layouts."
        )
    if record and found:
        network.check_record(record)


def _tolerate_absent_clip(module: nn.Module, incompatible_keys: Any) -> None:
    network: Any = module
    # With a wrapper around the network the keys carry its prefix, so the names are matched at their end.
    frozen = tuple(f"{_CLIP_PREFIX}{key}" for key in network.clip.state_dict())
    kept = [key for key in incompatible_keys.missing_keys if not key.endswith(frozen)]
    incompatible_keys.missing_keys[:] = kept
