# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Phantoms for a look at the MONAI Label app: ``python -m monai_anomalyclip.demo.studies FOLDER``."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from monai_anomalyclip.atomic_file import replaced_when_complete
from monai_anomalyclip.demo.phantoms import sample_phantom
from monai_anomalyclip.demo.volumes import VolumePhantom, make_volume, write_dicom_series, write_nifti

__all__ = ["demo_seeds", "demo_volume", "main", "write_demo_series", "write_demo_studies"]

_FIRST_SEED = 2**33  # no other phantom of the demonstration has it
_NORMAL_EVERY = 3

# Lesions that the tiny backbone finds well, large ones (its model card tells how well it does on all).
_KINDS = {"brain_mr": ("bright tumour", "dark tumour"), "head_ct": ("bleed",), "lung_ct": ("nodule",)}
_LEAST_VOXELS = 1000
_GRID: dict[str, Any] = {"size": 112, "slices": 10, "slice_spacing": 5.0}


def write_demo_studies(folder: Path, volumes: int = 6, pictures: int = 6) -> list[Path]:
    """Write brain-MR-like NIfTI volumes and endoscopy-like pictures, every third of each normal.

    Their lesions are chosen, not drawn: those that the demonstration's backbone finds well. They are written as labels
    beside the folder, in ``<folder>_truth``, under the same names. What exists stays as it is.

    Args:
        folder: made when absent.
        volumes: number of volumes.
        pictures: number of pictures.

    Returns:
        the images.
    """
    truth = folder.with_name(f"{folder.name}_truth")
    for place in (folder, truth):
        place.mkdir(parents=True, exist_ok=True)
    images = []
    seeds = list(islice(demo_seeds("brain_mr"), volumes))
    for number in range(volumes):
        name = f"brain_{number:02d}.nii.gz"
        if not ((folder / name).is_file() and (truth / name).is_file()):
            phantom = demo_volume("brain_mr", seeds[number], anomalous=_anomalous(number))
            for place, array in ((truth, phantom.mask.astype(np.uint8)), (folder, phantom.image)):
                (place / name).unlink(missing_ok=True)
                write_nifti(place / name, array, phantom.affine)
        images.append(folder / name)
    for number in range(pictures):
        name = f"colon_{number:02d}.png"
        if not ((folder / name).is_file() and (truth / name).is_file()):
            picture = sample_phantom("endoscopy", _anomalous(number), _FIRST_SEED + number)
            for place, pixels in ((truth, picture.mask.astype(np.uint8) * 255), (folder, picture.image)):
                with replaced_when_complete(place / name) as unfinished:
                    Image.fromarray(pixels).save(unfinished, format="PNG")
        images.append(folder / name)
    return images


def write_demo_series(folder: Path, each: int = 3) -> dict[Path, VolumePhantom]:
    """Write head CT, brain MR and a lung CT as DICOM series, for an archive; every third of a kind is normal.

    Args:
        folder: must not hold such series yet; made when absent.
        each: number of series of head and brain each.

    Returns:
        each series' folder, and what was drawn in it.
    """
    written = {}
    for family in sorted(_KINDS):
        for number, seed in enumerate(islice(demo_seeds(family), 1 if family == "lung_ct" else each)):
            place = folder / f"{family}_{number:02d}"
            written[place] = write_dicom_series(place, seed, anomalous=_anomalous(number), family=family, **_GRID)
    return written


def demo_volume(family: str, seed: int, *, anomalous: bool = True) -> VolumePhantom:
    """A small volume: 10 slices of 112 x 112 (see :func:`monai_anomalyclip.demo.volumes.make_volume`)."""
    return make_volume(family, seed, anomalous=anomalous, **_GRID)


def demo_seeds(family: str) -> Iterator[int]:
    """Seeds of :func:`demo_volume` that give a large lesion of a kind that the backbone finds well."""
    for seed in count(_FIRST_SEED):
        volume = demo_volume(family, seed)
        if volume.kind in _KINDS[family] and volume.mask.sum() >= _LEAST_VOXELS:
            yield seed


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Write phantoms to label.")
    parser.add_argument("folder", type=Path, help="folder to write to")
    images = write_demo_studies(parser.parse_args(arguments).folder)
    print(f"{len(images)} synthetic images in {images[0].parent}")


def _anomalous(number: int) -> bool:
    return number % _NORMAL_EVERY != _NORMAL_EVERY - 1


if __name__ == "__main__":
    main()
