# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""References of files and folders: made where there is none, gone on with where one is unfinished, used again."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from monai_anomalyclip.atomic_file import make_private_folder
from monai_anomalyclip.data.datalist import load_datalist
from monai_anomalyclip.data.inputs import InputCatalogue
from monai_anomalyclip.reference.encoder_choice import LITE0_NAME, make_encoder
from monai_anomalyclip.reference.encoders import PatchEncoder
from monai_anomalyclip.reference.normal_reference import NormalReference
from monai_anomalyclip.reference.normals import normal_images

__all__ = ["build_reference", "complete", "normals_in", "reference_of_folder"]


def build_reference(
    catalogue: InputCatalogue,
    output: str | Path,
    *,
    encoder: PatchEncoder | str = LITE0_NAME,
    slice_axis: int | str = "auto",
    grouping: str = "input",
    failed: Callable[[str, str], None] | None = None,
    progress: bool = False,
    **settings: Any,
) -> NormalReference:
    """Build a reference of all pictures and slices of some inputs and save it.

    What an interrupted run had lies in ``<output>.unfinished``, from which the next goes on.

    Args:
        catalogue: the normal inputs.
        output: the file.
        encoder: makes the features, or its name.
        slice_axis: see :func:`~monai_anomalyclip.reference.normal_images`.
        grouping: likewise.
        failed: likewise.
        progress: show progress bars.
        settings: of :meth:`NormalReference.build`, such as ``alike`` and ``seed``.

    Raises:
        ValueError: there is no normal image, or an argument is out of range.
    """
    target = Path(output)
    unfinished = target.with_name(f"{target.name}.unfinished")
    options = {"slice_axis": slice_axis, "grouping": grouping}
    images = normal_images(catalogue, **options, failed=failed)  # type: ignore[arg-type]
    reference = NormalReference.build(images, encoder=encoder, progress=progress, unfinished=unfinished, **settings)
    reference.save(target)
    complete(reference, catalogue, target, progress=progress, **options)
    unfinished.unlink(missing_ok=True)
    return reference


def complete(
    reference: NormalReference, catalogue: InputCatalogue, output: Path, *, progress: bool = False, **options: Any
) -> None:
    """Find, where it is needed, what whole volumes are compared with, and save it."""
    if reference.lacks_group_scores:
        passed_over = normal_images(catalogue, **options, failed=lambda *_: None)
        reference.score_groups(passed_over, progress=progress)
        reference.save(output)


def reference_of_folder(
    normals: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    folder: str | Path,
    *,
    options: Any = None,
    slice_axis: int | str = "auto",
    grouping: str = "input",
    device: Any = "cpu",
    progress: bool = True,
    failed: Callable[[str, str], None] | None = None,
) -> Path:
    """The reference of some files or folders: the one that lies in a folder already, or a new one.

    It is known by what is in the files and how they are read, not by their names: changed normals make a new one.

    Args:
        normals: files or folders with normal inputs alone.
        folder: where the reference is kept; made if it does not exist, for its owner only.
        options: how inputs are read.
        slice_axis: see :func:`build_reference`.
        grouping: likewise.
        device: where the encoder runs.
        progress: show progress bars.
        failed: see :func:`build_reference`.

    Returns:
        the file.

    Raises:
        UnreadableInputError: there is nothing to read.
        ValueError: no input could be read.
    """
    catalogue = InputCatalogue(normals, exclude=folder, options=options, progress=progress)
    states = sorted(source.state() for source in catalogue.sources.values())
    how = [states, repr(catalogue.options), slice_axis, grouping]
    key = hashlib.sha256(json.dumps(how).encode()).hexdigest()[:16]
    target = Path(folder) / f"normals_{key}.reference"
    if not target.is_file():
        make_private_folder(Path(folder))
        encoder = make_encoder().to(device)
        arguments: dict[str, Any] = {"slice_axis": slice_axis, "grouping": grouping, "failed": failed}
        build_reference(catalogue, target, encoder=encoder, progress=progress, **arguments)
    return target


def normals_in(folder: str | Path, datalist: str | Path, section: str = "training") -> list[str]:
    """The normal inputs of a data set: those that a datalist calls normal, or all of a folder without a datalist.

    Args:
        folder: of the data set.
        datalist: a file that need not exist (see docs/data_sets.md).
        section: of the datalist; its entries with ``image_label`` 0 are taken.

    Raises:
        ValueError: the section names no normal image.
    """
    if not Path(datalist).is_file():
        return [str(folder)]
    entries = load_datalist(datalist, section)
    normals = [str(entry["image"]) for entry in entries if not entry["image_label"]]
    if not normals:
        raise ValueError(f"The section {section!r} of '{Path(datalist).name}' names no normal image (image_label 0).")
    return normals
