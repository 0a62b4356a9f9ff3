# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""``monai-anomalyclip datalist``: describe a data set's own folder layout as a MONAI datalist."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from monai_anomalyclip import RESEARCH_USE_ONLY

__all__ = ["NAMES", "add_command"]

# Not imported from the registry: that would load torch for --help. A test holds the two together.
NAMES = (
    "mvtec", "visa", "mpdd", "btad", "sdd", "dagm", "dtd-synthetic", "isic", "cvc-clinicdb", "cvc-colondb", "kvasir",
    "endo", "tn3k", "headct", "brainmri", "br35h", "covid-19", "colondb-endo", "folder",
)  # fmt: skip

_EXAMPLES = """examples:
  monai-anomalyclip datalist mvtec mvtec_anomaly_detection -o mvtec_anomaly_detection/datalist.json
  monai-anomalyclip datalist folder my_images -o my_images/datalist.json --split training
"""


def add_command(commands: Any) -> None:
    """Add the command to the sub-parsers of the program."""
    parser = commands.add_parser(
        "datalist",
        help="describe a downloaded data set, or a folder of your own, as a MONAI datalist",
        description=(
            "Find the images and masks of a data set as it was downloaded, pair them by name, and "
            f"write a MONAI datalist. What each layout looks like: docs/data_sets.md. {RESEARCH_USE_ONLY}"
        ),
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", choices=NAMES, metavar="NAME", help=f"one of {', '.join(NAMES)}")
    parser.add_argument("root", type=Path, metavar="ROOT", help="folder of the data set")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE.json", help="the datalist to write")
    parser.add_argument(
        "--split",
        choices=("training", "validation", "testing", "original"),
        help="the list that the images go to; original keeps the published parts (default: as the paper uses the set)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the output when it exists")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from monai_anomalyclip.data.datasets import make_datalist, write_datalist

    listing = make_datalist(arguments.name, arguments.root, split=arguments.split)
    write_datalist(listing, arguments.output, overwrite=arguments.overwrite)
    print(listing.report())
    return 0
