# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The network's state dict: what is learned only, with a record of the backbone it was tuned on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from monai_anomalyclip.networks.prompt_checkpoint import RECORD_KEY

if TYPE_CHECKING:
    from monai_anomalyclip.networks.frozen_clip import FrozenCLIPNetwork

__all__ = ["register_state_dict_hooks"]

_CLIP_PREFIX = "clip."


def register_state_dict_hooks(network: FrozenCLIPNetwork) -> None:
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
