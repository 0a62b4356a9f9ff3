# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Medical-like phantoms: endoscopy, brain MR, head CT and chest X-ray. Prompts never see them while they are tuned."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from monai_anomalyclip.demo.heads import Z_RANGE, Head, HeadLesion, Plane
from monai_anomalyclip.demo.textures import (
    Damage,
    Harm,
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

__all__ = ["CT_LESIONS", "MEDICAL", "MR_LESIONS", "head_lesion_layer"]

MR_LESIONS = ("bright tumour", "dark tumour", "ring tumour")
CT_LESIONS = ("bleed", "extra-axial bleed", "infarct")


def head_lesion_layer(lesion: HeadLesion, plane: Plane, contrast: str, z: float) -> Damage:
    """The lesion's blend over the plane at ``z``, in the plane's own units (Hounsfield units for CT)."""
    level, alpha = lesion.shape(plane, z)
    ground, spread = plane.image, 1 + 0.12 * lesion.texture
    if contrast == "ct":
        target = 6 + 8 * lesion.strength if lesion.kind == "infarct" else 64 + 14 * lesion.strength
        return Damage(lesion.kind, alpha, np.asarray(target * spread))
    bright = (0.86 + 0.14 * lesion.strength) * spread
    dark = (0.1 + 0.08 * lesion.strength) * spread
    if lesion.kind == "bright tumour":
        layer = bright
    elif lesion.kind == "dark tumour":
        layer = dark
    else:  # enhancing rim around a dark core
        layer = paint(bright, soft(level - 0.022, 0.012), dark)
    return Damage(lesion.kind, alpha, np.asarray(layer) + 0 * ground)


@dataclass(frozen=True)
class HeadScene(Scene):
    """A displayed plane of a head that remembers where it is from; ``window`` is (black, white) in its units."""

    head: Head | None = None
    plane: Plane | None = None
    z: float = 0.0
    window: tuple[float, float] = (0.0, 1.0)


def _head_scene(rng: np.random.Generator, size: int, contrast: str) -> HeadScene:
    head = Head(rng, size, contrast)
    z = rng.uniform(-Z_RANGE, Z_RANGE)
    plane = head.plane(z, rng)
    if contrast == "ct":
        centre, width = rng.uniform(34, 46), rng.uniform(75, 110)
        window = (centre - width / 2, centre + width / 2)
    else:
        window = (0.0, rng.uniform(0.95, 1.15))
    scale = window[1] - window[0]
    return HeadScene((plane.image - window[0]) / scale, plane.region, plane.noise / scale, None, head, plane, z, window)


def _brain_mr(rng: np.random.Generator, size: int) -> Scene:
    return _head_scene(rng, size, "mr")


def _head_ct(rng: np.random.Generator, size: int) -> Scene:
    return _head_scene(rng, size, "ct")


def _head_lesion(rng: np.random.Generator, scene: Scene) -> Damage:
    assert isinstance(scene, HeadScene)
    assert scene.head is not None
    assert scene.plane is not None
    kinds = CT_LESIONS if scene.head.contrast == "ct" else MR_LESIONS
    lesion = HeadLesion.random(rng, scene.plane, scene.z, kinds)
    damage = head_lesion_layer(lesion, scene.plane, scene.head.contrast, scene.z)
    low, high = scene.window
    return Damage(damage.kind, damage.alpha, (damage.layer - low) / (high - low))


def _endoscopy(rng: np.random.Generator, size: int) -> Scene:
    y, x = grid(size)
    lumen = rng.uniform(0.2, 0.8, 2)
    distance = np.hypot(y - lumen[0], x - lumen[1])
    mucosa = np.array([0.8, 0.42, 0.34]) * rng.uniform(0.8, 1.1) * (1 + rng.normal(0, 0.06, 3))
    warp = 0.05 * smooth_noise(rng, size, 3)
    folds = np.sin(2 * np.pi * (rng.uniform(3.0, 5.0) * (distance + warp) + rng.random()))
    shade = 1 + rng.uniform(0.08, 0.2) * folds + 0.05 * smooth_noise(rng, size, 8)
    image = mucosa * shade[..., None]
    image = image * (1 + smooth_noise(rng, size, 5)[..., None] * np.array([0.01, 0.05, 0.05]))
    for _ in range(int(rng.integers(2, 6))):  # vessels
        path = wander(rng, (rng.random(), rng.random()), rng.uniform(0.3, 0.8), bend=1.0)
        width = rng.uniform(0.006, 0.012)
        image = paint(
            image, 0.55 * soft(width - curve_distance(size, path), 0.008), image * np.array([0.75, 0.45, 0.45])
        )
    image = image * (1 - rng.uniform(0.6, 0.9) * np.exp(-((distance / rng.uniform(0.12, 0.25)) ** 2)))[..., None]
    lamp = np.hypot(y - rng.uniform(0.35, 0.65), x - rng.uniform(0.35, 0.65))
    image = image * (rng.uniform(1.0, 1.2) - rng.uniform(0.5, 0.9) * lamp**2)[..., None]
    for _ in range(int(rng.integers(3, 10))):  # wet highlights
        level = blob(rng, size, (rng.random(), rng.random()), rng.uniform(0.01, 0.03), stretch=3.0)
        image = paint(image, rng.uniform(0.5, 0.95) * soft(level, 0.012), np.array([1.0, 0.95, 0.9]))
    frame = 0.5 * np.sqrt(2) * rng.uniform(0.78, 1.05) - np.hypot(y - 0.5, x - 0.5)
    image = paint(image, soft(0.01 - frame, 0.01), np.full(3, 0.02))
    noise = rng.uniform(0.006, 0.018) * fine_noise(rng, size)[..., None] * np.ones(3)
    edge = np.minimum(np.minimum(y, 1 - y), np.minimum(x, 1 - x))
    return Scene(image, (frame > 0.12) & (edge > 0.14) & (distance > 0.2), noise, frame > 0.015)


def _polyp(rng: np.random.Generator, scene: Scene) -> Damage:
    """A lump: its own colour, a lit dome with a highlight, a dark foot."""
    size = len(scene.region)
    centre, radius = random_point(rng, scene.region), rng.uniform(0.09, 0.15)
    level = blob(rng, size, centre, radius, roughness=0.06, stretch=1.5)
    y, x = grid(size)
    lamp = rng.uniform(0, 2 * np.pi)
    slope = ((y - centre[0]) * np.sin(lamp) + (x - centre[1]) * np.cos(lamp)) / radius
    dome = 0.75 + 0.4 * np.sqrt(np.clip(level / radius, 0, 1)) + 0.22 * slope
    tone = np.array([[0.82, 0.3, 0.26], [0.9, 0.62, 0.5], [0.62, 0.2, 0.22]])[int(rng.integers(3))]
    light = scene.image[level > 0].mean() / 0.5
    surface = 1 + 0.07 * smooth_noise(rng, size, 22)
    layer = tone * (np.clip(light, 0.6, 1.3) * dome * surface)[..., None]
    shine = blob(rng, size, (centre[0] + 0.4 * radius * np.sin(lamp), centre[1] + 0.4 * radius * np.cos(lamp)), 0.02)
    layer = paint(layer, 0.8 * soft(shine, 0.012), np.array([1.0, 0.95, 0.9]))
    layer = paint(layer, 0.55 * soft(0.02 - level, 0.02), layer * 0.4)
    return Damage("polyp", soft(level, 0.012), layer)


def _ulcer(rng: np.random.Generator, scene: Scene) -> Damage:
    """A pale yellow floor with an inflamed rim."""
    size = len(scene.region)
    level = blob(rng, size, random_point(rng, scene.region), rng.uniform(0.08, 0.14), roughness=0.16, stretch=1.8)
    floor = (
        np.array([0.88, 0.82, 0.6]) * (rng.uniform(0.85, 1.05) * (1 + 0.08 * smooth_noise(rng, size, 16)))[..., None]
    )
    layer = paint(floor, soft(0.03 - level, 0.02), np.array([0.6, 0.12, 0.12]))
    return Damage("ulcer", soft(level, 0.02), layer)


def _bleeding(rng: np.random.Generator, scene: Scene) -> Damage:
    """A pool of fresh blood."""
    size = len(scene.region)
    level = blob(rng, size, random_point(rng, scene.region), rng.uniform(0.09, 0.15), roughness=0.2, stretch=2.0)
    layer = np.array([0.42, 0.03, 0.04]) * (rng.uniform(0.8, 1.2) * (1 + 0.2 * smooth_noise(rng, size, 14)))[..., None]
    return Damage("bleeding", soft(level, 0.015), layer)


def _chest_xray(rng: np.random.Generator, size: int) -> Scene:
    y, x = grid(size)
    cx, cy = 0.5 + rng.normal(0, 0.025), 0.47 + rng.normal(0, 0.025)
    width, height = rng.uniform(0.3, 0.36), rng.uniform(0.34, 0.4)
    u, v = (x - cx) / width, (y - cy) / height
    body = soft(1.42 - np.hypot(u * 0.95, np.maximum(np.abs(v) - 0.9, 0)) + 0.08 * np.cos(3 * v), 0.15)
    image = rng.uniform(0.58, 0.7) * body + 0.03
    lungs = np.full((size, size), -1.0)
    for side in (-1, 1):
        lung = 1 - np.hypot((u - side * 0.55) / (0.43 + 0.04 * v), (v + 0.02) / (0.98 - (0.1 if side < 0 else 0.04)))
        dome = -(v - rng.uniform(0.72, 0.86) - 0.35 * (u - side * 0.55) ** 2)  # diaphragm
        lungs = np.maximum(lungs, np.minimum(lung, dome) * width)
    air = rng.uniform(0.14, 0.26)
    image = paint(image, 0.95 * soft(lungs, 0.035), air * (1 + 0.25 * v))
    inside = soft(lungs, 0.02)
    hilum = np.exp(-(((np.abs(u) - 0.18) / 0.2) ** 2) - ((v - 0.05) / 0.35) ** 2)
    image = image + inside * hilum * (0.14 + 0.07 * smooth_noise(rng, size, 18))
    image = image + inside * 0.025 * smooth_noise(rng, size, 24)
    heart = blob(
        rng, size, (cy + 0.42 * height, cx + rng.uniform(0.08, 0.2) * width), rng.uniform(0.12, 0.155), roughness=0.03
    )
    image = paint(image, 0.95 * soft(heart, 0.02), rng.uniform(0.66, 0.76))
    pitch = rng.uniform(4.6, 6.2)
    for side in (-1, 1):  # ribs
        phase = pitch * (v + 0.5 * (np.abs(u) - 0.3) ** 2 + 0.12 * side * u) + rng.random()
        band = soft(np.cos(2 * np.pi * phase) - 0.45, 0.35) * (u * side > 0.12)
        image = image + rng.uniform(0.05, 0.1) * band * soft(lungs + 0.05, 0.05)
    for side in (-1, 1):  # clavicles
        path = np.array([[cy - 0.72 * height, cx + side * 0.1 * width], [cy - 0.88 * height, cx + side * 1.1 * width]])
        image = image + rng.uniform(0.07, 0.14) * soft(0.018 - curve_distance(size, path), 0.012)
    spine = np.exp(-((u / 0.1) ** 2)) * (0.06 + 0.03 * np.sin(2 * np.pi * 9 * v))
    image = (image + spine * body) * rng.uniform(0.92, 1.15) * (1 + 0.04 * smooth_noise(rng, size, 2))
    return Scene(image, lungs > 0.05, rng.uniform(0.008, 0.025) * fine_noise(rng, size), lungs > 0.003)


def _opacity(rng: np.random.Generator, scene: Scene) -> Damage:
    """A patchy white shadow with a soft border."""
    size = len(scene.region)
    level = blob(rng, size, random_point(rng, scene.region), rng.uniform(0.09, 0.15), roughness=0.15, stretch=1.6)
    cloud = 1 + 0.25 * smooth_noise(rng, size, 14)
    return Damage("opacity", soft(level, 0.05), scene.image + rng.uniform(0.38, 0.5) * cloud)


def _nodule(rng: np.random.Generator, scene: Scene) -> Damage:
    """A round, well defined white spot."""
    size = len(scene.region)
    level = blob(rng, size, random_point(rng, scene.region), rng.uniform(0.055, 0.09), roughness=0.05, stretch=1.2)
    return Damage("nodule", soft(level, 0.02), scene.image + rng.uniform(0.38, 0.5))


MEDICAL: dict[str, tuple[Render, tuple[Harm, ...]]] = {
    "endoscopy": (_endoscopy, (_polyp, _ulcer, _bleeding)),
    "brain_mr": (_brain_mr, (_head_lesion,)),
    "head_ct": (_head_ct, (_head_lesion,)),
    "chest_xray": (_chest_xray, (_opacity, _nodule)),
}
