# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from monai_anomalyclip.transforms import AnnotationAnswerd
from monai_anomalyclip.transforms.annotation_answer import level_names, level_set_labels

HEAT = torch.linspace(0, 1, 24)


def item(*size: int, channels: int = 1, **meta: Any) -> dict[str, Any]:
    heat = HEAT.reshape(1, *size)
    affine = torch.diag(torch.tensor([2.0, 3.0, 4.0, 1.0], dtype=torch.float64))
    image = MetaTensor(torch.zeros(channels, *size), affine=affine, meta={"spatial_shape": np.array(size), **meta})
    mask = (heat >= 0.5).to(torch.uint8)
    return {"image": image, "anomaly_map": heat, "pred": mask, "result": {"anomaly_score": 1.0}, "image_path": "x"}


def test_items_of_a_bundle_run_stay_as_they_are() -> None:
    given = item(4, 6)
    del given["image_path"]
    answer = AnnotationAnswerd(display="heat map")(given)
    assert answer["pred"] is given["pred"]
    assert answer["result"] == {"anomaly_score": 1.0}


def test_levels_count_the_steps_that_the_map_reaches() -> None:
    shown = AnnotationAnswerd(display="levels", levels=(0.25, 0.5, 0.9))(item(2, 3, 4))["pred"]
    expected = np.digitize(HEAT.numpy(), [0.25, 0.5, 0.9]).reshape(1, 2, 3, 4)
    assert shown.dtype == torch.uint8
    np.testing.assert_array_equal(shown.numpy(), expected)


def test_volume_keeps_axes_and_affine() -> None:
    given = item(2, 3, 4)
    answer = AnnotationAnswerd(display=["heat map", "mask"])(given)
    np.testing.assert_array_equal(answer["pred"].numpy(), given["anomaly_map"].numpy())
    assert answer["pred"].dtype == torch.float32
    torch.testing.assert_close(answer["pred"].affine, given["image"].affine)


def test_picture_comes_width_first_and_in_whole_numbers() -> None:
    given = item(4, 6, channels=3)
    answer = AnnotationAnswerd(display="heat map")(given)
    np.testing.assert_array_equal(answer["pred"][0].numpy().T, np.rint(255 * HEAT.numpy()).reshape(4, 6))
    assert list(answer["image"].meta["spatial_shape"]) == [6, 4]
    assert list(given["image"].meta["spatial_shape"]) == [4, 6]  # not changed in place


def test_dicom_picture_becomes_a_volume_of_one_slice() -> None:
    answer = AnnotationAnswerd()(item(4, 6, native_slices=1))
    assert answer["pred"].shape == (1, 6, 4, 1)
    assert list(answer["image"].meta["spatial_shape"]) == [6, 4, 1]
    np.testing.assert_array_equal(np.diag(answer["pred"].affine), [-1, -1, 1, 1])


def test_result_names_display_and_purpose() -> None:
    result = AnnotationAnswerd(display="levels")(item(4, 6))["result"]
    assert result["anomaly_score"] == 1.0
    assert result["display"] == "levels"
    assert "Research use only" in result["note"]


@pytest.mark.parametrize(
    "options",
    [
        {"display": "rainbow"},
        {"display": []},
        {"levels": []},
        {"levels": [0.5, 0.5]},
        {"levels": [0.0, 0.5]},
        {"levels": [2.0]},
    ],
    ids=str,
)
def test_bad_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        AnnotationAnswerd(**options)


def test_counts_the_levels_that_are_reached() -> None:
    values = torch.tensor([[0.0, 0.49, 0.5, 0.74, 0.75, 0.89, 0.9, 1.0]])
    affine = torch.diag(torch.tensor([2.0, 3.0, 1.0, 1.0], dtype=torch.float64))
    labels = level_set_labels(MetaTensor(values, affine=affine))
    assert isinstance(labels, MetaTensor)
    assert labels.dtype == torch.uint8
    assert labels.tolist() == [[0, 0, 1, 1, 2, 2, 3, 3]]
    torch.testing.assert_close(labels.affine, affine)


def test_other_levels_and_arrays() -> None:
    labels = level_set_labels(np.array([0.1, 0.3, 0.95]), [0.2, 0.95])
    assert isinstance(labels, np.ndarray)
    assert labels.tolist() == [0, 1, 2]
    assert level_names([0.2, 0.95]) == {"anomaly_0.20": 1, "anomaly_0.95": 2}
    assert level_names() == {"anomaly_0.50": 1, "anomaly_0.75": 2, "anomaly_0.90": 3}


def test_nan_is_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        level_set_labels(torch.tensor([0.1, float("nan")]))


@pytest.mark.parametrize("levels", [[], [0.5, 0.5], [0.9, 0.5], [0.0], [1.1], [0.501]])
def test_levels_must_ascend_and_have_names(levels: list[float]) -> None:
    with pytest.raises(ValueError, match="ascending numbers"):
        level_set_labels(torch.zeros(1), levels)
