# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monai_anomalyclip.data.datasets.pairing import anomalous_entries, pair_masks


def paths(folder: str, *names: str) -> list[Path]:
    return [Path(folder) / name for name in names]


@given(st.sets(st.integers(0, 300), min_size=1, max_size=20), st.sampled_from(["", "_mask", "_Segmentation", "_gt"]))
def test_pairs_do_not_depend_on_order(numbers: set[int], ending: str) -> None:
    # Numbers without leading zeros: images and masks sort differently as soon as endings or suffixes differ.
    images = sorted(paths("i", *(f"{number}.jpg" for number in numbers)))
    masks = sorted(paths("m", *(f"{number}{ending}.png" for number in numbers)))
    expected = {Path(f"i/{number}.jpg"): Path(f"m/{number}{ending}.png") for number in numbers}
    assert pair_masks(images, masks[::-1], "x") == (expected, [])
    # A mask that is missing in the middle shifts nothing.
    gone = images[len(images) // 2]
    if len(images) > 1:
        found, left_over = pair_masks(images, [mask for mask in masks if mask != expected[gone]], "x")
        assert found == {image: mask for image, mask in expected.items() if image != gone}
        assert left_over == []


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("a.jpg", "a.jpg"), ("a.jpg", "a.png"), ("A.JPG", "a.PNG"), ("a.jpg", "a_mask.png"), ("a.b.jpg", "a.b.png"),
        ("ISIC_1.jpg", "ISIC_1_Segmentation.png"), ("1.png", "1_label.bmp"), ("x.png", "x-mask.gif"),
        ("v.nii.gz", "v_seg.nii.gz"), ("a_mask.png", "a_mask.png"), ("1 no.jpg", "1 no_groundtruth.png"),
    ],
)  # fmt: skip
def test_names_that_belong_together(image: str, mask: str) -> None:
    assert pair_masks(paths("i", image, "zz.png"), paths("m", mask), "x")[0] == {Path("i", image): Path("m", mask)}


@pytest.mark.parametrize(("image", "mask"), [("1.png", "11.png"), ("a.png", "ba.png"), ("a.png", "a_maskx.png")])
def test_names_that_do_not(image: str, mask: str) -> None:
    with pytest.raises(ValueError, match=r"In x, no image has a mask of its name \(images: .*; masks: "):
        pair_masks(paths("i", image), paths("m", mask), "x")


def test_the_stricter_match_wins() -> None:
    images = paths("i", "a.png", "a.jpg", "B.png", "b.png")
    masks = paths("m", "a.jpg", "a.png", "b.png", "B.png")
    assert pair_masks(images, masks, "x") == ({image: Path("m", image.name) for image in images}, [])
    assert pair_masks(paths("i", "A.JPG"), paths("m", "a.png", "a_mask.png"), "x")[0] == {
        Path("i/A.JPG"): Path("m/a.png")
    }
    assert pair_masks(paths("i", "1.png"), paths("m", "1.png", "1_mask.png"), "x") == (
        {Path("i/1.png"): Path("m/1.png")},
        [Path("m/1_mask.png")],
    )


def test_ambiguous_names_are_refused() -> None:
    with pytest.raises(ValueError, match=r"In x, a\.png may have any of the masks a\.bmp, a\.gif: keep one"):
        pair_masks(paths("i", "a.png"), paths("m", "a.bmp", "a.gif"), "x")
    with pytest.raises(ValueError, match=r"In x, a\.png and a\.jpg would share the mask a_mask\.png"):
        pair_masks(paths("i", "a.png", "a.jpg"), paths("m", "a_mask.png"), "x")
    with pytest.raises(ValueError, match=r"a\.png and a\.jpg would share the mask a\.png"):
        pair_masks(paths("i", "a.png", "a.jpg"), paths("m", "a.png"), "x")


def test_what_is_left_over_is_named() -> None:
    images = paths("i", *(f"{number}.png" for number in range(9)))
    entries, notes = anomalous_entries(images, paths("m", "8.png", "good.png", "other_mask.png"), "c", "here")
    assert [entry.image for entry in entries] == images
    assert [entry.label for entry in entries] == [None] * 8 + [Path("m/8.png")]
    assert {(entry.image_label, entry.class_name) for entry in entries} == {(1, "c")}
    assert notes == [
        "here: 8 of 9 anomalous images have no mask (0.png, 1.png, 2.png, 3.png, 4.png and 3 more).",
        "here: 2 masks belong to no image (good.png, other_mask.png).",
    ]
    normal = paths("n", "GOOD.png", "other.jpg")
    assert len(anomalous_entries(images, paths("m", "8.png", "good.png", "other_mask.png"), "c", "x", normal)[1]) == 1
    assert anomalous_entries(images, [], "c", "x")[0][0].label is None


def test_two_ways_to_write_an_accent_are_one() -> None:
    """Macs decompose the letters of names (NFD)."""
    images = paths("i", *(unicodedata.normalize("NFD", f"Pölyp é {number}.png") for number in range(3)))
    masks = paths("m", *(unicodedata.normalize("NFC", f"PÖLYP é {number}_mask.png") for number in range(3)))
    assert images[0].name.casefold() != masks[0].name.replace("_mask", "").casefold()
    assert pair_masks(images, masks, "x") == (dict(zip(images, masks, strict=True)), [])
