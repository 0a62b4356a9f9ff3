# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Fit a full-shot method to one class's normal images and measure it on that class's test images."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import torchvision.transforms.v2.functional as tvf
from monai.transforms import Compose, EnsureTyped, Lambdad
from torch import Tensor
from tqdm import tqdm

from monai_anomalyclip.data import FaultTolerantDataset, LoadFramed, LoadMaskd, load_datalist
from monai_anomalyclip.experiments.fullshot.network import FullShotNetwork
from monai_anomalyclip.metrics import AUPROMetric, ImageAPMetric, ImageAUROCMetric, PixelAPMetric, PixelAUROCMetric
from monai_anomalyclip.metrics.anomaly_metric import AnomalyMetric
from monai_anomalyclip.transforms import CLIPMaskPreprocessd

__all__ = ["METRICS", "ClassImages", "classes_of", "evaluate_class"]


@dataclass(frozen=True)
class ClassImages:
    """The entries of one class.

    Attributes:
        name: of the class.
        normal: its normal images under ``training``.
        testing: all its images in the tested section.
    """

    name: str
    normal: list[dict[str, Any]]
    testing: list[dict[str, Any]]


def classes_of(datalist: str | Path, testing_section: str = "testing") -> list[ClassImages]:
    """Sort a datalist's images by ``class``, in the order in which the tested section names them.

    Only entries of ``training`` whose ``image_label`` is 0 are learnt from. Entries without a class are of class "all".

    Args:
        datalist: JSON file; see :func:`~monai_anomalyclip.data.load_datalist`.
        testing_section: name of the list to test on.

    Raises:
        FileNotFoundError: when the datalist or a file it names is missing.
        ValueError: when a list is missing or malformed, a class has no normal images to learn from, or an image is both
            learnt from and tested on.
    """
    tested = load_datalist(datalist, testing_section)
    normal = [item for item in load_datalist(datalist, "training") if item.get("image_label") == 0]
    classes = [
        ClassImages(name, [item for item in normal if _class(item) == name], own)
        for name in dict.fromkeys(map(_class, tested))
        if (own := [item for item in tested if _class(item) == name])
    ]
    unknown = [entry.name for entry in classes if not entry.normal]
    if unknown:
        more = f" and {len(unknown) - _LISTED} more" if len(unknown) > _LISTED else ""
        raise ValueError(
            f"The datalist '{datalist}' has no normal images under 'training' for {', '.join(unknown[:_LISTED])}{more}"
            ": full-shot methods learn from each tested class's own normal images, which "
            "monai-anomalyclip datalist --split original lists."
        )
    seen = {item["image"] for entry in classes for item in entry.normal}
    leaked = [item for item in tested if item["image"] in seen]
    if leaked:
        raise ValueError(
            f"{len(leaked)} images of '{testing_section}' are also among the normal images of 'training' in the "
            f"datalist '{datalist}': a method must not be tested on what it has learnt from."
        )
    return classes


def _class(item: dict[str, Any]) -> str:
    name = item.get("class")
    return "all" if name is None else str(name)


logger = logging.getLogger(__name__)

_IMAGE_METRICS = {"image_auroc": ImageAUROCMetric, "image_ap": ImageAPMetric}
_PIXEL_METRICS: dict[str, Callable[[], AnomalyMetric]] = {
    "pixel_auroc": PixelAUROCMetric,
    "pixel_ap": PixelAPMetric,
    "pixel_aupro": AUPROMetric,
    "pixel_aupro_200": partial(AUPROMetric, method="thresholds_200"),
}
METRICS = (*_IMAGE_METRICS, *_PIXEL_METRICS)
"""Names of what is measured over all images of a class: exact, but for the published PRO with its 200 thresholds."""

_LISTED = 5


