# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""open_clip's towers opened, and the dual-path vision pass: plain CLIP beside the path of the DPAM.

DPAM is the diagonally prominent attention map. Source: AnomalyCLIP (ICLR 2024), section 3.3 "Refinement of the local
visual space", appendix C; pinned to the code that the authors published.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from open_clip.transformer import QuickGELU, ResidualAttentionBlock, VisionTransformer
from torch import Tensor, nn

from monai_anomalyclip.networks.devices import attention, linear

__all__ = [
    "DualPathVision",
    "TokenEmbedding",
    "attend",
    "compute_tower",
    "mlp",
    "parse_dpam_attention",
    "project_qkv",
]


def project_qkv(block: ResidualAttentionBlock, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of a block from its input.

    Args:
        block: the residual attention block whose ``ln_1`` and input projection are used.
        tokens: block input of shape (B, N, W).

    Returns:
        three tensors of shape (B, heads, N, W / heads).
    """
    attn = block.attn
    batch, length, width = tokens.shape
    qkv = linear(block.ln_1(tokens), attn.in_proj_weight, attn.in_proj_bias)
    query, key, value = qkv.view(batch, length, 3, attn.num_heads, width // attn.num_heads).permute(2, 0, 3, 1, 4)
    return query, key, value


def attend(block: ResidualAttentionBlock, query: Tensor, key: Tensor, value: Tensor, *, causal: bool = False) -> Tensor:
    """Scaled dot-product attention followed by the block's output projection and layer scale.

    Args:
        block: the residual attention block whose output projection is used.
        query: shape (B, heads, M, W / heads).
        key: shape (B, heads, N, W / heads).
        value: as ``key``.
        causal: whether a token sees only itself and those before it.

    Returns:
        update of the residual stream, shape (B, M, W).
    """
    mixed = attention(query, key, value, causal=causal)
    out = block.attn.out_proj
    update: Tensor = block.ls_1(linear(mixed.transpose(1, 2).flatten(2), out.weight, out.bias))
    return update


_QUICK_GELU = 1.702


def mlp(block: ResidualAttentionBlock, tokens: Tensor) -> Tensor:
    """Residual MLP half of a block, shape (B, N, W) to (B, N, W)."""
    first, activation, second = block.mlp.c_fc, block.mlp.gelu, block.mlp.c_proj
    hidden = _activate(activation, linear(block.ln_2(tokens), first.weight, first.bias))
    output: Tensor = tokens + block.ls_2(linear(hidden, second.weight, second.bias))
    return output


def _activate(activation: nn.Module, hidden: Tensor) -> Tensor:
    if isinstance(activation, QuickGELU) and not torch.is_grad_enabled() and not torch.compiler.is_compiling():
        # The same with one temporary tensor instead of three: fetching memory takes longer than computing here.
        return torch.mul(hidden, _QUICK_GELU).sigmoid_().mul_(hidden)
    if isinstance(activation, nn.SiLU) and not torch.is_grad_enabled():
        return F.silu(hidden, inplace=True)
    activated: Tensor = activation(hidden)
    return activated


_CACHED_SIZES = 8


class TokenEmbedding:
    """Embeds the patches of images of any size.

    Nothing of the tower is copied or changed. The object only caches resized position embeddings, one per image size.
    """

    def __init__(self) -> None:
        self._positions: OrderedDict[tuple[int, int, torch.device, torch.dtype], Tensor] = OrderedDict()

    def embed(self, visual: VisionTransformer, image: Tensor) -> Tensor:
        """Tokens of a batch of images: class token and patches with their positions, after ``ln_pre``.

        Args:
            visual: the vision tower.
            image: CLIP-normalised, shape (B, 3, H, W), H and W multiples of the patch size.

        Returns:
            (B, N, W) with N = 1 + H W / patch², class token first, in the parameters' precision.
        """
        patches = visual.conv1(image)
        grid = (patches.shape[-2], patches.shape[-1])
        # The residual stream keeps the parameters' precision: under autocast the convolution alone is rounded.
        patches = patches.flatten(2).transpose(1, 2).to(visual.class_embedding.dtype)
        class_token = visual.class_embedding.expand(patches.shape[0], 1, -1)
        tokens = torch.cat([class_token, patches], dim=1) + self._position_embedding(visual, grid)
        embedded: Tensor = visual.ln_pre(tokens)
        return embedded

    def _position_embedding(self, visual: VisionTransformer, grid: tuple[int, int]) -> Tensor:
        """Trained positions, resized bilinearly (``align_corners=False``) to the grid of this image size."""
        trained: Tensor = visual.positional_embedding
        if grid == visual.grid_size:
            return trained
        if trained.requires_grad:  # a tower in training: the resized positions belong to its graph
            return _resize_positions(trained, visual.grid_size, grid)
        key = (*grid, trained.device, trained.dtype)
        if key not in self._positions:
            with torch.inference_mode(False), torch.no_grad():  # kept for later calls, which may record gradients
                self._positions[key] = _resize_positions(trained, visual.grid_size, grid)
            if len(self._positions) > _CACHED_SIZES:
                self._positions.popitem(last=False)
        self._positions.move_to_end(key)
        return self._positions[key]


def _resize_positions(trained: Tensor, trained_grid: tuple[int, int], grid: tuple[int, int]) -> Tensor:
    width = trained.shape[-1]
    square = trained[1:].reshape(1, *trained_grid, width).permute(0, 3, 1, 2)
    precise = square.to(torch.promote_types(trained.dtype, torch.float32))
    resized = F.interpolate(precise, size=grid, mode="bilinear", align_corners=False).to(trained.dtype)
    return torch.cat([trained[:1], resized.flatten(2).transpose(1, 2)[0]])


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


_KINDS = ("qk", "qq", "kk", "vv")


def parse_dpam_attention(dpam_attention: str) -> tuple[str, ...]:
    """Split an attention name such as "vv" or "qq+kk+vv" into its kinds.

    Raises:
        ValueError: for an unknown or repeated kind.
    """
    kinds = tuple(dpam_attention.split("+"))
    if not set(kinds) <= set(_KINDS) or len(set(kinds)) != len(kinds):
        raise ValueError(
            f"dpam_attention='{dpam_attention}' is not known: use one of {', '.join(_KINDS)}, or several joined by "
            f"'+', "
            "each once, such as 'qq+kk+vv'."
        )
    return kinds


class DualPathVision(TokenEmbedding):
    """Drives open_clip's vision tower along the original path and the DPAM path at once.

    Blocks are numbered from 1. From block ``dpam_start`` on, the DPAM path starts as the original path's input to
    that block and adds, at each block, ``out_proj(attention(v, v, v))`` with v from the *original* path's normalised
    input of that block; it skips the MLP (paper, figure 3 and appendix C). The kind "qk" is the original path
    itself, i.e. no DPAM. A layer tapped before ``dpam_start`` gives the original path's tokens.

    Args:
        feature_layers: numbers of the tapped blocks, ascending.
        dpam_start: first block with a DPAM path.
        kinds: attention kinds, see :func:`parse_dpam_attention`.

    Example::

        feature, taps = DualPathVision([24], 6, parse_dpam_attention("vv"))(clip.visual, image)
    """

    def __init__(self, feature_layers: Sequence[int], dpam_start: int, kinds: Sequence[str]) -> None:
        super().__init__()
        self.feature_layers = tuple(feature_layers)
        self.dpam_start = dpam_start
        self.kinds = tuple(kinds)

    def __call__(self, visual: VisionTransformer, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Encode a batch of images.

        Args:
            visual: the vision tower.
            image: CLIP-normalised, shape (B, 3, H, W), H and W multiples of the patch size.

        Returns:
            global features (B, D): the class token of the original path after the last block, projected, *without*
            ``ln_post``, as published; and one tensor of patch features per tapped layer, class token first, shape
            (B, N, D), or (B, A, N, D) for an ensemble of A attention kinds. Not normalised.
        """
        tokens = self.embed(visual, image)
        blocks = visual.transformer.resblocks
        streams: dict[str, Tensor] = {}
        tapped: list[Tensor] = []
        for number, block in enumerate(blocks, start=1):
            tokens = mlp(block, self._attended(block, number, tokens, streams, whole=number < len(blocks)))
            if number in self.feature_layers:
                paths = [tokens] if number < self.dpam_start else [streams.get(kind, tokens) for kind in self.kinds]
                tapped.append(self._project_paths(visual, paths))
        return _project(visual, tokens[:, 0], normalise=False), tapped

    def _attended(
        self, block: ResidualAttentionBlock, number: int, tokens: Tensor, streams: dict[str, Tensor], *, whole: bool
    ) -> Tensor:
        """The original path's tokens after a block's attention, which is added to the streams, too.

        Of the last block only the class token is used: its attention row and its MLP are all that is computed, unless
        the original path is tapped there.
        """
        query, key, value = project_qkv(block, tokens)
        if self.dpam_start <= number <= self.feature_layers[-1]:
            for kind, (left, right) in self._pairs(query, key, value).items():
                streams[kind] = streams.get(kind, tokens) + attend(block, left, right, value)
        tapped = number in self.feature_layers and (number < self.dpam_start or "qk" in self.kinds)
        if not (whole or tapped):
            tokens, query = tokens[:, :1], query[:, :, :1]
        return tokens + attend(block, query, key, value)

    def _pairs(self, query: Tensor, key: Tensor, value: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """The two factors of each DPAM attention map; "qk" needs no stream of its own."""
        pairs = {"qq": (query, query), "kk": (key, key), "vv": (value, value)}
        return {kind: pairs[kind] for kind in self.kinds if kind != "qk"}

    def _project_paths(self, visual: VisionTransformer, paths: list[Tensor]) -> Tensor:
        if len(self.kinds) == 1:
            return _project(visual, paths[0])
        # Before the DPAM path starts, all kinds share the original tokens.
        return _project(visual, torch.stack(paths, dim=1)).expand(-1, len(self.kinds), -1, -1)


def _project(visual: VisionTransformer, tokens: Tensor, *, normalise: bool = True) -> Tensor:
    projected: Tensor = (visual.ln_post(tokens) if normalise else tokens) @ visual.proj
    return projected
