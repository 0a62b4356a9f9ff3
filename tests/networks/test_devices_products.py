# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import torch
import torch.nn.functional as F
from open_clip.transformer import QuickGELU, ResidualAttentionBlock
from torch import Tensor

from monai_anomalyclip.networks import devices
from monai_anomalyclip.networks.devices import attention, linear
from monai_anomalyclip.networks.dpam import mlp

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

    monkeypatch.setattr(devices, "_onednn_is_faster", lambda: True)
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
    assert devices._onednn_is_faster.__wrapped__() is faster


@contextmanager
def threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def plain_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Its formula in float64."""
    query, key, value = query.double(), key.double(), value.double()
    weights = torch.exp(query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5)
    return weights / weights.sum(-1, keepdim=True) @ value


def heads(batch: int, number: int, tokens: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values as the projection gives them: rows of one head lie far apart."""
    query, key, value = torch.randn(batch, tokens, 3, number, width).permute(2, 0, 3, 1, 4)
    return query, key, value


@needs_operator
@pytest.mark.parametrize("count", [1, 2, 3])
def test_attention_is_its_formula(count: int, used: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "_LEAST_TOKENS", 10)
    monkeypatch.setattr(devices, "_SCORES", 100)  # five queries at a time
    query, key, value = heads(2, 3, 19, 8)
    for context in (torch.no_grad(), torch.inference_mode()):
        with context, threads(count):
            for left, right in ((query, key), (value, value), (query[:, :, :11], key)):
                mixed = attention(left, right, value)
                assert mixed.shape == left.shape
                torch.testing.assert_close(mixed.double(), plain_attention(left, right, value), rtol=1e-5, atol=1e-6)
            assert torch.get_num_threads() == count
    assert len(used) == 2 * 6 * 2 * (4 + 4 + 3)


@needs_operator
def test_large_scores_do_not_overflow(used: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "_LEAST_TOKENS", 1)
    query, key, value = (100 * part for part in heads(1, 2, 12, 8))
    with torch.no_grad(), threads(2):
        mixed = attention(query, key, value)
    torch.testing.assert_close(mixed, F.scaled_dot_product_attention(query, key, value), rtol=1e-4, atol=1e-3)
    assert used


@needs_operator
def test_attention_elsewhere_is_pytorchs(used: list[str]) -> None:
    few, many = heads(1, 2, 19, 8), heads(1, 2, devices._LEAST_TOKENS, 8)
    with torch.no_grad():
        with threads(1):
            assert torch.equal(attention(*few), F.scaled_dot_product_attention(*few))
            expected = F.scaled_dot_product_attention(*many, is_causal=True)
            assert torch.equal(attention(*many, causal=True), expected)
        with threads(3):  # more than heads
            assert torch.equal(attention(*many), F.scaled_dot_product_attention(*many))
    for part in many:
        part.requires_grad_()
    attention(*many).sum().backward()
    assert all(part.grad is not None for part in many)
    assert used == []


@needs_operator
def test_callers_in_several_threads_get_their_own_results(used: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "_LEAST_TOKENS", 1)
    given = [heads(1, 4, 20 + number, 8) for number in range(8)]

    def attend(parts: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        with torch.no_grad():
            return attention(*parts)

    with threads(2), ThreadPoolExecutor(4) as callers:
        for parts, mixed in zip(given, callers.map(attend, given), strict=True):
            torch.testing.assert_close(mixed.double(), plain_attention(*parts), rtol=1e-5, atol=1e-6)
    assert len(used) == 8 * 4 * 2


@needs_operator
def test_threads_started_later_have_all_of_pytorchs(used: list[str]) -> None:
    with threads(2):
        devices._head_threads(2, os.getpid())
        with ThreadPoolExecutor(1) as later:
            assert later.submit(torch.get_num_threads).result() == 2


def _forked(parts: tuple[Tensor, Tensor, Tensor], results: multiprocessing.SimpleQueue[bool]) -> None:
    torch.set_num_threads(1)  # the process that it was forked from had OpenMP's threads, of which it has none
    with torch.no_grad():
        pool = devices._head_threads(2, os.getpid())
        todo = iter([(*(part[0, 0] for part in parts), torch.empty(12, 8))])
        pool.submit(devices._mix_heads, todo).result()
    results.put(True)


@needs_operator
@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Python 3.12: a process with threads is forked
def test_a_forked_process_has_threads_of_its_own(used: list[str]) -> None:
    parts = heads(1, 2, 12, 8)
    with threads(2):
        devices._head_threads(2, os.getpid())
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    process = context.Process(target=_forked, args=(parts, results))
    process.start()
    process.join(60)
    assert process.exitcode == 0
    assert results.get()


@needs_operator
@pytest.mark.parametrize("scale", [None, 0.3], ids=["plain", "layer scale"])
def test_quick_gelu_within_the_product_is_open_clips(scale: float | None, used: list[str]) -> None:
    block = ResidualAttentionBlock(32, 4, act_layer=QuickGELU, ls_init_value=scale).eval()
    tokens = 3 * torch.randn(2, 7, 32)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.normal_(std=0.5)
        before = tokens.clone()
        result = mlp(block, tokens)
        assert len(used) == 2
        assert torch.equal(tokens, before)
        exact, block = tokens.double(), block.double()
        exact = exact + block.ls_2(block.mlp(block.ln_2(exact)))
    torch.testing.assert_close(result.double(), exact, rtol=1e-5, atol=1e-4)
