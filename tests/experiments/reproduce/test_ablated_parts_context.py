# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

import open_clip
import pytest
import torch

from monai_anomalyclip.experiments.reproduce.ablated_parts import deep_tokens_alone
from monai_anomalyclip.networks import AnomalyCLIP

SMALL: dict[str, Any] = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 28, "layers": 2, "width": 64, "patch_size": 14},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 1, "layers": 3},
    "quick_gelu": True,
}

pytestmark = pytest.mark.filterwarnings("ignore:.*random weights")


def network(**settings: Any) -> AnomalyCLIP:
    given = {"prompt_length": 4, "deep_prompt_depth": 3, "normal_words": ("normal object",), **settings}
    return AnomalyCLIP(SMALL, None, image_size=28, feature_layers=(2,), dpam_start=1, **given)


def test_the_prompt_is_the_written_sentence() -> None:
    """Without tokens inside the text tower it would be open_clip's own encoding of the sentence."""
    net = network()
    learned = deep_tokens_alone(net, "a photo of a")
    assert [id(value) for value in learned] == [id(value) for value in net.prompts.deep_prompts]
    net.prompts.deep_prompts = torch.nn.ParameterList()
    sentences = ["a photo of a normal object.", "a photo of a damaged object."]
    with torch.no_grad():
        expected = net.clip.encode_text(open_clip.tokenize(sentences), normalize=True)
    torch.testing.assert_close(net.encode_prompts().detach(), expected)


@pytest.mark.parametrize(
    ("settings", "context", "sentence"),
    [
        ({}, "a photo of", "'a photo of' has 3 tokens, but prompt_length is 4"),
        ({"deep_prompt_depth": 1}, "a photo of a", "nothing would be learned"),
    ],
)
def test_what_does_not_fit_is_refused(settings: dict[str, Any], context: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        deep_tokens_alone(network(**settings), context)
