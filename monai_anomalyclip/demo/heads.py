# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""A head or lung in three dimensions; its planes are the volumes' slices and the brain-MR- and head-CT-like pictures.

Lengths are fractions of the field of view (224 mm). Rows go from front to back and columns from the patient's right to
left, as in the usual radiological display; ``z`` runs from -0.2 (towards the feet) to 0.2 (towards the crown).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from monai_anomalyclip.demo.textures import (
    Array,
    Mask,
    blob_at,
    fine_noise,
    grid,
    paint,
    random_point,
    smooth_noise,
    soft,
)

__all__ = ["FIELD_OF_VIEW_MM", "Z_RANGE", "Head", "HeadLesion", "Lung", "Plane"]

FIELD_OF_VIEW_MM = 224.0
Z_RANGE = 0.2


@dataclass(frozen=True)
class Plane:
    """One plane: ``image`` (S, S), ``brain`` level in side lengths to the rim of brain or lung, ``noise`` (S, S)."""

    image: Array
    brain: Array
    noise: Array

    @property
    def region(self) -> Mask:
        """Where a lesion may have its centre: the brain, away from its rim and from the ventricles' middle."""
        return self.brain > 0.07


class Head:
    """Random but fixed anatomy; every plane of the same head fits its neighbours.

    Args:
        rng: all randomness of the anatomy, drawn once here.
        size: pixels per side.
        contrast: "ct" gives planes in Hounsfield units; "mr" in arbitrary units, white about 1.
    """

    def __init__(self, rng: np.random.Generator, size: int, contrast: str) -> None:
        self.size, self.contrast = size, contrast
        self.centre = 0.5 + rng.normal(0, 0.02, 2)
        self.axes = np.array([rng.uniform(0.38, 0.44), rng.uniform(0.3, 0.36)])
        self.angle = rng.normal(0, 0.12)
        self.skull = rng.uniform(0.022, 0.035)
        self.scalp = rng.uniform(0.015, 0.035)
        self.ventricle = rng.uniform(0.75, 1.35)
        self.cortex = rng.uniform(0.04, 0.06)
        self.folds = np.stack([smooth_noise(rng, size, 15) for _ in range(2)])
        self.texture = np.stack([smooth_noise(rng, size, 7) for _ in range(2)])
        self.bias = smooth_noise(rng, size, 1) * rng.uniform(0.04, 0.14)
        self.calcified = rng.random() < 0.5
        self.noise_level = rng.uniform(2.0, 4.5) if contrast == "ct" else rng.uniform(0.012, 0.035)
        if contrast == "ct":
            self.white, self.grey, self.fluid = rng.uniform(26, 30), rng.uniform(35, 39), rng.uniform(4, 12)
            self.bone, self.skin, self.air = rng.uniform(600, 1200), rng.uniform(10, 60), -1000.0
        elif rng.random() < 0.5:  # T1-like: dark fluid
            self.white, self.grey, self.fluid = rng.uniform(0.58, 0.7), rng.uniform(0.4, 0.5), rng.uniform(0.1, 0.2)
            self.bone, self.skin, self.air = rng.uniform(0.08, 0.18), rng.uniform(0.6, 1.0), 0.01
        else:  # T2-like: bright fluid
            self.white, self.grey, self.fluid = rng.uniform(0.28, 0.36), rng.uniform(0.44, 0.54), rng.uniform(0.8, 1.0)
            self.bone, self.skin, self.air = rng.uniform(0.04, 0.1), rng.uniform(0.45, 0.8), 0.01

    def _mixed(self, fields: Array, z: float) -> Array:
        """A field that changes smoothly with ``z``: two independent ones, turned into one another."""
        return np.asarray(np.cos(9 * z) * fields[0] + np.sin(9 * z) * fields[1])

    def plane(self, z: float, rng: np.random.Generator) -> Plane:
        """The plane at height ``z``; ``rng`` gives its sensor noise."""
        size = self.size
        y, x = grid(size)
        dy, dx = y - self.centre[0], x - self.centre[1]
        v = dy * np.cos(self.angle) + dx * np.sin(self.angle)
        u = -dy * np.sin(self.angle) + dx * np.cos(self.angle)
        shrink = np.sqrt(1 - (z / 0.42) ** 2)
        a, b = self.axes * shrink
        ratio = np.hypot(v / a, u / b)
        outside = (1 - ratio) * min(a, b)  # side lengths to the skin, positive inside
        brain = outside - self.scalp - self.skull
        folds, texture = self._mixed(self.folds, z), self._mixed(self.texture, z)

        depth = brain - self.cortex - 0.016 * folds
        image = self.grey + (self.white - self.grey) * soft(depth, 0.02)
        image = image * (1 + (0.02 if self.contrast == "ct" else 0.05) * texture)
        sulci = soft(folds - 0.9, 0.4) * soft(0.07 - brain, 0.03)
        image = paint(image, 0.5 * sulci, self.fluid)
        for side in (-1, 1):  # grey nuclei and, medial to them, the lateral ventricles
            image = paint(
                image, 0.8 * soft(1 - np.hypot((u - side * 0.095) / 0.035, (v + 0.01) / 0.075), 0.3), self.grey
            )
            for end, width in ((-0.075, 0.026), (0.08, 0.03)):
                bow = side * (0.03 + 0.5 * (v - 0.01) ** 2 * 4)
                thick = width * self.ventricle * np.clip(1 - (z - 0.03) ** 2 / 0.05, 0, 1)
                level = 1 - np.hypot((u - bow) / max(thick, 1e-3), (v - end * 0.7) / (0.085 * self.ventricle))
                image = paint(image, soft(level, 0.35), self.fluid)
        fissure = soft(0.008 - np.abs(u), 0.006) * soft(np.abs(v) - 0.14, 0.04)
        image = paint(image, 0.7 * fissure, self.grey + 12 if self.contrast == "ct" else self.fluid)
        if self.contrast == "ct" and self.calcified:  # pineal gland and choroid plexus: bright and normal
            for spot in ((0.07, 0.0), (0.11, 0.055), (0.11, -0.055)):
                image = paint(image, soft(0.014 - np.hypot(v - spot[0], u - spot[1]), 0.008), 110.0)
        image = paint(image, soft(0.012 - brain, 0.012), self.fluid)
        image = paint(image, soft(-brain, 0.008), self.bone)
        image = paint(image, soft(self.scalp - outside, 0.008), self.skin * (1 + 0.1 * texture))
        image = paint(image, soft(-outside, 0.008), self.air)
        if self.contrast == "mr":
            image = image * (1 + self.bias)
        return Plane(image, brain, self.noise_level * fine_noise(rng, size))


