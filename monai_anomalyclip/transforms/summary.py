# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The image-level result of an item as plain numbers."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform

from monai_anomalyclip.ranking import most_suspicious_first

__all__ = ["SummarizeAnomalyD", "SummarizeAnomalyDict", "SummarizeAnomalyd"]


class SummarizeAnomalyd(MapTransform):
    """Write ``result`` = {"anomaly_score": highest score, "slice": its index}, which MONAI Label returns with the mask.

    Among equal scores the slice of the highest ``anomaly_margin`` counts, where the network gives that.

    Args:
        keys: key of the scores (n_slices,), one for a frame.
    """

    def __init__(self, keys: KeysCollection = "anomaly_score", allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        output = dict(data)
        for key in self.key_iterator(output):
            scores = torch.as_tensor(output[key]).flatten().tolist()
            margins = output.get("anomaly_margin")
            index = most_suspicious_first(
                scores, None if margins is None else torch.as_tensor(margins).flatten().tolist()
            )[0]
            output["result"] = {"anomaly_score": scores[index], "slice": index}
        return output


SummarizeAnomalyD = SummarizeAnomalyDict = SummarizeAnomalyd
