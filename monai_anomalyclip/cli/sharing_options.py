# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Options by which several processes or computers share a work."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from monai_anomalyclip.cli.plain_messages import INPUTS_FAILED

__all__ = ["add_sharing_options", "check_sharing", "status_of_part"]


def add_sharing_options(parser: argparse.ArgumentParser) -> None:
    """Add the options to a command."""
    parser.add_argument(
        "--part",
        type=_part,
        metavar="K/N",
        help=(
            "only part K (1 to N) of N: the parts have no input in common and are all inputs together. auto: K and N "
            "of torchrun or a Slurm array; auto/N: K of these or of an indexed Kubernetes Job"
        ),
    )
    parser.add_argument(
        "--cluster",
        metavar="WHERE",
        help=(
            "score on a Dask cluster (extra: cluster), whose workers see the inputs, the bundle and OUT under the same "
            "paths: local:N for N processes on this machine, or tcp://HOST:8786"
        ),
    )
    parser.add_argument(
        "--list",
        type=Path,
        dest="work_list",
        metavar="FILE",
        help="in place of INPUT: what `monai-anomalyclip list` found, so that not every part scans all folders",
    )


def check_sharing(arguments: argparse.Namespace) -> None:
    """Refuse options that contradict each other.

    Raises:
        SystemExit: with status 2, as wrong usage has.
    """
    parser = argparse.ArgumentParser(prog=f"monai-anomalyclip {arguments.command}", usage=argparse.SUPPRESS)
    if arguments.cluster is not None and (arguments.part is not None or arguments.links is not None):
        parser.error("--cluster and --part, --links: a cluster shares the work itself; links are written by `list`")
    if arguments.work_list is None:
        if not arguments.input:
            parser.error("give INPUT, or --list FILE")
        return
    chosen = [name for name in ("series", "include", "exclude", "keep_names") if getattr(arguments, name, None)]
    if arguments.input or chosen:
        what = "INPUT" if arguments.input else ", ".join(f"--{name.replace('_', '-')}" for name in chosen)
        parser.error(f"{what} and --list: the list says what the inputs are; choose among them when it is made")


def status_of_part(arguments: argparse.Namespace, status: int) -> int:
    """What a part is to end with: torchrun ends all others at the first that ends with another status than 0."""
    if status == INPUTS_FAILED and arguments.part is not None and "TORCHELASTIC_RUN_ID" in os.environ:
        print("Inputs failed for good; the status is 0 all the same, for torchrun would end the other parts.")
        return 0
    return status


def _part(text: str) -> str:
    from monai_anomalyclip.data.parts import parse_part

    try:
        return str(parse_part(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
