# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""``monai-anomalyclip app``: a page on this machine to drop studies on."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from monai_anomalyclip import RESEARCH_USE_ONLY

__all__ = ["add_command"]

_DESCRIPTION = f"""Open a page in the browser: drop a folder of images or a zip archive on it, or name a path, watch the
progress, look at the most suspicious slices, accept or reject what was found, and export what was accepted.

The page is served on this machine alone (127.0.0.1), at an address with a random part that is printed at the start;
nothing is fetched from the network. Studies and results are kept in a private folder: start the command again with the
same folder to continue.

{RESEARCH_USE_ONLY}
"""


def add_command(commands: Any) -> None:
    """Add the command to the sub-parsers of the program."""
    parser = commands.add_parser(
        "app",
        help="open a local page to drop studies on and to review what is found",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "-o",
        "--folder",
        type=Path,
        default=Path("anomalyclip_app"),
        metavar="DIR",
        help="private folder of all studies and results (default: anomalyclip_app)",
    )
    parser.add_argument(
        "--bundle", type=Path, metavar="DIR", help="the MONAI bundle to run (default: bundles/anomalyclip)"
    )
    parser.add_argument("--prompts", type=Path, help="tuned prompts (default: the bundle's models/model.pt)")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ... (default: the first GPU, else the CPU)")
    parser.add_argument("--port", type=int, default=0, help="port of 127.0.0.1 (default: a free one)")
    parser.add_argument(
        "--most-gigabytes",
        type=float,
        default=20,
        metavar="GIB",
        help="the most that the browser may send for one study (default: 20); a path that is named has no limit",
    )
    parser.add_argument("--no-browser", action="store_true", help="print the address, and open no browser")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    try:
        import fastapi  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"The page needs {error.name}, which is not installed: pip install 'fastapi>=0.115' 'uvicorn>=0.30'."
        ) from error
    from monai_anomalyclip.app.serving import serve  # slow to import, and --help needs none of it
    from monai_anomalyclip.bundles.shipped import inference_config

    words: list[str] = []
    if arguments.bundle is not None:
        words += ["--bundle", str(inference_config(arguments.bundle).parents[1].absolute())]
    if arguments.prompts is not None:
        words += ["--prompts", str(arguments.prompts.absolute())]
    if arguments.device is not None:
        words += ["--device", arguments.device]
    serve(arguments.folder, words, arguments.port, not arguments.no_browser, arguments.most_gigabytes)
    return 0
