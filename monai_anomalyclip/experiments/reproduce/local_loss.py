# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The glocal loss without its global term, for the ablation of the loss."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from monai_anomalyclip.losses import GlocalLoss
from monai_anomalyclip.networks import Logits

__all__ = ["LocalLoss"]


class LocalLoss(GlocalLoss):
    """The pixel terms of :class:`~monai_anomalyclip.losses.GlocalLoss` alone, weighted by ``lambda_local``.

    The global term is still among ``last_terms``, to be watched, but neither in the total nor in the gradient. The
    counterpart, the global term alone, is ``GlocalLoss(lambda_local=0)``.
    """

    def forward(self, logits: Logits, target: Mapping[str, Tensor]) -> Tensor:
        """Loss of a batch; arguments and errors as for GlocalLoss.

        Returns:
            scalar loss.
        """
        watched = logits["image_logits"].detach()
        total = super().forward({"image_logits": watched, "patch_logits": logits["patch_logits"]}, target)
        local = total - self.last_terms["global"]
        self.last_terms["total"] = local.detach()
        return local
