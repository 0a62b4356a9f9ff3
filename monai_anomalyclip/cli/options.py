# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Options that several commands share: how inputs are found and read, by which of many processes, and the model."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monai_anomalyclip.cli.plain_messages import INPUTS_FAILED

if TYPE_CHECKING:
    from monai_anomalyclip.scale.warm_run import RunOptions

__all__ = [
    "add_model_options",
    "add_reading_options",
    "add_sharing_options",
    "check_sharing",
    "matching",
    "numbers",
    "reading_options",
    "run_options",
    "status_of_part",
]


def add_reading_options(parser: argparse.ArgumentParser) -> None:
    """Add the options to a command."""
    parser.add_argument(
        "--preset",
        type=matching(r"[a-z-]+"),
        help=(
            "intensities of CT, MR, X-ray, ...: auto (the default), dicom (the file's own window), percentile, "
            "ct-brain, ct-subdural, ct-bone, ct-lung, ct-soft, ct-liver, ct-mediastinum"
        ),
    )
    parser.add_argument(
        "--series",
        type=matching(r"[\w.-]+"),
        action="append",
        default=[],
        metavar="UID",
        help="only this DICOM series; may be given several times",
    )
    parser.add_argument(
        "--include",
        type=matching(r"[a-z -]+"),
        action="append",
        default=[],
        metavar="REASON",
        help=(
            "also score DICOM series that would be left out as: localizer, mosaic, projection, reformatted, "
            "calculated-map, secondary-capture; may be given several times"
        ),
    )
    parser.add_argument(
        "--exclude",
        type=_pattern,
        action="append",
        default=[],
        metavar="PATTERN",
        help=(
            "leave out files and folders with a name like '*scout*' or, if the pattern has a slash, with a path below "
            "the input like '*/old/*'; may be given several times"
        ),
    )
    parser.add_argument(
        "--links",
        type=Path,
        metavar="FILE",
        help=(
            "also write a table that says which input is which: names, paths, study and series UIDs. As private as the "
            "images: it must not lie in the folder of the results"
        ),
    )
    parser.add_argument(
        "--keep-names",
        action=argparse.BooleanOptionalAction,
        help=(
            "name results after the files (DICOM never), only where their names hold no patient's name; "
            "--no-keep-names (the default) names them by kind and digits"
        ),
    )
    parser.add_argument(
        "--nifti-form",
        choices=("refuse", "sform", "qform"),
        help="which one counts if a NIfTI file's sform and qform disagree",
    )
    parser.add_argument("--time-point", type=int, metavar="I", help="which volume of a 4-D NIfTI file, from 0")
    parser.add_argument(
        "--slice-axis",
        type=int,
        choices=(0, 1, 2),
        help="axis along which NIfTI is sliced (default: the thickest)",
    )
    parser.add_argument("--stride", type=int, metavar="N", help="score every N-th frame of a video")


def reading_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """What of :class:`monai_anomalyclip.data.ReadOptions` the command line says."""
    names = ("preset", "nifti_form", "time_point", "stride")
    return {name: value for name in names if (value := getattr(arguments, name)) is not None}


def _pattern(text: str) -> str:
    if text[:1] in "$%@":  # MONAI would evaluate it, or take it for a reference
        raise argparse.ArgumentTypeError(f"{text!r} begins with {text[:1]!r}: write [{text[:1]}] for that character")
    return text


def matching(pattern: str) -> Callable[[str], str]:
    """An argument type that takes texts of one pattern alone: MONAI would evaluate a value like ``$...``."""

    def value(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise argparse.ArgumentTypeError(f"{text!r} does not look like a value of this option")
        return text

    return value


def numbers(text: str) -> list[float]:
    """An argument type for numbers with commas between them."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text[:20]!r} are not numbers with commas between them") from error


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
    alone = [name for name in ("clip", "normals", "calibrate_on", "fuse", "cohort") if getattr(arguments, name, None)]
    if arguments.cluster is not None and alone:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in alone)
        parser.error(f"--cluster and {names}: make a reference or a bundle first (docs/scaling.md), and name that")
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


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Add the options to a command."""
    parser.add_argument("--bundle", type=Path, metavar="DIR", help="the MONAI bundle to run (default: anomalyclip)")
    parser.add_argument("--prompts", type=Path, help="tuned prompts (default: the bundle's models/model.pt)")
    parser.add_argument("--preset", type=matching(r"[a-z-]+"), help="intensity preset (default: auto)")
    parser.add_argument("--device", type=matching(r"cpu|mps|cuda(:\d+)?"), help="cpu, cuda, cuda:1, ...")
    parser.add_argument(
        "--config", action="append", default=[], type=Path, metavar="FILE", help="overlay of the bundle"
    )
    parser.add_argument("--verbose", action="store_true", help="show the program's log; it names nobody")


def run_options(arguments: argparse.Namespace, ids: Mapping[str, Any]) -> RunOptions:
    """What the command line says, with further ids of the configuration."""
    from monai_anomalyclip.scale.warm_run import RunOptions

    given = {"reading#preset": arguments.preset, "device": arguments.device, "keep_names": False}
    return RunOptions(
        bundle=arguments.bundle,
        prompts=arguments.prompts,
        configs=tuple(arguments.config),
        ids={**{key: value for key, value in given.items() if value is not None}, **ids},
    )
