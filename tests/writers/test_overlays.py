# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import io

import numpy as np
import pytest
from matplotlib import colormaps
from PIL import Image
from scipy import ndimage

from monai_anomalyclip.writers.overlays import framed, jpeg, overlay, side_by_side

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (60, 80, 3), dtype=np.uint8)
CYAN = np.array([0, 255, 255])


def test_colours_are_fixed_and_opacity_rises_with_the_map() -> None:
    inferno = colormaps["inferno"]
    for value, opacity in ((0.0, 0.0), (0.25, 0.25), (0.5, 0.5), (1.0, 0.5)):
        drawn = overlay(IMAGE, np.full((60, 80), value, np.float32), None)
        expected = (1 - opacity) * IMAGE + opacity * 255 * np.array(inferno(round(value * 255))[:3])
        assert np.abs(drawn - expected).max() <= 1, value
    # The same value has the same colour whatever else is in the map.
    mixed = np.full((60, 80), 0.3, np.float32)
    mixed[0, 0] = 1
    np.testing.assert_array_equal(
        overlay(IMAGE, mixed, None)[1:], overlay(IMAGE, np.full((60, 80), 0.3, np.float32), None)[1:]
    )
    opaque = overlay(IMAGE, np.ones((60, 80), np.float32), None, alpha=1.0)
    assert np.abs(opaque - 255 * np.array(inferno(255)[:3])).max() <= 1


def test_colours_to_a_ceiling() -> None:
    heat = RNG.random(IMAGE.shape[:2], dtype=np.float32)
    wanted = overlay(IMAGE, heat, None, clear=0.35)
    assert np.abs(overlay(IMAGE, heat / 4, None, ceiling=0.25).astype(int) - wanted).max() <= 2
    np.testing.assert_array_equal(
        overlay(IMAGE, np.ones_like(heat), None), overlay(IMAGE, heat / 4 + 0.75, None, ceiling=0.25)
    )
    low, high = np.full_like(heat, 0.35 * 0.25), np.full_like(heat, 0.5 * 0.25)
    np.testing.assert_array_equal(overlay(IMAGE, low, None, ceiling=0.25), IMAGE)
    full = overlay(IMAGE, np.full_like(heat, 0.5), None)
    assert np.abs(overlay(IMAGE, high, None, ceiling=0.25).astype(int) - full).max() <= 2
    bars = [np.asarray(framed(IMAGE, "", ceiling)) for ceiling in (1.0, 0.5)]
    np.testing.assert_array_equal(bars[0][:, :80], bars[1][:, :80])
    assert (bars[0] != bars[1]).any()  # the numbers


def test_another_map_is_one_more_panel() -> None:
    heat = RNG.random(IMAGE.shape[:2], dtype=np.float32)
    two, three = (side_by_side(IMAGE, heat, None, margin=False, beside=other) for other in (None, 1 - heat))
    np.testing.assert_array_equal(three[:, : two.shape[1]], two)
    panel = three[:, two.shape[1] + 4 :]
    np.testing.assert_array_equal(panel[::2, ::2], overlay(IMAGE, 1 - heat, None, clear=0.35))


def test_every_pixel_is_within_a_level_of_the_exact_blend() -> None:
    image = RNG.integers(0, 256, (700, 333, 3), dtype=np.uint8)
    heat = RNG.random((700, 333)).astype(np.float32)
    colours = 255 * np.array(colormaps["inferno"](np.round(heat * 255).astype(int)))[..., :3]
    opacity = 0.5 * np.minimum(2 * heat, 1)[..., None]
    expected = image * (1 - opacity) + colours * opacity
    assert np.abs(overlay(image, heat, None) - expected).max() <= 1.3
    assert np.abs(overlay(image, heat, None) - expected).mean() <= 0.3


