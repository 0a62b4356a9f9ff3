# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from monai_anomalyclip.transforms import ScaleIntensityForCLIP, ScaleIntensityForCLIPd, ScaleIntensityForCLIPDict


def head(seed: int = 0, shape: tuple[int, ...] = (1, 20, 24, 10)) -> np.ndarray:
    """A volume with a background of -1000 around bright, noisy foreground."""
    rng = np.random.default_rng(seed)
    volume = np.full(shape, -1000, dtype=np.float32)
    volume[:, 4:16, 5:20, 2:8] = rng.normal(300, 80, volume[:, 4:16, 5:20, 2:8].shape)
    return volume


@pytest.mark.parametrize(("dtype", "scale"), [(np.uint8, 255), (np.uint16, 65535)])
def test_pictures_are_divided_by_full_scale(dtype: type, scale: int) -> None:
    picture = np.random.default_rng(0).integers(0, scale // 2, (3, 8, 9)).astype(dtype)
    result = ScaleIntensityForCLIP()(picture)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, picture / scale, atol=1e-7)
    from_meta = ScaleIntensityForCLIP()(MetaTensor(torch.from_numpy(picture)))
    np.testing.assert_allclose(from_meta, picture / scale, atol=1e-7)


@pytest.mark.parametrize(("lower", "upper"), [(0.5, 99.5), (0, 100), (10, 60)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16])
def test_volumes_are_clipped_to_foreground_percentiles(lower: float, upper: float, dtype: type) -> None:
    volume = head().astype(dtype)
    low, high = np.percentile(volume[volume > volume.min()].astype(np.float64), [lower, upper])
    expected = np.clip((volume - low) / (high - low), 0, 1)
    result = ScaleIntensityForCLIP(lower, upper)(volume)
    np.testing.assert_allclose(result, expected, atol=1e-5)
    assert result[0, 0, 0, 0] == 0
    assert result.max() == 1


def test_volumes_beyond_the_limit_of_torch_quantile() -> None:
    volume = torch.arange(1, 17_000_001, dtype=torch.float32).reshape(1, 100, 100, 1700).flip(1)
    result = ScaleIntensityForCLIP(25, 75)(volume)
    expected = ((volume.double() - 4_250_001) / 8_500_000).clamp(0, 1)
    torch.testing.assert_close(result.double(), expected, rtol=0, atol=1e-5)


def test_metatensor_stays_in_its_place() -> None:
    affine = torch.tensor([[-2.0, 0, 0, 9], [0, 1, 0, 8], [0, 0, 5, 7], [0, 0, 0, 1]], dtype=torch.float64)
    volume = MetaTensor(torch.from_numpy(head()), affine=affine, meta={"filename_or_obj": "a.nii"})
    result = ScaleIntensityForCLIP()(volume)
    assert isinstance(result, MetaTensor)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result.affine, affine)
    assert result.meta["filename_or_obj"] == "a.nii"
    frame = ScaleIntensityForCLIP()(MetaTensor(torch.full((3, 4, 4), 51, dtype=torch.uint8)))
    torch.testing.assert_close(frame.as_tensor(), torch.full((3, 4, 4), 0.2))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_voxels_become_background(bad: float) -> None:
    volume = head()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        expected = ScaleIntensityForCLIP()(volume.copy())
    hole = (0, slice(0, 4), slice(0, 3), 0)  # background: the foreground's percentiles stay
    volume[hole] = bad
    with pytest.warns(UserWarning, match=r"0\.25% of the voxels") as caught:
        result = ScaleIntensityForCLIP()(volume)
    assert len(caught) == 1
    np.testing.assert_allclose(result, expected, atol=1e-6)
    inside = head()
    inside[0, 8, 8, 4] = bad
    with pytest.warns(UserWarning, match="NaN or infinite"):
        assert ScaleIntensityForCLIP()(inside)[0, 8, 8, 4] == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nothing_finite_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="All voxels"):
        ScaleIntensityForCLIP()(np.full((1, 4, 4, 4), bad))


