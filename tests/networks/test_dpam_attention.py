# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from open_clip.transformer import QuickGELU, ResidualAttentionBlock
from torch import Tensor

from monai_anomalyclip.networks import dpam as frozen_linear
from monai_anomalyclip.networks.dpam import attend, linear, mlp, project_qkv


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


needs_operator = pytest.mark.skipif(
    not hasattr(torch.ops.mkldnn, "_linear_pointwise"), reason="this build of PyTorch carries no oneDNN"
)
Layer = tuple[Tensor, Tensor, Tensor]


@pytest.fixture
def layer() -> Layer:
    return torch.randn(3, 17, 64), torch.randn(48, 64), torch.randn(48)


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """As on a processor where oneDNN is the faster one; notes each product that it makes."""
    operator: Callable[..., Tensor] = torch.ops.mkldnn._linear_pointwise
    products: list[str] = []

    def noted(*values: object) -> Tensor:
        products.append("oneDNN")
        return operator(*values)

    monkeypatch.setattr(frozen_linear, "_onednn_is_faster", lambda: True)
    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", noted)
    return products


@needs_operator
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("strided", [True, False])
def test_product_is_the_same(bias: bool, strided: bool, layer: Layer, used: list[str]) -> None:
    tokens, weight, offset = layer
    if strided:
        tokens = torch.randn(17, 64, 3).permute(2, 0, 1)
    exact = F.linear(tokens.double(), weight.double(), offset.double() if bias else None)
    for context in (torch.no_grad(), torch.inference_mode()):
        with context:
            product = linear(tokens, weight, offset if bias else None)
        assert product.shape == (3, 17, 48)
        torch.testing.assert_close(product.double(), exact, rtol=1e-5, atol=1e-4)
    assert len(used) == 2


@needs_operator
def test_not_where_it_could_not_be(layer: Layer, used: list[str]) -> None:
    tokens, weight, bias = layer
    weight.requires_grad_()
    linear(tokens, weight, bias).sum().backward()
    assert weight.grad is not None
    with torch.no_grad():
        assert linear(tokens.double(), weight.double(), bias.double()).dtype == torch.float64
        with torch.autocast("cpu", torch.bfloat16):
            assert linear(tokens, weight, bias).dtype == torch.bfloat16
        with torch.backends.mkldnn.flags(enabled=False):
            linear(tokens, weight, bias)

        class Layer(torch.nn.Module):
            def forward(self, tokens: Tensor) -> Tensor:
                return linear(tokens, weight.detach(), bias)

        traced = torch.export.export(Layer(), (tokens,))
    assert "mkldnn" not in str(traced.graph)
    assert used == []


@pytest.mark.parametrize(
    ("capability", "processor", "faster"),
    [
        ("AVX512", "AMD64 Family 25 Model 17 Stepping 1, AuthenticAMD", True),
        ("AVX2", "AMD64 Family 25 Model 17 Stepping 1, AuthenticAMD", False),
        ("AVX512", "Intel64 Family 6 Model 143 Stepping 8, GenuineIntel", False),
    ],
)
@needs_operator
def test_where_it_is_faster(capability: str, processor: str, faster: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch._C, "has_mkl", True)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr("platform.processor", lambda: processor)
    monkeypatch.setattr("pathlib.Path.is_file", lambda _: False)
    assert frozen_linear._onednn_is_faster.__wrapped__() is faster
