# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from monai_anomalyclip.demo.phantoms import (
    FAMILIES,
    INDUSTRIAL_FAMILIES,
    MEDICAL_FAMILIES,
    make_phantom,
    sample_phantom,
)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("size", [48, 112])
def test_shapes_and_types(family: str, size: int) -> None:
    image, mask = make_phantom(family, True, 3, size)
    assert image.shape == (size, size, 3)
    assert image.dtype == np.uint8
    assert mask.shape == (size, size)
    assert mask.dtype == bool
    assert image.std() > 5  # a picture, not a flat field


@pytest.mark.parametrize("family", FAMILIES)
def test_seed_decides_everything(family: str) -> None:
    first, again, other = (sample_phantom(family, True, seed) for seed in (5, 5, 6))
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.mask, again.mask)
    assert not np.array_equal(first.image, other.image)


@pytest.mark.parametrize("family", FAMILIES)
def test_mask_is_exact(family: str) -> None:
    """The anomalous picture is its normal twin outside the mask, and differs from it over most of the mask."""
    for seed in range(12):
        normal, anomalous = sample_phantom(family, False, seed), sample_phantom(family, True, seed)
        assert not normal.mask.any()
        assert not normal.kind
        assert anomalous.kind
        change = np.abs(normal.image.astype(int) - anomalous.image).max(axis=2)
        assert not change[~anomalous.mask].any(), seed
        assert (change[anomalous.mask] > 0).mean() > 0.6, (seed, anomalous.kind)


@pytest.mark.parametrize("family", FAMILIES)
def test_lesions_have_a_visible_size_and_contrast(family: str) -> None:
    for seed in range(40, 60):
        normal, anomalous = sample_phantom(family, False, seed), sample_phantom(family, True, seed)
        share = anomalous.mask.mean()
        assert 0.003 < share < 0.2, (seed, anomalous.kind, share)
        change = np.abs(normal.image.astype(float) - anomalous.image).max(axis=2)[anomalous.mask]
        assert np.percentile(change, 80) > 20, (seed, anomalous.kind)


@pytest.mark.parametrize("family", FAMILIES)
def test_simple_statistics_do_not_tell(family: str) -> None:
    """Brightest pixel, mean and contrast of the whole picture do not separate normal from anomalous scenes."""
    normal = [sample_phantom(family, False, seed).image for seed in range(100, 140)]
    anomalous = [sample_phantom(family, True, seed).image for seed in range(200, 240)]
    truth = [0] * 40 + [1] * 40
    for statistic in (np.max, np.mean, np.std):
        score = roc_auc_score(truth, [float(statistic(image)) for image in normal + anomalous])
        assert 0.1 < score < 0.9, (statistic.__name__, score)


def test_families_differ() -> None:
    """A nearest-mean rule on colours and fine structure tells the families apart far better than chance."""

    def features(image: np.ndarray) -> np.ndarray:
        values = image.astype(float)
        detail = [np.abs(np.diff(values, axis=axis)).mean() for axis in (0, 1)]
        corners = [values[:20, :20].mean(), values[-20:, :20].mean()]
        return np.array([*values.mean(axis=(0, 1)), *values.std(axis=(0, 1)), *detail, *corners])

    table = {f: np.stack([features(make_phantom(f, False, seed)[0]) for seed in range(24)]) for f in FAMILIES}
    scale = np.concatenate(list(table.values())).std(axis=0)
    means = np.stack([table[f][:12].mean(axis=0) for f in FAMILIES]) / scale
    hits = [
        np.argmin(((means - row / scale) ** 2).sum(axis=1)) == index
        for index, f in enumerate(FAMILIES)
        for row in table[f][12:]
    ]
    assert np.mean(hits) > 0.5


def test_domains() -> None:
    assert len(INDUSTRIAL_FAMILIES) >= 5
    assert len(MEDICAL_FAMILIES) == 4
    assert not set(INDUSTRIAL_FAMILIES) & set(MEDICAL_FAMILIES)


def test_picture_looks_alike_at_another_size() -> None:
    """Sizes draw the same normal scene: shrunk by block means, the large picture resembles the small one."""
    for family in ("head_ct", "brain_mr", "chest_xray", "endoscopy"):
        small, large = make_phantom(family, False, 9, 112)[0], make_phantom(family, False, 9, 224)[0]
        shrunk = large.reshape(112, 2, 112, 2, 3).mean(axis=(1, 3))
        assert np.corrcoef(small.ravel(), shrunk.ravel())[0, 1] > 0.9, family


@pytest.mark.parametrize(
    ("family", "seed", "size", "message"),
    [("rock", 0, 112, "rock.*choose one of metal"), ("metal", -1, 112, "at least 0"), ("metal", 0, 16, "32 pixels")],
)
def test_bad_arguments(family: str, seed: int, size: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_phantom(family, True, seed, size)
