# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Losses for tuning the prompts."""

from __future__ import annotations

from monai_anomalyclip.losses.glocal import GlocalLoss, Logits

__all__ = ["GlocalLoss", "Logits"]
