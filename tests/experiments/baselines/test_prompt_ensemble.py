# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from monai_anomalyclip.experiments.baselines import ensemble_prompts

# As printed in WinCLIP's paper and in APRIL-GAN's published code.
WINCLIP_TEMPLATES = """
a cropped photo of the [c].|a cropped photo of a [c].|a close-up photo of a [c].|a close-up photo of the [c].|
a bright photo of a [c].|a bright photo of the [c].|a dark photo of the [c].|a dark photo of a [c].|
a jpeg corrupted photo of a [c].|a jpeg corrupted photo of the [c].|a blurry photo of the [c].|a blurry photo of a [c].|
a photo of a [c].|a photo of the [c].|a photo of a small [c].|a photo of the small [c].|a photo of a large [c].|
a photo of the large [c].|a photo of the [c] for visual inspection.|a photo of a [c] for visual inspection.|
a photo of the [c] for anomaly detection.|a photo of a [c] for anomaly detection."""
VAND_TEMPLATES = """
a bad photo of a [c].|a low resolution photo of the [c].|a bad photo of the [c].|a cropped photo of the [c].|
a bright photo of a [c].|a dark photo of the [c].|a photo of my [c].|a photo of the cool [c].|
a close-up photo of a [c].|
a black and white photo of the [c].|a bright photo of the [c].|a cropped photo of a [c].|
a jpeg corrupted photo of a [c].|a blurry photo of the [c].|a photo of the [c].|a good photo of the [c].|
a photo of one [c].|a close-up photo of the [c].|a photo of a [c].|a low resolution photo of a [c].|
a photo of a large [c].|a blurry photo of a [c].|a jpeg corrupted photo of the [c].|a good photo of a [c].|
a photo of the small [c].|a photo of the large [c].|a black and white photo of a [c].|a dark photo of a [c].|
a photo of a cool [c].|a photo of a small [c].|there is a [c] in the scene.|there is the [c] in the scene.|
this is a [c] in the scene.|this is the [c] in the scene.|this is one [c] in the scene."""
NORMAL = "X|flawless X|perfect X|unblemished X|X without flaw|X without defect|X without damage"
ABNORMAL = "damaged X|X with flaw|X with defect|X with damage"


def written_out(templates: str, states: str, class_name: str) -> list[str]:
    listed = templates.replace("\n", "").split("|")
    return sorted(t.replace("[c]", s.replace("X", class_name)) for t in listed for s in states.split("|"))


def test_single_prompts() -> None:
    assert ensemble_prompts("single", "brain") == (["a photo of a normal brain."], ["a photo of an anomalous brain."])


@pytest.mark.parametrize(
    ("ensemble", "templates", "abnormal", "counts"),
    [
        ("winclip", WINCLIP_TEMPLATES, ABNORMAL, (7 * 22, 4 * 22)),
        ("vand", VAND_TEMPLATES, ABNORMAL + "|broken X", (7 * 35, 5 * 35)),
    ],
)
def test_published_ensembles(ensemble: str, templates: str, abnormal: str, counts: tuple[int, int]) -> None:
    groups = ensemble_prompts(ensemble, "metal nut")
    assert tuple(map(len, groups)) == counts
    for group, states in zip(groups, (NORMAL, abnormal), strict=True):
        assert sorted(group) == written_out(templates, states, "metal nut")


def test_templates_of_the_re_implementations_are_anomalibs() -> None:
    prompting = pytest.importorskip("anomalib.models.image.winclip.prompting", reason="needs the extra fullshot")
    for ours, theirs in zip(
        ensemble_prompts("winclip_21", "nut"), prompting.create_prompt_ensemble("nut"), strict=True
    ):
        assert sorted(ours) == sorted(theirs)


def test_imagenet_templates() -> None:
    normal, abnormal = ensemble_prompts("imagenet", "colon")
    assert len(set(normal)) == len(set(abnormal)) == 80
    assert "itap of a normal colon." in normal
    assert "a photo of the hard to see anomalous colon." in abnormal


@pytest.mark.parametrize(
    ("ensemble", "class_name", "message"),
    [
        ("clip", "object", "ensemble='clip' is not one of single, imagenet, winclip, winclip_21, vand"),
        ("winclip", " ", "class_name=' ' must be a word"),
    ],
)
def test_wrong_settings(ensemble: str, class_name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ensemble_prompts(ensemble, class_name)