class Lung(Head):
    """One lung with vessels in a chest wall with ribs, in Hounsfield units; its outline is a head's.

    Args:
        rng: all randomness of the anatomy, drawn once here.
        size: pixels per side.
    """

    def __init__(self, rng: np.random.Generator, size: int) -> None:
        super().__init__(rng, size, "ct")
        self.noise_level = rng.uniform(10, 20)
        self.vessels = np.stack([np.append(rng.uniform(-0.65, 0.65, 2), rng.uniform(0.006, 0.012)) for _ in range(12)])
        self.drift = rng.uniform(-0.6, 0.6, (12, 2))  # of a vessel, with the height
        self.ribs = rng.uniform(0, 1)

    def plane(self, z: float, rng: np.random.Generator) -> Plane:
        """The plane at height ``z``; ``rng`` gives its sensor noise."""
        y, x = grid(self.size)
        v, u = y - self.centre[0], x - self.centre[1]
        axes = self.axes * np.sqrt(1 - (z / 0.42) ** 2)
        outside = (1 - np.hypot(v / axes[0], u / axes[1])) * min(axes)
        lung = outside - self.scalp - self.skull
        image = paint(np.full(lung.shape, -1000.0), soft(outside, 0.006), -90.0)  # fat, then muscle
        image = paint(image, soft(lung + 0.03, 0.006), 50.0)
        for turn in 2 * np.pi / 9 * (np.arange(9) + self.ribs + 3 * z):
            row, column = (axes - self.scalp - self.skull + 0.014) * [np.cos(turn), np.sin(turn)]
            image = paint(image, soft(0.014 - np.hypot(v - row, u - column), 0.006), 400.0)
        image = paint(image, soft(lung, 0.008), -830 + 25 * self._mixed(self.texture, z))
        for (row, column, radius), drift in zip(self.vessels, self.drift, strict=True):
            away = np.hypot(v - row * axes[0] - drift[0] * z, u - column * axes[1] - drift[1] * z)
            image = paint(image, soft(radius - away, 0.006), 40.0)
        return Plane(image, lung, self.noise_level * fine_noise(rng, self.size))


@dataclass(frozen=True)
class HeadLesion:
    """A lesion in three dimensions: a blob at ``centre`` (y, x) and ``z`` that thins out over ``half_height``."""

    kind: str
    centre: tuple[float, float]
    z: float
    half_height: float
    radius: float
    waves: Array
    stretch: float
    angle: float
    strength: float
    texture: Array

    @classmethod
    def random(cls, rng: np.random.Generator, plane: Plane, z: float, kinds: tuple[str, ...]) -> HeadLesion:
        """A lesion of one of ``kinds`` somewhere in the brain of ``plane``, which is the head's plane at ``z``."""
        kind = str(rng.choice(kinds))
        region, radius = plane.region, rng.uniform(0.07, 0.125)
        if kind == "extra-axial bleed":
            region, radius = (plane.brain > 0.0) & (plane.brain < 0.02), rng.uniform(0.1, 0.15)
        if kind == "infarct":
            region, radius = (plane.brain > 0.03) & (plane.brain < 0.1), rng.uniform(0.09, 0.14)
        return cls(
            kind=kind,
            centre=random_point(rng, region),
            z=z,
            half_height=rng.uniform(0.05, 0.08),
            radius=radius,
            waves=0.13 * rng.standard_normal((2, 4)) / np.sqrt(np.arange(2, 6)),
            stretch=rng.uniform(1, 1.6),
            angle=rng.uniform(0, np.pi),
            strength=rng.uniform(0, 1),
            texture=smooth_noise(rng, len(region), 12),
        )

    def shape(self, plane: Plane, z: float) -> tuple[Array, Array]:
        """Level in side lengths (positive inside) and opacity in [0, 1] of the lesion at ``z``, each (S, S)."""
        size = len(plane.brain)
        left = 1 - ((z - self.z) / self.half_height) ** 2
        if left <= 0:
            return np.full((size, size), -1.0), np.zeros((size, size))
        level = blob_at(
            size, self.centre, self.radius * np.sqrt(left), self.waves, stretch=self.stretch, angle=self.angle
        )
        level = np.minimum(level, plane.brain - 0.004)
        return level, soft(level, 0.05 if self.kind in ("infarct", "oedema") else 0.02)
