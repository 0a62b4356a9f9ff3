# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""How pictures and captions are held against each other while the demonstration CLIP is trained.

The network reads a backbone in two ways, and both are trained exactly as they are read: the class token of the last
block times ``visual.proj`` (no ``ln_post``) against whole captions, and the tokens of the diagonally prominent path
(``ln_post``, ``proj``) against a normal and an abnormal caption, patch by patch; always cosine / 0.07.
"""

from __future__ import annotations

from typing import Any

import torch
from open_clip import CLIP, SimpleTokenizer
from torch import Tensor, nn
from torch.nn import functional as F

from monai_anomalyclip.demo.phantoms import Phantom
from tools.demo_backbone.captions import Caption, CaptionPair

__all__ = ["agreement_losses", "text_features", "vision_features"]

TEMPERATURE = 0.07


def _attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """(B, heads, N, d) to (B, N, heads * d); plain products beat the fused kernel here, in bfloat16 on a CPU."""
    weights = (query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5).softmax(dim=-1)
    mixed: Tensor = (weights.to(value.dtype) @ value).transpose(1, 2).flatten(2)
    return mixed


def vision_features(model: CLIP, image: Tensor, dpam_start: int, kept: Tensor | None) -> tuple[Tensor, Tensor]:
    """Global features (B, D) and DPAM patch features (B, K, D), not normalised.

    The package's own pass (``networks/dpam.py``) gives the same numbers (a test says so), but cannot leave out
    patches: ``kept`` (B, K) are the indices of those to see, None for all.
    """
    visual: Any = model.visual
    x = visual.conv1(image).flatten(2).transpose(1, 2) + visual.positional_embedding[1:]
    if kept is not None:
        x = x.gather(1, kept[..., None].expand(-1, -1, x.shape[-1]))
    first = (visual.class_embedding + visual.positional_embedding[0]).expand(len(x), 1, -1)
    x = visual.ln_pre(torch.cat([first, x], dim=1))
    local = x
    for number, block in enumerate(visual.transformer.resblocks, start=1):
        attention: nn.MultiheadAttention = block.attn
        qkv = F.linear(block.ln_1(x), attention.in_proj_weight, attention.in_proj_bias).chunk(3, dim=-1)
        q, k, v = (t.reshape(*t.shape[:2], attention.num_heads, -1).transpose(1, 2) for t in qkv)
        if number == dpam_start:
            local = x
        if number >= dpam_start:
            local = local + attention.out_proj(_attention(v, v, v))
        if number == len(visual.transformer.resblocks):  # only the class token is read behind the last block
            x, q = x[:, :1], q[:, :, :1]
        x = x + attention.out_proj(_attention(q, k, v))
        x = x + block.mlp(block.ln_2(x))
    return x[:, 0] @ visual.proj, visual.ln_post(local[:, 1:]) @ visual.proj


def text_features(model: CLIP, tokens: Tensor) -> Tensor:
    """Unit text features (B, D); the sentence is cut after the longest one, which a causal tower cannot notice."""
    end = tokens.argmax(dim=1)
    length = int(end.max()) + 1
    x = model.token_embedding(tokens[:, :length]) + model.positional_embedding[:length]
    mask = torch.full((length, length), float("-inf")).triu_(1)
    x = model.transformer(x, attn_mask=mask)
    x = model.ln_final(x)[torch.arange(len(x)), end] @ model.text_projection
    return F.normalize(x.float(), dim=-1)


def agreement_losses(
    whole: Tensor,
    local: Tensor,
    patches: Tensor,
    phantoms: list[Phantom],
    captions: list[Caption],
    pairs: list[CaptionPair],
    model: CLIP,
    tokenizer: SimpleTokenizer,
) -> dict[str, Tensor]:
    """How far the text tower's view of the captions is from the pictures' features.

    Args:
        whole: unit global features (B, D).
        local: unit patch features (B, K, D).
        patches: share of each patch that is anomalous (B, K).
        phantoms: what the B pictures are.
        captions: one per picture.
        pairs: one per picture.
        model: its text tower is used.
        tokenizer: open_clip's.

    Returns:
        ``contrast``: whole captions against whole pictures, every true pair of the batch counting as a match;
        ``state``: normal against abnormal caption for the picture; ``patch``: the same for each patch.
    """
    count = len(captions)
    texts = [c.text for c in captions] + [p.normal for p in pairs] + [p.abnormal for p in pairs]
    features = text_features(model, tokenizer(texts))
    sentences, states = features[:count], features[count:].reshape(2, count, -1)
    true = torch.tensor([[c.is_true_of(p) for c in captions] for p in phantoms], dtype=torch.float32)
    logits = whole @ sentences.T / TEMPERATURE
    contrast = F.cross_entropy(logits, true / true.sum(1, keepdim=True))
    contrast = 0.5 * (contrast + F.cross_entropy(logits.T, true.T / true.T.sum(1, keepdim=True)))
    state = torch.tensor([pair.state_of(phantom) for pair, phantom in zip(pairs, phantoms, strict=True)]).long()
    meant = torch.tensor([pair.speaks_of_the_mask(phantom) for pair, phantom in zip(pairs, phantoms, strict=True)])
    patch_level = torch.einsum("bkd,bd->bk", local, states[1] - states[0]) / TEMPERATURE
    return {
        "contrast": contrast,
        "state": F.cross_entropy(torch.einsum("bd,sbd->bs", whole, states) / TEMPERATURE, state),
        "patch": F.binary_cross_entropy_with_logits(
            patch_level, patches, weight=meant[:, None].float(), pos_weight=torch.tensor(3.0)
        ),
    }
