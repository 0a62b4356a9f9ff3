# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""What many processes share: ``monai-anomalyclip list`` scans once, ``template`` writes a scheduler's file, ``merge``
makes tables and report of what all have done, and tells what is still to be done.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from monai_anomalyclip import RESEARCH_USE_ONLY
from monai_anomalyclip.cli.options import add_reading_options, reading_options
from monai_anomalyclip.cli.plain_messages import EXIT_STATUS, INPUTS_FAILED, damaged_files, show_summary

__all__ = ["add_list", "add_merge", "add_template"]

_LIST_EXAMPLES = """examples:
  monai-anomalyclip list studies -o work.jsonl
  monai-anomalyclip predict --list work.jsonl -o results --part 3/8
  monai-anomalyclip merge results --list work.jsonl
"""

_SHOWN = 10
_KINDS = ("slurm", "kubernetes", "snakemake", "nextflow", "wdl")  # as scale.templates.KINDS, which takes time to import


def add_list(commands: Any) -> None:
    """Add the command to the sub-parsers of the program."""
    parser = commands.add_parser(
        "list",
        help="scan folders once, for many processes that share the work (predict --list)",
        description=(
            "Find the inputs as `predict` would and write them to a work list. It holds paths: it is as private as the "
            "images, readable by its owner only, and is refused in a folder of results. The exit status is 3 when "
            f"files are damaged or cannot be opened. {RESEARCH_USE_ONLY}"
        ),
        epilog=_LIST_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("input", nargs="+", metavar="INPUT", help="files or folders")
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="FILE", help="the list (JSON Lines)")
    add_reading_options(parser)
    parser.set_defaults(run=_list)


def _list(arguments: argparse.Namespace) -> int:
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


def add_merge(commands: Any) -> None:
    """Add the command to the sub-parsers of the program."""
    parser = commands.add_parser(
        "merge",
        help="make the tables and the report of what many parts have done, and list what is missing",
        description=(
            "Make inputs.csv, scores.csv, results.json and report.html from the records of all parts (predict --part, "
            "--cluster), also while some still run. With --list it says what is missing or failed (missing.csv) and "
            "how long the rest will take at the present rate. The exit status is 1 while something is missing. "
            f"{RESEARCH_USE_ONLY}"
        ),
        epilog=EXIT_STATUS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("results", type=Path, metavar="OUT", help="the output folder that all parts write into")
    parser.add_argument(
        "--list", type=Path, dest="work_list", metavar="FILE", help="the work list: what should be there"
    )
    parser.add_argument(
        "--parquet", action="store_true", help="also inputs.parquet and scores.parquet (extra: parquet)"
    )
    parser.set_defaults(run=_merge)


def _merge(arguments: argparse.Namespace) -> int:
    from monai_anomalyclip.scale.progress import progress_of, write_missing  # slow to import, --help needs none of it
    from monai_anomalyclip.writers.output_folder import OutputFolder

    folder = OutputFolder(arguments.results, make=False)
    document, damaged, finished = folder.summarise()
    show_summary(document, arguments.results)
    for reason in damaged.values():
        print(reason)
    if arguments.parquet:
        from monai_anomalyclip.scale.parquet import write_parquet

        for table in ("inputs", "scores"):
            write_parquet(arguments.results / f"{table}.csv")
    if arguments.work_list is not None:
        progress = progress_of(arguments.work_list, folder, finished)
        write_missing(arguments.results / "missing.csv", progress)
        print(progress.sentence())
        for name in progress.missing[:_SHOWN]:
            print(f"missing: {name}")
        if progress.missing:
            print(f"All that is missing or failed: {arguments.results / 'missing.csv'}")
            return 1
    return INPUTS_FAILED if damaged or document.summary.failed else 0


def add_template(commands: Any) -> None:
    """Add the command to the sub-parsers of the program."""
    parser = commands.add_parser(
        "template",
        help="write a file with which a scheduler shares the work: Slurm, Kubernetes, Snakemake, Nextflow, WDL",
        description=(
            "Write a Slurm array, an indexed Kubernetes Job, a Snakemake, Nextflow or WDL workflow that does every "
            "part of a work list (monai-anomalyclip list) and tells failures that are worth another try from those "
            f"that are not. Check it before use: memory, processors and queues depend on your site. {RESEARCH_USE_ONLY}"
        ),
    )
    parser.add_argument("kind", choices=_KINDS, metavar="KIND", help=f"one of {', '.join(_KINDS)}")
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="FILE", help="the file to write")
    parser.add_argument(
        "--list", required=True, dest="work_list", metavar="FILE", help="work list, as the tasks see it"
    )
    parser.add_argument("--results", required=True, metavar="OUT", help="folder of the results, as the tasks see it")
    parser.add_argument("--bundle", default="anomalyclip", metavar="DIR", help="the bundle (default: anomalyclip)")
    parser.add_argument("--parts", type=int, default=8, metavar="N", help="number of parts (default: 8)")
    parser.add_argument(
        "--image", default="monai-anomalyclip:latest", help="container image (Kubernetes, WDL; default: %(default)s)"
    )
    parser.add_argument(
        "--claim",
        default="studies",
        help="persistent volume claim with list and results (Kubernetes; default: studies)",
    )
    parser.add_argument("--force", action="store_true", help="replace the file")
    parser.set_defaults(run=_template)


def _template(arguments: argparse.Namespace) -> int:
    from monai_anomalyclip.atomic_file import replaced_when_complete
    from monai_anomalyclip.scale.templates import scheduler_file

    if arguments.output.exists() and not arguments.force:
        raise FileExistsError(f"{str(arguments.output)!r} exists: choose another name, or --force.")
    text = scheduler_file(
        arguments.kind,
        work_list=arguments.work_list,
        results=arguments.results,
        bundle=arguments.bundle,
        parts=arguments.parts,
        image=arguments.image,
        claim=arguments.claim,
    )
    arguments.output.absolute().parent.mkdir(parents=True, exist_ok=True)
    with replaced_when_complete(arguments.output) as unfinished:
        unfinished.write_text(text, encoding="utf-8")
    print(f"{arguments.output}: {arguments.parts} parts. Look through it, then give it to the scheduler.")
    return 0
