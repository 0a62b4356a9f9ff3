# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Losses for tuning the prompts."""

from __future__ import annotations

from .glocal import GlocalLoss

__all__ = ["GlocalLoss"]
