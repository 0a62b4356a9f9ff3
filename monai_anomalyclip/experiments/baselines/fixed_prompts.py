# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Written prompts: many sentences, two text features."""

from __future__ import annotations

from collections.abc import Sequence

import open_clip
import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from torch import Tensor, nn

__all__ = ["FixedPrompts"]


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
