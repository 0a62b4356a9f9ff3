# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Industrial phantoms: six kinds of surface or object, each with its own defects. Prompts are tuned on these."""

from __future__ import annotations

import numpy as np

from monai_anomalyclip.demo.textures import (
    Array,
    Damage,
    Harm,
    Mask,
    Render,
    Scene,
    blob,
    curve_distance,
    fine_noise,
    grid,
    paint,
    random_point,
    smooth_noise,
    soft,
    wander,
)

__all__ = ["INDUSTRIAL"]


def _everywhere(size: int, margin: float = 0.12) -> Mask:
    y, x = grid(size)
    return np.maximum(np.abs(y - 0.5), np.abs(x - 0.5)) < 0.5 - margin


def _lit(rng: np.random.Generator, size: int, image: Array, strength: float = 0.12) -> Array:
    """Uneven lamp light over an RGB picture."""
    y, x = grid(size)
    slope = rng.normal(0, strength, 2)
    light = 1 + slope[0] * (y - 0.5) + slope[1] * (x - 0.5) + 0.4 * strength * smooth_noise(rng, size, 2)
    lit: Array = image * (light * rng.uniform(0.88, 1.1))[..., None]
    return lit


def _camera_noise(rng: np.random.Generator, size: int) -> Array:
    return rng.uniform(0.006, 0.02) * fine_noise(rng, size)[..., None] * np.ones(3)


def _scene(
    rng: np.random.Generator, size: int, image: Array, region: Mask | None = None, inside: Mask | None = None
) -> Scene:
    region = _everywhere(size) if region is None else region
    return Scene(_lit(rng, size, image), region, _camera_noise(rng, size), inside)


def _axes(rng: np.random.Generator, size: int) -> tuple[Array, Array]:
    """Coordinates (along, across) in a randomly turned frame."""
    y, x = grid(size)
    angle = rng.uniform(0, np.pi)
    return x * np.cos(angle) + y * np.sin(angle), -x * np.sin(angle) + y * np.cos(angle)


def _metal(rng: np.random.Generator, size: int) -> Scene:
    along, across = _axes(rng, size)
    table = np.linspace(-1.2, 1.6, 400)
    brushing = np.interp(across, table, rng.standard_normal(400)) * (0.8 + 0.2 * smooth_noise(rng, size, 3))
    gloss = np.exp(-(((along - rng.uniform(0, 1)) / rng.uniform(0.15, 0.4)) ** 2))
    grey = rng.uniform(0.38, 0.62) + rng.uniform(0.015, 0.05) * brushing + rng.uniform(0.05, 0.22) * gloss
    image = grey[..., None] * (1 + rng.normal(0, 0.025, 3))
    y, x = grid(size)
    margin = rng.uniform(0.07, 0.13)
    for cy in (margin, 1 - margin):  # screws in the corners are normal
        for cx in (margin, 1 - margin):
            if rng.random() < 0.5:
                continue
            distance = np.hypot(y - cy, x - cx)
            image = paint(image, soft(0.05 - distance, 0.012), rng.uniform(0.55, 0.8))
            image = paint(image, soft(0.022 - distance, 0.012), rng.uniform(0.08, 0.25))
    return _scene(rng, size, image, _everywhere(size, 0.2))


def _fabric(rng: np.random.Generator, size: int) -> Scene:
    along, across = _axes(rng, size)
    pitch = rng.uniform(16, 30) * 2 * np.pi
    wobble = 0.006 * smooth_noise(rng, size, 4)
    weave = np.sin(pitch * (along + wobble)) * np.sin(pitch * (across - wobble))
    colour = rng.uniform(0.2, 0.75, 3)
    image = colour * (1 + rng.uniform(0.12, 0.25) * weave + 0.06 * smooth_noise(rng, size, 3))[..., None]
    if rng.random() < 0.6:
        band = soft(np.sin(2 * np.pi * (rng.uniform(2, 5) * along + rng.random())) - rng.uniform(0, 0.5), 0.2)
        image = paint(image, 0.6 * band, image * rng.uniform(0.6, 1.5, 3))
    return _scene(rng, size, image)


def _wood(rng: np.random.Generator, size: int) -> Scene:
    along, across = _axes(rng, size)
    drift = 0.04 * smooth_noise(rng, size, 2) + 0.03 * np.sin(
        2 * np.pi * (along * rng.uniform(0.3, 0.8) + rng.random())
    )
    ring = np.sin(2 * np.pi * rng.uniform(7, 15) * (across + drift))
    fibre = np.interp(across + 0.5 * drift, np.linspace(-1.3, 1.7, 500), rng.standard_normal(500))
    colour = np.array([0.66, 0.45, 0.27]) * rng.uniform(0.7, 1.25) * (1 + rng.normal(0, 0.06, 3))
    image = colour * (1 + rng.uniform(0.08, 0.2) * ring + 0.06 * fibre)[..., None]
    for _ in range(int(rng.integers(0, 3))):  # knots are normal
        level = blob(rng, size, (rng.uniform(0.1, 0.9), rng.uniform(0.1, 0.9)), rng.uniform(0.03, 0.06), stretch=1.8)
        rings = 0.75 + 0.12 * np.sin(level * 400)
        image = paint(image, 0.8 * soft(level, 0.03), image * rings[..., None])
    return _scene(rng, size, image)


