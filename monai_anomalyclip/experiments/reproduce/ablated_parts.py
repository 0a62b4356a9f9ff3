# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Parts of the method that the ablations exchange: a written context (table 7), losses without terms (5 and 11).

What a loss leaves out is still among ``last_terms``, to be watched, but neither in the total nor in the gradient. The
global term alone is ``GlocalLoss(lambda_local=0)``. The losses are classes of their own, so that the record of a tuning
run tells them apart.
"""

from __future__ import annotations

import open_clip
import torch
from torch import nn

from monai_anomalyclip.losses import GlocalLoss
from monai_anomalyclip.networks import AnomalyCLIP

__all__ = ["GlobalAndDiceLoss", "GlobalAndFocalLoss", "LocalLoss", "deep_tokens_alone"]


def deep_tokens_alone(network: AnomalyCLIP, context: str) -> list[nn.Parameter]:
    """Put words in the place of the learned context, and give what is left to be learned.

    Args:
        network: changed in place.
        context: words of as many tokens as the network's ``prompt_length``, such as "a photo of a".

    Returns:
        the tokens inside the text tower, for an optimizer.

    Raises:
        ValueError: when the words have another number of tokens, or there are no tokens inside the text tower.
    """
    prompts = network.prompts
    ids = open_clip.tokenize([context])[0]
    ids = ids[1 : int(ids.argmax())]  # between start and end of text
    if len(ids) != prompts.prompt_length:
        raise ValueError(f"'{context}' has {len(ids)} tokens, but prompt_length is {prompts.prompt_length}.")
    if not prompts.deep_prompts:
        raise ValueError("There are no tokens inside the text tower (deep_prompt_depth 1): nothing would be learned.")
    table = network.clip.token_embedding.weight
    with torch.no_grad():
        for tokens in prompts.contexts:
            tokens.copy_(table[ids.to(table.device)].expand_as(tokens))
    return list(prompts.deep_prompts)


class LocalLoss(GlocalLoss):
    """The pixel terms of :class:`~monai_anomalyclip.losses.GlocalLoss` alone, weighted by ``lambda_local``."""

    counted = ("focal", "dice_abnormal", "dice_normal")


class GlobalAndDiceLoss(GlocalLoss):
    """The glocal loss without its focal term."""

    counted = ("global", "dice_abnormal", "dice_normal")


class GlobalAndFocalLoss(GlocalLoss):
    """The glocal loss without its Dice terms."""

    counted = ("global", "focal")
