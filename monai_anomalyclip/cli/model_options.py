# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Options that say which model scores, for commands that run it for archives."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monai_anomalyclip.cli.reading_options import matching

if TYPE_CHECKING:
    from monai_anomalyclip.scale.warm_run import RunOptions

__all__ = ["add_model_options", "run_options"]


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
