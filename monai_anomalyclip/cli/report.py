# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""``monai-anomalyclip report``: tables and report of a folder of results, made again from its records."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monai_anomalyclip import RESEARCH_USE_ONLY
from monai_anomalyclip.cli.plain_messages import INPUTS_FAILED, damaged_files, text_table

if TYPE_CHECKING:
    from monai_anomalyclip.writers.record import InputRecord
    from monai_anomalyclip.writers.tables import RunDocument

__all__ = ["add_command", "show_summary"]


def add_command(commands: Any) -> None:
    """Add the command to the sub-parsers of the program."""
    parser = commands.add_parser(
        "report",
        help="make the tables and the report of a folder of results again",
        description=(
            "Make inputs.csv, scores.csv, results.json and report.html of a folder of results again, from the records "
            "that lie beside the results: after several runs have written into it, or one was killed, or results were "
            "moved away. Needs no model. The exit status is 3 when a record cannot be read. "
            f"{RESEARCH_USE_ONLY}"
        ),
    )
    parser.add_argument("results", type=Path, metavar="RESULTS", help="the output folder of a run")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from monai_anomalyclip.writers.output_folder import OutputFolder  # slow to import, and --help needs none of it

    document, damaged, _ = OutputFolder(arguments.results, make=False).summarise()
    show_summary(document, arguments.results)
    for reason in damaged.values():
        print(reason)
    return INPUTS_FAILED if damaged else 0


def show_summary(document: RunDocument, output: Path, report: bool = True) -> int:
    """Print what a folder of results holds and what was left out; how many of the files left out are damaged.

    Args:
        document: the results.
        output: their folder.
        report: whether there is a report.
    """
    from monai_anomalyclip.writers.report import archive_place
    from monai_anomalyclip.writers.tables import ranked_records

    compared = any(record.compared for record in document.inputs)
    rows: list[tuple[str, ...]] = [
        ("input", "slices", "geometry", "score", "margin", *(["p"] if compared else []), "top slice", "status")
    ]
    failed = [record for record in document.inputs if record.status != "ok"]
    for record in [*ranked_records(document.inputs), *failed]:
        top = record.most_suspicious[0] if record.most_suspicious and record.kind != "frame" else None
        place = archive_place(top).replace("\N{NO-BREAK SPACE}", " ") if top else ""
        rows.append(
            (
                record.name,
                str(record.frames or ""),
                record.geometry.verdict if record.geometry else "",
                "" if record.anomaly_score is None else f"{record.anomaly_score:.3f}",
                "" if record.score_margin is None else f"{record.score_margin:.2f}",
                *([_p_values(record)] if compared else []),
                "" if top is None else f"{top.index} ({place})" if place else str(top.index),
                record.status if record.status == "ok" else f"{record.status}: {record.reason}",
            )
        )
    print(text_table(rows))
    if (more := document.summary.inputs - len(document.inputs)) > 0:
        print(f"... and {more} more, see {output / 'inputs.csv'}")
    skipped: Mapping[str, int] = document.skipped
    for reason, count in skipped.items():
        print(f"left out: {count} x {reason}")
    where = f"Report: {output / 'report.html'}" if report else f"Tables: monai-anomalyclip merge {output}"
    print(f"\nScores are not calibrated: they rank images. {where}\n{RESEARCH_USE_ONLY}")
    return damaged_files(skipped)


def _p_values(record: InputRecord) -> str:
    """Of each way of scoring among normals."""
    found = [one for one in record.compared if one.p_value is not None]
    named = len(record.compared) > 1
    return ", ".join(f"{one.p_value:.2g}{f' ({one.method})' if named else ''}" for one in found)
