# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from collections.abc import Hashable
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from monai_anomalyclip.transforms.anomaly_map import SummarizeAnomalyD, SummarizeAnomalyd, SummarizeAnomalyDict

SCORES = [0.25, 0.5, 0.875, 0.125]


@pytest.mark.parametrize(
    "scores",
    [SCORES, np.array(SCORES), torch.tensor(SCORES), torch.tensor(SCORES)[None], MetaTensor(torch.tensor(SCORES))],
)
def test_highest_score_and_its_slice_as_plain_numbers(scores: Any) -> None:
    result = SummarizeAnomalyd()({"anomaly_score": scores})["result"]
    assert result == {"anomaly_score": 0.875, "slice": 2}
    assert {key: type(value) for key, value in result.items()} == {"anomaly_score": float, "slice": int}
    assert json.loads(json.dumps(result)) == result


@pytest.mark.parametrize("score", [torch.tensor([0.5]), torch.tensor(0.5), 0.5])
def test_frame_has_one_score(score: Any) -> None:
    assert SummarizeAnomalyd()({"anomaly_score": score})["result"] == {"anomaly_score": 0.5, "slice": 0}


def test_item_is_not_changed() -> None:
    scores = torch.tensor(SCORES)
    item: dict[Hashable, Any] = {"anomaly_score": scores, "pred": "mask"}
    output = SummarizeAnomalyd("anomaly_score")(item)
    assert set(item) == {"anomaly_score", "pred"}
    assert output["anomaly_score"] is scores
    assert output["pred"] == "mask"


def test_missing_scores() -> None:
    with pytest.raises(KeyError, match="anomaly_score"):
        SummarizeAnomalyd()({"pred": 0})
    assert SummarizeAnomalyd(allow_missing_keys=True)({"pred": 0}) == {"pred": 0}


def test_aliases() -> None:
    assert SummarizeAnomalyD is SummarizeAnomalyDict is SummarizeAnomalyd
