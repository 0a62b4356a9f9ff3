# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Parts that the paper's ablations change: prompts with each image's class, a fixed context, losses without a term.

The paper's VAND and CoOp name the class in tuning and in testing, and so does the object-aware variant of AnomalyCLIP
that its figure 5 is about.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import open_clip
import torch
from torch import Tensor, nn

from monai_anomalyclip.engines import PrepareAnomalyBatch
from monai_anomalyclip.experiments.baselines import VAND, CoOp, FixedPrompts, ensemble_prompts
from monai_anomalyclip.losses import GlocalLoss
from monai_anomalyclip.networks import AnomalyCLIP, FrozenCLIPNetwork
from monai_anomalyclip.networks.anomaly_clip import PromptTunedNetwork
from monai_anomalyclip.networks.prompt_learner import PromptLearner

__all__ = [
    "GlobalAndDiceLoss",
    "GlobalAndFocalLoss",
    "LocalLoss",
    "ObjectAwareAnomalyCLIP",
    "PrepareClassBatch",
    "ToldCoOp",
    "ToldVAND",
    "deep_tokens_alone",
]


class PrepareClassBatch(PrepareAnomalyBatch):
    """Hands the network the class of each image, too."""

    def __call__(
        self, batchdata: Mapping[str, Any], *args: Any, **kwargs: Any
    ) -> tuple[Tensor | dict[str, Tensor], dict[str, Tensor], tuple[()], dict[str, Any]]:
        """As the base class, with ``classes`` among the network's arguments."""
        inputs, targets, positional, named = super().__call__(batchdata, *args, **kwargs)
        return inputs, targets, positional, {**named, "classes": list(batchdata["class"])}


class _ToldClasses(FrozenCLIPNetwork):
    """Takes the class of each image, and compares it with that class's own prompts.

    Images without a class, or without any being told, are compared with the network's ordinary prompts.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # By word, its prompts and how they were last encoded. No part of the state dict: they own no parameters.
        self._told: dict[str, tuple[nn.Module, tuple[Tensor, Tensor] | None]] = {}

    @abstractmethod
    def _prompts_of(self, word: str) -> nn.Module:
        """Prompts that name ``word``, with the parameters of the ordinary ones."""

    def forward(
        self,
        image: Tensor | Mapping[str, Tensor],
        output: Literal["anomaly_map", "prediction", "logits", "all"] = "anomaly_map",
        classes: Sequence[str] | None = None,
    ) -> Any:
        """As the base class; ``classes`` (B names, empty for none) tells what each image is of."""
        if classes is None:
            return super().forward(image, output)
        parts, places = [], []
        for name in dict.fromkeys(classes):
            of_class = [index for index, one in enumerate(classes) if one == name]
            chosen: Tensor | dict[str, Tensor]
            if isinstance(image, Mapping):
                chosen = {key: value[of_class] for key, value in image.items()}
            else:
                chosen = image[of_class]
            with _Telling(self, name.replace("_", " ")):
                parts.append(super().forward(chosen, output))
            places += of_class
        order = torch.tensor(places).argsort().tolist()
        return _gathered(parts, order)


class _Telling:
    """A context in which a network's prompts are those of a word."""

    def __init__(self, network: _ToldClasses, word: str) -> None:
        self.network, self.word = network, word

    def __enter__(self) -> None:
        network = self.network
        self.ordinary = network.prompts, network._encoded_prompts
        if not self.word:
            return
        if self.word not in network._told:
            device = network.clip.logit_scale.device
            network._told[self.word] = network._prompts_of(self.word).to(device), None
        network.prompts, network._encoded_prompts = network._told[self.word]

    def __exit__(self, *_: object) -> None:
        network = self.network
        if self.word:
            network._told[self.word] = network.prompts, network._encoded_prompts
            network.prompts, network._encoded_prompts = self.ordinary


def _gathered(parts: list[Any], order: list[int]) -> Any:
    """What a network gives for parts of a batch, as it would give it for all."""
    if isinstance(parts[0], Tensor):
        return torch.cat(parts)[order]
    if isinstance(parts[0], list):
        return [_gathered(list(layer), order) for layer in zip(*parts, strict=True)]
    return {key: _gathered([part[key] for part in parts], order) for key in parts[0]}


class ToldVAND(_ToldClasses, VAND):
    """VAND whose prompt ensemble names each image's class."""

    def _prompts_of(self, word: str) -> FixedPrompts:
        return FixedPrompts(self.clip, *ensemble_prompts("vand", word))


class _ToldLearner(_ToldClasses, PromptTunedNetwork):
    def _learner_of(self, normal: str, abnormal: str) -> PromptLearner:
        """Prompts with these words that share everything that is learned with the ordinary ones."""
        own, settings = self.prompts, self.settings
        told = PromptLearner(
            self.clip,
            prompt_length=settings["prompt_length"],
            deep_prompt_depth=settings["deep_prompt_depth"],
            deep_prompt_length=settings["deep_prompt_length"],
            normal_words=[normal],
            abnormal_words=[abnormal],
            shared_context=settings["shared_context"],
        )
        for name, value in own._parameters.items():
            told.register_parameter(name, value)
        told.deep_prompts = own.deep_prompts
        return told


class ToldCoOp(_ToldLearner, CoOp):
    """CoOp whose prompts end in "normal [class]" and "anomalous [class]" of each image."""

    def _prompts_of(self, word: str) -> PromptLearner:
        return self._learner_of(f"normal {word}", f"anomalous {word}")


class ObjectAwareAnomalyCLIP(_ToldLearner, AnomalyCLIP):
    """AnomalyCLIP with each image's class in the place of "object" (paper, section 3.2 and figure 5)."""

    def _prompts_of(self, word: str) -> PromptLearner:
        return self._learner_of(word, f"damaged {word}")


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
