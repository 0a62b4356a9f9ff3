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
"""Models that leave this package: ONNX and torch.export files with the prompts baked in."""

from __future__ import annotations

from .agreement import EXACT, Agreement
from .baked import BakedNetwork
from .description import read_description
from .export_model import export_model
from .onnx_network import ONNXNetwork

__all__ = ["EXACT", "Agreement", "BakedNetwork", "ONNXNetwork", "export_model", "read_description"]
