# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import open_clip
import pytest
import torch
from torch import Tensor

from monai_anomalyclip.networks import AnomalyCLIP
from monai_anomalyclip.networks.prompt_learner import tokenize_words

NetFactory = Callable[..., AnomalyCLIP]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"deep_prompt_depth": 1},
        {"deep_prompt_depth": 6},
        {"prompt_length": 1, "deep_prompt_length": 1},
        {"prompt_length": 5, "deep_prompt_length": 5},
        {"prompt_length": 6, "deep_prompt_length": 2, "deep_prompt_depth": 3},
        {"prompt_length": 40, "deep_prompt_length": 12},
        {"deep_prompt_length": 0},
        {"prompt_length": 0, "deep_prompt_length": 0},
        {"shared_context": True},
        {"normal_words": ("flawless object", "object"), "abnormal_words": ("damaged object", "a broken thing", "hole")},
        {
            "shared_context": True,
            "normal_words": ("scan", "slice"),
            "abnormal_words": ("tumour", "bleeding in the scan"),
        },
        {"normal_words": ("liver",), "abnormal_words": ("damaged liver",)},
        {"normal_words": ("Chest X-Ray",), "abnormal_words": ("DAMAGED  chest x-ray",)},
    ],
    ids=str,
)
@torch.no_grad()
def test_text_features_equal_the_oracle_on_all_77_positions(
    make_net: NetFactory, oracle_text: Callable[..., Tensor], settings: dict[str, Any]
) -> None:
    net = make_net(**settings)
    words = {key: value for key, value in settings.items() if key.endswith("_words")}
    expected = oracle_text(net, **words)
    features = net.encode_prompts()
    assert features.dtype == torch.float64
    torch.testing.assert_close(features, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(features.norm(dim=1), torch.ones(2, dtype=torch.float64))
    assert (features[0] - features[1]).norm() > 1e-3


@torch.no_grad()
def test_text_up_to_end_of_text_equals_full_text(make_net: NetFactory) -> None:
    net = make_net()
    truncated = net.prompts(net.clip)
    learner = net.prompts
    assert learner.word_ids.shape[1] < 20
    learner.word_ids = torch.nn.functional.pad(learner.word_ids, (0, 77 - learner.word_ids.shape[1]))
    torch.testing.assert_close(net.prompts(net.clip), truncated, rtol=0, atol=1e-12)
    learner.word_ids[:, -20:] = 1234  # whatever follows end-of-text
    torch.testing.assert_close(net.prompts(net.clip), truncated, rtol=0, atol=1e-12)


@pytest.mark.parametrize("word", ["object", "damaged object", "Liver", "chest x-ray", "l'os: 3 mm?", "naïve Größe"])
@pytest.mark.parametrize("length", [0, 1, 12])
def test_ids_are_open_clips(word: str, length: int) -> None:
    (ids,) = tokenize_words((word,), length, 77)
    expected = open_clip.tokenize([f"{'X ' * length}{word}."])[0]
    assert ids == expected[: expected.argmax() + 1].tolist()


def test_parameters_and_initial_values(make_net: NetFactory, tiny_config: dict[str, Any], tiny_weights: Any) -> None:
    net = AnomalyCLIP(tiny_config["clip"], tiny_weights, image_size=84, feature_layers=(12,), deep_prompt_depth=5)
    shapes = {name: tuple(value.shape) for name, value in net.prompts.named_parameters()}
    assert shapes == {
        "context_normal": (1, 12, 64),
        "context_abnormal": (1, 12, 64),
        **{f"deep_prompts.{index}": (4, 64) for index in range(4)},
    }
    values = torch.cat([value.detach().flatten() for value in net.prompts.parameters()])
    assert abs(values.mean()) < 2e-3
    assert values.std() == pytest.approx(0.02, rel=0.1)
    assert "context_abnormal" not in dict(make_net(shared_context=True).prompts.named_parameters())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prompt_length": -1}, "prompt_length=-1 must not be negative"),
        ({"prompt_length": 2}, "deep_prompt_length=4 must lie between 0 and prompt_length=2"),
        ({"deep_prompt_length": -1}, "deep_prompt_length=-1"),
        ({"deep_prompt_length": 13}, "deep_prompt_length=13"),
        ({"deep_prompt_depth": 0}, "deep_prompt_depth=0 must lie between 1"),
        ({"deep_prompt_depth": 7}, "deep_prompt_depth=7 must lie between 1 .* 6 blocks"),
        ({"prompt_length": 74}, "'object' has 78 tokens, but the text tower takes 77"),
        ({"normal_words": ()}, "non-empty"),
        ({"abnormal_words": ("damaged object", "  ")}, "contain an empty one"),
        ({"abnormal_words": ("pneumothorax " * 40,)}, "tokens, but the text tower takes 77"),
        ({"shared_context": True, "normal_words": ("a", "b")}, "as many normal_words as abnormal_words"),
        ({"normal_words": "object"}, "tuples? of strings"),
        ({"abnormal_words": "damaged object"}, "tuples? of strings"),
    ],
    ids=str,
)
def test_bad_settings_are_refused(make_net: NetFactory, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_net(**settings)


def test_longest_prompt_that_fits(make_net: NetFactory, oracle_text: Callable[..., Tensor]) -> None:
    net = make_net(prompt_length=72, deep_prompt_length=72)  # start, 72, damaged, object, full stop, end
    with torch.no_grad():
        torch.testing.assert_close(net.encode_prompts(), oracle_text(net), rtol=0, atol=1e-12)


@pytest.mark.parametrize("words", [("object",), ["object", "thing"]])
def test_words_may_be_tuple_or_list(make_net: NetFactory, words: Sequence[str]) -> None:
    assert make_net(normal_words=words).prompts.contexts[0].shape == (len(words), 12, 64)