@pytest.mark.parametrize("value", [-1000.0, 0.0, 7.0])
def test_constant_volume_becomes_zeros_with_one_warning(value: float) -> None:
    with pytest.warns(UserWarning, match="constant") as caught:
        result = ScaleIntensityForCLIP()(np.full((1, 4, 4, 4), value, dtype=np.float32))
    assert len(caught) == 1
    np.testing.assert_array_equal(result, np.zeros((1, 4, 4, 4)))


def test_foreground_of_one_value_is_white() -> None:
    volume = np.zeros((1, 4, 4, 4), dtype=np.float32)
    volume[0, 1] = 40
    np.testing.assert_array_equal(ScaleIntensityForCLIP()(volume), volume / 40)


@pytest.mark.parametrize(("lower", "upper"), [(-1, 99), (50, 50), (99, 1), (0, 101), (float("nan"), 99)])
def test_wrong_percentiles_are_refused(lower: float, upper: float) -> None:
    with pytest.raises(ValueError, match="Percentiles"):
        ScaleIntensityForCLIP(lower, upper)


@pytest.mark.parametrize("image", [np.zeros((1, 0, 4)), np.zeros((1, 4, 4), dtype=np.complex64)])
def test_images_without_a_meaning_are_refused(image: np.ndarray) -> None:
    with pytest.raises(ValueError, match="Only images of real numbers"):
        ScaleIntensityForCLIP()(image)


def test_dictionary_form() -> None:
    assert ScaleIntensityForCLIPDict is ScaleIntensityForCLIPd
    item = {"image": head(), "label": 3}
    result = ScaleIntensityForCLIPd("image", 5, 95)(item)
    np.testing.assert_array_equal(result["image"], ScaleIntensityForCLIP(5, 95)(item["image"]))
    assert result["label"] == 3
    assert item["image"].min() == -1000
    assert ScaleIntensityForCLIPd("absent", allow_missing_keys=True)({"a": 1}) == {"a": 1}


def test_windows_for_raw_volumes() -> None:
    volume = np.linspace(-1200, 1200, 240, dtype=np.float32).reshape(1, 4, 6, 10)
    # PS3.3 C.11.2.1.2.1 for width 400 and level 40: 0 at -160, 1 at 239
    expected = np.clip((volume + 160) / 399, 0, 1)
    for image in (volume, volume.astype(np.float64), MetaTensor(torch.from_numpy(volume))):
        result = ScaleIntensityForCLIP(preset="ct-soft")(image)
        np.testing.assert_allclose(result, expected, atol=1e-6)
    holed = volume.copy()
    holed[0, 0, 0, 0] = np.nan
    with pytest.warns(UserWarning, match="NaN or infinite"):
        np.testing.assert_allclose(ScaleIntensityForCLIP(preset="ct-soft")(holed), expected, atol=1e-6)
    assert volume.min() == -1200
    constant = np.full((1, 4, 4, 4), 239, dtype=np.float32)
    np.testing.assert_allclose(ScaleIntensityForCLIP(preset="ct-soft")(constant), 1)


def test_presets_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="no intensity preset 'brain': choose one of auto, ct-brain"):
        ScaleIntensityForCLIP(preset="brain")
    with pytest.raises(ValueError, match="needs a usable window"):
        ScaleIntensityForCLIP(preset="dicom")(head())
    picture = MetaTensor(torch.full((3, 4, 4), 51, dtype=torch.uint8))
    with pytest.warns(UserWarning, match="does not apply to pictures"):
        result = ScaleIntensityForCLIP(preset="ct-brain")(picture)
    np.testing.assert_allclose(result, 0.2, atol=1e-7)
    np.testing.assert_array_equal(
        ScaleIntensityForCLIP(preset="percentile")(head()), ScaleIntensityForCLIP(preset="auto")(head())
    )


