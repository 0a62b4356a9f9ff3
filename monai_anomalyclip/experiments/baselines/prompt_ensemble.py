# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Written prompts of the methods that AnomalyCLIP is compared with, as published: many sentences, two text features."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import open_clip
import torch
import torch.nn.functional as F
from open_clip import OPENAI_IMAGENET_TEMPLATES
from open_clip.model import CLIP
from torch import Tensor, nn

__all__ = ["FixedPrompts", "ensemble_prompts"]

Prompts = tuple[list[str], list[str]]

_NORMAL_STATES = (
    "{}",
    "flawless {}",
    "perfect {}",
    "unblemished {}",
    "{} without flaw",
    "{} without defect",
    "{} without damage",
)
_ABNORMAL_STATES = ("damaged {}", "{} with flaw", "{} with defect", "{} with damage")

# First the article ("a" and "the"), then the state with its object.
_WINCLIP_PATTERNS = (
    "a cropped photo of {} {}.",
    "a close-up photo of {} {}.",
    "a bright photo of {} {}.",
    "a dark photo of {} {}.",
    "a jpeg corrupted photo of {} {}.",
    "a blurry photo of {} {}.",
    "a photo of {} {}.",
    "a photo of {} small {}.",
    "a photo of {} large {}.",
    "a photo of {} {} for visual inspection.",
    "a photo of {} {} for anomaly detection.",
)
_TWICE = "a jpeg corrupted photo of the {}."
_LEFT_OUT = ("a cropped photo of a {}.", "a jpeg corrupted photo of a {}.")
_VAND_PATTERNS = (
    *(pattern for pattern in _WINCLIP_PATTERNS if not pattern.endswith(("inspection.", "detection."))),
    "a bad photo of {} {}.",
    "a good photo of {} {}.",
    "a low resolution photo of {} {}.",
    "a black and white photo of {} {}.",
    "a photo of {} cool {}.",
    "there is {} {} in the scene.",
    "this is {} {} in the scene.",
)
_VAND_OTHERS = ("a photo of my {}.", "a photo of one {}.", "this is one {} in the scene.")


def _single(class_name: str) -> Prompts:
    return [f"a photo of a normal {class_name}."], [f"a photo of an anomalous {class_name}."]


def _imagenet(class_name: str) -> Prompts:
    normal, abnormal = (
        [template(f"{state} {class_name}") for template in OPENAI_IMAGENET_TEMPLATES]
        for state in ("normal", "anomalous")
    )
    return normal, abnormal


def _winclip(class_name: str) -> Prompts:
    templates = _with_articles(_WINCLIP_PATTERNS)
    return _fill(templates, _NORMAL_STATES, class_name), _fill(templates, _ABNORMAL_STATES, class_name)


def _winclip_21(class_name: str) -> Prompts:
    templates = [template for template in _with_articles(_WINCLIP_PATTERNS) if template not in _LEFT_OUT] + [_TWICE]
    return _fill(templates, _NORMAL_STATES, class_name), _fill(templates, _ABNORMAL_STATES, class_name)


def _vand(class_name: str) -> Prompts:
    templates = [*_with_articles(_VAND_PATTERNS), *_VAND_OTHERS]
    abnormal_states = (*_ABNORMAL_STATES, "broken {}")
    return _fill(templates, _NORMAL_STATES, class_name), _fill(templates, abnormal_states, class_name)


def _with_articles(patterns: tuple[str, ...]) -> list[str]:
    return [pattern.format(article, "{}") for pattern in patterns for article in ("a", "the")]


def _fill(templates: list[str], states: tuple[str, ...], class_name: str) -> list[str]:
    return [template.format(state.format(class_name)) for state in states for template in templates]


_ENSEMBLES: dict[str, Callable[[str], Prompts]] = {
    "single": _single,
    "imagenet": _imagenet,
    "winclip": _winclip,
    "winclip_21": _winclip_21,
    "vand": _vand,
}


