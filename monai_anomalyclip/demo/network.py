# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""AnomalyCLIP on the demonstration backbone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from monai_anomalyclip.demo.backbone import demo_backbone
from monai_anomalyclip.demo.datalist import prepare_demo_data
from monai_anomalyclip.networks import AnomalyCLIP

__all__ = ["demo_dataset_dir", "demo_network"]


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
    folder = Path(bundle_root) / "data"
    prepare_demo_data(folder)
    return str(folder / part)
