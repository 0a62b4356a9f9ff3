# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw
from scipy import ndimage

from monai_anomalyclip.label.polygons import mask_polygons


def drawn(polygons: list[list[tuple[int, int]]], shape: tuple[int, int]) -> np.ndarray:
    canvas = Image.new("L", shape[::-1])
    for polygon in polygons:
        ImageDraw.Draw(canvas).polygon(polygon, fill=1, outline=1)
    return np.asarray(canvas) > 0


def test_rectangle_has_its_corner_pixels() -> None:
    mask = np.zeros((10, 20))
    mask[2:6, 5:15] = 3
    (polygon,) = mask_polygons(mask)
    assert sorted(polygon) == [(5, 2), (5, 5), (14, 2), (14, 5)]


def test_regions_at_the_edge_are_closed() -> None:
    (polygon,) = mask_polygons(np.ones((4, 6)))
    assert sorted(polygon) == [(0, 0), (0, 3), (5, 0), (5, 3)]


def test_hole_is_filled_small_regions_are_left_out_largest_comes_first() -> None:
    mask = np.zeros((30, 40), dtype=bool)
    mask[2:8, 2:8] = True
    mask[10:28, 10:38] = True
    mask[15:20, 20:25] = False
    mask[1, 30:33] = True
    polygons = mask_polygons(mask)
    assert len(polygons) == 2
    assert (10, 10) in polygons[0]
    assert drawn(polygons, mask.shape)[15:20, 20:25].all()
    assert len(mask_polygons(mask, min_area=100)) == 1


@pytest.mark.parametrize("seed", range(8))
def test_drawing_the_outlines_gives_the_mask(seed: int) -> None:
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.standard_normal((60, 80)), 1 + seed / 2)
    mask = ndimage.binary_fill_holes(smooth > smooth.std())
    np.testing.assert_array_equal(
        drawn(mask_polygons(mask, min_area=0, tolerance=0), mask.shape) & ~thin(mask), mask & ~thin(mask)
    )
    simple = drawn(mask_polygons(mask, min_area=0), mask.shape)
    assert not (simple & ~ndimage.binary_dilation(mask)).any()
    assert not (ndimage.binary_erosion(mask) & ~simple).any()


def thin(mask: np.ndarray) -> np.ndarray:
    """Regions of one or two pixels, which have no outline with three corners, and their like in one row."""
    labels, count = ndimage.label(mask)
    small = [
        number
        for number, place in enumerate(ndimage.find_objects(labels), start=1)
        if min(part.stop - part.start for part in place) == 1
    ]
    assert count
    return np.isin(labels, small)


def test_size_of_a_ring_is_that_of_its_disc() -> None:
    mask = np.zeros((20, 20), dtype=bool)
    mask[5:15, 5:15] = True
    mask[6:14, 6:14] = False
    (polygon,) = mask_polygons(mask, min_area=mask.sum() + 1)
    assert sorted(polygon) == [(5, 5), (5, 14), (14, 5), (14, 14)]


def test_tail_of_one_pixel_does_not_break_the_outline() -> None:
    mask = np.zeros((20, 20), dtype=bool)
    mask[5:15, 5:10] = True
    mask[8, 10:18] = True
    np.testing.assert_array_equal(drawn(mask_polygons(mask, tolerance=0), mask.shape), mask)


def test_nothing_and_wrong_shapes() -> None:
    assert mask_polygons(np.zeros((5, 5))) == []
    with pytest.raises(ValueError, match=r"\(1, 5, 5\)"):
        mask_polygons(np.zeros((1, 5, 5)))