def ensemble_prompts(ensemble: str, class_name: str) -> Prompts:
    """Sentences of an ensemble, in which ``class_name`` stands for the object.

    - "single": "a photo of a normal / an anomalous [object]." (AnomalyCLIP, ICLR 2024, appendix on baselines, CLIP);
    - "imagenet": OpenAI's 80 ImageNet templates around "normal / anomalous [object]" (Radford et al., 2021);
    - "winclip": compositional prompt ensemble, 7 + 4 states in 22 templates (WinCLIP, CVPR 2023, section 4.1);
    - "winclip_21": the same states in the 21 templates, one of them twice, of the re-implementation by AnomalyCLIP's
      authors and of anomalib;
    - "vand": 7 + 5 states in 35 templates (APRIL-GAN, VAND 2023, published code).

    Args:
        ensemble: one of the five names.
        class_name: what the images show.

    Returns:
        normal and abnormal sentences.

    Raises:
        ValueError: for an unknown ensemble or an empty class name.
    """
    if ensemble not in _ENSEMBLES:
        raise ValueError(f"ensemble='{ensemble}' is not one of {', '.join(_ENSEMBLES)}.")
    if not isinstance(class_name, str) or not class_name.strip():
        raise ValueError(f"class_name={class_name!r} must be a word for what the images show, such as 'object'.")
    return _ENSEMBLES[ensemble](class_name.strip())


class FixedPrompts(nn.Module):
    """Two groups of sentences, each encoded, averaged and normalised; nothing is learned.

    Source: WinCLIP (CVPR 2023), section 4.1; Radford et al. (2021), section 3.1.4 "Prompt engineering and ensembling".

    Args:
        clip: the CLIP whose text tower the prompts are for; not kept.
        normal: sentences of the normal group.
        abnormal: sentences of the abnormal group.
        unit_sentences: whether each sentence's feature is normalised before the mean, as OpenAI's ensembles are; else
            the mean is of the features as the text tower gives them.

    Raises:
        ValueError: for a sentence that the text tower cannot take in full.

    Example::

        normal, abnormal = FixedPrompts(clip, ["a normal bottle"], ["a damaged bottle"])(clip)
    """

    token_ids: Tensor
    end_of_text: Tensor

    def __init__(
        self, clip: CLIP, normal: Sequence[str], abnormal: Sequence[str], *, unit_sentences: bool = True
    ) -> None:
        super().__init__()
        sentences = [*normal, *abnormal]
        ids = open_clip.tokenize(sentences, context_length=clip.context_length + 1)
        end_of_text = ids.argmax(dim=1)  # has the highest id
        longest = 1 + int(end_of_text.max())
        if longest > clip.context_length:
            sentence = sentences[int(end_of_text.argmax())]
            raise ValueError(f"'{sentence}' has more than the {clip.context_length} tokens that the text tower takes.")
        self.normal_count = len(normal)
        self.unit_sentences = unit_sentences
        # The causal mask makes what follows end-of-text irrelevant: only the longest sentence's length is encoded.
        self.register_buffer("token_ids", ids[:, :longest], persistent=False)
        self.register_buffer("end_of_text", end_of_text, persistent=False)

    def forward(self, clip: CLIP) -> Tensor:
        """Encode the sentences with the given CLIP.

        Returns:
            unit-length text features (2, D), row 0 normal, row 1 abnormal, float32 or wider.
        """
        length = self.token_ids.shape[1]
        tokens = clip.token_embedding(self.token_ids) + clip.positional_embedding[:length]
        tokens = clip.transformer(tokens, attn_mask=clip.attn_mask[:length, :length])
        at_end = tokens[torch.arange(len(tokens), device=tokens.device), self.end_of_text]
        features = clip.ln_final(at_end) @ clip.text_projection
        features = features.to(torch.promote_types(features.dtype, torch.float32))
        if self.unit_sentences:
            features = F.normalize(features, dim=-1)
        groups = features[: self.normal_count], features[self.normal_count :]
        return F.normalize(torch.stack([group.mean(dim=0) for group in groups]), dim=-1)
