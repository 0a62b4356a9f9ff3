# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch
from matplotlib import colormaps
from PIL import Image
from scipy import ndimage

from monai_anomalyclip.data import SliceView
from monai_anomalyclip.ranking import most_suspicious_first
from monai_anomalyclip.writers.slice_pictures import contact_sheet, large_slice, montage

RNG = np.random.default_rng(0)
CYAN = np.array([0, 255, 255])


def phantom() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, SliceView]:
    affine = np.diag([1.0, 1.0, 4.0, 1.0])
    volume = torch.rand(1, 40, 30, 20) * 900 - 100
    heat = torch.zeros(1, 40, 30, 20)
    for index, value in ((3, 0.5), (11, 0.9), (17, 0.7)):
        heat[0, 30:36, 4:9, index] = value
    return volume, heat, (heat >= 0.6).to(torch.uint8), SliceView.from_affine(affine, (40, 30, 20))


def test_contact_sheet_shows_the_hottest_slices_in_order() -> None:
    volume, heat, mask, view = phantom()
    sheet = contact_sheet(volume, heat, mask, view, max_slices=3)
    # Tiles are 300 x 225 (the longer side of 40 x 30 mm becomes 300, rows are 30 mm), plus borders of 2.
    outline = (sheet == CYAN).all(axis=-1)
    regions, count = ndimage.label(outline, np.ones((3, 3)))
    assert count == 2  # slices 11 and 17; slice 3 is hot enough to be shown but below the mask's threshold
    boxes = ndimage.find_objects(regions)
    for rows, columns in boxes:
        height, width = rows.stop - rows.start, columns.stop - columns.start
        assert abs(width - 6 * 7.5) <= 8
        assert abs(height - 5 * 7.5) <= 8
    # R (high x) is on the left of the screen, P (low y) at the bottom: voxel (33, 6.5) of 40 x 30.
    tile = [(rows.start % 253, columns.start % 304) for rows, columns in boxes]
    assert all(abs(row - (30 - 9) * 7.5) < 12 and abs(column - (40 - 36) * 7.5) < 12 for row, column in tile)
    # Hotter at slice 11 than at 17, and 11 comes first.
    first, second = sorted(boxes, key=lambda box: (box[0].start // 253, box[1].start))
    assert sheet[first].max(axis=-1).mean() > sheet[second].max(axis=-1).mean()


def test_contact_sheet_of_few_slices_other_ranges_and_bad_arguments() -> None:
    volume, heat, mask, view = phantom()
    assert contact_sheet(volume, heat, None, view, max_slices=100).shape[0] > 1000
    single = SliceView.from_affine(np.eye(4), (1, 30, 20))
    picture = torch.full((1, 1, 30, 20), 0.5)
    sheet = contact_sheet(picture, torch.zeros(1, 1, 30, 20), None, single)
    assert abs(int(sheet[100, 100, 0]) - 128) <= 1  # [0, 1] is shown as it is
    colour = contact_sheet(picture.expand(3, -1, -1, -1), torch.zeros(1, 1, 30, 20), None, single)
    np.testing.assert_array_equal(colour, sheet)
    assert (contact_sheet(picture * 1e6, torch.zeros(1, 1, 30, 20), None, single)[100, 100] == 0).all()  # constant
    with pytest.raises(ValueError, match="max_slices"):
        contact_sheet(volume, heat, mask, view, max_slices=0)
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        contact_sheet(volume, heat * 2, mask, view)


def test_montage_shows_the_slices_of_highest_score_in_order_two_abreast() -> None:
    """Colours tell the slices apart: slice i of the colour stack has the gray value 10 * i."""
    view = SliceView.native((40, 30, 20), (1.0, 1.0))
    gray = (10 * torch.arange(20, dtype=torch.uint8)).expand(3, 40, 30, 20)
    heat, scores = torch.zeros(1, 40, 30, 20), np.linspace(0, 0.1, 20)
    scores[[4, 9, 2]] = 0.9, 0.8, 0.7
    sheet = montage(gray, heat, None, view, most_suspicious_first(scores), max_slices=3)
    tile = (225 + 2 + 29, 300 + 4)  # 30 rows by 40 columns on 300 pixels, the border, the label's line
    assert sheet.shape == (2 * tile[0], 2 * tile[1], 3)
    shown = [sheet[2 + row * tile[0] + 100, column * tile[1] + 150, 0] for row in (0, 1) for column in (0, 1)]
    assert shown == [20, 40, 90, 18]  # the last place stays empty
    by_map = heat.clone()
    by_map[..., 7] = 0.001
    assert montage(gray, by_map, None, view, max_slices=1)[100, 150, 0] == 70


def test_a_slice_alone_is_large_with_square_pixels_and_its_overlay_in_place() -> None:
    view = SliceView.native((40, 30, 20), (1.0, 1.0))
    gray = (10 * torch.arange(20, dtype=torch.uint8)).expand(3, 40, 30, 20)
    heat = torch.zeros(1, 40, 30, 20)
    heat[0, 30:, :, 7] = 1.0  # the right quarter
    shown = large_slice(gray, heat, (heat >= 0.5).to(torch.uint8), view, 7)
    height, width = 576, 768  # 30 rows of 40 columns
    assert shown.shape[0] > height
    assert shown.shape[1] > 2 * width
    assert (shown[: height - 4, :width] == 70).all()
    gap = shown.shape[1] - 2 * width
    start = int(np.argmax((shown[100, width:] == 70).all(axis=-1))) + width  # of the overlay, behind the gap
    assert start - width < gap
    assert (shown[:500, start : start + width * 3 // 4 - 16] == 70).all()
    assert (shown[100:500, start + width * 3 // 4 + 24 : start + width - 8] != 70).any(axis=-1).all()
    tall = SliceView.native((40, 30, 20), (4.0, 1.0))  # rows four times as far apart as columns
    assert large_slice(gray, heat, None, tall, 0).shape[0] > 768


def test_stored_frames_are_shown_as_stored_in_colour() -> None:
    """Row index is Y, column index is X, nothing flipped (DICOM stacks)."""
    frame = RNG.integers(0, 256, (60, 80, 3), dtype=np.uint8)
    frame = np.asarray(Image.fromarray(frame[:6, :8]).resize((80, 60), Image.Resampling.NEAREST))
    stack = torch.from_numpy(frame.copy()).permute(2, 1, 0)[..., None].expand(-1, -1, -1, 2)
    view = SliceView.native((80, 60, 2), (0.5, 0.5))
    heat = torch.zeros(1, 80, 60, 2)
    heat[0, 70:, 50:, 1] = 1.0  # last columns, last rows
    for sheet in (montage(stack, heat, None, view), contact_sheet(stack, heat, None, view)):
        expected = np.asarray(Image.fromarray(frame).resize((300, 225), Image.Resampling.BICUBIC))
        np.testing.assert_array_equal(sheet[2:227, 2:302], expected)
        hot = np.asarray(sheet[2:227, 306:606], dtype=int)[200:, 280:]
        expected_hot = (expected[200:, 280:] + 255 * np.array(colormaps["inferno"](255)[:3])) / 2
        assert np.abs(hot - expected_hot).max() <= 1


def test_another_map_lies_to_the_right_of_each_slice() -> None:
    volume, heat, mask, view = phantom()
    plain = montage(volume, heat, mask, view, max_slices=2)
    paired = montage(volume, heat, mask, view, max_slices=2, beside=heat)
    assert paired.shape[1] == 2 + 300 + 4 + 300 + 2
    tile = plain.shape[0]
    np.testing.assert_array_equal(paired[2:227, 2:302], plain[2:227, 2:302])
    slices = paired[2:227, 306:606], plain[2:227, 2:302]
    assert 0 < (slices[0] != slices[1]).any(axis=-1).mean() < 0.1  # without an outline, and clear to a higher value
    assert paired.shape[0] == 2 * tile  # one below the other
    alone = large_slice(volume, heat, mask, view, 11)
    assert large_slice(volume, heat, mask, view, 11, beside=heat).shape[1] > alone.shape[1] + 700


def test_labels_of_narrow_slices_are_not_cut() -> None:
    narrow = SliceView.native((6, 60, 3), (1.0, 1.0))  # tiles of 30 x 300
    volume = torch.zeros(1, 6, 60, 3)
    sheet = montage(volume, volume, None, narrow, labels=["frame 1 at 123.456 s", "b", "c"])
    width = sheet.shape[1] // 2
    text = (sheet[302:331, :width].max(axis=-1) > 100).any(axis=0).nonzero()[0]
    assert text[0] > 2
    assert text[-1] < width - 3
    assert text[-1] - text[0] > 150


@pytest.mark.parametrize("wrong", [{"order": [0] * 20}, {"labels": ["a"] * 21}, {"max_slices": 0}])
def test_bad_montages(wrong: dict[str, object]) -> None:
    volume, heat, mask, view = phantom()
    with pytest.raises(ValueError, match=r"one per slice \(20\)|each of the 20 slices once|max_slices"):
        montage(volume, heat, mask, view, **wrong)  # type: ignore[arg-type]