def test_what_was_done_is_recorded() -> None:
    source = MetaTensor(torch.from_numpy(head()), meta={"kind": "volume"})
    record = json.loads(ScaleIntensityForCLIPd("image")({"image": source})["image"].meta["intensity"])
    foreground = head()[head() > -1000].astype(np.float64)
    assert record["preset"] == "percentile"
    np.testing.assert_allclose([record["low"], record["high"]], np.percentile(foreground, [0.5, 99.5]), rtol=1e-5)
    assert "intensity" not in source.meta

    window = ScaleIntensityForCLIPd("image", preset="ct-brain")({"image": source})["image"]
    record = json.loads(window.meta["intensity"])
    assert [record[key] for key in ("preset", "width", "level", "low", "high")] == ["ct-brain", 80, 40, 0, 79]
    assert window.meta["kind"] == "volume"

    picture = ScaleIntensityForCLIP()(MetaTensor(torch.zeros(3, 4, 4, dtype=torch.uint8)))
    record = json.loads(picture.meta["intensity"])
    assert [record[key] for key in ("preset", "low", "high")] == ["none", 0, 255]
    with pytest.warns(UserWarning, match="constant"):
        flat = ScaleIntensityForCLIP()(MetaTensor(torch.full((1, 4, 4, 4), 3.0)))
    assert "constant" in json.loads(flat.meta["intensity"])["warnings"][0]


def test_scaled_images_pass_through() -> None:
    record = json.dumps({"preset": "ct-brain", "low": 0, "high": 79})
    scaled = MetaTensor(torch.rand(1, 4, 5, 6), meta={"intensity": record})
    result = ScaleIntensityForCLIP()(scaled)
    torch.testing.assert_close(result.as_tensor(), scaled.as_tensor(), rtol=0, atol=0)
    assert result.meta["intensity"] == record
    colour = MetaTensor(torch.full((3, 4, 4), 51, dtype=torch.uint8), meta={"intensity": '{"preset": "none"}'})
    with pytest.warns(UserWarning, match="preset ct-soft does not apply to pictures"):
        result = ScaleIntensityForCLIP(preset="ct-soft")(colour)
    np.testing.assert_allclose(result, 0.2, atol=1e-7)
    np.testing.assert_array_equal(ScaleIntensityForCLIP()(result), result)
    assert ScaleIntensityForCLIP(preset="ct-brain")(scaled).meta["intensity"] == record
    with pytest.raises(
        ValueError, match=r"scaled already, by the preset ct-brain: ct-soft can no longer be applied.*'ct-soft'"
    ):
        ScaleIntensityForCLIP(preset="ct-soft")(scaled)
    with pytest.raises(ValueError, match=r"scaled already: the percentiles 5 and 95 can no longer be applied"):
        ScaleIntensityForCLIP(5, 95)(scaled)
    once = ScaleIntensityForCLIP()(MetaTensor(torch.from_numpy(head())))
    np.testing.assert_array_equal(ScaleIntensityForCLIP()(once), once)


def test_records_that_are_not_true() -> None:
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\], got \[5, 5\]"):
        ScaleIntensityForCLIP()(MetaTensor(torch.full((1, 4, 4), 5.0), meta={"intensity": '{"preset": "dicom"}'}))
    with pytest.raises(ValueError, match="no record of a scaling: 'bright'"):
        ScaleIntensityForCLIP()(MetaTensor(torch.rand(1, 4, 4), meta={"intensity": "bright"}))


@pytest.mark.parametrize("shape", [(1, 4, 5), (3, 4, 5), (1, 5, 4, 6)])
@pytest.mark.parametrize("preset", ["none", "ct-lung"])
def test_pictures_that_a_reader_has_divided_are_of_8_bits_again_if_nothing_else_was_done(
    shape: tuple[int, ...], preset: str
) -> None:
    stored = torch.from_numpy(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))
    image = MetaTensor(stored / 255, meta={"intensity": json.dumps({"preset": preset}), "kind": "frame"})
    in_bytes = ScaleIntensityForCLIP(eight_bit=True)
    assert torch.equal(ScaleIntensityForCLIP()(image), image)
    found = in_bytes(image)
    assert isinstance(found, MetaTensor)
    assert found.meta["kind"] == "frame"
    assert found.dtype == (torch.uint8 if preset == "none" else torch.float32)
    assert torch.equal(found if preset == "none" else found * 255, stored if preset == "none" else image * 255)
    other = image.clone()
    other.view(-1)[-1] = 0.5
    assert torch.equal(in_bytes(other), other)
    assert in_bytes(other).dtype == torch.float32
