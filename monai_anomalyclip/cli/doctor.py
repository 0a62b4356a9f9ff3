# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""``monai-anomalyclip doctor``: what is installed, what is missing, and the command that mends it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from monai_anomalyclip import RESEARCH_USE_ONLY

__all__ = ["add_command"]

_MARKS = {"ok": "ok      ", "missing": "MISSING ", "optional": "optional"}


def add_command(commands: Any) -> None:
    """Add the command to the sub-parsers of the program."""
    parser = commands.add_parser(
        "doctor",
        help="show versions, GPU, decoders and weights, and the command that mends what is missing",
        description=(
            "Look at what is installed: versions, GPU, DICOM decoders, extras, CLIP, prompts, free space. The exit "
            f"status is 1 when `predict` on real images would fail. Nothing is fetched or changed. {RESEARCH_USE_ONLY}"
        ),
    )
    parser.add_argument(
        "--bundle", type=Path, metavar="DIR", help="whose weights are looked for (default: bundles/anomalyclip)"
    )
    parser.add_argument("--show-paths", action="store_true", help="show where things lie; may show the user's name")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from monai_anomalyclip.installation import installation_findings

    missing = 0
    for finding in installation_findings(arguments.bundle):
        print(f"{_MARKS[finding.state]}  {finding.name}: {finding.text}")
        if arguments.show_paths and finding.path:
            print(f"            at {finding.path}")
        if finding.remedy:
            print(f"            {finding.remedy}")
        missing += finding.state == "missing"
    if missing:
        print(f"\n{missing} missing: the commands above mend that.")
    else:
        print("\nAll that `predict` needs on real images is there.")
    print(RESEARCH_USE_ONLY)
    return int(missing > 0)
