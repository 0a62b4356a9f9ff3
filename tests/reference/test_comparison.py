# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import binom

from monai_anomalyclip.reference.bank_growth import bank_of
from monai_anomalyclip.reference.comparison import Comparison, compare, notes_on, volume_p_value
from monai_anomalyclip.reference.conformal import ConformalScores
from monai_anomalyclip.reference.encoders import EncoderIdentity, PatchEncoder
from monai_anomalyclip.reference.normal_facts import Framing, NormalFacts
from monai_anomalyclip.reference.reference_file import ReferenceContent

TRIALS = 2000
IDENTITY = EncoderIdentity("none", {}, "")
SETTINGS = {"preset": "", "alike": [], "seed": 0, "capacity": 192, "coreset": False}


def facts(name: int, size: tuple[int, int] = (100, 80), brightness: float = 0.5) -> NormalFacts:
    key = name.to_bytes(32, "big")
    return NormalFacts(key, key, size, brightness, torch.zeros(256, dtype=torch.uint8))


def reference_of(features: torch.Tensor) -> ReferenceContent:
    """A reference of images (k, patches, width)."""
    count = len(features)
    everything = [facts(index) for index in range(count)]
    return ReferenceContent(IDENTITY, SETTINGS, b"", everything, list(features.half()), tuple(range(count)))


@pytest.mark.parametrize(("k", "rate"), [(9, 0.1), (19, 0.05)])
def test_false_positives_of_the_whole_method_are_the_nominal_share(k: int, rate: float) -> None:
    """2,000 references of exchangeable images: the number flagged is binomial with share floor(rate (k + 1)) / (k + 1).

    With the normals' scores found without the image's help, as many methods do, it would be less: the image has one
    neighbour more than they.
    """
    generator = torch.Generator().manual_seed(k)
    encoder = PatchEncoder(lambda images: [images], "none", image_size=32, n_stages=1, grid=4)
    flagged = 0
    for _ in range(TRIALS):
        images = torch.randn(k + 1, 16, 3, generator=generator)
        content = reference_of(images[:k])
        bank = bank_of(content, encoder)
        content.leave_one_out = bank.leave_one_out()
        found = compare(content, bank, images[k], facts(k), Framing(0, 8, 0, 8), (8, 8))
        flagged += found.calibration.flags(found.score, rate)
    share = np.floor(rate * (k + 1) + 1e-9) / (k + 1)
    low, high = binom.ppf([0.0005, 0.9995], TRIALS, share)
    assert low <= flagged <= high


def test_as_json_values() -> None:
    content = reference_of(torch.rand(5, 16, 3))
    encoder = PatchEncoder(lambda images: [images], "none", image_size=32, n_stages=1, grid=4)
    bank = bank_of(content, encoder)
    content.leave_one_out = bank.leave_one_out()
    found = compare(content, bank, 3 + torch.rand(16, 3), facts(9), Framing(2, 8, 0, 8), (8, 8))
    told = json.loads(json.dumps(found.as_dict()))
    assert told["p_value"] == told["smallest_p"] == pytest.approx(1 / 6)
    assert told["k"] == 5
    assert set(told["doubts"]) == {"out_of_reference", "few_normals", "floor"}
    assert "5 allow" in told["says"]
    assert float(found.anomaly_map[0, :2].max()) == 0
    assert float(found.anomaly_map[0, 2:].min()) > 0


def test_a_volume_is_compared_by_its_farthest_slice() -> None:
    """Farthest slices of the four normal volumes: 3, 5, 7, 9; that of the volume: 6."""
    calibration = ConformalScores([1, 3, 5, 2, 7, 7, 9, 0], ["a", "a", "b", "b", "c", "c", "d", "d"])
    empty = torch.zeros(1, 1)
    volumes = calibration.largest_of_each()
    slices = [Comparison(score, empty, empty[None], calibration, None, {}, volumes) for score in (2.0, 6.0, 4.0)]
    assert volume_p_value(slices) == pytest.approx((1 + 2) / 5)
    assert volume_p_value([replace(one, volumes=None) for one in slices]) is None
    with pytest.raises(ValueError, match="without slices"):
        volume_p_value([])


@pytest.mark.parametrize(("side", "said"), [(141, False), (142, True)])
def test_normals_of_two_sizes(side: int, said: bool) -> None:
    """100 x 100 and 141 x 141 differ by less than a factor of two, 100 x 100 and 142 x 142 by more."""
    content = reference_of(torch.rand(2, 16, 3))
    content.facts[:] = [facts(0, (100, 100)), facts(1, (side, side))]
    assert any("sizes differ by more than a factor of two" in note for note in notes_on(content)) is said
