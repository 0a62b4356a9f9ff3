# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The frozen vision tower with its matrices in the type that they are multiplied in, made once."""

from __future__ import annotations

import copy
from typing import Any
from weakref import WeakKeyDictionary

import torch
from open_clip.transformer import QuickGELU, ResidualAttentionBlock, VisionTransformer
from torch import Tensor, nn

__all__ = ["compute_tower"]

_QUICK_GELU = 1.702

# By the original, which deep copies of a network share; of each the copy that was used last.
_made: WeakKeyDictionary[VisionTransformer, tuple[Any, VisionTransformer]] = WeakKeyDictionary()


def compute_tower(visual: VisionTransformer) -> VisionTransformer:
    """The tower to encode images with: under autocast a copy whose matrices have autocast's type, else the tower.

    Autocast would round every frozen matrix anew at each use. The copy takes half the tower's memory in addition;
    norms and embeddings are shared with it and stay as they are. In the copy QuickGELU, ``x * sigmoid(1.702 x)``, is
    ``silu(1.702 x) / 1.702`` with both factors in the matrices before and behind it: one kernel instead of three.

    Args:
        visual: the tower, in float32 where a copy is to be made of it.
    """
    place = visual.class_embedding.device
    if (
        not torch.is_autocast_enabled(place.type)
        or torch.compiler.is_compiling()
        or visual.class_embedding.dtype != torch.float32
        or any(parameter.requires_grad for parameter in visual.parameters())
    ):
        return visual
    dtype = torch.get_autocast_dtype(place.type)
    state = (place, dtype, [parameter._version for parameter in visual.parameters()])
    made = _made.get(visual)
    if made is None or made[0] != state:
        with torch.inference_mode(False), torch.no_grad():  # kept for later calls, which may record gradients
            made = _made[visual] = (state, _copied(visual, dtype))
    return made[1]


def _copied(visual: VisionTransformer, dtype: torch.dtype) -> VisionTransformer:
    shared: list[Any] = [module for module in visual.modules() if isinstance(module, nn.LayerNorm | nn.Identity)]
    shared += [visual.class_embedding, visual.positional_embedding]
    memo: dict[int, Any] = {id(part): part for part in shared}

    def cast(parameter: Tensor | None, factor: float = 1.0) -> None:
        if parameter is not None:
            memo[id(parameter)] = nn.Parameter((parameter * factor).to(dtype), requires_grad=False)

    for parameter in (visual.conv1.weight, visual.conv1.bias, visual.proj):
        cast(parameter)
    for block in visual.transformer.resblocks:
        _cast_block(block, memo, cast)
    return copy.deepcopy(visual, memo)


def _cast_block(block: ResidualAttentionBlock, memo: dict[int, Any], cast: Any) -> None:
    attention, first, second = block.attn, block.mlp.c_fc, block.mlp.c_proj
    for parameter in (attention.in_proj_weight, attention.in_proj_bias):
        cast(parameter)
    for parameter in (attention.out_proj.weight, attention.out_proj.bias, second.bias):
        cast(parameter)
    folded = isinstance(block.mlp.gelu, QuickGELU)
    factor = _QUICK_GELU if folded else 1.0
    cast(first.weight, factor)
    cast(first.bias, factor)
    cast(second.weight, 1 / factor)
    if folded:
        memo[id(block.mlp.gelu)] = nn.SiLU()
