# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0

from .agreement import EXACT, Agreement
from .baked_reference import BakedReference, export_reference
from .description import read_description
from .exporting import BakedNetwork, export_model
from .onnx_network import ONNXNetwork

__all__ = [
    "EXACT",
    "Agreement",
    "BakedNetwork",
    "BakedReference",
    "ONNXNetwork",
    "export_model",
    "export_reference",
    "read_description",
]
