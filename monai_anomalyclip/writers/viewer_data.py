# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""What a page needs to show an input slice by slice: small pictures of source and map, and where they lie.

A preview: the source is JPEG (WebP is no better here, and takes five times as long), the map has 8 bits and at most
128 cells a side. The files beside it hold the values.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai.data.meta_tensor import MetaTensor
from PIL import Image
from torch import Tensor
from torch.nn import functional

from monai_anomalyclip.data.slicing import SliceView
from monai_anomalyclip.data.sources import DicomSource, NiftiSource, Source
from monai_anomalyclip.writers.findings import Findings, archive_places
from monai_anomalyclip.writers.overlays import displayable, gray_png, limits_of

__all__ = ["MOST_SHOWN", "PreviewFrames", "film_preview", "orientation_letters", "preview", "shown_frames"]

MOST_SHOWN = 400
"""Slices or frames of one input; of a longer one as many, evenly spread, and the most suspicious."""

_MAP_SIDE = 128  # cells: where the map reaches a threshold of 0.3 then differs in less than 0.05 % of the pixels
_STACK_SIDE, _PICTURE_SIDE = 512, 1024  # pixels of the source, at most
_SMALLEST_SIDE = 384  # of the drawing: outlines stay thin
_QUALITY = 75
_AT_ONCE = 4  # slices: copies of so many stay in the processor's cache
_LETTERS = (("R", "L"), ("A", "P"), ("I", "S"))  # towards lower and higher coordinates of DICOM's patient: x, y, z
_RAS = "RAS"
_OBLIQUE = 0.35  # direction cosine from which a second letter is shown


class PreviewFrames:
    """Encodes slices or frames as they come; holds what was encoded alone.

    Args:
        single: whether there is only one, which may be larger.
    """

    def __init__(self, single: bool = False) -> None:
        self._side = _PICTURE_SIDE if single else _STACK_SIDE
        self.sources: dict[int, str] = {}
        self.maps: dict[int, str] = {}

    def add(self, indices: Iterable[int], frames: npt.NDArray[np.uint8], maps: npt.NDArray[np.floating]) -> None:
        """Encode slices.

        Args:
            indices: of each in the input.
            frames: (n, H, W, 3) or (n, H, W) uint8.
            maps: (n, H, W) in [0, 1].
        """
        numbers = list(indices)
        self.sources.update(zip(numbers, map(self._source, frames), strict=True))
        self.maps.update(zip(numbers, map(_gray, _small(maps)), strict=True))

    def keep(self, indices: Iterable[int]) -> None:
        """Forget all but these."""
        kept = set(indices)
        for encoded in (self.sources, self.maps):
            for index in encoded.keys() - kept:
                del encoded[index]

    def _source(self, frame: npt.NDArray[np.uint8]) -> str:
        picture = Image.fromarray(frame)
        if max(picture.size) > self._side:
            picture = picture.resize(_within(picture.size, self._side), Image.Resampling.BOX)
        stream = io.BytesIO()
        # Codes fitted to each slice take 0.2 ms more, and spare a twentieth of what many slices take.
        picture.save(stream, format="JPEG", quality=_QUALITY, optimize=self._side == _STACK_SIDE)
        return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"


def _small(maps: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """Maps (n, H, W) of at most so many cells; by torch, which takes a fifth of Pillow's time."""
    size = maps.shape[:0:-1]
    if max(size) <= _MAP_SIDE:
        return maps
    width, height = _within(size, _MAP_SIDE)
    given = torch.from_numpy(np.asarray(maps, dtype=np.float32))[:, None]
    return functional.interpolate(given, (height, width), mode="bilinear", antialias=True)[:, 0].numpy()


def _gray(values: npt.NDArray[np.floating]) -> str:
    encoded = gray_png(np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8))
    return f"data:image/png;base64,{base64.b64encode(encoded).decode()}"


