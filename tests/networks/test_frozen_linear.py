# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from monai_anomalyclip.networks import frozen_linear
from monai_anomalyclip.networks.frozen_linear import linear

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
