# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data.meta_tensor import MetaTensor

from monai_anomalyclip.label.labelled_slices import labelled_slices, representative_slices


def test_a_picture_is_one_slice() -> None:
    image, label = MetaTensor(torch.rand(3, 5, 7)), torch.ones(1, 5, 7)
    slices, masks = labelled_slices(image, label)
    assert slices.shape == (1, 3, 5, 7)
    assert torch.equal(masks[0], label)


@pytest.mark.parametrize("native", [False, True])
def test_slices_and_masks_belong_together(native: bool) -> None:
    image = MetaTensor(torch.rand(1, 6, 8, 4), affine=np.diag([1.0, 1.0, 5.0, 1.0]), meta={"native_slices": native})
    slices, masks = labelled_slices(image, image.as_tensor() > 0.5)
    assert torch.equal(slices > 0.5, masks)
    assert len(slices) == 4


def test_the_axis_can_be_chosen() -> None:
    image = MetaTensor(torch.rand(1, 6, 8, 4), affine=np.eye(4))
    assert len(labelled_slices(image, image.as_tensor(), 1)[0]) == 8


@pytest.mark.parametrize(
    ("marked", "expected"),
    [
        ({3, 4}, [0, 3, 4, 9]),
        (set(), [0, 3, 6, 9]),
        (set(range(10)), [0, 3, 6, 9]),
        ({0, 1, 2, 3, 4, 5, 6, 7, 8}, [0, 3, 5, 8, 9]),
    ],
)
def test_normal_slices_do_not_outnumber_the_others(marked: set[int], expected: list[int]) -> None:
    masks = torch.zeros(10, 1, 2, 2)
    masks[sorted(marked), 0, 1, 0] = 1
    assert representative_slices(masks, 4).tolist() == expected
