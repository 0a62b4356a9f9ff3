# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""AnomalyCLIP on the demonstration backbone."""

from __future__ import annotations

import json
import logging
from functools import lru_cache
from pathlib import Path
from typing import Any

from monai_anomalyclip.networks import AnomalyCLIP

__all__ = ["DEMO_BANNER", "WEIGHTS_FOLDER", "demo_backbone", "demo_dataset_dir", "demo_network"]

DEMO_BANNER = (
    "Demonstration backbone: a tiny CLIP trained on synthetic phantoms (see demo/weights/MODEL_CARD.md). "
    "It shows how the software works; its scores on real scans are meaningless. Research use only."
)
WEIGHTS_FOLDER = Path(__file__).parent / "weights"


@lru_cache(maxsize=1)
def _announce() -> None:
    logging.getLogger(__name__).warning(DEMO_BANNER)


def demo_backbone() -> tuple[dict[str, Any], Path]:
    """The demonstration backbone's settings and weights; the first call in a process logs :data:`DEMO_BANNER`.

    Returns:
        ``config`` with ``clip`` (arguments of ``open_clip.CLIP``), ``image_size``, ``feature_layers`` and
        ``dpam_start``; and the path of a safetensors file with its state dict in float16.

    Raises:
        FileNotFoundError: the weights are not installed.
    """
    weights, settings = WEIGHTS_FOLDER / "demo_clip.safetensors", WEIGHTS_FOLDER / "demo_clip.json"
    for path in (weights, settings):
        if not path.is_file():
            raise FileNotFoundError(
                f"{path} is missing; make it with: python -m tools.demo_backbone.training --output {path.parent}"
            )
    _announce()
    config: dict[str, Any] = json.loads(settings.read_text())
    return config, weights


def demo_network(**settings: Any) -> AnomalyCLIP:
    """The normal network on the tiny CLIP that the package carries.

    Args:
        settings: keyword arguments of :class:`AnomalyCLIP`; by default layers and size are those the backbone was
            trained for.
    """
    config, weights = demo_backbone()
    defaults = {key: config[key] for key in ("image_size", "feature_layers", "dpam_start")}
    return AnomalyCLIP(config["clip"], weights, **{**defaults, **settings})


def demo_dataset_dir(bundle_root: str | Path, part: str = "") -> str:
    """Make the phantoms in the bundle's ``data`` folder, once, and return that folder or a part of it.

    Args:
        bundle_root: folder of the demonstration bundle.
        part: "" for the datalist's folder, "inference" for the folder of inputs without labels.
    """
    from monai_anomalyclip.demo.phantom_sets import prepare_demo_data  # a network needs no phantoms

    folder = Path(bundle_root) / "data"
    prepare_demo_data(folder)
    return str(folder / part)
