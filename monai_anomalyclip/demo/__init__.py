# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The demonstration: synthetic phantoms, a tiny CLIP trained on them, and AnomalyCLIP on top."""

from __future__ import annotations

from monai_anomalyclip.demo.network import DEMO_BANNER, demo_backbone, demo_dataset_dir, demo_network

__all__ = ["DEMO_BANNER", "demo_backbone", "demo_dataset_dir", "demo_network"]