def evaluate_class(
    network: FullShotNetwork, images: ClassImages, *, batch_size: int = 16, progress: bool = True
) -> dict[str, Any]:
    """Fit a network to a class's normal images and measure it on those to be tested.

    Maps are compared with the masks at the network's image size, as for the zero-shot methods. An image that cannot be
    read is left out, with a warning. Images whose mask is unknown count for the image metrics alone.

    Args:
        network: not fitted yet, on the device to compute on; fitted in place.
        images: the class's entries.
        batch_size: images at a time.
        progress: whether to show progress bars.

    Returns:
        ``metrics`` (by the names in :data:`METRICS`; NaN where undefined), ``normal_images`` and ``tested_images``
        (numbers of those that were read), ``unreadable`` (file name and reason of the others), ``fit`` (what the
        network's ``fit`` returns), ``fit_s`` and ``test_s`` (seconds, with the reading).

    Raises:
        ValueError: when none of the normal, or none of the tested images can be read.
    """
    size = network.image_size
    load, resize = LoadFramed("image"), Lambdad("image", partial(_resized, size=size))
    picture = Compose([load, resize, EnsureTyped("image", track_meta=False)])
    mask = [LoadMaskd("label"), CLIPMaskPreprocessd("label", size), EnsureTyped("label", track_meta=False)]
    picture_and_mask = Compose([load, *mask, resize, EnsureTyped("image", track_meta=False)])
    unreadable: list[str] = []

    begun = time.perf_counter()
    read = _readable(images.normal, picture, unreadable, f"{images.name}: normal images", progress)
    normal = [item["image"] for item in read]
    if not normal:
        raise ValueError(f"None of the {len(images.normal)} normal images of class {images.name} can be read.")
    fitted = network.fit(normal, batch_size=batch_size, progress=progress)
    fit_s = time.perf_counter() - begun

    begun = time.perf_counter()
    tested = _readable(images.testing, picture_and_mask, unreadable, f"{images.name}: testing", progress)
    metrics, count = _measure(network, tested, batch_size)
    if not count:
        raise ValueError(f"None of the {len(images.testing)} tested images of class {images.name} can be read.")
    if unreadable:
        more = f"; and {len(unreadable) - _LISTED} more" if len(unreadable) > _LISTED else ""
        logger.warning(
            f"{len(unreadable)} images of class {images.name} cannot be read and are left out: "
            f"{'; '.join(unreadable[:_LISTED])}{more}"
        )
    return {
        "metrics": metrics,
        "normal_images": len(normal),
        "tested_images": count,
        "unreadable": unreadable,
        "fit": fitted,
        "fit_s": round(fit_s, 3),
        "test_s": round(time.perf_counter() - begun, 3),
    }


@torch.inference_mode()
def _measure(
    network: FullShotNetwork, items: Iterator[dict[str, Any]], batch_size: int
) -> tuple[dict[str, float], int]:
    """The metrics, and how many images there were."""
    image_metrics = {name: metric() for name, metric in _IMAGE_METRICS.items()}
    pixel_metrics = {name: metric() for name, metric in _PIXEL_METRICS.items()}
    count = known_masks = 0
    while batch := list(islice(items, batch_size)):
        prediction = network.predict(torch.stack([item["image"] for item in batch]).to(network.mean.device))
        labels = torch.tensor([item["image_label"] for item in batch])
        for metric in image_metrics.values():
            metric(y_pred=prediction["anomaly_score"].cpu(), y=labels)
        known = [index for index, item in enumerate(batch) if item["has_label"]]
        if known:
            masks = torch.stack([batch[index]["label"] for index in known])
            maps = prediction["anomaly_map"][known].cpu()
            for metric in pixel_metrics.values():
                metric(y_pred=maps, y=masks)
        count += len(batch)
        known_masks += len(known)
    values = {name: float(metric.aggregate()) if count else math.nan for name, metric in image_metrics.items()}
    for name, metric in pixel_metrics.items():
        values[name] = float(metric.aggregate()) if known_masks else math.nan
    return values, count


def _readable(
    items: Sequence[dict[str, Any]], transform: Compose, unreadable: list[str], title: str, progress: bool
) -> Iterator[dict[str, Any]]:
    """The items that can be read, one at a time; why the others cannot is added to ``unreadable``."""
    dataset = FaultTolerantDataset(items, transform)
    for index in tqdm(range(len(dataset)), desc=title, disable=not progress):
        item = dataset[index]
        if "error" in item:
            unreadable.append(f"{item['name']} ({item['error']})")
        else:
            yield item


def _resized(picture: Tensor, size: int) -> Tensor:
    """(3, H, W) uint8 to (3, size, size) uint8: bilinear, antialiased, as both methods' released code does with PIL."""
    resized: Tensor = tvf.resize(picture, [size, size], interpolation=tvf.InterpolationMode.BILINEAR, antialias=True)
    return resized
