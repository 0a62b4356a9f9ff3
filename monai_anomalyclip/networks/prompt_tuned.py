# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""A frozen CLIP whose two prompts are learned: their checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from monai_anomalyclip.networks.frozen_clip import FrozenCLIPNetwork
from monai_anomalyclip.networks.prompt_checkpoint import PromptCheckpoint, read_prompts, write_prompts
from monai_anomalyclip.networks.prompt_learner import PromptLearner
from monai_anomalyclip.networks.prompt_match import check_backbone_match, check_shapes, warn_other_settings

__all__ = ["PromptTunedNetwork"]


class PromptTunedNetwork(FrozenCLIPNetwork):
    """Adds prompt files to :class:`FrozenCLIPNetwork`; a derived class sets ``prompts`` to a PromptLearner."""

    prompts: PromptLearner

    def save_prompts(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write the prompts with their settings and the backbone's identity.

        Args:
            path: ``.safetensors`` (ours), ``.pt`` (a bundle's model.pt) or ``.pth`` (published layout).
            overwrite: whether an existing file may be replaced.
        """
        write_prompts(self.checkpoint(), path, overwrite=overwrite)

    def load_prompts(self, path: str | Path, check_backbone: bool = True) -> None:
        """Load prompts written by :meth:`save_prompts` or by the authors' code.

        Args:
            path: a checkpoint in any of the three layouts.
            check_backbone: whether prompts tuned with another CLIP are refused.

        Raises:
            FileNotFoundError: when there is no such file.
            ValueError: when the file is no prompt checkpoint, its lengths, depth or width differ, or the backbone is
                another one.
        """
        checkpoint = read_prompts(path)
        own = self.checkpoint()
        check_shapes(checkpoint, own, str(path))
        if check_backbone:
            check_backbone_match(checkpoint, own, str(path))
        warn_other_settings(checkpoint, own, str(path))
        targets = [*self.prompts.contexts, *self.prompts.deep_prompts]
        sources = [checkpoint.context_normal, checkpoint.context_abnormal, *checkpoint.deep_prompts]
        with torch.no_grad():
            for target, source in zip(targets, sources, strict=True):
                target.copy_(source)

    def checkpoint(self) -> PromptCheckpoint:
        """The prompts with their settings and the backbone's identity, on the CPU."""
        ids = F.pad(self.prompts.word_ids.cpu(), (0, self.clip.context_length - self.prompts.word_ids.shape[1]))
        distinct = list(dict.fromkeys([*ids.flatten().tolist(), 0]))
        table = self.clip.token_embedding.weight[distinct].detach().cpu().float()
        normal, abnormal = self.prompts.contexts
        return PromptCheckpoint(
            normal.detach().cpu(),
            abnormal.detach().cpu(),
            tuple(deep.detach().cpu() for deep in self.prompts.deep_prompts),
            ids,
            dict(zip(distinct, table, strict=True)),
            {"name": self.backbone_name, "sha256": self.backbone_sha256},
            self.settings,
        )

    def check_record(self, record: Mapping[str, Any]) -> None:
        """Refuse prompts of another backbone, and warn of other settings.

        Raises:
            ValueError: when the prompts were tuned with another CLIP.
        """
        own = self.checkpoint()
        loaded = PromptCheckpoint(
            own.context_normal,
            own.context_abnormal,
            own.deep_prompts,
            record.get("token_ids"),
            record.get("token_rows", {}),
            record.get("backbone", {}),
            record.get("settings", {}),
        )
        check_backbone_match(loaded, own, "this state dict")
        warn_other_settings(loaded, own, "this state dict")
