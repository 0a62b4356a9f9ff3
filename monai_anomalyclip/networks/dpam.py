# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The dual-path vision pass: plain CLIP beside the diagonally prominent attention map (DPAM) path.

Source: AnomalyCLIP (ICLR 2024), section 3.3 "Refinement of the local visual space", appendix C; pinned to the code
that the authors published.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from open_clip.transformer import VisionTransformer
from torch import Tensor

from monai_anomalyclip.networks.attention import TokenEmbedding, attend, mlp, project_qkv

__all__ = ["DualPathVision", "parse_dpam_attention"]

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
            query, key, value = project_qkv(block, tokens)
            if number >= self.dpam_start and number <= self.feature_layers[-1]:
                for kind, (left, right) in self._pairs(query, key, value).items():
                    streams[kind] = streams.get(kind, tokens) + attend(block, left, right, value)
            tap = number in self.feature_layers
            original_tapped = tap and (number < self.dpam_start or "qk" in self.kinds)
            if number == len(blocks) and not original_tapped:
                # Of the last block only the class token is used: its attention row and its MLP are all that is
                # computed.
                tokens, query = tokens[:, :1], query[:, :, :1]
            tokens = mlp(block, tokens + attend(block, query, key, value))
            if tap:
                paths = [tokens] if number < self.dpam_start else [streams.get(kind, tokens) for kind in self.kinds]
                tapped.append(self._project_paths(visual, paths))
        return _project(visual, tokens[:, 0], normalise=False), tapped

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
