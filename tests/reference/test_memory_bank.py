# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from monai_anomalyclip.reference import MemoryBank, image_score, memory_bank

PATCHES, WIDTH = 7, 5


def random_bank(whole: int = 6, thin: int = 9, scale: float = 1.0) -> MemoryBank:
    generator = torch.Generator().manual_seed(3)
    return MemoryBank(
        torch.randn(whole, PATCHES, WIDTH, generator=generator).half(),
        torch.randn(thin, WIDTH, generator=generator).half(),
        torch.arange(whole) // 2,  # two images of each group
        torch.arange(thin) % 5,
        scale=scale,
    )


def all_patches(bank: MemoryBank) -> tuple[np.ndarray, np.ndarray]:
    """Patches and their groups, for the oracle."""
    patches = torch.cat([bank.whole.reshape(-1, WIDTH), bank.thin]).double().numpy()
    groups = torch.cat([bank.whole_groups.repeat_interleave(PATCHES), bank.thin_groups]).numpy()
    return patches, groups


@pytest.mark.parametrize("block", [8192, 10, 1])
@pytest.mark.parametrize("without", [None, 0, 2, 77])
def test_nearest_agrees_with_scipy(block: int, without: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_bank, "_BLOCK", block)
    bank = random_bank(scale=2.0)
    features = torch.randn(PATCHES, WIDTH).half().float()
    found, back = bank.nearest(features, without)
    patches, groups = all_patches(bank)
    apart = cdist(features.double().numpy(), patches) / 2
    assert found.numpy() == pytest.approx(apart[:, groups != without].min(1), abs=2e-3)
    expected = [cdist(image.double().numpy(), features.double().numpy()).min(1) / 2 for image in bank.whole]
    assert back.numpy() == pytest.approx(np.stack(expected), abs=2e-3)


def test_leave_one_out_leaves_the_whole_group_out() -> None:
    bank = random_bank()
    patches, groups = all_patches(bank)
    expected = [
        cdist(image.double().numpy(), patches[groups != int(group)]).min(1)
        for image, group in zip(bank.whole, bank.whole_groups, strict=True)
    ]
    assert bank.leave_one_out().numpy() == pytest.approx(np.stack(expected), abs=2e-3)


def test_of_one_group_nothing_is_left() -> None:
    bank = random_bank(whole=2, thin=0)
    assert bank.leave_one_out().isinf().all()
    assert bank.nearest(torch.randn(PATCHES, WIDTH), 0)[0].isinf().all()


def test_an_image_of_the_bank_is_at_distance_zero() -> None:
    bank = random_bank()
    assert float(bank.nearest(bank.whole[4].float())[0].max()) < 2e-3


def test_opposite_patches_of_unit_length_are_at_distance_one() -> None:
    patch = torch.nn.functional.normalize(torch.randn(1, 1, 4), dim=-1)
    bank = MemoryBank(patch.half(), patch[0, :0].half(), torch.zeros(1), torch.zeros(0), scale=2.0)
    assert float(bank.nearest(-patch[0])[0]) == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize(("patches", "count"), [(324, 16), (16, 1), (1, 1), (40, 2)])
def test_score_is_the_mean_of_the_largest_twentieth(patches: int, count: int) -> None:
    distances = torch.randperm(patches).float()
    assert float(image_score(distances)) == pytest.approx(np.mean(np.sort(distances.numpy())[-count:]))
    assert image_score(torch.rand(2, 3, patches)).shape == (2, 3)
