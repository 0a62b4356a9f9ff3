# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The two-path vision pass as published: attention matrices held in memory, both paths in full from ``dpam_start`` on.

Two readings of it, for comparison with ``DualPathVision``:

- "published": what the authors' code does. Before ``dpam_start`` torch's own multi-head attention; from there one qkv
  projection per block, then softmax(q k^T) v and softmax(v v^T) v with both matrices materialised.
- "textbook": the formulas word by word. Each path projects its own q, k, v and every block materialises its matrices.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from torch import Tensor

__all__ = ["READINGS", "plain_forward"]

READINGS = ("published", "textbook")


def plain_forward(clip: CLIP, image: Tensor, *, dpam_start: int, reading: str) -> tuple[Tensor, Tensor]:
    """Global features (B, D) and the v-v path's patch features of the last block (B, N, D), not normalised."""
    visual = clip.visual
    original, second = _embed(visual, image), None
    for number, block in enumerate(visual.transformer.resblocks, start=1):
        normed = block.ln_1(original)
        if number >= dpam_start:
            before = original if second is None else second
            if reading == "published":
                query, key, value = _qkv(block, normed)
                second = before + _attention(block, value, value, value)
                update = _attention(block, query, key, value)
            else:
                _, _, value = _qkv(block, normed)
                second = before + _attention(block, value, value, value)
                update = _attention(block, *_qkv(block, normed))
        elif reading == "published":
            update = block.attn(normed, normed, normed, need_weights=False)[0]
        else:
            update = _attention(block, *_qkv(block, normed))
        original = original + update
        original = original + block.mlp(block.ln_2(original))
    patches = original if second is None else second
    return original[:, 0] @ visual.proj, visual.ln_post(patches) @ visual.proj


def _embed(visual: VisionTransformer, image: Tensor) -> Tensor:
    patches = visual.conv1(image)
    width, rows, columns = patches.shape[1:]
    position: Tensor = visual.positional_embedding
    square = position[1:].reshape(1, *visual.grid_size, width).permute(0, 3, 1, 2)
    resized = F.interpolate(square, size=(rows, columns), mode="bilinear").flatten(2).transpose(1, 2)
    tokens = torch.cat(
        [
            (visual.class_embedding + position[0]).expand(len(image), 1, width),
            patches.flatten(2).transpose(1, 2) + resized,
        ],
        dim=1,
    )
    embedded: Tensor = visual.ln_pre(tokens)
    return embedded


def _qkv(block: ResidualAttentionBlock, normed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    batch, length, width = normed.shape
    heads = block.attn.num_heads
    joint = F.linear(normed, block.attn.in_proj_weight, block.attn.in_proj_bias)
    query, key, value = joint.reshape(batch, length, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
    return query, key, value


def _attention(block: ResidualAttentionBlock, left: Tensor, right: Tensor, value: Tensor) -> Tensor:
    scores = (left @ right.transpose(-2, -1)) * left.shape[-1] ** -0.5
    mixed = scores.softmax(dim=-1) @ value
    update: Tensor = block.attn.out_proj(mixed.transpose(1, 2).flatten(2))
    return update
