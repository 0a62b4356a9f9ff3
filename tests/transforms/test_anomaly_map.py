# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from PIL import Image
from scipy.ndimage import gaussian_filter

from monai_anomalyclip.transforms import (
    ResizeAnomalyMap,
    ResizeAnomalyMapd,
    ResizeAnomalyMapDict,
    SmoothAnomalyMap,
    SmoothAnomalyMapd,
    SmoothAnomalyMapDict,
    ThresholdAnomalyMap,
    ThresholdAnomalyMapd,
    ThresholdAnomalyMapDict,
    resize_anomaly_map,
    smooth_anomaly_map,
)


def random_maps(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)


def test_reproduces_the_published_smoothing(reference: dict[str, np.ndarray]) -> None:
    smoothed = smooth_anomaly_map(torch.from_numpy(reference["anomaly_map_raw"])[:, None], sigma=4)
    np.testing.assert_allclose(smoothed[:, 0], reference["anomaly_map"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sigma", [0.3, 1.0, 4.0, 7.5])
@pytest.mark.parametrize("size", [(84, 61), (518, 37), (9, 130), (5, 3), (1, 40), (1, 1)])
def test_equals_scipy(size: tuple[int, int], sigma: float, dtype: torch.dtype) -> None:
    maps = random_maps(2, 1, *size, dtype=dtype)
    smoothed = smooth_anomaly_map(maps, sigma)
    assert smoothed.dtype == dtype
    for given, result in zip(maps, smoothed, strict=True):
        expected = gaussian_filter(given[0].double().numpy(), sigma=sigma, mode="reflect", truncate=4)
        np.testing.assert_allclose(result[0], expected, rtol=0, atol=1e-6 if dtype == torch.float32 else 1e-14)


def test_autocast_does_not_round_the_smoothing() -> None:
    maps = random_maps(1, 1, 40, 40)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        smoothed = smooth_anomaly_map(maps)
    np.testing.assert_allclose(smoothed[0, 0], gaussian_filter(maps[0, 0].numpy(), 4), atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_maps_are_smoothed_in_float32(dtype: torch.dtype) -> None:
    maps = random_maps(1, 1, 40, 40, dtype=dtype)
    smoothed = smooth_anomaly_map(maps)
    assert smoothed.dtype == torch.float32
    np.testing.assert_allclose(smoothed[0, 0], gaussian_filter(maps[0, 0].float().numpy(), 4), atol=1e-6)


def test_gpu_equals_scipy(accelerator: str) -> None:
    maps = random_maps(2, 1, 518, 518)
    smoothed = smooth_anomaly_map(maps.to(accelerator))
    assert smoothed.device.type == accelerator
    np.testing.assert_allclose(smoothed[1, 0].cpu(), gaussian_filter(maps[1, 0].numpy(), 4), atol=1e-6)


def test_sigma_zero_changes_nothing() -> None:
    maps = random_maps(2, 1, 8, 8)
    torch.testing.assert_close(smooth_anomaly_map(maps, 0.0), maps, rtol=0, atol=0)


@pytest.mark.parametrize("shape", [(8, 8), (1, 8, 8), (2, 2, 8, 8), (1, 4, 8, 8), (1, 1, 4, 8, 8), (1, 1, 0, 8)])
def test_smoothing_refuses_other_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"\(B, 1, H, W\), got"):
        smooth_anomaly_map(torch.zeros(shape))


@pytest.mark.parametrize("sigma", [-1.0, float("nan"), float("inf")])
def test_wrong_sigma_is_refused(sigma: float) -> None:
    for call in (SmoothAnomalyMap, lambda value: smooth_anomaly_map(torch.zeros(1, 1, 8, 8), value)):
        with pytest.raises(ValueError, match="sigma must be"):
            call(sigma)


def test_smoothing_of_items_keeps_container_and_metadata() -> None:
    maps = random_maps(2, 1, 20, 20)
    expected = np.stack([gaussian_filter(m.numpy(), (0, 2, 2)) for m in maps])
    smooth = SmoothAnomalyMap(2)
    np.testing.assert_allclose(smooth(maps), expected, atol=1e-6)
    from_numpy = smooth(maps[0].numpy())
    assert isinstance(from_numpy, np.ndarray)
    np.testing.assert_allclose(from_numpy, expected[0], atol=1e-6)
    from_meta = smooth(MetaTensor(maps[1], affine=torch.diag(torch.tensor([2.0, 3, 4, 1]))))
    assert isinstance(from_meta, MetaTensor)
    assert from_meta.affine.diagonal().tolist() == [2, 3, 4, 1]
    np.testing.assert_allclose(from_meta, expected[1], atol=1e-6)
    for shape in ((8, 8), (3, 8, 8)):
        with pytest.raises(ValueError, match="got shape"):
            smooth(torch.zeros(shape))


@pytest.mark.parametrize("size", [(150, 200), (30, 41), (84, 21), (200, 20)])
def test_resize_equals_pil(size: tuple[int, int]) -> None:
    maps = random_maps(2, 1, 84, 84)
    resized = ResizeAnomalyMap(size)(maps)
    assert resized.shape == (2, 1, *size)
    for given, result in zip(maps, resized, strict=True):
        # PIL's bilinear filter on float images is half-pixel centred and antialiased where it shrinks.
        expected = Image.fromarray(given[0].numpy()).resize(size[::-1], Image.Resampling.BILINEAR)
        np.testing.assert_allclose(result[0], np.asarray(expected), atol=1e-5)


def test_resize_of_metatensor_moves_the_affine_along() -> None:
    image = MetaTensor(torch.rand(1, 10, 20), affine=torch.diag(torch.tensor([2.0, 3, 1, 1])))
    resized = ResizeAnomalyMap((20, 20))(image)
    assert isinstance(resized, MetaTensor)
    torch.testing.assert_close(resized.affine[:2, :2].diagonal().tolist(), [1.0, 3.0])
    torch.testing.assert_close(resized.affine[:2, 3].tolist(), [-0.5, 0.0])


def test_resize_like_the_native_picture() -> None:
    assert ResizeAnomalyMapDict is ResizeAnomalyMapd
    item = {"anomaly_map": random_maps(1, 8, 8), "image": torch.zeros(3, 31, 17)}
    result = ResizeAnomalyMapd("anomaly_map", like="image")(item)
    assert result["anomaly_map"].shape == (1, 31, 17)
    assert ResizeAnomalyMapd("anomaly_map", spatial_size=(5, 6))(item)["anomaly_map"].shape == (1, 5, 6)
    for wrong in ({}, {"spatial_size": 5, "like": "image"}):
        with pytest.raises(ValueError, match="either spatial_size or like"):
            ResizeAnomalyMapd("anomaly_map", **wrong)


@pytest.mark.parametrize("threshold", [0.5, [0.5], (0.5,), np.float32(0.5)])
def test_threshold_includes_its_own_value(threshold: object) -> None:
    maps = torch.tensor([[[0.0, 0.49999, 0.5, 1.0]]])
    for given in (maps, maps.numpy(), MetaTensor(maps), maps.double(), maps.double().numpy()):
        mask = ThresholdAnomalyMap(threshold)(given)
        assert type(mask) is type(given)
        assert np.asarray(mask).dtype == np.uint8
        assert np.asarray(mask).tolist() == [[[0, 0, 1, 1]]]


@pytest.mark.parametrize("threshold", [-0.1, 1.5, float("nan"), [], [0.2, 0.3], "0.5", None, True])
def test_wrong_thresholds_are_refused(threshold: object) -> None:
    with pytest.raises(ValueError, match="threshold must be one number"):
        ThresholdAnomalyMap(threshold)


def test_threshold_refuses_nan() -> None:
    with pytest.raises(ValueError, match="NaN"):
        ThresholdAnomalyMap()(torch.tensor([[[0.2, float("nan")]]]))


def test_threshold_writes_to_another_key() -> None:
    assert ThresholdAnomalyMapDict is ThresholdAnomalyMapd
    item = {"anomaly_map": torch.tensor([[[0.2, 0.8]]])}
    result = ThresholdAnomalyMapd("anomaly_map", 0.3, output_keys="pred")(item)
    assert result["pred"].tolist() == [[[0, 1]]]
    assert result["anomaly_map"] is item["anomaly_map"]
    assert ThresholdAnomalyMapd("anomaly_map", 0.3)(item)["anomaly_map"].tolist() == [[[0, 1]]]
    assert ThresholdAnomalyMapd("absent", allow_missing_keys=True, output_keys="pred")(item) == item
    with pytest.raises(ValueError, match="length"):
        ThresholdAnomalyMapd("anomaly_map", output_keys=["a", "b"])


def test_smooth_dictionary_form() -> None:
    assert SmoothAnomalyMapDict is SmoothAnomalyMapd
    item = {"anomaly_map": random_maps(1, 20, 20), "other": 1}
    result = SmoothAnomalyMapd("anomaly_map", sigma=3)(item)
    np.testing.assert_allclose(result["anomaly_map"][0], gaussian_filter(item["anomaly_map"][0].numpy(), 3), atol=1e-6)
    assert result["other"] == 1


@pytest.mark.parametrize("size", [(36, 40), (25, 31), (300, 500), (1, 1), (518, 513)])
@pytest.mark.parametrize("sigma", [0.0, 1.0, 4.0])
def test_no_rounding_leads_out_of_the_values_given(size: tuple[int, int], sigma: float) -> None:
    """A map that is 1 in places, as a sure network's is, must not rise above it: writers refuse such a map."""
    maps = (random_maps(2, 1, 96, 64) > 0.2).float()
    maps[1] = 1
    found = resize_anomaly_map(smooth_anomaly_map(maps, sigma), size)
    assert found.min() >= 0
    assert found.max() <= 1
    assert (found[1] == 1).all()
