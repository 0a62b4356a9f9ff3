# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""``monai-anomalyclip list``: scan once what many processes are to share."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from monai_anomalyclip import RESEARCH_USE_ONLY
from monai_anomalyclip.cli.options import add_reading_options, reading_options
from monai_anomalyclip.cli.plain_messages import INPUTS_FAILED, damaged_files

__all__ = ["add_command"]

_EXAMPLES = """examples:
  monai-anomalyclip list studies -o work.jsonl
  monai-anomalyclip predict --list work.jsonl -o results --part 3/8
  monai-anomalyclip merge results --list work.jsonl
"""


def add_command(commands: Any) -> None:
    """Add the command to the sub-parsers of the program."""
    parser = commands.add_parser(
        "list",
        help="scan folders once, for many processes that share the work (predict --list)",
        description=(
            "Find the inputs as `predict` would and write them to a work list. It holds paths: it is as private as the "
            "images, readable by its owner only, and is refused in a folder of results. The exit status is 3 when "
            f"files are damaged or cannot be opened. {RESEARCH_USE_ONLY}"
        ),
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("input", nargs="+", metavar="INPUT", help="files or folders")
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="FILE", help="the list (JSON Lines)")
    add_reading_options(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from monai_anomalyclip.data import InputCatalogue  # slow to import, and --help needs none of it
    from monai_anomalyclip.data.input_files import holds_results
    from monai_anomalyclip.data.links import write_links
    from monai_anomalyclip.data.work_list import units_of, write_work_list

    if any(holds_results(parent) for parent in arguments.output.resolve().parents):
        raise ValueError(f"The list {str(arguments.output)!r} would lie in a folder of results: choose another place.")
    catalogue = InputCatalogue(
        arguments.input,
        series=arguments.series,
        include=arguments.include,
        exclude_patterns=arguments.exclude,
        keep_names=arguments.keep_names,
        options=reading_options(arguments),
        progress=True,
    )
    if arguments.links is not None:
        write_links(arguments.links, catalogue)
    left_out = catalogue.left_out()
    header = write_work_list(arguments.output, units_of(catalogue.sources, catalogue.skipped), left_out)
    for reason, count in left_out.items():
        print(f"left out: {count} x {reason}")
    print(f"{header.inputs} inputs in {header.units} files and series. The list names paths: keep it as private.")
    return INPUTS_FAILED if damaged_files(left_out) else 0
