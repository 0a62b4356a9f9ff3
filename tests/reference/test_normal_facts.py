# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from monai.data.meta_tensor import MetaTensor
from torch import Tensor

from monai_anomalyclip.reference.normal_facts import (
    Framing,
    NormalFacts,
    as_unit_image,
    doubts_about,
    facts_of_image,
    group_key,
    make_alike,
    near_duplicates,
    preset_of,
)

SALT = b"s" * 32


@pytest.mark.parametrize(
    ("image", "white"),
    [
        (torch.full((3, 4, 5), 255, dtype=torch.uint8), 1.0),
        (torch.full((4, 5), 51, dtype=torch.uint8), 0.2),
        (torch.full((1, 4, 5), 65535, dtype=torch.uint16), 1.0),
        (torch.full((1, 4, 5), 0.5), 0.5),
        (MetaTensor(torch.full((1, 4, 5), 0.5)), 0.5),
        (torch.full((1, 4, 5), 1 + 5e-6), 1.0),
    ],
)
def test_images_of_all_kinds(image: Tensor, white: float) -> None:
    unit = as_unit_image(image)
    assert unit.shape[1:] == (4, 5)
    assert not isinstance(unit, MetaTensor)
    assert float(unit.max()) == pytest.approx(white)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.rand(2, 4, 5), r"got shape \(2, 4, 5\)"),
        (torch.rand(1, 3, 4, 5), "Expected an image"),
        (torch.rand(3, 0, 5), "Expected an image"),
        (torch.full((1, 4, 5), torch.nan), "NaN or infinite"),
        (torch.full((1, 4, 5), -1.0), r"must lie in \[0, 1\]"),
        (torch.full((1, 4, 5), 300, dtype=torch.int64), "must be float"),
    ],
)
def test_other_images_are_refused(image: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        as_unit_image(image)


def test_the_digest_is_that_of_the_content() -> None:
    stored = torch.randint(0, 256, (1, 6, 7), dtype=torch.uint8)
    own = facts_of_image(as_unit_image(stored), None, SALT)
    for same in (stored.float() / 255, stored.expand(3, -1, -1), MetaTensor(stored.clone(), meta={"x": 1})):
        assert facts_of_image(as_unit_image(same), None, SALT).digest == own.digest
    other = stored.clone()
    other[0, 3, 3] ^= 1
    assert facts_of_image(as_unit_image(other), None, SALT).digest != own.digest
    assert facts_of_image(as_unit_image(stored.transpose(1, 2)), None, SALT).digest != own.digest
    assert own.group == own.digest


def test_patients_are_hashed_with_the_references_salt() -> None:
    image = torch.rand(1, 4, 4)
    mine = facts_of_image(image, "QUIMBY", SALT).group
    assert mine == group_key("QUIMBY", SALT)
    assert mine != group_key("QUIMBY", b"t" * 32)
    assert mine != group_key("ROE", SALT)
    assert b"QUIMBY" not in mine


def test_size_brightness_and_thumbnail() -> None:
    image = torch.zeros(3, 32, 64)
    image[:, :, 32:] = 1
    facts = facts_of_image(image, None, SALT)
    assert facts.size == (32, 64)
    assert facts.brightness == pytest.approx(0.5)
    thumbnail = facts.thumbnail.reshape(16, 16)
    assert thumbnail[:, :7].max() == 0
    assert thumbnail[:, 9:].min() == 255


@pytest.mark.parametrize(
    ("record", "preset"),
    [('{"preset": "ct-brain"}', "ct-brain"), (None, ""), ("", ""), ("no json", ""), ("{}", ""), (3, "")],
)
def test_preset_is_what_the_meta_says(record: object, preset: str) -> None:
    assert preset_of(MetaTensor(torch.zeros(1, 2, 2), meta={"intensity": record})) == preset
    assert preset_of(torch.zeros(1, 2, 2)) == ""


def test_near_duplicates_are_stored_anew_or_resized(pictures: Callable[..., list[Tensor]]) -> None:
    images = pictures(6)
    noisy = (images[1] + 0.01 * torch.randn(3, 40, 48)).clamp(0, 1)
    small = torch.nn.functional.interpolate(images[4][None], size=(30, 36), mode="bilinear")[0]
    blank = [torch.full((3, 40, 48), 0.5), torch.full((3, 40, 48), 0.501)]
    facts = [facts_of_image(image, None, SALT) for image in [*images, noisy, small, *blank]]
    assert near_duplicates(facts) == [(1, 6), (4, 7)]
    assert near_duplicates(facts[:1]) == []


def test_slices_of_one_patient_are_no_duplicates(pictures: Callable[..., list[Tensor]]) -> None:
    (image,) = pictures(1)
    facts = [facts_of_image((image + step / 255).clamp(0, 1), "one", SALT) for step in range(3)]
    assert near_duplicates(facts) == []


def facts(name: int, size: tuple[int, int] = (100, 80), brightness: float = 0.5) -> NormalFacts:
    key = name.to_bytes(32, "big")
    return NormalFacts(key, key, size, brightness, torch.zeros(256, dtype=torch.uint8))


NORMALS = [facts(1, (100, 80), 0.4), facts(2, (110, 90), 0.6)]


def test_a_usual_image_gives_no_doubt() -> None:
    assert doubts_about(facts(3), NORMALS, 0.5, 0.5) == {}
    assert doubts_about(facts(3), NORMALS, 0.5, None) == {}


@pytest.mark.parametrize(("median", "doubted"), [(0.5, False), (0.574, False), (0.576, True), (2.0, True)])
def test_out_of_reference_from_115_per_cent(median: float, doubted: bool) -> None:
    assert ("out_of_reference" in doubts_about(facts(3), NORMALS, median, 0.5)) == doubted


@pytest.mark.parametrize(
    ("size", "doubted"),
    [((100, 80), False), ((110, 85), False), ((400, 320), True), ((50, 40), True), ((60, 140), True)],
)
def test_another_size_or_shape(size: tuple[int, int], doubted: bool) -> None:
    assert ("size" in doubts_about(facts(3, size), NORMALS, 0.5, 0.5)) == doubted


@pytest.mark.parametrize(("brightness", "doubted"), [(0.31, False), (0.69, False), (0.29, True), (0.71, True)])
def test_another_brightness(brightness: float, doubted: bool) -> None:
    assert ("brightness" in doubts_about(facts(3, brightness=brightness), NORMALS, 0.5, 0.5)) == doubted


def test_by_default_nothing_changes() -> None:
    image = torch.rand(3, 9, 7)
    same, framing = make_alike(image, ())
    assert torch.equal(same, image)
    assert framing == Framing(0, 9, 0, 7)


def test_dark_frames_are_cut_off() -> None:
    image = torch.zeros(1, 20, 30)
    image[:, 4:15, 8:27] = 0.2 + 0.6 * torch.rand(1, 11, 19)
    image[:, 0, 0] = 0.03  # noise of the background
    cut, framing = make_alike(image, ("framing",))
    assert framing == Framing(4, 15, 8, 27)
    assert torch.equal(cut, image[:, 4:15, 8:27])


def test_gray_values_are_stretched_to_black_and_white() -> None:
    image = torch.linspace(0.4, 0.6, 1000).reshape(1, 20, 50)
    bright, _ = make_alike(image, ("brightness",))
    dark, _ = make_alike(image * 0.5, ("brightness",))
    assert torch.allclose(bright, dark, atol=1e-3)
    assert (float(bright.min()), float(bright.max())) == (0, 1)
    assert float(bright.mean()) == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("value", [0.0, 0.7])
def test_a_constant_image_stays(value: float) -> None:
    image = torch.full((3, 5, 6), value)
    same, framing = make_alike(image, ("brightness", "framing"))
    assert torch.equal(same, image)
    assert framing == Framing(0, 5, 0, 6)


def test_an_unknown_word_is_refused() -> None:
    with pytest.raises(ValueError, match="Only brightness and framing can be made alike, not size"):
        make_alike(torch.rand(1, 4, 4), ("size",))
