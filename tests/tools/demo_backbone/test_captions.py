# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
from open_clip import SimpleTokenizer

from monai_anomalyclip.demo.phantoms import FAMILIES, Phantom
from tools.demo_backbone.captions import Caption, CaptionPair, caption, caption_pair, vocabulary

BLANK = np.zeros((4, 4, 3), dtype=np.uint8)
KINDS = {"metal": "dent", "wood": "crack", "endoscopy": "polyp", "head_ct": "infarct", "brain_mr": "ring tumour"}


def phantom(family: str, kind: str = "") -> Phantom:
    return Phantom(family, BLANK, BLANK[..., 0] > 0, kind)


def test_truth_of_a_caption() -> None:
    cracked = Caption("a wood board with a crack", "wood", True, "crack")
    assert cracked.is_true_of(phantom("wood", "crack"))
    assert not cracked.is_true_of(phantom("wood", "hole"))
    assert not cracked.is_true_of(phantom("wood"))
    silent = Caption("wood", "wood", None, "")
    assert silent.is_true_of(phantom("wood", "crack"))
    assert silent.is_true_of(phantom("wood"))
    assert not silent.is_true_of(phantom("metal"))
    assert Caption("something damaged", None, True, "").is_true_of(phantom("metal", "dent"))


def test_random_captions_are_true_and_varied() -> None:
    rng = np.random.default_rng(0)
    for family in FAMILIES:
        for kind in ("", KINDS.get(family, "hole")):
            picture = phantom(family, kind)
            captions = [caption(rng, picture) for _ in range(200)]
            assert all(c.is_true_of(picture) for c in captions)
            assert len({c.text for c in captions}) > 60
            silent = sum(c.anomalous is None for c in captions)
            assert 15 < silent < 80
            if not kind:
                assert not any("damaged" in c.text.replace("undamaged", "") for c in captions)


@pytest.mark.parametrize("literal", [False, True])
def test_words_of_the_untuned_prompts_are_rare(literal: bool) -> None:
    """What the model card says of "damaged" and "object"."""
    rng = np.random.default_rng(1)

    def share(word: str, family: str, kind: str) -> float:
        texts = [caption(rng, phantom(family, kind), literal).text.split() for _ in range(3000)]
        return sum(word in words for words in texts) / len(texts)

    assert share("damaged", "wood", "crack") > 0.05
    assert 0 < share("object", "wood", "crack") < 0.02
    lesions = share("damaged", "endoscopy", "polyp")
    assert lesions == 0 if literal else 0 < lesions < 0.02


def test_literal_damage_is_breakage() -> None:
    rng = np.random.default_rng(4)
    texts = [caption(rng, phantom("wood", "crack"), literal=True) for _ in range(300)]
    broken = [c for c in texts if {"damaged", "broken"} & set(c.text.split())]
    assert len(broken) > 20
    for c in broken:
        assert c.is_true_of(phantom("wood", c.kind or "hole"))
        assert not Caption(c.text, None, True, "", c.broken).is_true_of(phantom("wood", "stain"))
    pair = CaptionPair("an intact thing", "a damaged thing", broken=True)
    assert [pair.state_of(phantom("metal", kind)) for kind in ("", "dent", "scratch")] == [False, False, True]
    assert [pair.speaks_of_the_mask(phantom("metal", kind)) for kind in ("", "dent", "scratch")] == [True, False, True]


@pytest.mark.parametrize(("family", "kind", "expected"), [("metal", "dent", 0.3), ("head_ct", "bleed", 0.15)])
def test_share_of_pairs_about_breakage(family: str, kind: str, expected: float) -> None:
    rng = np.random.default_rng(5)
    pairs = [caption_pair(rng, phantom(family, kind), literal=True) for _ in range(2000)]
    assert abs(np.mean([p.broken for p in pairs]) - expected) < 0.03
    assert not any(caption_pair(rng, phantom(family, kind)).broken for _ in range(200))


def test_pairs_differ_in_the_state_only() -> None:
    rng = np.random.default_rng(2)
    for _ in range(200):
        pair = caption_pair(rng, phantom("metal", "dent"), literal=True)
        normal, abnormal = pair.normal.split(), pair.abnormal.split()
        extra = [word for word in abnormal if word not in normal]
        assert len(extra) == 1
        assert len(abnormal) - len(normal) in (0, 1)


def test_vocabulary_covers_every_caption() -> None:
    tokenizer = SimpleTokenizer()
    known = set(tokenizer(vocabulary()).flatten().tolist())
    rng = np.random.default_rng(3)
    for family in FAMILIES:
        for kind in ("", KINDS.get(family, "stain")):
            picture = phantom(family, kind)
            pairs = [caption_pair(rng, picture, literal=True) for _ in range(20)]
            texts = [caption(rng, picture).text for _ in range(60)]
            texts += [text for pair in pairs for text in (pair.normal, pair.abnormal)]
            assert set(tokenizer(texts).flatten().tolist()) <= known
    assert set(tokenizer(["object.", "damaged object."]).flatten().tolist()) <= known
