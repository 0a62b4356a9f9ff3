# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""``monai-anomalyclip template``: a file for a scheduler."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from monai_anomalyclip import RESEARCH_USE_ONLY

__all__ = ["add_command"]

_KINDS = ("slurm", "kubernetes", "snakemake", "nextflow", "wdl")  # as scale.templates.KINDS, which takes time to import


def add_command(commands: Any) -> None:
    """Add the command to the sub-parsers of the program."""
    parser = commands.add_parser(
        "template",
        help="write a file with which a scheduler shares the work: Slurm, Kubernetes, Snakemake, Nextflow, WDL",
        description=(
            "Write a Slurm array, an indexed Kubernetes Job, a Snakemake, Nextflow or WDL workflow that does every "
            "part of a work list (monai-anomalyclip list) and tells failures that are worth another try from those "
            f"that are not. Check it before use: memory, processors and queues depend on your site. {RESEARCH_USE_ONLY}"
        ),
    )
    parser.add_argument("kind", choices=_KINDS, metavar="KIND", help=f"one of {', '.join(_KINDS)}")
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="FILE", help="the file to write")
    parser.add_argument(
        "--list", required=True, dest="work_list", metavar="FILE", help="work list, as the tasks see it"
    )
    parser.add_argument("--results", required=True, metavar="OUT", help="folder of the results, as the tasks see it")
    parser.add_argument("--bundle", default="anomalyclip", metavar="DIR", help="the bundle (default: anomalyclip)")
    parser.add_argument("--parts", type=int, default=8, metavar="N", help="number of parts (default: 8)")
    parser.add_argument(
        "--image", default="monai-anomalyclip:latest", help="container image (Kubernetes, WDL; default: %(default)s)"
    )
    parser.add_argument(
        "--claim",
        default="studies",
        help="persistent volume claim with list and results (Kubernetes; default: studies)",
    )
    parser.add_argument("--force", action="store_true", help="replace the file")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from monai_anomalyclip.atomic_file import replaced_when_complete
    from monai_anomalyclip.scale.templates import scheduler_file

    if arguments.output.exists() and not arguments.force:
        raise FileExistsError(f"{str(arguments.output)!r} exists: choose another name, or --force.")
    text = scheduler_file(
        arguments.kind,
        work_list=arguments.work_list,
        results=arguments.results,
        bundle=arguments.bundle,
        parts=arguments.parts,
        image=arguments.image,
        claim=arguments.claim,
    )
    arguments.output.absolute().parent.mkdir(parents=True, exist_ok=True)
    with replaced_when_complete(arguments.output) as unfinished:
        unfinished.write_text(text, encoding="utf-8")
    print(f"{arguments.output}: {arguments.parts} parts. Look through it, then give it to the scheduler.")
    return 0
