# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Models that leave this package: ONNX and torch.export files with the prompts baked in."""

from __future__ import annotations

from .agreement import EXACT, Agreement
from .baked import BakedNetwork
from .description import read_description
from .export_model import export_model
from .onnx_network import ONNXNetwork

__all__ = ["EXACT", "Agreement", "BakedNetwork", "ONNXNetwork", "export_model", "read_description"]
