# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Folders made of bundles: ``monai-anomalyclip copy-bundle``, one's own copy, and ``label-app``, a MONAI Label app."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

from monai_anomalyclip import RESEARCH_USE_ONLY
from monai_anomalyclip.atomic_file import unfinished_path
from monai_anomalyclip.bundles import shipped
from monai_anomalyclip.bundles.shipped import inference_config

__all__ = ["add_copy_bundle", "add_label_app"]

NAMES = ("anomalyclip", "anomalyclip_demo", "own_normals")


_DESCRIPTION = f"""Write the app folder that a MONAI Label server starts.

Annotators then see proposals in 3D Slicer, OHIF or CVAT, correct them, and re-tune the prompts from their corrections.
The server runs in an environment of its own (make label-env), see docs/monai_label.md.

{RESEARCH_USE_ONLY}
"""


def add_copy_bundle(commands: Any) -> None:
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
    parser.set_defaults(run=_copy_bundle)


def _copy_bundle(arguments: argparse.Namespace) -> int:
    folder = arguments.folder
    if folder.exists():
        raise FileExistsError(f"'{folder}' exists: name a folder that does not.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = unfinished_path(folder)
    try:
        shipped.copy_bundle(arguments.name, unfinished)
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    what = "make its reference of normal images" if arguments.name == "own_normals" else "tune its prompts"
    print(
        f"{folder}: {what} with\n"
        f"  python -m monai.bundle run training --config_file {folder}/configs/train.json --bundle_root {folder}"
    )
    return 0


def add_label_app(commands: Any) -> None:
    """Add the command to the sub-parsers of the program."""
    parser = commands.add_parser(
        "label-app",
        help="write an app folder for a MONAI Label server",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder to write; must not exist")
    parser.add_argument(
        "--bundle", type=Path, metavar="DIR", help="the MONAI bundle to use (default: bundles/anomalyclip)"
    )
    parser.set_defaults(run=_label_app)


def _label_app(arguments: argparse.Namespace) -> int:
    from monai_anomalyclip.label.app_folder import write_label_app  # imports torch, and --help needs none of it

    folder = write_label_app(arguments.folder, inference_config(arguments.bundle).parents[1])
    print(
        f"{folder}: start it in the environment of MONAI Label with\n"
        f"  python -m monailabel.main start_server --host 127.0.0.1 --app {folder} --studies STUDIES\n"
        f"{RESEARCH_USE_ONLY}"
    )
    return 0
