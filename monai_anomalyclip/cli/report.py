# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""``monai-anomalyclip report``: tables and report of a folder of results, made again from its records."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from monai_anomalyclip import RESEARCH_USE_ONLY
from monai_anomalyclip.cli.plain_messages import INPUTS_FAILED, show_summary

__all__ = ["add_command"]


def add_command(commands: Any) -> None:
    """Add the command to the sub-parsers of the program."""
    parser = commands.add_parser(
        "report",
        help="make the tables and the report of a folder of results again",
        description=(
            "Make inputs.csv, scores.csv, results.json and report.html of a folder of results again, from the records "
            "that lie beside the results: after several runs have written into it, or one was killed, or results were "
            "moved away. Needs no model. The exit status is 3 when a record cannot be read. "
            f"{RESEARCH_USE_ONLY}"
        ),
    )
    parser.add_argument("results", type=Path, metavar="RESULTS", help="the output folder of a run")
    parser.add_argument(
        "--viewer-3d",
        type=int,
        nargs="?",
        const=10,
        metavar="N",
        help=(
            "also write NAME_3d.html for the N (10) most suspicious volumes: three planes and a volume to turn, about "
            "7 MB each; needs the extra viewer3d, maps in NIfTI, and a browser with WebGL 2"
        ),
    )
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from monai_anomalyclip.writers.output_folder import OutputFolder  # slow to import, and --help needs none of it

    document, damaged, _ = OutputFolder(arguments.results, make=False).summarise()
    show_summary(document, arguments.results)
    if arguments.viewer_3d is not None:
        from monai_anomalyclip.writers.tables import ranked_records
        from monai_anomalyclip.writers.viewer_3d import write_3d_pages

        ranked = [record.name for record in ranked_records(document.inputs)]
        pages = write_3d_pages(arguments.results, ranked, arguments.viewer_3d)
        print("In 3-D: " + (", ".join(map(str, pages)) or "no volume here has both a preview and a map in NIfTI"))
    for reason in damaged.values():
        print(reason)
    return INPUTS_FAILED if damaged else 0
