# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""One's own data: folders of normal and anomalous images, images with masks, or a table."""

from __future__ import annotations

from pathlib import Path

from monai_anomalyclip.data.datasets.listing import DataSet, DataSetInfo, Entry, Found, LayoutError
from monai_anomalyclip.data.datasets.own_table import read_own_table, refuse_volumes
from monai_anomalyclip.data.datasets.pairing import anomalous_entries, pair_masks
from monai_anomalyclip.data.datasets.tree import folders, named, pictures, sub_folder
from monai_anomalyclip.data.masks import read_mask
from monai_anomalyclip.data.nifti import NIFTI_SUFFIXES

__all__ = ["OWN_DATA", "read_own_data"]

_NORMAL = ("good", "normal", "ok", "no", "healthy", "negative")
_ANOMALOUS = ("bad", "abnormal", "anomalous", "anomaly", "defect", "ko", "ng", "yes", "lesion", "positive")
_IMAGES = ("images", "image", "imgs")
_MASKS = ("masks", "mask", "ground_truth", "labels")


def read_own_data(root: Path) -> Found:
    """Read a table (a CSV file), or a folder laid out in one of two ways.

    - Folders of which at least one is called as usual (``good``, ``normal``, ``ok``, ``no``, ``healthy``,
      ``negative``; ``bad``, ``abnormal``, ``defect``, ...): every folder without one of the normal names is anomalous.
      Masks, if any, lie in ``masks`` (or ``mask``, ``ground_truth``, ``labels``), or there in a folder of the same
      name.
    - ``images`` and ``masks``: an image is anomalous when its mask is not empty; images without a mask are left out.

    Raises:
        LayoutError: the folder is laid out otherwise.
        ValueError: a mask cannot be paired or read, a line of the table is wrong, or there are NIfTI volumes.
    """
    if root.is_file():
        return read_own_table(root)
    class_name = root.resolve().name
    images, masks = sub_folder(root, *_IMAGES), sub_folder(root, *_MASKS)
    if images and masks:
        return _read_masked(images, masks, class_name)
    kinds = [folder for folder in folders(root) if folder.name.casefold() not in (*_MASKS, *_IMAGES)]
    if any(folder.name.casefold() in (*_NORMAL, *_ANOMALOUS) for folder in kinds):
        return _read_kinds(kinds, masks, class_name)
    raise LayoutError(
        "a CSV file, folders images and masks, or folders such as good and bad or normal and abnormal, with an "
        "optional folder masks"
    )


def _read_masked(images: Path, masks: Path, class_name: str) -> Found:
    paths = _pictures(images)
    paired, left_over = pair_masks(paths, _pictures(masks), images.name)
    found = Found([Entry(image, int(read_mask(mask).any()), class_name, mask) for image, mask in paired.items()])
    found.testing.sort(key=lambda entry: entry.image)
    if without := [image for image in paths if image not in paired]:
        found.notes.append(f"{images.name}: {len(without)} images without a mask are left out ({named(without)}).")
    if left_over:
        found.notes.append(f"{masks.name}: {len(left_over)} masks belong to no image ({named(left_over)}).")
    return found


def _read_kinds(kinds: list[Path], masks: Path | None, class_name: str) -> Found:
    found = Found()
    anomalous: list[Path] = []
    for folder in kinds:
        paths = _pictures(folder)
        own_masks = _pictures(sub_folder(masks, folder.name) if masks else None)
        if folder.name.casefold() in _NORMAL:
            found.testing += [Entry(image, 0, class_name) for image in paths]
        elif own_masks:
            entries, notes = anomalous_entries(paths, own_masks, class_name, folder.name)
            found.testing += entries
            found.notes += notes
        else:
            anomalous += paths
    common = _pictures(masks)
    if not common:  # no masks at all is a usual way to have data: nothing to remark
        found.testing += [Entry(image, 1, class_name) for image in anomalous]
        return found
    normal = [entry.image for entry in found.testing if not entry.image_label]
    entries, notes = anomalous_entries(anomalous, common, class_name, "the anomalous folders", normal)
    found.testing += entries
    found.notes += notes
    return found


def _pictures(folder: Path | None) -> list[Path]:
    refuse_volumes(pictures(folder, NIFTI_SUFFIXES))
    return pictures(folder)


OWN_DATA = DataSet(
    DataSetInfo(
        name="folder",
        title="own data",
        domain="any",
        classes=(),
        source="own data",
        licence="as you have agreed with the owner of the data",
        licence_verified=True,
        citation="none",
    ),
    read_own_data,
)
"""One's own data."""
