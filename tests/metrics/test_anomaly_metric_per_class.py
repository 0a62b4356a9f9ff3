# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import warnings
from types import ModuleType

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from monai_anomalyclip.metrics import AUPROMetric, ImageAUROCMetric, PerClassMetric, PixelAUROCMetric


def test_mean_over_classes(brute: ModuleType) -> None:
    maps, masks = (torch.tensor(array) for array in brute.random_maps(count=12))
    classes = [["bottle", "cable", "pill"][index % 3 if index % 6 else 0] for index in range(12)]
    for metric, oracle in (
        (PixelAUROCMetric(), lambda y, x: roc_auc_score(y.ravel(), x.ravel())),
        (AUPROMetric(), lambda y, x: brute.aupro(x, y)),
    ):
        per_class = PerClassMetric(metric)
        per_class(maps[:5], masks[:5], classes[:5])
        per_class(list(maps[5:]), list(masks[5:]), classes[5:])
        expected = {}
        for name in ("bottle", "cable"):
            own = [index for index, other in enumerate(classes) if other == name]
            expected[name] = oracle(masks[own].numpy(), maps[own].numpy())
        with pytest.warns(UserWarning, match=r"for 1 of 3 classes, which the mean leaves out: pill \("):
            mean = float(per_class.aggregate())  # every third mask is empty
        assert mean == pytest.approx(np.mean(list(expected.values())), abs=1e-12)
        details = dict(per_class.details())
        assert list(details) == ["bottle", "cable", "pill"]
        assert np.isnan(details.pop("pill"))
        assert details == pytest.approx(expected, abs=1e-12)


def test_all_classes_undefined() -> None:
    metric = PerClassMetric(ImageAUROCMetric())
    metric(torch.rand(4), torch.tensor([0, 0, 1, 1]), ["a", "a", "b", "b"])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert torch.isnan(metric.aggregate())
    assert [str(warning.message) for warning in caught] == [
        "Image AUROC is undefined (NaN) for 2 of 2 classes, which the mean leaves out: "
        "a (all images are of one class), b (all images are of one class)."
    ]


def test_reset_forgets_classes() -> None:
    metric = PerClassMetric(ImageAUROCMetric())
    metric(torch.tensor([0.1, 0.9]), torch.tensor([1, 0]), ["old", "old"])
    assert float(metric.aggregate()) == 0
    metric.reset()
    metric(torch.tensor([0.1, 0.9]), torch.tensor([0, 1]), ["new", "new"])
    assert float(metric.aggregate()) == 1
    assert dict(metric.details()) == {"new": 1.0}


def test_what_does_not_fit() -> None:
    metric = PerClassMetric(ImageAUROCMetric())
    with pytest.raises(ValueError, match="No items have been given"):
        metric.aggregate()
    with pytest.raises(ValueError, match="2 predictions, 2 targets and 1 classes"):
        metric(torch.rand(2), torch.zeros(2), ["a"])
