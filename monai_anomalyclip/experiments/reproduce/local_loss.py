# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The glocal loss without some of its terms, for the ablations of tables 5 and 11.

What is left out is still among ``last_terms``, to be watched, but neither in the total nor in the gradient. The global
term alone is ``GlocalLoss(lambda_local=0)``. They are classes of their own, so that the record of a tuning run tells
them apart.
"""

from __future__ import annotations

from monai_anomalyclip.losses import GlocalLoss

__all__ = ["GlobalAndDiceLoss", "GlobalAndFocalLoss", "LocalLoss"]


class LocalLoss(GlocalLoss):
    """The pixel terms of :class:`~monai_anomalyclip.losses.GlocalLoss` alone, weighted by ``lambda_local``."""

    counted = ("focal", "dice_abnormal", "dice_normal")


class GlobalAndDiceLoss(GlocalLoss):
    """The glocal loss without its focal term."""

    counted = ("global", "dice_abnormal", "dice_normal")


class GlobalAndFocalLoss(GlocalLoss):
    """The glocal loss without its Dice terms."""

    counted = ("global", "focal")
