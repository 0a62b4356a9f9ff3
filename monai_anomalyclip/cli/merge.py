# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""``monai-anomalyclip merge``: tables and report of what many parts have done, and what is still to be done."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from monai_anomalyclip import RESEARCH_USE_ONLY
from monai_anomalyclip.cli.plain_messages import EXIT_STATUS, INPUTS_FAILED, show_summary

__all__ = ["add_command"]

_SHOWN = 10


def add_command(commands: Any) -> None:
    """Add the command to the sub-parsers of the program."""
    parser = commands.add_parser(
        "merge",
        help="make the tables and the report of what many parts have done, and list what is missing",
        description=(
            "Make inputs.csv, scores.csv, results.json and report.html from the records of all parts (predict --part, "
            "--cluster), also while some still run. With --list it says what is missing or failed (missing.csv) and "
            "how long the rest will take at the present rate. The exit status is 1 while something is missing. "
            f"{RESEARCH_USE_ONLY}"
        ),
        epilog=EXIT_STATUS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("results", type=Path, metavar="OUT", help="the output folder that all parts write into")
    parser.add_argument(
        "--list", type=Path, dest="work_list", metavar="FILE", help="the work list: what should be there"
    )
    parser.add_argument(
        "--parquet", action="store_true", help="also inputs.parquet and scores.parquet (extra: parquet)"
    )
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from monai_anomalyclip.scale.progress import progress_of, write_missing  # slow to import, --help needs none of it
    from monai_anomalyclip.writers.output_folder import OutputFolder

    folder = OutputFolder(arguments.results, make=False)
    document, damaged, finished = folder.summarise()
    show_summary(document, arguments.results)
    for reason in damaged.values():
        print(reason)
    if arguments.parquet:
        from monai_anomalyclip.scale.parquet import write_parquet

        for table in ("inputs", "scores"):
            write_parquet(arguments.results / f"{table}.csv")
    if arguments.work_list is not None:
        progress = progress_of(arguments.work_list, folder, finished)
        write_missing(arguments.results / "missing.csv", progress)
        print(progress.sentence())
        for name in progress.missing[:_SHOWN]:
            print(f"missing: {name}")
        if progress.missing:
            print(f"All that is missing or failed: {arguments.results / 'missing.csv'}")
            return 1
    return INPUTS_FAILED if damaged or document.summary.failed else 0
