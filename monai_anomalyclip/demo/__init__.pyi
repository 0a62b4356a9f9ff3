# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0

from .network import DEMO_BANNER, demo_backbone, demo_dataset_dir, demo_network

__all__ = ["DEMO_BANNER", "demo_backbone", "demo_dataset_dir", "demo_network"]
