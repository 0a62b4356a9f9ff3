# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""open_clip's towers opened for both vision paths: the tokens that enter, and self-attention on the blocks' weights."""

from __future__ import annotations

import functools
import platform
from collections import OrderedDict
from pathlib import Path

import torch
import torch.nn.functional as F
from open_clip.transformer import QuickGELU, ResidualAttentionBlock, VisionTransformer
from torch import Tensor, nn

__all__ = ["TokenEmbedding", "attend", "linear", "mlp", "project_qkv"]


def linear(tokens: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """What ``torch.nn.functional.linear`` computes, up to rounding.

    PyTorch multiplies float32 matrices by MKL, which leaves AVX-512 unused on AMD's processors; oneDNN, which PyTorch
    carries, too, takes half the time there (benchmarks/notes.md). It is used where no gradient is recorded, nothing is
    traced and autocast is off. The choice depends on the hardware alone, so that a run can be repeated.

    Args:
        tokens: shape (..., inputs).
        weight: shape (outputs, inputs).
        bias: shape (outputs,), or None.

    Returns:
        shape (..., outputs).
    """
    if (
        tokens.dtype == torch.float32
        and tokens.device.type == "cpu"
        and not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and not torch.is_autocast_enabled("cpu")
        and torch.backends.mkldnn.enabled
        and _onednn_is_faster()
    ):
        product: Tensor = torch.ops.mkldnn._linear_pointwise(tokens, weight, bias, "none", [], "")
        return product
    return F.linear(tokens, weight, bias)


@functools.cache
def _onednn_is_faster() -> bool:
    # The operator is private in torch: it is what torch.compile makes of linear layers.
    known = torch._C._has_mkldnn and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return known and torch._C.has_mkl and torch.backends.cpu.get_cpu_capability() == "AVX512" and _is_amd()


def _is_amd() -> bool:
    described = platform.processor()  # names the maker on Windows
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        described += cpuinfo.read_text(encoding="utf-8", errors="replace")
    return "AuthenticAMD" in described


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
    mixed = F.scaled_dot_product_attention(query, key, value, is_causal=causal)
    out = block.attn.out_proj
    update: Tensor = block.ls_1(linear(mixed.transpose(1, 2).flatten(2), out.weight, out.bias))
    return update


def mlp(block: ResidualAttentionBlock, tokens: Tensor) -> Tensor:
    """Residual MLP half of a block, shape (B, N, W) to (B, N, W)."""
    first, activation, second = block.mlp.c_fc, block.mlp.gelu, block.mlp.c_proj
    hidden = _activate(activation, linear(block.ln_2(tokens), first.weight, first.bias))
    output: Tensor = tokens + block.ls_2(linear(hidden, second.weight, second.bias))
    return output


def _activate(activation: nn.Module, hidden: Tensor) -> Tensor:
    if isinstance(activation, QuickGELU) and not torch.is_grad_enabled() and not torch.compiler.is_compiling():
        # The same with one temporary tensor instead of three: fetching memory takes longer than computing here.
        return torch.mul(hidden, 1.702).sigmoid_().mul_(hidden)
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
