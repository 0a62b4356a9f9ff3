# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from monai_anomalyclip.networks import AnomalyCLIP, write_prompts

NetFactory = Callable[..., AnomalyCLIP]
SUFFIXES = (".safetensors", ".pt", ".pth")


@pytest.fixture
def net(make_net: NetFactory) -> AnomalyCLIP:
    return make_net(torch.float32)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"prompt_length": 11}, r"normal context \(words, length, width\) \(1, 11, 64\) instead of \(1, 12, 64\)"),
        ({"deep_prompt_depth": 4}, "deep_prompt_depth 4 instead of 5"),
        ({"deep_prompt_depth": 1}, "deep_prompt_depth 1 instead of 5"),
        ({"deep_prompt_length": 3}, r"deep prompts \(length, width\) \(3, 64\) instead of \(4, 64\)"),
    ],
    ids=str,
)
def test_other_lengths_and_depths_are_named(
    net: AnomalyCLIP, make_net: NetFactory, tmp_path: Path, suffix: str, settings: dict[str, Any], named: str
) -> None:
    path = tmp_path / f"prompts{suffix}"
    make_net(torch.float32, **settings).save_prompts(path)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    with pytest.raises(ValueError, match=named) as error:
        net.load_prompts(path, check_backbone=False)
    assert str(path) in str(error.value)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


@pytest.mark.parametrize("check_backbone", [True, False])
def test_other_width_is_named(net: AnomalyCLIP, tmp_path: Path, check_backbone: bool) -> None:
    own = net.checkpoint()
    wide = replace(
        own,
        context_normal=own.context_normal.repeat(1, 1, 2),
        context_abnormal=own.context_abnormal.repeat(1, 1, 2),
        deep_prompts=tuple(deep.repeat(1, 2) for deep in own.deep_prompts),
        token_rows={index: row.repeat(2) for index, row in own.token_rows.items()},
    )
    for suffix in SUFFIXES:
        write_prompts(wide, tmp_path / f"wide{suffix}")
        with pytest.raises(ValueError, match=r"\(1, 12, 128\) instead of \(1, 12, 64\)"):
            net.load_prompts(tmp_path / f"wide{suffix}", check_backbone=check_backbone)