def shown_frames(count: int, order: Sequence[int] = ()) -> list[int]:
    """Which of so many slices a preview shows: all, or at most :data:`MOST_SHOWN` and the first of an order."""
    step = -(-count // MOST_SHOWN)
    return list(range(count)) if step == 1 else sorted({*range(0, count, step), *order[:6]})


def preview(
    name: str,
    source: Source | None,
    image: Tensor,
    anomaly_map: Tensor,
    findings: Findings,
    view: SliceView | None,
    threshold: float,
    ceiling: float = 1.0,
) -> str:
    """The preview of a picture or a volume, as JSON.

    Args:
        name: of the input.
        source: where it came from; None for what was in memory.
        image: (1 or 3, H, W) or (1 or 3, X, Y, Z), uint8 or in [0, 1].
        anomaly_map: (1, H, W) or (1, X, Y, Z) in [0, 1].
        findings: numbers per slice.
        view: how a volume is sliced; None for a picture.
        threshold: of the mask.
        ceiling: map value that the last colour stands for.
    """
    plain, anomaly_map = _plain(image), _plain(anomaly_map)
    slices: Callable[[Tensor], Tensor] = view.to_slices if view else lambda volume: volume[None]
    shown = shown_frames(len(findings.scores), findings.order())
    frames = PreviewFrames(single=len(findings.scores) == 1)
    maps, limits = slices(anomaly_map)[:, 0], limits_of(plain)
    for start in range(0, len(shown), _AT_ONCE):
        part = shown[start : start + _AT_ONCE]
        run = slice(part[0], part[-1] + 1)  # a view, where it can be one
        near: slice | list[int] = run if part[-1] - part[0] < len(part) else part
        pictures = displayable(slices(plain)[near], limits).permute(0, 2, 3, 1).numpy()
        pictures = pictures[..., 0] if pictures.shape[-1] == 1 else pictures
        frames.add(part, np.ascontiguousarray(pictures), maps[near].numpy())
    numbers, positions = archive_places(source, len(findings.scores))
    along = "along the stack"
    if isinstance(source, NiftiSource) and view is not None and isinstance(image, MetaTensor):
        positions, along = _nifti_positions(np.asarray(image.affine, dtype=np.float64), view)
    meta = image.meta if isinstance(image, MetaTensor) else {}
    intensity = json.loads(meta.get("intensity") or "null") or {}
    low, high = intensity.get("low"), intensity.get("high")
    return _json(
        name,
        "slice" if view else "picture",
        frames,
        findings,
        threshold,
        size=view.slice_shape if view else tuple(image.shape[1:]),
        spacing=view.pixel_spacing if view else (1.0, 1.0 if source is None else float(source.pixel_aspect())),
        letters=_letters(source, view),
        numbers=[numbers[index] for index in shown] if numbers else None,
        positions=[positions[index] for index in shown] if positions else None,
        along=along,
        ceiling=ceiling,
        values=None if low is None or high is None else [low, high],
        axes=None
        if view is None
        else {
            "order": [view.slice_axis, view.row_axis, view.column_axis],
            "flip_rows": view.flip_rows,
            "flip_columns": view.flip_columns,
        },
    )


def film_preview(
    name: str,
    frames: PreviewFrames,
    findings: Findings,
    threshold: float,
    times: Sequence[float],
    size: tuple[int, int],
    aspect: float = 1.0,
    ceiling: float = 1.0,
) -> str:
    """The preview of a film, as JSON.

    Args:
        name: of the input.
        frames: those that are shown.
        findings: numbers of all frames.
        threshold: of the mask.
        times: of all frames, in seconds.
        size: (H, W) of a frame.
        aspect: how much wider than high a pixel is.
        ceiling: as for :func:`preview`.
    """
    return _json(
        name, "frame", frames, findings, threshold, size=size, spacing=(1.0, aspect), ceiling=ceiling,
        times=[round(times[index], 3) for index in sorted(frames.sources)],
    )  # fmt: skip


def _json(
    name: str,
    unit: str,
    frames: PreviewFrames,
    findings: Findings,
    threshold: float,
    size: Sequence[int],
    spacing: tuple[float, float],
    **more: Any,
) -> str:
    shown = sorted(frames.sources)
    ranks = {index: rank for rank, index in enumerate(findings.order(), start=1)}
    height, width = (side * length for side, length in zip(size, spacing, strict=True))
    longest = min(max(max(size), _SMALLEST_SIDE), frames._side)
    scale = longest / max(height, width)
    margins = findings.margins
    content = {
        "name": name,
        "unit": unit,
        "count": len(findings.scores),
        "shown": shown,
        "ranks": [ranks[index] for index in shown],
        "scores": [round(float(findings.scores[index]), 6) for index in shown],
        "margins": None if margins is None else [round(float(margins[index]), 4) for index in shown],
        "map_max": [round(float(findings.map_max[index]), 4) for index in shown],
        "area": [round(float(findings.area_fraction[index]), 6) for index in shown],
        "threshold": threshold,
        "size": list(size),
        "canvas": [max(1, round(height * scale)), max(1, round(width * scale))],
        **more,
    }
    text = json.dumps(content, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    # Nothing of base64 has to be escaped, and looking for it takes longer than the rest.
    sources, maps = ('","'.join(encoded[index] for index in shown) for encoded in (frames.sources, frames.maps))
    return f'{text[:-1]},"sources":["{sources}"],"maps":["{maps}"]}}'


def orientation_letters(orientation: Sequence[float]) -> list[str]:
    """What lies at the left, right, upper and lower edge of a DICOM image: R, L, A, P, I, S, or two for oblique ones.

    Args:
        orientation: Image Orientation (Patient), six direction cosines.
    """

    def towards(cosines: npt.NDArray[np.floating]) -> str:
        order = np.argsort(-np.abs(cosines), kind="stable")
        return "".join(
            _LETTERS[axis][int(cosines[axis] > 0)]
            for place, axis in enumerate(order[:2])
            if place == 0 or abs(cosines[axis]) >= _OBLIQUE
        )

    across, down = np.asarray(orientation[:3], dtype=float), np.asarray(orientation[3:6], dtype=float)
    return [towards(-across), towards(across), towards(-down), towards(down)]


def _letters(source: Source | None, view: SliceView | None) -> list[str] | None:
    if isinstance(source, DicomSource):
        found = source.series.geometry.orientation
        return None if found is None else orientation_letters(found.tolist())
    shown = {"axial": "RLAP", "coronal": "RLSI", "sagittal": "APSI"}
    return list(shown[view.plane]) if view is not None and view.plane in shown else None


def _nifti_positions(affine: npt.NDArray[np.float64], view: SliceView) -> tuple[tuple[float | None, ...], str]:
    """Coordinate of the middle of each slice along the axis it is closest to, and that axis' positive direction."""
    axis = {"sagittal": 0, "coronal": 1, "axial": 2}[view.plane]
    middle = np.array([(side - 1) / 2 for side in view.spatial_shape] + [1.0])
    found = []
    for index in range(view.n_slices):
        middle[view.slice_axis] = index
        found.append(round(float((affine @ middle)[axis]), 3))
    return tuple(found), f"towards {_RAS[axis]}"


def _within(size: tuple[int, int], side: int) -> tuple[int, int]:
    width, height = (max(1, round(length * side / max(size))) for length in size)
    return width, height


def _plain(tensor: Tensor) -> Tensor:
    return tensor.as_tensor() if isinstance(tensor, MetaTensor) else tensor
