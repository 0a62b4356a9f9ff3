# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch

from monai_anomalyclip.reference.framing import Framing, make_alike


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