def test_everything_that_differs_is_in_one_error(net: AnomalyCLIP, make_net: NetFactory, tmp_path: Path) -> None:
    make_net(torch.float32, prompt_length=11, deep_prompt_depth=4).save_prompts(tmp_path / "prompts.pt")
    with pytest.raises(ValueError, match=r"normal context .*; abnormal context .*; deep_prompt_depth 4 instead of 5"):
        net.load_prompts(tmp_path / "prompts.pt")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_another_backbone_is_refused(net: AnomalyCLIP, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"prompts{suffix}"
    own = net.checkpoint()
    other_rows = {index: row + 0.02 * torch.randn(row.shape) for index, row in own.token_rows.items()}
    foreign = replace(own, token_rows=other_rows, backbone={"name": "ViT-X", "sha256": "a" * 64})
    write_prompts(foreign, path)
    named = "'ViT-X'" if suffix != ".pth" else "another CLIP: its embedding of token"
    with pytest.raises(ValueError, match=named) as error:
        net.load_prompts(path)
    assert "check_backbone=False" in str(error.value)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        net.load_prompts(path, check_backbone=False)


def test_one_other_embedding_is_enough(net: AnomalyCLIP, tmp_path: Path) -> None:
    own = net.checkpoint()
    for index in own.token_rows:
        if not own.token_rows[index].any() or index == 343:  # padding; placeholders are not stored by the authors
            continue
        rows = {**own.token_rows, index: own.token_rows[index].flip(0)}
        write_prompts(replace(own, token_rows=rows, backbone={}), tmp_path / f"{index}.pth")
        with pytest.raises(ValueError, match=f"embedding of token {index} differs"):
            net.load_prompts(tmp_path / f"{index}.pth")


def test_rows_that_passed_through_float16_still_match(
    net: AnomalyCLIP, published_prompts: Path, tmp_path: Path
) -> None:
    content = torch.load(published_prompts, weights_only=True)
    halved = {key: value.half() if "token_" in key else value for key, value in content["prompt_learner"].items()}
    torch.save({"prompt_learner": halved}, tmp_path / "halved.pth")
    net.load_prompts(tmp_path / "halved.pth")


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_prompts_that_are_not_finite_are_refused(net: AnomalyCLIP, tmp_path: Path, bad: float) -> None:
    own = net.checkpoint()
    deep = (*own.deep_prompts[:-1], torch.full_like(own.deep_prompts[-1], bad))
    write_prompts(replace(own, deep_prompts=deep), tmp_path / "prompts.safetensors")
    with pytest.raises(ValueError, match="not finite"):
        net.load_prompts(tmp_path / "prompts.safetensors")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_separate_contexts_do_not_fit_a_shared_one(
    net: AnomalyCLIP, make_net: NetFactory, tmp_path: Path, suffix: str
) -> None:
    shared = make_net(torch.float32, shared_context=True)
    net.save_prompts(tmp_path / f"separate{suffix}")
    with pytest.raises(ValueError, match="separate contexts instead of a shared one"):
        shared.load_prompts(tmp_path / f"separate{suffix}")
    shared.save_prompts(tmp_path / f"shared{suffix}")
    net.load_prompts(tmp_path / f"shared{suffix}")  # the other way round loses nothing
    assert torch.equal(net.prompts.contexts[1], shared.prompts.contexts[0])


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"feature_layers": (12,)}, r"feature_layers=\[3, 6, 9, 12\] \(here \[12\]\)"),
        ({"dpam_start": 6}, r"dpam_start=5 \(here 6\)"),
        ({"dpam_attention": "kk"}, r"dpam_attention=vv \(here kk\)"),
        ({"temperature": 0.1}, r"temperature=0.07 \(here 0.1\)"),
        ({"abnormal_words": ("lesion",)}, r"abnormal_words=\['damaged object'\] \(here \['lesion'\]\)"),
    ],
    ids=str,
)
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_other_behaviour_warns_once(
    net: AnomalyCLIP, make_net: NetFactory, tmp_path: Path, suffix: str, settings: dict[str, Any], named: str
) -> None:
    net.save_prompts(tmp_path / f"prompts{suffix}")
    with pytest.warns(UserWarning, match=named) as caught:
        make_net(torch.float32, **settings).load_prompts(tmp_path / f"prompts{suffix}")
    assert len(caught) == 1
    with pytest.warns(UserWarning, match=named) as caught:
        make_net(torch.float32, **settings).load_state_dict(net.state_dict())
    assert len(caught) == 1


def test_published_prompts_for_other_words_warn(make_net: NetFactory, published_prompts: Path) -> None:
    with pytest.warns(UserWarning, match="other words") as caught:
        make_net(torch.float32, abnormal_words=("broken object",)).load_prompts(published_prompts)
    assert len(caught) == 1


@pytest.mark.filterwarnings("error")
def test_matching_prompts_load_silently(
    net: AnomalyCLIP, make_net: NetFactory, published_prompts: Path, tmp_path: Path
) -> None:
    net.load_prompts(published_prompts)
    for suffix in SUFFIXES:
        net.save_prompts(tmp_path / f"prompts{suffix}")
        make_net(torch.float32).load_prompts(tmp_path / f"prompts{suffix}")


def test_state_dict_without_any_prompts_is_refused_whatever_strict_says(make_net: NetFactory) -> None:
    network = make_net(torch.float32)
    for strict in (True, False):
        with pytest.raises(ValueError, match=r"nothing of what this network learns .*prompt_learner"):
            network.load_state_dict({"prompt_learner.ctx_pos": torch.zeros(1)}, strict=strict)
