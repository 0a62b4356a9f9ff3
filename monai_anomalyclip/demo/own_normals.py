# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Phantoms for comparing with normals of one's own: ``python -m monai_anomalyclip.demo.own_normals FOLDER``.

It writes ``FOLDER/normals`` and ``FOLDER/inputs``, among which are some with a lesion.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from PIL import Image

from monai_anomalyclip.demo.phantoms import FAMILIES, sample_phantom

__all__ = ["write_own_normals"]

_FIRST_INPUT = 1000  # seeds below are those of normals


def write_own_normals(
    folder: str | os.PathLike[str], family: str = "brain_mr", *, normals: int = 32, inputs: int = 3, size: int = 224
) -> tuple[Path, Path]:
    """Draw normal phantoms of one family, and others to compare with them.

    Args:
        folder: for the pictures; existing ones are replaced.
        family: of the phantoms.
        normals: how many normals.
        inputs: how many normal and how many anomalous inputs.
        size: pixels of a side.

    Returns:
        the folders of normals and of inputs.
    """
    places = Path(folder) / "normals", Path(folder) / "inputs"
    for place in places:
        place.mkdir(parents=True, exist_ok=True)
    for seed in range(normals):
        Image.fromarray(sample_phantom(family, False, seed, size).image).save(places[0] / f"{family}_{seed:02}.png")
    for seed in range(inputs):
        for anomalous in (False, True):
            phantom = sample_phantom(family, anomalous, _FIRST_INPUT + 2 * seed + anomalous, size)
            name = f"{family}_{'lesion' if anomalous else 'normal'}_{seed}.png"
            Image.fromarray(phantom.image).save(places[1] / name)
    return places


def _main() -> None:
    parser = argparse.ArgumentParser(prog="python -m monai_anomalyclip.demo.own_normals", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--family", choices=FAMILIES, default="brain_mr")
    options = parser.parse_args()
    write_own_normals(options.folder, options.family)


if __name__ == "__main__":
    _main()
