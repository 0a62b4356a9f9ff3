# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

import pytest
import torch
from monai.data import MetaTensor

from monai_anomalyclip.engines import PrepareAnomalyBatch


def batch() -> dict[str, Any]:
    return {
        "image": MetaTensor(torch.rand(2, 3, 8, 8), meta={"filename_or_obj": "a.png"}),
        "label": MetaTensor(torch.ones(2, 1, 8, 8)),
        "image_label": torch.tensor([0, 1]),
        "has_label": torch.tensor([1, 1]),
        "class": ["a", "b"],
    }


def test_image_and_targets_become_plain_tensors() -> None:
    data = batch()
    inputs, targets, args, kwargs = PrepareAnomalyBatch("logits")(data, device="cpu", non_blocking=True)
    assert type(inputs) is torch.Tensor
    torch.testing.assert_close(inputs, data["image"].as_tensor())
    assert {key: type(value) for key, value in targets.items()} == dict.fromkeys(
        ("image_label", "label", "has_label"), torch.Tensor
    )
    for key, value in targets.items():
        torch.testing.assert_close(value, torch.as_tensor(data[key]).as_subclass(torch.Tensor))
    assert (args, kwargs) == ((), {"output": "logits"})


@pytest.mark.parametrize("with_image", [True, False])
def test_cached_features_come_before_the_image(with_image: bool) -> None:
    data = batch() | {"global_features": torch.rand(2, 4), "patch_features": torch.rand(2, 1, 5, 4)}
    if not with_image:
        del data["image"]
    inputs, _, _, kwargs = PrepareAnomalyBatch("prediction")(data)
    assert isinstance(inputs, dict)
    assert set(inputs) == {"global_features", "patch_features"}
    assert all(inputs[key] is data[key] for key in inputs)
    assert kwargs == {"output": "prediction"}


def test_half_of_the_features_are_not_enough() -> None:
    inputs, *_ = PrepareAnomalyBatch("logits")(batch() | {"global_features": torch.rand(2, 4)})
    assert isinstance(inputs, torch.Tensor)


def test_absent_targets_are_left_out() -> None:
    data = {"image": torch.rand(1, 3, 8, 8), "image_label": torch.tensor([1])}
    assert set(PrepareAnomalyBatch("logits")(data)[1]) == {"image_label"}


def test_tensors_are_moved() -> None:
    inputs, targets, _, _ = PrepareAnomalyBatch("logits")(batch(), device=torch.device("meta"))
    assert isinstance(inputs, torch.Tensor)
    assert inputs.is_meta
    assert all(value.is_meta for value in targets.values())
