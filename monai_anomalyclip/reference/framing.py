# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""On request: make framing and brightness of images alike before they are compared."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

__all__ = ["ALIKE", "Framing", "make_alike"]

ALIKE = ("brightness", "framing")
"""What can be made alike."""

_BACKGROUND = 0.05  # of the brightest value: darker is taken for the frame around what is shown
_LOWEST, _HIGHEST = 0.01, 0.99  # quantiles of what is shown that become black and white


@dataclass(frozen=True)
class Framing:
    """The part of an image that was compared, in pixels: rows `top` to `bottom`, columns `left` to `right`."""

    top: int
    bottom: int
    left: int
    right: int


def make_alike(image: Tensor, what: tuple[str, ...]) -> tuple[Tensor, Framing]:
    """Cut the dark frame off ("framing") and stretch the gray values to black and white ("brightness").

    Args:
        image: (C, H, W) in [0, 1].
        what: of :data:`ALIKE`.

    Returns:
        the image, cut and stretched, and which part of it is left.

    Raises:
        ValueError: for an unknown word.
    """
    if not set(what) <= set(ALIKE):
        raise ValueError(f"Only {' and '.join(ALIKE)} can be made alike, not {', '.join(sorted({*what} - {*ALIKE}))}.")
    framing = Framing(0, image.shape[1], 0, image.shape[2])
    shown = image.amax(0) > _BACKGROUND * image.max()
    if "framing" in what and bool(shown.any()):
        rows, columns = (shown.any(axis).nonzero().flatten().tolist() for axis in (1, 0))
        framing = Framing(rows[0], rows[-1] + 1, columns[0], columns[-1] + 1)
        image = image[:, framing.top : framing.bottom, framing.left : framing.right]
        shown = shown[framing.top : framing.bottom, framing.left : framing.right]
    if "brightness" in what and bool(shown.any()):
        values = image.mean(0)[shown]
        ordered = values.sort().values
        low, high = (float(ordered[round(share * (len(ordered) - 1))]) for share in (_LOWEST, _HIGHEST))
        if high > low:
            image = ((image - low) / (high - low)).clamp(0, 1)
    return image, framing
