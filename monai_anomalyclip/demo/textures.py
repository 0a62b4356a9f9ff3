# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Building blocks of the phantoms: smooth noise, blobs, lines, soft edges. Lengths are fractions of the image side."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

__all__ = [
    "Array",
    "Damage",
    "Mask",
    "Scene",
    "blob",
    "blob_at",
    "curve_distance",
    "grid",
    "paint",
    "random_point",
    "smooth_noise",
    "soft",
    "wander",
]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Scene:
    """A normal picture before it is damaged and displayed.

    Attributes:
        image: (H, W) or (H, W, 3), 0 black to 1 white; values outside are clipped at the end.
        region: (H, W), where damage may have its centre.
        noise: like ``image``, sensor noise that is added last.
        inside: (H, W), beyond which no damage may reach; everywhere when None.
    """

    image: Array
    region: Mask
    noise: Array
    inside: Mask | None = None


@dataclass(frozen=True)
class Damage:
    """One defect or lesion: ``alpha`` (H, W) in [0, 1] blends ``layer`` (like the image) over the scene."""

    kind: str
    alpha: Array
    layer: Array


@lru_cache(maxsize=16)
def grid(size: int) -> tuple[Array, Array]:
    """Pixel centres (y, x), each (size, size), from 0 to 1 over the image; read-only."""
    axis = (np.arange(size) + 0.5) / size
    y, x = np.meshgrid(axis, axis, indexing="ij")
    y.setflags(write=False)
    x.setflags(write=False)
    return y, x


@lru_cache(maxsize=64)
def _interpolation(size: int, cells: int) -> Array:
    """Matrix (size, cells + 3) that interpolates coarse values by a cubic spline."""
    where = 1 + (np.arange(size) + 0.5) / size * cells
    return np.stack([ndimage.map_coordinates(row, where[None], order=3) for row in np.eye(cells + 3)], axis=1)


def smooth_noise(rng: np.random.Generator, size: int, cells: int | tuple[int, int]) -> Array:
    """Smooth random field (size, size), mean about 0, standard deviation about 1; ``cells`` waves per side (y, x)."""
    rows, columns = (cells, cells) if isinstance(cells, int) else cells
    coarse = rng.standard_normal((rows + 3, columns + 3))
    return 1.4 * _interpolation(size, rows) @ coarse @ _interpolation(size, columns).T


def fine_noise(rng: np.random.Generator, size: int, cells: int = 112) -> Array:
    """Sensor noise (size, size), standard deviation about 1; its grain is at least 1 / ``cells`` of the side."""
    if size <= cells:
        return rng.standard_normal((size, size))
    return 0.8 * smooth_noise(rng, size, cells)


def soft(level: Array, edge: float) -> Array:
    """Smooth step: 0 where ``level`` <= 0, 1 where it is >= ``edge``."""
    t = np.clip(level / edge, 0, 1)
    return t * t * (3 - 2 * t)


def blob_at(
    size: int, centre: tuple[float, float], radius: float, waves: Array, *, stretch: float = 1.0, angle: float = 0.0
) -> Array:
    """Signed level (size, size) of a round outline: the distance in side lengths to the rim, positive inside.

    Args:
        waves: (2, n) cosine and sine amplitudes of the outline's 2nd, 3rd, ... harmonics, relative to the radius.
        stretch: ratio of the two axes, the long one along ``angle``.
    """
    y, x = grid(size)
    dy, dx = y - centre[0], x - centre[1]
    u = (dx * np.cos(angle) + dy * np.sin(angle)) / np.sqrt(stretch)
    v = (-dx * np.sin(angle) + dy * np.cos(angle)) * np.sqrt(stretch)
    theta = np.arctan2(v, u)
    outline = np.ones_like(theta)
    for n, (c, s) in enumerate(waves.T, start=2):
        outline += c * np.cos(n * theta) + s * np.sin(n * theta)
    level: Array = radius * outline - np.hypot(u, v)
    return level


def blob(
    rng: np.random.Generator,
    size: int,
    centre: tuple[float, float],
    radius: float,
    *,
    roughness: float = 0.12,
    stretch: float = 1.5,
) -> Array:
    """A random blob as a signed level (see :func:`blob_at`); ``stretch`` is the largest ratio of its axes."""
    waves = roughness * rng.standard_normal((2, 5)) / np.arange(1, 6) ** 0.8
    return blob_at(size, centre, radius, waves, stretch=rng.uniform(1, stretch), angle=rng.uniform(0, np.pi))


def random_point(rng: np.random.Generator, region: Mask) -> tuple[float, float]:
    """A random (y, x) inside ``region``; the centre when the region is empty."""
    inside = np.flatnonzero(region)
    if not inside.size:
        return 0.5, 0.5
    index = int(inside[int(rng.integers(inside.size))])
    return (index // region.shape[1] + 0.5) / region.shape[0], (index % region.shape[1] + 0.5) / region.shape[1]


def wander(
    rng: np.random.Generator,
    centre: tuple[float, float],
    length: float,
    *,
    bend: float = 0.6,
    jag: float = 0.0,
    points: int = 14,
) -> Array:
    """A random line (points, 2) of (y, x) around ``centre``: ``bend`` radians of curvature, ``jag`` of zigzag."""
    heading = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, bend / points, points) + rng.normal(0, bend) / points)
    heading = heading + rng.normal(0, jag, points)
    path = np.cumsum(np.stack([np.sin(heading), np.cos(heading)], axis=1), axis=0) * (length / points)
    line: Array = path - path.mean(axis=0) + np.asarray(centre)
    return line


def curve_distance(size: int, path: Array) -> Array:
    """Distance (size, size) in side lengths from each pixel to a polyline (n, 2) of (y, x)."""
    y, x = grid(size)
    best = np.full((size, size), np.inf)
    for (y0, x0), (y1, x1) in itertools.pairwise(path):
        dy, dx = y1 - y0, x1 - x0
        t = np.clip(((y - y0) * dy + (x - x0) * dx) / max(dy * dy + dx * dx, 1e-12), 0, 1)
        np.minimum(best, (y - y0 - t * dy) ** 2 + (x - x0 - t * dx) ** 2, out=best)
    distance: Array = np.sqrt(best)
    return distance


def paint(image: Array, alpha: Array, layer: Array | float | tuple[float, ...]) -> Array:
    """``image`` with ``layer`` blended over it; ``alpha`` (H, W) is broadcast over the channels."""
    weight = alpha[..., None] if image.ndim == 3 else alpha
    return image + weight * (np.asarray(layer) - image)


Render = Callable[[np.random.Generator, int], Scene]
Harm = Callable[[np.random.Generator, Scene], Damage]
