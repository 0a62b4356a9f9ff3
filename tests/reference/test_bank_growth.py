# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from monai_anomalyclip.reference.bank_growth import farthest_first, how_many_to_keep, random_order


def digests(count: int) -> list[bytes]:
    return [index.to_bytes(32, "big") for index in range(count)]


def test_while_they_fit_all_are_whole() -> None:
    kept = how_many_to_keep(digests(60), digests(60), 10, 60, 0)
    assert kept.whole == tuple(range(60))
    assert kept.patches == (10,) * 60


@pytest.mark.parametrize("count", [61, 70, 200, 500, 5000])
def test_never_more_than_the_capacity(count: int) -> None:
    kept = how_many_to_keep(digests(count), digests(count), 10, 60, 0)
    assert len(kept.whole) == 40
    assert sum(kept.patches) <= 60 * 10
    assert all(kept.patches[index] == 10 for index in kept.whole)
    if count <= 240:  # 200 patches for the others
        assert min(kept.patches) >= 1


def test_what_more_images_keep_is_a_part_of_what_fewer_kept() -> None:
    names = digests(700)
    groups = [bytes([index % 9]) for index in range(700)]
    before = how_many_to_keep(names[:61], groups[:61], 10, 60, 5)
    for count in range(62, 700, 7):
        after = how_many_to_keep(names[:count], groups[:count], 10, 60, 5)
        assert all(new <= old for old, new in zip(before.patches, after.patches, strict=False))
        assert {index for index in after.whole if index < len(before.patches)} <= set(before.whole)
        before = after


def test_the_order_in_which_images_come_does_not_matter() -> None:
    names = digests(300)
    order = np.random.default_rng(0).permutation(300)
    straight = how_many_to_keep(names, names, 10, 60, 1)
    shuffled = how_many_to_keep([names[i] for i in order], [names[i] for i in order], 10, 60, 1)
    assert {names[order[index]] for index in shuffled.whole} == {names[index] for index in straight.whole}
    assert how_many_to_keep(names, names, 10, 60, 2).whole != straight.whole


def test_each_patient_has_a_turn_before_any_has_a_second() -> None:
    groups = [b"many"] * 500 + [bytes([index]) for index in range(30)]
    kept = how_many_to_keep(digests(530), groups, 10, 60, 0)
    assert len({groups[index] for index in kept.whole}) == 31
    assert sum(groups[index] == b"many" for index in kept.whole) == 10


def test_random_order_is_that_of_image_and_seed() -> None:
    first = random_order(50, b"a", 0)
    assert sorted(first.tolist()) == list(range(50))
    assert torch.equal(first, random_order(50, b"a", 0))
    assert not torch.equal(first, random_order(50, b"b", 0))
    assert not torch.equal(first, random_order(50, b"a", 1))


def test_farthest_first_chooses_the_farthest_each_time() -> None:
    features = torch.randn(30, 3, generator=torch.Generator().manual_seed(0))
    order = farthest_first(features, b"a", 0).tolist()
    assert sorted(order) == list(range(30))
    apart = cdist(features.numpy(), features.numpy())
    for place in range(1, 30):
        nearest = apart[:, order[:place]].min(1)
        assert nearest[order[place]] == pytest.approx(nearest[[i for i in range(30) if i not in order[:place]]].max())


def test_farthest_first_of_equal_patches_names_each_once() -> None:
    assert sorted(farthest_first(torch.ones(6, 2), b"a", 0).tolist()) == list(range(6))