def _tile(rng: np.random.Generator, size: int) -> Scene:
    y, x = grid(size)
    count = rng.uniform(1.6, 3.2)
    shift = rng.random(2)
    row, column = y * count + shift[0], x * count + shift[1]
    base = rng.uniform(0.45, 0.8) * (1 + rng.normal(0, 0.08, 3))
    speckle = smooth_noise(rng, size, 50)
    image = base * (1 + rng.uniform(0.02, 0.06) * speckle + 0.04 * smooth_noise(rng, size, 5))[..., None]
    shade = 1 + 0.06 * rng.standard_normal((8, 8))
    image = image * shade[np.floor(row).astype(int) % 8, np.floor(column).astype(int) % 8][..., None]
    chips = soft(smooth_noise(rng, size, 28) - rng.uniform(1.1, 1.6), 0.4)
    image = paint(image, 0.7 * chips, base * rng.uniform(0.6, 1.35, 3))
    grout = np.minimum(np.abs(row - np.round(row)), np.abs(column - np.round(column))) / count
    image = paint(image, soft(rng.uniform(0.012, 0.02) - grout, 0.01), rng.uniform(0.25, 0.9) * np.ones(3))
    return _scene(rng, size, image)


def _pill(rng: np.random.Generator, size: int) -> Scene:
    y, x = grid(size)
    background = rng.uniform(0.12, 0.85, 3) * 0.5 + rng.uniform(0.05, 0.4)
    image = background * (1 + 0.05 * smooth_noise(rng, size, 6) + 0.03 * smooth_noise(rng, size, 40))[..., None]
    angle = rng.uniform(0, np.pi)
    dy, dx = y - rng.uniform(0.44, 0.56), x - rng.uniform(0.44, 0.56)
    u, v = dx * np.cos(angle) + dy * np.sin(angle), -dx * np.sin(angle) + dy * np.cos(angle)
    half, radius = rng.uniform(0.02, 0.2), rng.uniform(0.17, 0.25)
    level = radius - np.hypot(np.maximum(np.abs(u) - half, 0), v)
    first = rng.uniform(0.35, 0.95, 3)
    second = rng.uniform(0.35, 0.95, 3) if rng.random() < 0.6 else first
    body = np.where((u > rng.uniform(-0.05, 0.05))[..., None], first, second)
    body = body * (0.72 + 0.38 * np.sqrt(np.clip(level / radius, 0, 1)))[..., None]
    lamp = np.exp(-(((v + radius * 0.45) / 0.035) ** 2)) * (np.abs(u) < half + 0.05)
    body = body + rng.uniform(0.1, 0.3) * lamp[..., None]
    for offset in np.linspace(-0.06, 0.06, int(rng.integers(0, 4))):  # an imprint is normal
        mark = (np.abs(u - offset) < 0.008) & (np.abs(v) < 0.045)
        body = paint(body, 0.5 * mark, body * 0.55)
    shadow = radius - np.hypot(np.maximum(np.abs(u - 0.01) - half, 0), v - 0.02)
    image = paint(image, 0.4 * soft(shadow + 0.02, 0.05), 0.05 * np.ones(3))
    image = paint(image, soft(level, 0.012), body)
    return _scene(rng, size, image, level > 0.09, level > 0.015)


def _circuit(rng: np.random.Generator, size: int) -> Scene:
    y, x = grid(size)
    board = np.array([[0.08, 0.36, 0.18], [0.08, 0.2, 0.42], [0.36, 0.1, 0.12], [0.22, 0.24, 0.26]])[
        int(rng.integers(4))
    ]
    image = board * rng.uniform(0.85, 1.3) * (1 + 0.06 * smooth_noise(rng, size, 30))[..., None]
    copper = np.array([0.78, 0.62, 0.3]) * rng.uniform(0.7, 1.1)
    trace = board * 1.7 + 0.06
    lattice = 14
    for _ in range(int(rng.integers(7, 13))):
        line, start, end = int(rng.integers(1, lattice)) / lattice, *np.sort(rng.uniform(0, 1, 2))
        a, b = (y, x) if rng.random() < 0.5 else (x, y)
        on = (np.abs(a - line) < rng.uniform(0.008, 0.016)) & (b > start) & (b < end)
        image = paint(image, 0.9 * on, trace)
    for _ in range(int(rng.integers(4, 10))):
        row, column = (int(rng.integers(1, lattice)) / lattice for _ in range(2))
        distance: Array = np.hypot(y - row, x - column)
        image = paint(image, soft(0.03 - distance, 0.01), copper)
        image = paint(image, soft(0.012 - distance, 0.01), 0.06 * np.ones(3))
    for _ in range(int(rng.integers(1, 4))):
        cy, cx, h, w = rng.uniform(0.1, 0.9), rng.uniform(0.1, 0.9), rng.uniform(0.05, 0.12), rng.uniform(0.06, 0.14)
        legs = (np.abs(y - cy) < h + 0.025) & (np.abs(x - cx) < w) & (np.sin((x - cx) * 2 * np.pi * 24) > 0.1)
        image = paint(image, np.where(legs, 0.9, 0.0), 0.75 * np.ones(3))
        case = (np.abs(y - cy) < h) & (np.abs(x - cx) < w)
        image = paint(image, np.where(case, 1.0, 0.0), rng.uniform(0.08, 0.18) * np.ones(3))
    return _scene(rng, size, image)


