# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Anomaly metrics by trying every threshold, one by one: slow, plain, and nothing of the package in it."""

from __future__ import annotations

import itertools

import numpy as np

__all__ = ["aupro", "curves", "flood_fill", "random_maps"]


def random_maps(
    count: int = 6, height: int = 13, width: int = 11, levels: int | None = None, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Maps (N, 1, H, W) float32 that lean towards masks (N, 1, H, W) of a few blots; `levels` makes them tie.

    Every third mask is empty.
    """
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    masks = np.zeros((count, 1, height, width), np.uint8)
    for index in range(count):
        for _ in range(0 if index % 3 == 2 else random.integers(1, 4)):
            y, x, radius = random.uniform(0, height), random.uniform(0, width), random.uniform(0.8, 3)
            masks[index, 0] |= (rows - y) ** 2 + (columns - x) ** 2 < radius**2
    maps = (random.random(masks.shape) + 0.4 * masks).astype(np.float32)
    if levels is not None:
        maps = (np.round(maps * levels) / levels).astype(np.float32)
    return maps, masks


def flood_fill(mask: np.ndarray) -> list[np.ndarray]:
    """The 8-connected regions of a mask (H, W), each as a mask, by walking from pixel to pixel."""
    left = {(int(y), int(x)) for y, x in np.argwhere(mask)}
    regions = []
    while left:
        edge, region = [left.pop()], np.zeros(mask.shape, bool)
        while edge:
            y, x = edge.pop()
            region[y, x] = True
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            left -= near
            edge.extend(near)
        regions.append(region)
    return regions


def curves(maps: np.ndarray, masks: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """False positive rate, mean overlap and recall of pixels for "nothing" and every distinct score, descending."""
    regions = [(index, region) for index, mask in enumerate(masks[:, 0]) for region in flood_fill(mask)]
    points = [(0.0, 0.0, 0.0)]
    for threshold in np.unique(maps)[::-1]:
        flagged = maps[:, 0] >= threshold
        rate = flagged[masks[:, 0] == 0].mean()
        overlap = np.mean([flagged[index][region].mean() for index, region in regions])
        points.append((rate, float(overlap), flagged[masks[:, 0] == 1].mean()))
    rates, overlaps, recalls = np.array(points, dtype=np.float64).T
    return rates, overlaps, recalls


def aupro(maps: np.ndarray, masks: np.ndarray, limit: float = 0.3) -> float:
    """Trapezoids under the mean overlap, the last one cut at the limit where the curve is interpolated."""
    rates, overlaps, _ = curves(maps, masks)
    area = 0.0
    for (x0, x1), (y0, y1) in zip(itertools.pairwise(rates), itertools.pairwise(overlaps), strict=True):
        if x0 >= limit or x0 == x1:
            continue
        end = min(x1, limit)
        area += (end - x0) * (y0 + y0 + (y1 - y0) * (end - x0) / (x1 - x0)) / 2
    return area / limit
