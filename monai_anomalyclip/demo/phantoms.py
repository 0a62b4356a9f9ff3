# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Seeded phantoms: small synthetic pictures of several families, normal or anomalous, with exact masks.

The anomalous picture of a seed is the normal picture of the same seed with a defect painted on: outside the mask both
are equal.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from monai_anomalyclip.demo.industrial import INDUSTRIAL
from monai_anomalyclip.demo.medical import MEDICAL
from monai_anomalyclip.demo.textures import paint

__all__ = ["FAMILIES", "INDUSTRIAL_FAMILIES", "MEDICAL_FAMILIES", "Phantom", "make_phantom", "sample_phantom"]

INDUSTRIAL_FAMILIES = tuple(INDUSTRIAL)
MEDICAL_FAMILIES = tuple(MEDICAL)
FAMILIES = INDUSTRIAL_FAMILIES + MEDICAL_FAMILIES


@dataclass(frozen=True)
class Phantom:
    """One picture: ``image`` (H, W, 3) uint8, ``mask`` (H, W) bool, ``kind`` the defect's name or "" when normal."""

    family: str
    image: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    kind: str


def sample_phantom(family: str, anomalous: bool, seed: int, size: int = 112) -> Phantom:
    """Draws a phantom.

    Args:
        family: one of :data:`FAMILIES`.
        anomalous: whether it carries a defect or lesion.
        seed: at least 0; the same arguments give the same picture on every machine with the same numpy.
        size: pixels per side, at least 32. Other sizes show the same normal scene, with the defect elsewhere.

    Raises:
        ValueError: unknown family, negative seed or too small a size.
    """
    table = INDUSTRIAL | MEDICAL
    if family not in table:
        raise ValueError(f"Unknown phantom family {family!r}; choose one of {', '.join(FAMILIES)}.")
    if seed < 0 or size < 32:
        raise ValueError(
            f"A phantom needs a seed of at least 0 and a size of at least 32 pixels, got {seed} and {size}."
        )
    render, harms = table[family]
    key = zlib.crc32(family.encode())
    scene = render(np.random.default_rng([key, seed, 0]), size)
    image, mask, kind = scene.image, np.zeros((size, size), dtype=bool), ""
    if anomalous:
        rng = np.random.default_rng([key, seed, 1])
        damage = harms[int(rng.integers(len(harms)))](rng, scene)
        alpha = damage.alpha if scene.inside is None else damage.alpha * scene.inside
        # An opacity below 5 % cannot be seen: there the picture stays as it is and the mask is off.
        mask = alpha > 0.05
        image, kind = paint(image, np.where(mask, alpha, 0.0), damage.layer), damage.kind
    shown = np.rint(255 * np.clip(image + scene.noise, 0, 1)).astype(np.uint8)
    if shown.ndim == 2:
        shown = np.repeat(shown[..., None], 3, axis=2)
    return Phantom(family, shown, mask, kind)


def make_phantom(
    family: str, anomalous: bool, seed: int, size: int = 112
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """The image (size, size, 3) uint8 and the mask (size, size) bool of :func:`sample_phantom`."""
    phantom = sample_phantom(family, anomalous, seed, size)
    return phantom.image, phantom.mask
