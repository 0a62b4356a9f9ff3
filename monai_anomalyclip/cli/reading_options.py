# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Options that say how inputs are found and read; `predict` and `inspect` share them."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["add_reading_options", "matching", "numbers", "reading_options"]


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
