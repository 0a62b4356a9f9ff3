# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Models that leave this package: ONNX and torch.export files with the prompts baked in."""

from __future__ import annotations

from monai_anomalyclip.export.agreement import EXACT, Agreement
from monai_anomalyclip.export.baked import BakedNetwork
from monai_anomalyclip.export.description import read_description
from monai_anomalyclip.export.export_model import export_model
from monai_anomalyclip.export.onnx_network import ONNXNetwork

__all__ = ["EXACT", "Agreement", "BakedNetwork", "ONNXNetwork", "export_model", "read_description"]
