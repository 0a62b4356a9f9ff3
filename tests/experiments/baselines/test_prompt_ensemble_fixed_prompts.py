# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from types import ModuleType

import pytest
import torch

from monai_anomalyclip.experiments.baselines import FixedPrompts
from monai_anomalyclip.networks import Backbone

NORMAL = ["a photo of a brain.", "an MR slice of a healthy brain without any lesion at all!", "!!"]
ABNORMAL = ["a damaged brain.", "a bright lesion."]


def test_features_equal_the_oracle_on_all_77_positions(backbone: Backbone, plain: ModuleType) -> None:
    computed = FixedPrompts(backbone.clip, NORMAL, ABNORMAL)(backbone.clip)
    torch.testing.assert_close(computed, plain.ensemble_text(backbone.clip.state_dict(), NORMAL, ABNORMAL))


def test_features_equal_open_clip(backbone: Backbone) -> None:
    import open_clip

    computed = FixedPrompts(backbone.clip, NORMAL[:1], ABNORMAL[:1])(backbone.clip)
    expected = backbone.clip.encode_text(open_clip.tokenize([NORMAL[0], ABNORMAL[0]]), normalize=True)
    torch.testing.assert_close(computed, expected)


def test_mean_of_features_as_they_are(backbone: Backbone) -> None:
    import open_clip

    computed = FixedPrompts(backbone.clip, NORMAL, ABNORMAL, unit_sentences=False)(backbone.clip)
    means = [backbone.clip.encode_text(open_clip.tokenize(group)).mean(dim=0) for group in (NORMAL, ABNORMAL)]
    torch.testing.assert_close(computed, torch.stack([mean / mean.norm() for mean in means]))


def test_nothing_is_learned(backbone: Backbone) -> None:
    prompts = FixedPrompts(backbone.clip, NORMAL, ABNORMAL)
    assert list(prompts.parameters()) == []
    assert prompts.state_dict() == {}


def test_sentence_that_does_not_fit(backbone: Backbone) -> None:
    FixedPrompts(backbone.clip, ["brain " * 75], ABNORMAL)  # with start and end of text 77 tokens
    with pytest.raises(ValueError, match="has more than the 77 tokens that the text tower takes"):
        FixedPrompts(backbone.clip, ["brain " * 76], ABNORMAL)
