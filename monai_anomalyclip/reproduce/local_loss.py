# Copyright (c) monai_anomalyclip authors
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#     http://www.apache.org/licenses/LICENSE-2.0
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
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