def _scratch(rng: np.random.Generator, scene: Scene) -> Damage:
    """A long thin groove, one flank lit and the other in shadow."""
    size = len(scene.region)
    path = wander(rng, random_point(rng, scene.region), rng.uniform(0.3, 0.65), bend=0.9)
    width = rng.uniform(0.013, 0.024)
    distance = curve_distance(size, path)
    flank = smooth_noise(rng, size, 10) * 0.15
    bright = 1.0 if rng.random() < 0.6 else -1.0
    layer = scene.image + (bright * rng.uniform(0.28, 0.45) * (1.2 * (1 - distance / width) - 0.3) + flank)[..., None]
    return Damage("scratch", soft(width - distance, 0.006), layer)


def _crack(rng: np.random.Generator, scene: Scene) -> Damage:
    """A jagged dark line with a side branch."""
    size = len(scene.region)
    centre = random_point(rng, scene.region)
    path = wander(rng, centre, rng.uniform(0.35, 0.7), bend=0.5, jag=0.7, points=18)
    branch = wander(rng, centre, rng.uniform(0.15, 0.35), bend=0.5, jag=0.7)
    branch += path[int(rng.integers(5, 13))] - branch[0]
    width = rng.uniform(0.011, 0.02)
    level = np.maximum(width - curve_distance(size, path), 0.75 * width - curve_distance(size, branch))
    return Damage("crack", soft(level, 0.006), scene.image * rng.uniform(0.1, 0.35))


def _hole(rng: np.random.Generator, scene: Scene) -> Damage:
    """A ragged dark hole with a lit rim."""
    size = len(scene.region)
    radius = rng.uniform(0.05, 0.1)
    level = blob(rng, size, random_point(rng, scene.region), radius, roughness=0.16, stretch=1.6)
    depth = rng.uniform(0.02, 0.12) * (1 + 0.3 * smooth_noise(rng, size, 12))
    layer = np.broadcast_to(depth[..., None], scene.image.shape)
    layer = paint(layer, soft(0.018 - level, 0.012), scene.image * rng.uniform(1.2, 1.6))
    return Damage("hole", soft(level, 0.008), layer)


def _stain(rng: np.random.Generator, scene: Scene) -> Damage:
    """A blotch of another colour with an uneven, darker rim."""
    size = len(scene.region)
    level = blob(rng, size, random_point(rng, scene.region), rng.uniform(0.08, 0.16), roughness=0.16, stretch=1.8)
    tints = np.array([[0.45, 0.25, 0.1], [0.15, 0.12, 0.1], [0.5, 0.12, 0.1], [0.75, 0.72, 0.6], [0.15, 0.2, 0.45]])
    local = scene.image[level > 0].mean(axis=0) if (level > 0).any() else np.full(3, 0.5)
    far = np.abs(tints - local).sum(axis=1)
    tint = tints[int(rng.choice(np.argsort(far)[2:]))] * rng.uniform(0.85, 1.15)  # one that shows on this ground
    strength = rng.uniform(0.55, 0.85) * (1 + 0.2 * smooth_noise(rng, size, 9))
    layer = scene.image + np.clip(strength, 0.2, 0.95)[..., None] * (tint - scene.image)
    layer = paint(layer, 0.5 * soft(0.03 - level, 0.02), layer * 0.7)
    return Damage("stain", soft(level, 0.03), layer)


def _dent(rng: np.random.Generator, scene: Scene) -> Damage:
    """A pit in the surface, seen by its light and shadow only."""
    size = len(scene.region)
    centre = random_point(rng, scene.region)
    radius = rng.uniform(0.08, 0.14)
    level = blob(rng, size, centre, radius, roughness=0.06, stretch=1.3)
    y, x = grid(size)
    lamp = rng.uniform(0, 2 * np.pi)
    slope = ((y - centre[0]) * np.sin(lamp) + (x - centre[1]) * np.cos(lamp)) / radius
    layer = scene.image * (1 + rng.uniform(0.45, 0.7) * slope)[..., None]
    return Damage("dent", soft(level, 0.02), layer)


INDUSTRIAL: dict[str, tuple[Render, tuple[Harm, ...]]] = {
    "metal": (_metal, (_scratch, _hole, _stain, _dent)),
    "fabric": (_fabric, (_hole, _stain, _scratch)),
    "wood": (_wood, (_crack, _hole, _stain, _scratch)),
    "tile": (_tile, (_crack, _stain, _hole)),
    "pill": (_pill, (_crack, _stain, _hole, _scratch)),
    "circuit": (_circuit, (_scratch, _stain, _hole)),
}
