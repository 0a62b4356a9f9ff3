# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The oracle: the papers' formulas of the compared methods, written out plainly and slowly.

Nothing here uses this package or open_clip's modules: only tensors, a dictionary of CLIP weights in OpenAI / open_clip
naming, and the pieces of the transcription of AnomalyCLIP.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import open_clip
import plain_anomalyclip as pieces
import torch
from torch import Tensor

Weights = Mapping[str, Tensor]
HEAD_WIDTH = 64


def ensemble_text(weights: Weights, normal: Sequence[str], abnormal: Sequence[str], heads: int = 1) -> Tensor:
    """(2, D): each sentence encoded on all 77 positions and normalised, the group's mean normalised."""
    width = weights["token_embedding.weight"].shape[1]
    ids = [open_clip.tokenize(list(group)) for group in (normal, abnormal)]
    nothing = [torch.zeros(len(group), 0, width, dtype=weights["ln_final.weight"].dtype) for group in ids]
    features: Tensor = pieces.text(weights, *ids, *nothing, [], heads=heads)
    return features


def embed(weights: Weights, image: Tensor) -> Tensor:
    """Class token and patches with their positions, after ``ln_pre``: (B, 1 + patches, W)."""
    kernel = weights["visual.conv1.weight"]
    width, patch = kernel.shape[0], kernel.shape[-1]
    rows, columns = image.shape[-2] // patch, image.shape[-1] // patch
    position = weights["visual.positional_embedding"]
    side = round((len(position) - 1) ** 0.5)
    resized = pieces.bilinear(position[1:].T.reshape(width, side, side), rows, columns).reshape(width, -1).T
    tokens = [(weights["visual.class_embedding"] + position[0]).expand(len(image), width)]
    for row in range(rows):
        for column in range(columns):
            cut = image[:, :, row * patch : (row + 1) * patch, column * patch : (column + 1) * patch]
            tokens.append(cut.flatten(1) @ kernel.flatten(1).T + resized[row * columns + column])
    return pieces.layer_norm(torch.stack(tokens, dim=1), weights, "visual.ln_pre")


def after_blocks(weights: Weights, tokens: Tensor) -> list[Tensor]:
    """Tokens after each block of CLIP's own tower."""
    outputs = []
    heads = tokens.shape[-1] // HEAD_WIDTH
    for number in range(pieces.count_blocks(weights, "visual.transformer.resblocks.")):
        block = f"visual.transformer.resblocks.{number}"
        parts = pieces.qkv(tokens, weights, block, heads)
        tokens = tokens + pieces.attention(parts["q"], parts["k"], parts["v"], weights, block, None)
        tokens = tokens + pieces.mlp(tokens, weights, block)
        outputs.append(tokens)
    return outputs


def project(weights: Weights, tokens: Tensor) -> Tensor:
    return pieces.layer_norm(tokens, weights, "visual.ln_post") @ weights["visual.proj"]


def image_feature(weights: Weights, image: Tensor) -> Tensor:
    """CLIP's image embedding (B, D)."""
    return project(weights, after_blocks(weights, embed(weights, image))[-1][:, 0])


def abnormal_probability(features: Tensor, text: Tensor, temperature: float) -> Tensor:
    """exp(cos(f, abnormal) / t) over the sum for both prompts (AnomalyCLIP, equation 1): (..., D) to (...)."""
    cosines = pieces.unit(features) @ text.T
    weight = torch.exp(cosines / temperature)
    return weight[..., 1] / weight.sum(-1)


def clip_map(weights: Weights, image: Tensor, text: Tensor, temperature: float) -> Tensor:
    """Abnormal probability of each patch token after the last block, upsampled: (B, 1, H, W)."""
    patch = weights["visual.conv1.weight"].shape[-1]
    patches = project(weights, after_blocks(weights, embed(weights, image))[-1][:, 1:])
    probability = abnormal_probability(patches, text, temperature)
    height, width = image.shape[-2:]
    return pieces.bilinear(probability.reshape(len(image), 1, height // patch, width // patch), height, width)


def windows(rows: int, columns: int, scale: int) -> list[list[int]]:
    """Row-major numbers of the patches in each window."""
    return [
        [(top + down) * columns + left + right for down in range(scale) for right in range(scale)]
        for top in range(rows - scale + 1)
        for left in range(columns - scale + 1)
    ]


def winclip_map(
    weights: Weights, image: Tensor, text: Tensor, temperature: float, scales: Sequence[int] = (2, 3)
) -> Tensor:
    """WinCLIP, sections 4.1 and 4.2: one pass per window, then loops over patches, windows and scales."""
    patch = weights["visual.conv1.weight"].shape[-1]
    rows, columns = image.shape[-2] // patch, image.shape[-1] // patch
    tokens = embed(weights, image)
    whole = abnormal_probability(project(weights, after_blocks(weights, tokens)[-1][:, 0]), text, temperature)
    result = torch.zeros(len(image), 1, rows, columns, dtype=image.dtype)
    at_scale = []
    for scale in scales:
        scored = []
        for window in windows(rows, columns, scale):
            seen = tokens[:, [0, *(1 + number for number in window)]]
            feature = project(weights, after_blocks(weights, seen)[-1][:, 0])
            scored.append((window, abnormal_probability(feature, text, temperature)))
        at_scale.append(scored)
    for item in range(len(image)):
        for number in range(rows * columns):
            terms = [float(whole[item])]
            for scored in at_scale:
                covering = [float(score[item]) for window, score in scored if number in window]
                terms.append(len(covering) / sum(1 / score for score in covering))
            result[item, 0, number // columns, number % columns] = len(terms) / sum(1 / term for term in terms)
    return pieces.bilinear(result, *image.shape[-2:])


def corner_bilinear(x: Tensor, height: int, width: int) -> Tensor:
    """Bilinear interpolation of the last two dimensions with ``align_corners=True``."""

    def matrix(size_in: int, size_out: int) -> Tensor:
        weights = torch.zeros(size_out, size_in, dtype=x.dtype)
        for index in range(size_out):
            place = index * (size_in - 1) / (size_out - 1)
            low = min(int(place), size_in - 2)
            weights[index, low] += 1 - (place - low)
            weights[index, low + 1] += place - low
        return weights

    return matrix(x.shape[-2], height) @ x @ matrix(x.shape[-1], width).T


def vand_layer_maps(
    weights: Weights,
    image: Tensor,
    text: Tensor,
    layers: Sequence[int],
    linear: Sequence[tuple[Tensor, Tensor]],
    temperature: float,
) -> list[Tensor]:
    """VAND: per tapped block the probabilities (B, 2, H, W) of its mapped tokens."""
    patch = weights["visual.conv1.weight"].shape[-1]
    rows, columns = image.shape[-2] // patch, image.shape[-1] // patch
    after = after_blocks(weights, embed(weights, image))
    maps = []
    for layer, (weight, bias) in zip(layers, linear, strict=True):
        mapped = after[layer - 1][:, 1:] @ weight.T + bias
        logits = pieces.unit(mapped) @ text.T / temperature
        grid = logits.transpose(1, 2).reshape(len(image), 2, rows, columns)
        maps.append(corner_bilinear(grid, *image.shape[-2:]).softmax(1))
    return maps


def vand_loss(maps: Sequence[Tensor], mask: Tensor) -> Tensor:
    """Focal loss and Dice loss of the abnormal channel, summed over blocks; ``mask`` (B, H, W)."""
    loss: Tensor = pieces.loss_focal(maps, mask) + pieces.loss_dice([m[:, 1] for m in maps], mask)
    return loss
