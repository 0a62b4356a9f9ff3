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
"""The image-level result of an item as plain numbers."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform

__all__ = ["SummarizeAnomalyD", "SummarizeAnomalyDict", "SummarizeAnomalyd"]


class SummarizeAnomalyd(MapTransform):
    """Write ``result`` = {"anomaly_score": highest score, "slice": its index}, which MONAI Label returns with the mask.

    Args:
        keys: key of the scores (n_slices,), one for a frame.
    """

    def __init__(self, keys: KeysCollection = "anomaly_score", allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        output = dict(data)
        for key in self.key_iterator(output):
            score, index = torch.as_tensor(output[key]).flatten().max(dim=0)
            output["result"] = {"anomaly_score": float(score), "slice": int(index)}
        return output


SummarizeAnomalyD = SummarizeAnomalyDict = SummarizeAnomalyd
