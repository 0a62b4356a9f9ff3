# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""``monai-anomalyclip inspect``: what would be processed, what is left out and why, without a model."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from monai_anomalyclip import RESEARCH_USE_ONLY
from monai_anomalyclip.cli.options import add_reading_options, reading_options
from monai_anomalyclip.cli.plain_messages import INPUTS_FAILED, damaged_files, text_table

__all__ = ["add_command"]

_EXAMPLES = """examples:
  monai-anomalyclip inspect studies
  monai-anomalyclip inspect studies --show-uids --show-paths
  monai-anomalyclip inspect studies --json > inputs.json
  monai-anomalyclip inspect studies --show-paths --json        names damaged and duplicate files, too
  monai-anomalyclip inspect studies --include secondary-capture
"""


def add_command(commands: Any) -> None:
    """Add the command to the sub-parsers of the program."""
    parser = commands.add_parser(
        "inspect",
        help="list the inputs with their geometry, and what is left out and why; scores nothing",
        description=(
            "List what `predict` would process: DICOM series with the verdict on their geometry and the intensity "
            "preset that would be used, volumes, pictures, videos; and what would be left out, and why. Only headers "
            "are read. The exit status is 3 when an input cannot be read, or a file is damaged or cannot be opened. "
            f"{RESEARCH_USE_ONLY}"
        ),
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("input", nargs="+", metavar="INPUT", help="files or folders")
    add_reading_options(parser)
    parser.add_argument("--show-uids", action="store_true", help="show Series Instance UIDs, for --series")
    parser.add_argument(
        "--show-paths",
        action="store_true",
        help=(
            "show where each input lies and the series' description, with --json also every file that is left out; may "
            "show patients' names"
        ),
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from monai_anomalyclip.data import InputCatalogue  # slow to import, and --help needs none of it
    from monai_anomalyclip.data.facts import excluded_facts, facts_of
    from monai_anomalyclip.data.links import write_links

    catalogue = InputCatalogue(
        arguments.input,
        series=arguments.series,
        include=arguments.include,
        exclude_patterns=arguments.exclude,
        keep_names=bool(arguments.keep_names),
        options=reading_options(arguments),
        progress=True,
        empty=True,
    )
    if arguments.links is not None:
        write_links(arguments.links, catalogue)
    found = [facts_of(name, source) for name, source in catalogue.sources.items()]
    excluded = [excluded_facts(series) for series in catalogue.excluded]
    left_out = catalogue.left_out()
    bad = any(fact.problem for fact in found) or damaged_files(left_out) > 0
    status = (INPUTS_FAILED if bad else 0) if found else 1  # as `predict`, which then does not begin
    if not found:
        print(catalogue.nothing_found(), file=sys.stderr)
    if arguments.json:
        rows = [fact.as_dict(arguments.show_uids, arguments.show_paths) for fact in [*found, *excluded]]
        listed = {"inputs": rows, "left_out": left_out}
        if arguments.show_paths:
            listed["files_left_out"] = [
                {"path": str(file.path), "reason": file.code, "damaged": file.damaged, "detail": file.detail}
                for file in catalogue.skipped
            ]
        print(json.dumps(listed, indent=2))
        return status
    extra = [*(["series"] if arguments.show_uids else []), *(["description", "path"] if arguments.show_paths else [])]
    table = [("input", "kind", "frames", "size", "geometry", "preset", *extra)]
    for fact in [*found, *excluded]:
        values = fact.as_dict(True, True)
        shown = (values[column] for column in ("name", "kind", "frames", "size", "geometry", "preset", *extra))
        table.append(tuple("" if value is None else str(value) for value in shown))
    if len(table) > 1:
        print(text_table(table))
    for fact in found:
        for note in (*fact.notes, *([f"cannot be read: {fact.problem}"] if fact.problem else [])):
            print(f"{fact.name}: {note}")
    for reason, count in left_out.items():
        print(f"left out: {count} x {reason}")
    if catalogue.excluded:
        print("A series that is left out is processed with --include REASON, or --series UID (--show-uids lists them).")
    return status
