# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The only thing that is learned: context tokens of the two prompts, and deep tokens inside the text tower.

Source: AnomalyCLIP (ICLR 2024), section 3.2 "Object-agnostic text prompt design", section 3.3 "Refinement of the
textual space" and equation 3.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from open_clip.tokenizer import tokenize
from torch import Tensor, nn

from monai_anomalyclip.networks.dpam import attend, mlp, project_qkv

__all__ = ["PromptLearner", "tokenize_words"]

_INITIAL_STD = 0.02


def tokenize_words(words: Sequence[str], prompt_length: int, context_length: int) -> list[list[int]]:
    """Token ids of "X X ... <word>.", the template in which the learned tokens stand for the X.

    Args:
        words: what the prompts speak of, e.g. ("damaged object",).
        prompt_length: number of learned context tokens.
        context_length: the most tokens that the text tower takes.

    Returns:
        for each word the ids from start-of-text to end-of-text.

    Raises:
        ValueError: for no word, an empty word, or one that does not fit into ``context_length``.
    """
    if not words:
        raise ValueError("The prompt words must be a non-empty tuple of strings such as ('object',).")
    start, *placeholder, end = _encoded("x")
    prompts = []
    for word in words:
        if not word.strip():
            raise ValueError(f"The prompt words {tuple(words)!r} contain an empty one.")
        ids = [start, *placeholder * prompt_length, *_encoded(f"{word}.")[1:-1], end]
        if len(ids) > context_length:
            raise ValueError(
                f"The prompt for '{word}' has {len(ids)} tokens, but the text tower takes {context_length}."
            )
        prompts.append(ids)
    return prompts


def _encoded(text: str) -> list[int]:
    """Token ids from start-of-text to end-of-text, by the one tokenizer that has read CLIP's vocabulary already."""
    ids: list[int] = tokenize(text, context_length=4 * len(text) + 2)[0].tolist()  # at most a token for each byte
    return ids[: ids.index(max(ids)) + 1]  # end-of-text is the last of the vocabulary


class PromptLearner(nn.Module):
    """Learned context and deep tokens, and the text pass that uses them.

    Depth 9, length 4 means that the blocks 2..9 of the text tower get 4 learned tokens each, shared by the two
    prompts: before such a block they overwrite the positions 1..4, i.e. the first context tokens.

    Args:
        clip: the CLIP whose text tower the prompts are for; not kept.
        prompt_length: number of context tokens of a prompt; 0 for plain words.
        deep_prompt_depth: number of the last text block with deep tokens; 1 for none.
        deep_prompt_length: number of deep tokens of a block, at most ``prompt_length``.
        normal_words: words of the normal prompts; several are averaged.
        abnormal_words: words of the abnormal prompts; several are averaged.
        shared_context: whether the two prompts share their context tokens (paper, table 9).

    Raises:
        ValueError: for lengths, depths or words that the text tower cannot take.

    Example::

        normal, abnormal = AnomalyCLIP().prompts(clip)  # (2, D), of unit length
    """

    word_ids: Tensor
    end_of_text: Tensor

    def __init__(
        self,
        clip: CLIP,
        *,
        prompt_length: int,
        deep_prompt_depth: int,
        deep_prompt_length: int,
        normal_words: Sequence[str],
        abnormal_words: Sequence[str],
        shared_context: bool,
    ) -> None:
        super().__init__()
        layers = len(clip.transformer.resblocks)
        if isinstance(normal_words, str) or isinstance(abnormal_words, str):
            raise ValueError(
                "normal_words and abnormal_words are tuples of strings such as ('object',), not one string."
            )
        if prompt_length < 0:
            raise ValueError(f"prompt_length={prompt_length} must not be negative.")
        if not 1 <= deep_prompt_depth <= layers:
            raise ValueError(
                f"deep_prompt_depth={deep_prompt_depth} must lie between 1 (none) and the text tower's {layers} blocks."
            )
        if not 0 <= deep_prompt_length <= prompt_length:
            raise ValueError(
                f"deep_prompt_length={deep_prompt_length} must lie between 0 and prompt_length={prompt_length}, "
                "because deep tokens overwrite context tokens."
            )
        if shared_context and len(normal_words) != len(abnormal_words):
            raise ValueError("shared_context=True needs as many normal_words as abnormal_words.")
        ids = tokenize_words((*normal_words,), prompt_length, clip.context_length)
        ids += tokenize_words((*abnormal_words,), prompt_length, clip.context_length)
        width = clip.token_embedding.embedding_dim
        self.prompt_length = prompt_length
        self.shared_context = shared_context
        self.normal_count = len(normal_words)

        def learned(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(*shape, width) * _INITIAL_STD)

        self.context_normal = learned(len(normal_words), prompt_length)
        if not shared_context:
            self.context_abnormal = learned(len(abnormal_words), prompt_length)
        depth = deep_prompt_depth - 1 if deep_prompt_length else 0
        self.deep_prompts = nn.ParameterList(learned(deep_prompt_length) for _ in range(depth))

        # The causal mask makes what follows end-of-text irrelevant: only the longest prompt's length is encoded.
        longest = max(len(prompt) for prompt in ids)
        padded = [prompt + [0] * (longest - len(prompt)) for prompt in ids]
        self.register_buffer("word_ids", torch.tensor(padded), persistent=False)
        self.register_buffer("end_of_text", torch.tensor([len(prompt) - 1 for prompt in ids]), persistent=False)

    @property
    def contexts(self) -> tuple[Tensor, Tensor]:
        """Context tokens of the normal and of the abnormal prompts, each of shape (words, length, W)."""
        return self.context_normal, self.context_normal if self.shared_context else self.context_abnormal

    def forward(self, clip: CLIP) -> Tensor:
        """Encode the two prompts with the given CLIP.

        Returns:
            unit-length text features (2, D), row 0 normal, row 1 abnormal, float32 or wider.
        """
        embedded = clip.token_embedding(self.word_ids)
        context = torch.cat(self.contexts).to(embedded.dtype)
        tokens = torch.cat([embedded[:, :1], context, embedded[:, 1 + self.prompt_length :]], dim=1)
        tokens = tokens + clip.positional_embedding[: tokens.shape[1]]
        for number, block in enumerate(clip.transformer.resblocks, start=1):
            if 2 <= number <= len(self.deep_prompts) + 1:
                deep = self.deep_prompts[number - 2].to(tokens.dtype).expand(tokens.shape[0], -1, -1)
                tokens = torch.cat([tokens[:, :1], deep, tokens[:, 1 + deep.shape[1] :]], dim=1)
            tokens = mlp(block, tokens + attend(block, *project_qkv(block, tokens), causal=True))
        at_end = tokens[torch.arange(tokens.shape[0], device=tokens.device), self.end_of_text]
        features = clip.ln_final(at_end) @ clip.text_projection
        features = F.normalize(features.to(torch.promote_types(features.dtype, torch.float32)), dim=-1)
        normal, abnormal = features[: self.normal_count], features[self.normal_count :]
        return F.normalize(torch.stack([normal.mean(dim=0), abnormal.mean(dim=0)]), dim=-1)
