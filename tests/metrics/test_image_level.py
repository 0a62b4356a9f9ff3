# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from monai.metrics import AveragePrecisionMetric, ROCAUCMetric
from sklearn.metrics import average_precision_score, roc_auc_score

from monai_anomalyclip.metrics import ImageAPMetric, ImageAUROCMetric

KINDS = [
    (ImageAUROCMetric, roc_auc_score, ROCAUCMetric),
    (ImageAPMetric, average_precision_score, AveragePrecisionMetric),
]


def scores_and_labels(levels: int | None = None, count: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    labels = (torch.rand(count) > 0.6).long()
    scores = torch.rand(count) + 0.3 * labels
    return (scores if levels is None else (scores * levels).round() / levels), labels


@pytest.mark.parametrize(("kind", "oracle", "other"), KINDS)
@pytest.mark.parametrize("levels", [None, 4])
def test_values_of_scikit_learn_and_monai(kind: type, oracle: type, other: type, levels: int | None) -> None:
    scores, labels = scores_and_labels(levels)
    metric, theirs = kind(), other()
    for start in range(0, len(scores), 7):
        metric(y_pred=scores[start : start + 7], y=labels[start : start + 7])
        theirs(y_pred=scores[start : start + 7], y=labels[start : start + 7])
    assert float(metric.aggregate()) == pytest.approx(oracle(labels.numpy(), scores.numpy()), abs=1e-14)
    assert float(metric.aggregate()) == pytest.approx(float(theirs.aggregate()), abs=1e-9)


def test_recorded_values(recorded: dict[str, np.ndarray]) -> None:
    for kind, name in ((ImageAUROCMetric, "image_auroc"), (ImageAPMetric, "image_ap")):
        metric = kind()
        metric(y_pred=torch.tensor(recorded["scores"]), y=torch.tensor(recorded["labels"]))
        assert float(metric.aggregate()) == pytest.approx(float(recorded[name]), abs=1e-9)


@pytest.mark.parametrize("shape", [(), (1,)])
def test_items_of_a_decollated_batch(shape: tuple[int, ...]) -> None:
    scores, labels = scores_and_labels()
    metric = ImageAUROCMetric()
    metric(y_pred=[x.reshape(shape) for x in scores], y=[x.reshape(shape) for x in labels])
    assert float(metric.aggregate()) == pytest.approx(roc_auc_score(labels.numpy(), scores.numpy()), abs=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool, torch.uint8])
def test_kinds_of_labels(dtype: torch.dtype) -> None:
    scores, labels = scores_and_labels()
    metric = ImageAUROCMetric()
    metric(y_pred=scores[:, None], y=labels.to(dtype)[:, None])
    assert float(metric.aggregate()) == pytest.approx(roc_auc_score(labels.numpy(), scores.numpy()), abs=1e-14)


@pytest.mark.parametrize("kind", [ImageAUROCMetric, ImageAPMetric])
@pytest.mark.parametrize("label", [0, 1])
def test_one_class_is_nan_with_one_warning(kind: type, label: int) -> None:
    metric = kind()
    metric(y_pred=torch.rand(3), y=torch.full((3,), label))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert torch.isnan(metric.aggregate())
    assert [str(w.message) for w in caught] == [f"{kind.title} is undefined (NaN): all images are of one class."]  # type: ignore[attr-defined]


def test_score_that_is_not_finite() -> None:
    scores, labels = scores_and_labels()
    scores[3] = torch.nan
    metric = ImageAPMetric()
    metric(y_pred=scores, y=labels)
    with pytest.warns(UserWarning, match="a score is not finite"):
        assert torch.isnan(metric.aggregate())


def test_what_is_given_later_changes_does_not_change_the_metric() -> None:
    scores, labels = scores_and_labels()
    scores = scores.double()
    expected = roc_auc_score(labels.numpy(), scores.numpy())
    metric = ImageAUROCMetric()
    metric(y_pred=scores, y=labels)
    scores.zero_()
    assert float(metric.aggregate()) == pytest.approx(expected, abs=1e-14)


@pytest.mark.parametrize(
    ("scores", "labels", "said"),
    [
        (torch.rand(3), torch.zeros(4), r"got \(3,\) and \(4,\)"),
        (torch.rand(3, 2), torch.zeros(3, 2), r"got \(3, 2\) and \(3, 2\)"),
        (torch.rand(3), None, r"got \(3,\) and None"),
        (torch.rand(3), torch.tensor([0, 1, 2]), r"Labels must be 0 \(normal\) or 1 \(anomalous\), got \[0, 1, 2\]"),
    ],
)
def test_other_inputs_are_refused(scores: torch.Tensor, labels: torch.Tensor | None, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ImageAUROCMetric()(y_pred=scores, y=labels)


def test_nothing_given() -> None:
    with pytest.raises(ValueError, match="No scores have been given"):
        ImageAUROCMetric().aggregate()