def test_outline_is_the_inner_border_of_the_mask() -> None:
    mask = np.zeros((60, 80), np.uint8)
    mask[10:30, 20:50] = 255
    mask[50:, :10] = 1  # touches the picture's corner: no line along the picture's edge
    drawn = overlay(IMAGE, np.zeros((60, 80), np.float32), mask)
    outline = (drawn == CYAN).all(axis=-1)
    eroded = ndimage.binary_erosion(mask > 0, border_value=1)
    np.testing.assert_array_equal(outline, (mask > 0) & ~eroded)
    np.testing.assert_array_equal(drawn[~outline], IMAGE[~outline])
    assert not outline[59, :9].any()


def test_outline_of_large_pictures_is_wider_and_the_same_as_by_erosion_of_the_whole() -> None:
    mask = ndimage.binary_dilation(RNG.random((900, 1300)) > 0.9999, iterations=9)
    mask[:30, 640:700] = mask[880:, 1200:] = True
    drawn = overlay(np.zeros((900, 1300, 3), np.uint8), np.zeros((900, 1300), np.float32), mask.astype(np.uint8))
    core = ndimage.binary_erosion(mask, iterations=3, border_value=1)
    np.testing.assert_array_equal((drawn == CYAN).all(axis=-1), mask & ~core)


@pytest.mark.parametrize(
    ("anomaly_map", "mask"),
    [
        (np.zeros((60, 81)), None),
        (np.zeros((60, 80)), np.zeros((1, 60, 80), np.uint8)),
        (np.full((60, 80), 1.1), None),
        (np.full((60, 80), -0.1), None),
        (np.full((60, 80), np.nan), None),
    ],
)
def test_bad_input(anomaly_map: np.ndarray, mask: np.ndarray | None) -> None:
    with pytest.raises(ValueError, match=r"anomaly map must lie in|Expected an image"):
        overlay(IMAGE, anomaly_map, mask)


@pytest.mark.parametrize("shape", [(300, 400), (64, 64), (9, 7), (3, 500)])
def test_side_by_side_leaves_the_pictures_free_of_text(shape: tuple[int, int]) -> None:
    image = RNG.integers(0, 256, (*shape, 3), dtype=np.uint8)
    heat = RNG.random(shape).astype(np.float32)
    mask = (heat > 0.9).astype(np.uint8)
    sheet = side_by_side(image, heat, mask, "anomaly score 0.5")
    assert sheet.dtype == np.uint8
    factor = -(-260 // (2 * shape[1]))
    height, width = factor * shape[0], factor * shape[1]
    np.testing.assert_array_equal(sheet[:height:factor, :width:factor], image)
    gap = max(4, width // 100)
    right = sheet[:height:factor, width + gap : 2 * width + gap : factor]
    np.testing.assert_array_equal(right, overlay(image, heat, mask))
    margin = sheet[height:]
    assert (margin == 230).all(axis=-1).any()  # there is text, and it is cut nowhere: the last columns are paper
    assert (margin[:, -3:] == 18).all()
    bare = side_by_side(image, heat, mask, "not shown", margin=False)
    np.testing.assert_array_equal(bare, sheet[:height, : 2 * width + gap])


def test_caption_and_notice_change_the_margin_only() -> None:
    heat = np.zeros((60, 80), np.float32)
    bare, named = side_by_side(IMAGE, heat, None), side_by_side(IMAGE, heat, None, "score 1")
    assert bare.shape == named.shape
    np.testing.assert_array_equal(bare[:120], named[:120])
    assert (bare[120:] != named[120:]).any()


def test_jpeg_keeps_thin_lines_and_holds_no_metadata() -> None:
    picture = np.zeros((64, 64, 3), np.uint8)
    picture[20:40, 20] = CYAN
    encoded = Image.open(io.BytesIO(jpeg(picture)))
    assert (encoded.format, encoded.size) == ("JPEG", (64, 64))
    assert not encoded.getexif()
    assert set(encoded.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}
    assert np.abs(np.asarray(encoded)[22:38, 20].astype(int) - CYAN).max() < 40
    noise = RNG.integers(0, 256, (300, 400, 3), dtype=np.uint8)  # more than a byte per pixel
    assert Image.open(io.BytesIO(jpeg(noise))).size == (400, 300)
