# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest
import torch
from open_clip.transformer import QuickGELU, ResidualAttentionBlock

from monai_anomalyclip.networks.dpam import attend, mlp, project_qkv


@pytest.fixture(params=[None, 0.3], ids=["plain", "layer scale"])
def block(request: pytest.FixtureRequest) -> ResidualAttentionBlock:
    built = ResidualAttentionBlock(32, 4, ls_init_value=request.param).double().eval()
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.normal_(std=0.3)
    return built


@torch.no_grad()
def test_the_halves_together_are_open_clips_block(block: ResidualAttentionBlock) -> None:
    tokens = torch.randn(2, 7, 32, dtype=torch.float64)
    result = mlp(block, tokens + attend(block, *project_qkv(block, tokens)))
    torch.testing.assert_close(result, block(tokens), rtol=1e-11, atol=1e-11)


@torch.no_grad()
def test_activation_in_place_is_open_clips() -> None:
    built = ResidualAttentionBlock(32, 4, act_layer=QuickGELU).double().eval()
    tokens = torch.randn(2, 7, 32, dtype=torch.float64)
    before = tokens.clone()
    result = mlp(built, tokens)
    assert torch.equal(tokens, before)
    torch.testing.assert_close(result, tokens + built.mlp(built.ln_2(tokens)), rtol=1e-12, atol=1e-12)


@torch.no_grad()
def test_causal_is_open_clips_mask(block: ResidualAttentionBlock) -> None:
    tokens = torch.randn(2, 7, 32, dtype=torch.float64)
    mask = torch.full((7, 7), float("-inf"), dtype=torch.float64).triu(1)
    result = mlp(block, tokens + attend(block, *project_qkv(block, tokens), causal=True))
    torch.testing.assert_close(result, block(tokens, attn_mask=mask), rtol=1e-11, atol=1e-11)
    assert not torch.allclose(result, block(tokens))


@torch.no_grad()
def test_fewer_queries_give_the_same_rows(block: ResidualAttentionBlock) -> None:
    query, key, value = project_qkv(block, torch.randn(2, 7, 32, dtype=torch.float64))
    assert query.shape == key.shape == value.shape == (2, 4, 7, 8)
    first = attend(block, query[:, :, :1], key, value)
    assert first.shape == (2, 1, 32)
    torch.testing.assert_close(first, attend(block, query, key, value)[:, :1], rtol=1e-12, atol=1e-12)
