# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Fit a full-shot method to every class of a datalist, one after the other."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from monai.utils import set_determinism

from monai_anomalyclip.experiments.fullshot.class_images import classes_of
from monai_anomalyclip.experiments.fullshot.evaluation import evaluate_class
from monai_anomalyclip.experiments.fullshot.network import anomalib_needed
from monai_anomalyclip.experiments.fullshot.patchcore import PatchCore
from monai_anomalyclip.experiments.fullshot.rd4ad import RD4AD
from monai_anomalyclip.experiments.fullshot.results import FullShotResults
from monai_anomalyclip.experiments.fullshot.wide_resnet import BACKBONES, weights_sha256

__all__ = ["OPTIONS", "run_full_shot"]

_NETWORKS: dict[str, type[PatchCore] | type[RD4AD]] = {"patchcore": PatchCore, "rd4ad": RD4AD}

OPTIONS: dict[str, dict[str, Any]] = {
    "patchcore": {"coreset_ratio": 0.1, "num_neighbors": 9},
    "rd4ad": {"epochs": 200, "learning_rate": 0.005},
}
"""By method, the options that it alone has, with their defaults."""


def run_full_shot(
    method: str,
    datalist: Path,
    output_dir: Path,
    *,
    weights: Path | None,
    device: torch.device,
    testing_section: str = "testing",
    backbone: str = BACKBONES[0],
    image_size: int = 256,
    batch_size: int = 16,
    seed: int = 111,
    options: dict[str, Any] | None = None,
    say: Callable[[str], object] = print,
) -> FullShotResults:
    """Fit and measure every class that is not finished in ``output_dir``.

    Args:
        method: "patchcore" or "rd4ad".
        datalist: with each class's normal images under "training".
        output_dir: folder of the results.
        weights: the backbone's ImageNet weights; None for random ones.
        device: to compute on.
        testing_section: list to test on.
        backbone: timm's name of it.
        image_size: side in pixels, a multiple of 32.
        batch_size: images at a time.
        seed: of everything that is drawn, for each class anew.
        options: of :data:`OPTIONS`, where they differ.
        say: takes a line for each class.

    Returns:
        the results of all classes.

    Raises:
        ImportError: when anomalib is not installed.
        OSError: when a file is missing.
        ValueError: for settings or a datalist that do not fit, or results of other settings in ``output_dir``.
    """
    with anomalib_needed():
        import anomalib  # noqa: F401  # told before anything is read
    options = {**OPTIONS[method], **(options or {})}
    classes = classes_of(datalist, testing_section)
    settings = {
        "method": method,
        "datalist_sha256": hashlib.sha256(datalist.read_bytes()).hexdigest(),
        "testing_section": testing_section,
        "backbone": backbone,
        "image_size": image_size,
        "batch_size": batch_size,
        "seed": seed,
        "weights_sha256": weights_sha256(weights),
        **options,
        "anomalib": version("anomalib"),
    }
    results = FullShotResults(output_dir, settings)
    set_determinism(seed=seed)
    fresh = _NETWORKS[method](backbone, weights=weights, image_size=image_size, **options)
    for number, images in enumerate(classes, start=1):
        if images.name in results.classes:
            say(f"[{number}/{len(classes)}] {images.name}: done before.")
            continue
        numbers = f"{len(images.normal)} normal images, {len(images.testing)} to test"
        say(f"[{number}/{len(classes)}] {images.name}: {numbers}.")
        set_determinism(seed=seed)  # for each class, so that a resumed run equals an uninterrupted one
        network = copy.deepcopy(fresh).to(device)
        results.add(images.name, evaluate_class(network, images, batch_size=batch_size))
    return results
