# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""``monai-anomalyclip label-app``: an app folder for a MONAI Label server."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from monai_anomalyclip import RESEARCH_USE_ONLY
from monai_anomalyclip.bundles.shipped import inference_config

__all__ = ["add_command"]

_DESCRIPTION = f"""Write the app folder that a MONAI Label server starts.

Annotators then see proposals in 3D Slicer, OHIF or CVAT, correct them, and re-tune the prompts from their corrections.
The server runs in an environment of its own (make label-env), see docs/monai_label.md.

{RESEARCH_USE_ONLY}
"""


def add_command(commands: Any) -> None:
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
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from monai_anomalyclip.label.app_folder import write_label_app  # imports torch, and --help needs none of it

    folder = write_label_app(arguments.folder, inference_config(arguments.bundle).parents[1])
    print(
        f"{folder}: start it in the environment of MONAI Label with\n"
        f"  python -m monailabel.main start_server --host 127.0.0.1 --app {folder} --studies STUDIES\n"
        f"{RESEARCH_USE_ONLY}"
    )
    return 0
