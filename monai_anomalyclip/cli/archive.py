# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""``monai-anomalyclip archive``: results for the series of an archive that have none yet, by DICOMweb; for cron."""

from __future__ import annotations

import argparse
import hashlib
import re
from pathlib import Path
from typing import Any

from monai_anomalyclip import RESEARCH_USE_ONLY
from monai_anomalyclip.cli.options import add_model_options, run_options
from monai_anomalyclip.cli.plain_messages import EXIT_STATUS, INPUTS_FAILED, plain_messages
from monai_anomalyclip.cli.program import lasting_imports

__all__ = ["add_command"]

_EXAMPLES = f"""examples:
  monai-anomalyclip archive --from http://127.0.0.1:8042/dicom-web --query Modality=CT --query StudyDate=20260101-
  monai-anomalyclip archive --from https://pacs/dicom-web --to https://research/dicom-web --query Modality=MR

Name and password of an archive are taken from ~/.netrc.

{EXIT_STATUS}"""


def add_command(commands: Any) -> None:
    """Add the command to the sub-parsers of the program."""
    parser = commands.add_parser(
        "archive",
        help="score the series of a DICOMweb archive that have no results yet, and store them there (extra: dicomweb)",
        description=(
            "Search an archive, fetch one series at a time, score it, store segmentation (SEG) and report (SR), and "
            "read them back. A series is done when the archive holds results of the same set of images, model and "
            "settings: a second run does nothing, one of a series that has grown makes a report that supersedes the "
            f"old. Nothing is kept on this machine but hashes of series that gave no results. {RESEARCH_USE_ONLY}"
        ),
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--from", required=True, dest="source", metavar="URL", help="DICOMweb service with the images")
    parser.add_argument("--to", dest="target", metavar="URL", help="service that gets the results (default: the same)")
    parser.add_argument(
        "--query",
        required=True,
        type=_query,
        action="append",
        metavar="KEY=VALUE",
        help="which series to score, such as Modality=CT or StudyDate=20260101-; may be given several times",
    )
    parser.add_argument(
        "--state",
        type=Path,
        metavar="FILE",
        help="file that remembers series without results (default: in the user's state folder)",
    )
    parser.add_argument("--ca", type=Path, metavar="FILE", help="certificates of the authorities to trust")
    parser.add_argument("--cert", type=Path, metavar="FILE", help="certificate of this client")
    parser.add_argument("--key", type=Path, metavar="FILE", help="its key")
    parser.add_argument(
        "--token-file", type=Path, metavar="FILE", help="a token for both services (Authorization: Bearer)"
    )
    add_model_options(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from monai_anomalyclip.archive.dicomweb import quiet_logs

    quiet_logs()
    with plain_messages(arguments.verbose):
        with lasting_imports():
            from monai_anomalyclip.archive.dicomweb import DicomWebArchive, Tls
            from monai_anomalyclip.archive.results import ARCHIVE_IDS
            from monai_anomalyclip.archive.transfer import LeftOut, transfer
            from monai_anomalyclip.scale.warm_run import WarmRun

        tls = Tls(arguments.ca, arguments.cert, arguments.key, arguments.token_file)
        source = DicomWebArchive(arguments.source, tls)
        target = source if arguments.target in (None, arguments.source) else DicomWebArchive(arguments.target, tls)
        run = WarmRun(run_options(arguments, ARCHIVE_IDS))
        left_out = LeftOut(arguments.state or _state_file(arguments.target or arguments.source))
        done = transfer(source, target, dict(arguments.query), run, left_out)
    print(", ".join(f"{count} series: {what}" for what, count in sorted(done.counts.items())) or "No series was found.")
    for problem in done.problems:
        print(f"left for the next run: {problem}")
    print(RESEARCH_USE_ONLY)
    if done.counts["again"]:
        return 1
    return INPUTS_FAILED if done.counts["failed"] else 0


def _state_file(url: str) -> Path:
    from platformdirs import user_state_path

    name = hashlib.sha256(url.encode()).hexdigest()[:16]
    return user_state_path("monai_anomalyclip") / f"archive-{name}.jsonl"


def _query(text: str) -> tuple[str, str]:
    match = re.fullmatch(r"([A-Za-z]+)=(.+)", text)
    if match is None:
        raise argparse.ArgumentTypeError("a query is written KEY=VALUE, such as Modality=CT")
    return match[1], match[2]
