# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""What an annotation server sends to its clients in the place of the plain mask."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from monai.config.type_definitions import KeysCollection, NdarrayOrTensor
from monai.data.meta_tensor import MetaTensor
from monai.transforms.transform import MapTransform
from monai.utils.type_conversion import convert_to_dst_type, convert_to_tensor
from torch import Tensor

from monai_anomalyclip import RESEARCH_USE_ONLY
from monai_anomalyclip.transforms.intensity import plain_tensor

__all__ = [
    "DISPLAYS",
    "LEVELS",
    "AnnotationAnswerD",
    "AnnotationAnswerDict",
    "AnnotationAnswerd",
    "level_names",
    "level_set_labels",
]

LEVELS = (0.5, 0.75, 0.9)
"""Where the labels begin, by default."""


def level_names(levels: Sequence[float] = LEVELS) -> dict[str, int]:
    """Names of the labels and their values: ``{"anomaly_0.50": 1, ...}``.

    Raises:
        ValueError: as for :func:`level_set_labels`.
    """
    return {f"anomaly_{level:.2f}": value for value, level in enumerate(_checked(levels), start=1)}


def level_set_labels(anomaly_map: NdarrayOrTensor, levels: Sequence[float] = LEVELS) -> NdarrayOrTensor:
    """Label each voxel with the number of levels that its probability reaches.

    Args:
        anomaly_map: probabilities in [0, 1], any shape.
        levels: ascending, in (0, 1].

    Returns:
        uint8 labels of the map's shape, container type and metadata: 0 below the first level, 1 from it on, and so on.

    Raises:
        ValueError: the map holds NaN, or the levels are not ascending numbers in (0, 1] with two decimals at most.
    """
    values: Tensor = convert_to_tensor(anomaly_map, track_meta=False)
    if values.isnan().any():
        raise ValueError("The anomaly map holds NaN: labels made from it would call those voxels normal.")
    reached = torch.zeros(values.shape, dtype=torch.uint8)
    for level in _checked(levels):
        reached += (values >= level).to(torch.uint8)
    result: NdarrayOrTensor = convert_to_dst_type(reached, anomaly_map, dtype=torch.uint8)[0]
    return result


def _checked(levels: Sequence[float]) -> list[float]:
    numbers = [float(level) for level in levels]
    ascending = all(low < high for low, high in pairwise(numbers))
    nameable = all(0 < level <= 1 and round(level, 2) == level for level in numbers)
    if not (numbers and ascending and nameable):
        raise ValueError(f"Levels must be ascending numbers in (0, 1] with two decimals at most, got {list(levels)}.")
    return numbers


DISPLAYS = ("mask", "levels", "heat map")
"""What clients can be shown, the default first."""

# Axes of a DICOM picture without a position: columns towards the patient's left, rows towards posterior (RAS).
_NOMINAL_AFFINE = torch.diag(torch.tensor([-1.0, -1.0, 1.0, 1.0], dtype=torch.float64))


class AnnotationAnswerd(MapTransform):
    """Turn the mask of an item that MONAI Label asks for into what its client is to show.

    ``"mask"``: uint8, 1 where the map reaches the threshold. ``"levels"``: uint8, the number of `levels` that the map
    reaches, so that clients which show labels alone show a heat map in steps. ``"heat map"``: the map itself, float32
    in [0, 1] for a volume; for a picture uint8, 255 times the map, since PNG and JPEG files hold no fractions.

    The axes become MONAI's, which MONAI Label writes files from: (1, W, H) for a picture, (1, W, H, 1) for a DICOM
    picture, whose results are stored as a volume. The image's ``spatial_shape``, which MONAI Label resizes to, is
    changed to match. ``result``, which the server returns as JSON, says that all this is for research only.

    Items that MONAI Label does not ask for stay as they are: they lack `request_key`.

    Args:
        keys: key of the mask, (1, H, W) or (1, X, Y, Z); replaced.
        map_key: key of the anomaly map in [0, 1], of the mask's shape.
        image_key: key of the image, whose metadata tell a picture from a volume.
        display: one of :data:`DISPLAYS`; of a list, which MONAI Label sends for what was not chosen, the first.
        levels: ascending values in (0, 1] where a step begins.
        request_key: what MONAI Label puts into its items, and nobody else.

    Raises:
        ValueError: there is no such display, or the levels do not ascend within (0, 1].

    Example::

        AnnotationAnswerd(display=["mask", "levels"])({"pred": mask, "anomaly_map": anomaly_map, "image_path": path})
    """

    def __init__(
        self,
        keys: KeysCollection = "pred",
        map_key: str = "anomaly_map",
        image_key: str = "image",
        display: str | Sequence[str] = "mask",
        levels: Sequence[float] = (0.5, 0.75, 0.9),
        request_key: str = "image_path",
    ) -> None:
        super().__init__(keys)
        chosen = display if isinstance(display, str) else (*display, "")[0]
        if chosen not in DISPLAYS:
            raise ValueError(f"display must be one of {', '.join(map(repr, DISPLAYS))}, got {display!r}.")
        self.levels = [float(level) for level in levels]
        if not self.levels or self.levels != sorted(set(self.levels)) or not 0 < self.levels[0] <= self.levels[-1] <= 1:
            raise ValueError(f"levels must ascend within (0, 1], got {list(levels)!r}.")
        self.display = chosen
        self.map_key = map_key
        self.image_key = image_key
        self.request_key = request_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy of the item with its answer."""
        item = dict(data)
        if self.request_key not in item:
            return item
        image = item[self.image_key]
        meta = image.meta if isinstance(image, MetaTensor) else {}
        picture = image.ndim == 3
        for key in self.keys:
            shown = self._shown(plain_tensor(item[key]), plain_tensor(item[self.map_key]), picture)
            affine = image.affine if isinstance(image, MetaTensor) else None
            if picture:
                shown = shown.transpose(-1, -2)
                if meta.get("native_slices"):  # as of DICOM, which pictures from other files lack
                    shown, affine = shown[..., None], _NOMINAL_AFFINE
            item[key] = MetaTensor(shown.contiguous(), affine=affine)
            item[self.image_key] = MetaTensor(
                plain_tensor(image), meta={**meta, "spatial_shape": torch.tensor(shown.shape[1:]).numpy()}
            )
        item["result"] = {**item.get("result", {}), "display": self.display, "note": RESEARCH_USE_ONLY}
        return item

    def _shown(self, mask: Tensor, anomaly_map: Tensor, picture: bool) -> Tensor:
        if self.display == "mask":
            return mask.to(torch.uint8)
        if self.display == "heat map":
            return (255 * anomaly_map).round().to(torch.uint8) if picture else anomaly_map.float()
        steps = torch.zeros(anomaly_map.shape, dtype=torch.uint8)
        for level in self.levels:
            steps += (anomaly_map >= level).to(torch.uint8)
        return steps


AnnotationAnswerD = AnnotationAnswerDict = AnnotationAnswerd
