# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0

from .glocal import GlocalLoss, Logits

__all__ = ["GlocalLoss", "Logits"]
