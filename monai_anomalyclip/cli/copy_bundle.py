# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""``monai-anomalyclip copy-bundle``: a bundle that the package carries, as a folder of one's own."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

from monai_anomalyclip import RESEARCH_USE_ONLY
from monai_anomalyclip.atomic_file import unfinished_path
from monai_anomalyclip.bundles.shipped import copy_bundle

__all__ = ["add_command"]

NAMES = ("anomalyclip", "anomalyclip_demo", "own_normals")


def add_command(commands: Any) -> None:
    """Add the command to the sub-parsers of the program."""
    parser = commands.add_parser(
        "copy-bundle",
        help="copy a bundle that comes with the package, to tune and run the copy",
        description=(
            "Copy a MONAI bundle that comes with the package. Tuned prompts, data and results then go into the copy. "
            f"{RESEARCH_USE_ONLY}"
        ),
    )
    parser.add_argument("name", choices=NAMES, metavar="NAME", help=f"one of {', '.join(NAMES)}")
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder to make; must not exist")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    folder = arguments.folder
    if folder.exists():
        raise FileExistsError(f"'{folder}' exists: name a folder that does not.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = unfinished_path(folder)
    try:
        copy_bundle(arguments.name, unfinished)
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    what = "make its reference of normal images" if arguments.name == "own_normals" else "tune its prompts"
    print(
        f"{folder}: {what} with\n"
        f"  python -m monai.bundle run training --config_file {folder}/configs/train.json --bundle_root {folder}"
    )
    return 0
