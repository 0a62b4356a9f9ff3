# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The oracle: AnomalyCLIP's formulas, written out plainly and slowly after a description of the published code.

Nothing here uses this package or open_clip: only tensors and a dictionary of CLIP weights in OpenAI / open_clip naming.
Attention matrices are materialised, all 77 text positions are computed, all blocks run in full, in the dtype of the
weights (float64 in the tests).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

Weights = Mapping[str, Tensor]


def layer_norm(x: Tensor, weights: Weights, name: str) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    variance = (centred * centred).mean(-1, keepdim=True)
    return centred / torch.sqrt(variance + 1e-5) * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def split_heads(x: Tensor, heads: int) -> Tensor:
    batch, length, width = x.shape
    return x.reshape(batch, length, heads, width // heads).transpose(1, 2)


def attention(left: Tensor, right: Tensor, value: Tensor, weights: Weights, block: str, mask: Tensor | None) -> Tensor:
    """softmax(left right^T / sqrt(head dim)) value, heads joined, output projection."""
    scores = left @ right.transpose(-1, -2) / left.shape[-1] ** 0.5
    if mask is not None:
        scores = scores + mask
    exponent = torch.exp(scores - scores.amax(-1, keepdim=True))
    mixed = (exponent / exponent.sum(-1, keepdim=True)) @ value
    joined = mixed.transpose(1, 2).flatten(2)
    return joined @ weights[f"{block}.attn.out_proj.weight"].T + weights[f"{block}.attn.out_proj.bias"]


def qkv(x: Tensor, weights: Weights, block: str, heads: int) -> dict[str, Tensor]:
    normed = layer_norm(x, weights, f"{block}.ln_1")
    joint = normed @ weights[f"{block}.attn.in_proj_weight"].T + weights[f"{block}.attn.in_proj_bias"]
    return {name: split_heads(part, heads) for name, part in zip("qkv", joint.chunk(3, dim=-1), strict=True)}


def mlp(x: Tensor, weights: Weights, block: str) -> Tensor:
    hidden = layer_norm(x, weights, f"{block}.ln_2") @ weights[f"{block}.mlp.c_fc.weight"].T
    hidden = hidden + weights[f"{block}.mlp.c_fc.bias"]
    hidden = hidden * torch.sigmoid(1.702 * hidden)  # QuickGELU
    return hidden @ weights[f"{block}.mlp.c_proj.weight"].T + weights[f"{block}.mlp.c_proj.bias"]


def bilinear_matrix(size_in: int, size_out: int, dtype: torch.dtype) -> Tensor:
    """(size_out, size_in) matrix of linear interpolation with ``align_corners=False`` and clamped borders."""
    matrix = torch.zeros(size_out, size_in, dtype=dtype)
    for index in range(size_out):
        centre = min(max((index + 0.5) * size_in / size_out - 0.5, 0.0), size_in - 1.0)
        low = int(centre)
        high = min(low + 1, size_in - 1)
        matrix[index, low] += 1 - (centre - low)
        matrix[index, high] += centre - low
    return matrix


def bilinear(x: Tensor, height: int, width: int) -> Tensor:
    """Resize the last two dimensions."""
    rows, columns = (bilinear_matrix(n, m, x.dtype) for n, m in zip(x.shape[-2:], (height, width), strict=True))
    return rows @ x @ columns.T


def vision(
    weights: Weights, image: Tensor, *, taps: Sequence[int], dpam_start: int, kind: str = "vv", head_width: int = 64
) -> tuple[Tensor, list[Tensor]]:
    """Global features (B, D) and one (B, 1 + patches, D) tensor per tapped block; "qk" is the original path."""
    kernel = weights["visual.conv1.weight"]
    width, patch = kernel.shape[0], kernel.shape[-1]
    rows, columns = image.shape[-2] // patch, image.shape[-1] // patch
    cut = image.reshape(len(image), 3, rows, patch, columns, patch).permute(0, 2, 4, 1, 3, 5)
    patches = cut.reshape(len(image), rows * columns, -1) @ kernel.reshape(width, -1).T

    position = weights["visual.positional_embedding"]
    side = round((len(position) - 1) ** 0.5)
    grid = position[1:].T.reshape(width, side, side)
    resized = bilinear(grid, rows, columns).reshape(width, -1).T
    class_token = (weights["visual.class_embedding"] + position[0]).expand(len(image), 1, width)
    x = layer_norm(torch.cat([class_token, patches + resized], dim=1), weights, "visual.ln_pre")

    heads = width // head_width
    second: Tensor | None = None
    tapped = []
    for number in range(1, 1 + count_blocks(weights, "visual.transformer.resblocks.")):
        block = f"visual.transformer.resblocks.{number - 1}"
        parts = qkv(x, weights, block, heads)
        if number >= dpam_start and kind != "qk":
            before = x if second is None else second
            second = before + attention(parts[kind[0]], parts[kind[1]], parts["v"], weights, block, None)
        x = x + attention(parts["q"], parts["k"], parts["v"], weights, block, None)
        x = x + mlp(x, weights, block)
        if number in taps:
            tokens = x if second is None else second
            tapped.append(layer_norm(tokens, weights, "visual.ln_post") @ weights["visual.proj"])
    return x[:, 0] @ weights["visual.proj"], tapped


def text(
    weights: Weights,
    normal_ids: Tensor,
    abnormal_ids: Tensor,
    normal_context: Tensor,
    abnormal_context: Tensor,
    deep: Sequence[Tensor],
    *,
    heads: int,
) -> Tensor:
    """(2, D) unit-length text features.

    ``normal_ids`` are (words, 77) token ids whose positions 1..length hold placeholders, and ``normal_context``
    (words, length, W) the learned tokens that take their place; ``abnormal_*`` alike.
    """
    rows = []
    for ids, context in ((normal_ids, normal_context), (abnormal_ids, abnormal_context)):
        x = weights["token_embedding.weight"][ids]
        x = torch.cat([x[:, :1], context, x[:, 1 + context.shape[1] :]], dim=1)
        x = x + weights["positional_embedding"]
        length = x.shape[1]
        mask = torch.full((length, length), float("-inf"), dtype=x.dtype).triu(1)
        for number in range(1, 1 + count_blocks(weights, "transformer.resblocks.")):
            block = f"transformer.resblocks.{number - 1}"
            if 0 <= number - 2 < len(deep):
                learned = deep[number - 2]
                x = torch.cat([x[:, :1], learned.expand(len(x), *learned.shape), x[:, 1 + len(learned) :]], dim=1)
            parts = qkv(x, weights, block, heads)
            x = x + attention(parts["q"], parts["k"], parts["v"], weights, block, mask)
            x = x + mlp(x, weights, block)
        end = torch.stack([sequence[prompt.argmax()] for sequence, prompt in zip(x, ids, strict=True)])
        features = unit(layer_norm(end, weights, "ln_final") @ weights["text_projection"])
        rows.append(unit(features.mean(0)))
    return torch.stack(rows)


def unit(x: Tensor) -> Tensor:
    return x / (x * x).sum(-1, keepdim=True).sqrt()


def cosine_logits(features: Tensor, text_features: Tensor, temperature: float) -> Tensor:
    """Cosine similarity over temperature, (..., D) to (..., 2)."""
    return unit(features) @ text_features.T / temperature


def similarity_map(patch_logits: Tensor, rows: int, columns: int, patch: int) -> Tensor:
    """(B, 1 + patches, 2) logits, class token first, to (B, 2, H, W) probabilities at the size of the image."""
    probabilities = patch_logits[:, 1:].softmax(-1)
    grid = probabilities.transpose(1, 2).reshape(-1, 2, rows, columns)
    return bilinear(grid, rows * patch, columns * patch)


def anomaly_map(maps: Sequence[Tensor]) -> Tensor:
    """Sum over layers of (1 - normal + abnormal) / 2, (B, H, W)."""
    return torch.stack([(1 - m[:, 0] + m[:, 1]) / 2 for m in maps]).sum(0)


def loss_global(image_logits: Tensor, labels: Tensor) -> Tensor:
    chosen = image_logits.log_softmax(-1)[torch.arange(len(labels)), labels]
    return -chosen.mean()


def loss_focal(maps: Sequence[Tensor], mask: Tensor) -> Tensor:
    """Focal loss, gamma 2, of (B, 2, H, W) probabilities against a (B, H, W) mask, summed over layers."""
    onehot = torch.stack([1 - mask, mask], dim=1).clamp(1e-5, 1 - 1e-5)
    total = mask.new_zeros(())
    for probabilities in maps:
        true = (onehot * probabilities).sum(1) + 1e-5
        total = total - ((1 - true) ** 2 * true.log()).mean()
    return total


def loss_dice(probabilities: Sequence[Tensor], target: Tensor) -> Tensor:
    """Dice loss of (B, H, W) probabilities, smooth 1, mean over the batch, summed over layers."""
    total = target.new_zeros(())
    for probability in probabilities:
        overlap = (probability * target).flatten(1).sum(1)
        size = probability.flatten(1).sum(1) + target.flatten(1).sum(1)
        total = total + (1 - (2 * overlap + 1) / (size + 1)).mean()
    return total


def losses(
    image_logits: Tensor, maps: Sequence[Tensor], labels: Tensor, mask: Tensor, lambda_local: float
) -> dict[str, Tensor]:
    parts = {
        "loss_global": loss_global(image_logits, labels),
        "loss_focal": loss_focal(maps, mask),
        "loss_dice_abnormal": loss_dice([m[:, 1] for m in maps], mask),
        "loss_dice_normal": loss_dice([m[:, 0] for m in maps], 1 - mask),
    }
    local = parts["loss_focal"] + parts["loss_dice_abnormal"] + parts["loss_dice_normal"]
    return {**parts, "loss_total": parts["loss_global"] + lambda_local * local}


def count_blocks(weights: Weights, prefix: str) -> int:
    return len({key.removeprefix(prefix).split(".")[0] for key in weights if key.startswith(prefix)})
