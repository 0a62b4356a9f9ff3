# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""One's own data: folders of normal and anomalous images, images with masks, or a table."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

from monai_anomalyclip.data.datasets.listing import (
    DataSet,
    DataSetInfo,
    Entry,
    Found,
    LayoutError,
    folders,
    named,
    pictures,
    sub_folder,
)
from monai_anomalyclip.data.datasets.pairing import anomalous_entries, pair_masks
from monai_anomalyclip.data.input_files import NIFTI_SUFFIXES, is_nifti
from monai_anomalyclip.data.masks import read_mask

__all__ = ["OWN_DATA", "read_own_data", "read_own_table", "refuse_volumes"]

_COLUMNS = ("image", "label", "image_label", "class")


def read_own_table(table: Path) -> Found:
    """Read a CSV file with the columns ``image``, ``label`` (mask), ``image_label`` and ``class``.

    All but ``image`` may be absent or empty, but one of ``label`` and ``image_label`` (0 normal, 1 anomalous) must be
    given; where only the mask is, the image is anomalous when the mask is not empty. Paths are relative to the
    table's folder. Columns are separated by commas, or by semicolons where the first line has no comma.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a column, a line or a mask is wrong, or a file is a NIfTI volume.
    """
    try:
        lines = table.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{table.name} is no table: it must be a CSV file in UTF-8.") from error
    header = lines[0] if lines else ""
    rows = csv.DictReader(lines, delimiter=";" if ";" in header and "," not in header else ",")
    if "image" not in (rows.fieldnames or ()):
        raise ValueError(f"{table.name} has no column 'image' in its first line (columns: {', '.join(_COLUMNS)}).")
    found = Found()
    seen: dict[Path, int] = {}
    for row in rows:
        where = f"{table.name}, line {rows.line_num}"
        entry = _entry(table, {column: (row.get(column) or "").strip() for column in _COLUMNS}, where)
        if entry.image in seen:
            raise ValueError(f"{where}: {entry.image.name} is already in line {seen[entry.image]}.")
        seen[entry.image] = rows.line_num
        found.testing.append(entry)
    if not found.testing:
        raise ValueError(f"{table.name} names no image.")
    return found


def refuse_volumes(paths: Iterable[Path], where: str = "") -> None:
    """Prompts are tuned and measured on pictures alone, so that a datalist of volumes would be of no use.

    Args:
        paths: files of any kind.
        where: what to begin the message with.

    Raises:
        ValueError: some are NIfTI volumes by their name.
    """
    if volumes := [path for path in paths if is_nifti(path)]:
        begin = f"{where}volumes" if where else "Volumes"
        raise ValueError(
            f"{begin} ({named(volumes)}) cannot be listed, because prompts are tuned and measured on pictures: "
            "save their slices as pictures, or tune on volumes with MONAI Label (docs/monai_label.md)."
        )


def _entry(table: Path, row: dict[str, str], where: str) -> Entry:
    if not row["image"]:
        raise ValueError(f"{where}: there is no image.")
    image = table.parent / row["image"]
    mask = table.parent / row["label"] if row["label"] else None
    for path in (image, mask):
        if path is not None and not path.is_file():
            raise FileNotFoundError(f"{where}: there is no file '{path.name}'.")
    refuse_volumes(filter(None, (image, mask)), f"{where}: ")
    if row["image_label"] not in ("", "0", "1"):
        raise ValueError(f"{where}: image_label is {row['image_label']!r}, not 0 or 1.")
    if not row["image_label"] and mask is None:
        raise ValueError(f"{where}: give image_label, label (mask) or both.")
    label = int(row["image_label"]) if row["image_label"] or mask is None else int(read_mask(mask).any())
    return Entry(image, label, row["class"] or _class_name(table.resolve().parent), mask)


_NORMAL = ("good", "normal", "ok", "no", "healthy", "negative")
_ANOMALOUS = ("bad", "abnormal", "anomalous", "anomaly", "defect", "ko", "ng", "yes", "lesion", "positive")
_SPLITS = ("train", "training", "tuning", "val", "valid", "validation", "test", "testing")
_IMAGES = ("images", "image", "imgs")
_MASKS = ("masks", "mask", "ground_truth", "labels")


def _class_name(folder: Path) -> str:
    """What the pictures are called in tables: as their folder, or the one around it if it is called after its use."""
    return folder.parent.name if folder.name.casefold() in _SPLITS and folder.parent.name else folder.name


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
    class_name = _class_name(root.resolve())
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
