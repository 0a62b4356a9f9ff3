# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""``monai-anomalyclip reproduce``: the tables of the AnomalyCLIP paper, from the data and weights that are there."""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from monai_anomalyclip import RESEARCH_USE_ONLY
from monai_anomalyclip.cli.options import matching, numbers
from monai_anomalyclip.experiments.reproduce import METHODS, TABLES

__all__ = ["add_command"]

_DESCRIPTION = f"""Reproduce a table of the AnomalyCLIP paper, as far as you have the data and the weights.

Every experiment of TABLE is tuned and evaluated with the bundle's own configurations and overlays from configs/. Its
figures are shown beside the paper's, if those are known. Data sets are looked up below --data DIR, as they were
unpacked or as datalists. What is missing is listed as not run. An experiment that fails does not stop the others, but
the exit status says so. A second run skips what is finished. OUT gets TABLE as .json and .md, and all runs.

{RESEARCH_USE_ONLY}
"""

_EXAMPLES = """examples:
  monai-anomalyclip reproduce --list
  monai-anomalyclip reproduce demo -o runs/reproduce
  monai-anomalyclip reproduce 2 --data data -o runs/reproduce --seeds 3
  monai-anomalyclip reproduce 1 --data data -o runs/reproduce --methods clip,winclip --config my_clip.json

Exit status: 0 all that could be run was run, 1 something failed or nothing could be run, 2 wrong usage.
"""


def add_command(commands: Any) -> None:
    """Add the command to the sub-parsers of the program."""
    parser = commands.add_parser(
        "reproduce",
        help="reproduce the tables of the AnomalyCLIP paper for which you have data and weights",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("table", nargs="?", choices=tuple(TABLES), metavar="TABLE", help=f"one of {', '.join(TABLES)}")
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder of the data sets; demo needs none")
    parser.add_argument("-o", "--output", type=Path, metavar="OUT", help="folder of the table and of all runs")
    parser.add_argument(
        "--bundle",
        type=Path,
        metavar="DIR",
        help="the MONAI bundle to run (default: bundles/anomalyclip, for demo bundles/anomalyclip_demo)",
    )
    parser.add_argument(
        "--seeds", type=int, default=1, metavar="N", help="number of seeds for tuning, from 111 on (default: 1)"
    )
    parser.add_argument(
        "--methods", type=_methods, metavar="NAMES", help=f"only rows of these methods: {','.join(METHODS)}"
    )
    parser.add_argument(
        "--max-epochs", type=int, metavar="N", help="epochs of tuning (default: the bundle's 15, for demo 5)"
    )
    parser.add_argument(
        "--device",
        type=matching(r"cpu|mps|cuda(:\d+)?"),
        help="cpu, cuda, cuda:1, ... (default: the first GPU, else the CPU)",
    )
    parser.add_argument(
        "--precision",
        choices=("auto", "float32", "bfloat16", "float16"),
        help="in which images are encoded (default: the bundle's, float32); timed methods learn in it, too",
    )
    parser.add_argument(
        "--keep-features",
        action="store_true",
        help="keep the frozen encoder's features in OUT: faster with several seeds or settings, but 5 MB "
        "per image and layer",
    )
    parser.add_argument(
        "--config",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="further configuration, over the bundle's own and under the experiments'",
    )
    parser.add_argument(
        "--scales", type=numbers, default=[1.0], metavar="S,S", help="maps as means over these sizes, e.g. 1,1.5"
    )
    parser.add_argument("--flip", action="store_true", help="and over mirrored images")
    parser.add_argument("--list", action="store_true", help="show the tables, or the experiments of TABLE, and stop")
    parser.add_argument("--verbose", action="store_true", help="show the program's log")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    if arguments.list:
        print(_tables() if arguments.table is None else _experiments(arguments.table))
        return 0
    if arguments.table is None or arguments.output is None:
        raise ValueError("Give a TABLE and -o OUT, or --list to see which tables there are.")
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")  # read when tqdm is imported
    # Slow to import, and --help needs none of it.
    from monai_anomalyclip.cli.plain_messages import plain_messages
    from monai_anomalyclip.experiments.reproduce.document import markdown
    from monai_anomalyclip.experiments.reproduce.reproduce_table import reproduce_table

    with plain_messages(arguments.verbose):
        document, outcome = reproduce_table(
            arguments.table,
            arguments.data,
            arguments.output,
            bundle=arguments.bundle,
            seeds=arguments.seeds,
            methods=arguments.methods,
            max_epochs=arguments.max_epochs,
            device=arguments.device,
            keep_features=arguments.keep_features,
            further=arguments.config,
            scales=arguments.scales,
            flip=arguments.flip,
            precision=arguments.precision,
            say=lambda line: print(line, flush=True),
        )
    print(f"\n{markdown(document)}")
    if not outcome.scores:
        print("error: nothing could be run, see above", file=sys.stderr)
    return int(bool(outcome.failed) or not outcome.scores)


def _methods(text: str) -> list[str]:
    names = text.split(",")
    if unknown := [name for name in names if name not in METHODS]:
        raise argparse.ArgumentTypeError(f"there is no method '{unknown[0]}': choose of {', '.join(METHODS)}")
    return names


def _tables() -> str:
    from monai_anomalyclip.cli.plain_messages import text_table
    from monai_anomalyclip.experiments.reproduce.paper_figures import paper_figures

    printed = Counter(figure.table for figure in paper_figures())
    rows = [("TABLE", "rows", "the paper's figures", "title")]
    rows += [
        (table.name, str(len(table.experiments)), str(printed.get(table.name, "")), table.title.rpartition(": ")[2])
        for table in TABLES.values()
    ]
    return f"{text_table(rows)}\n\n{RESEARCH_USE_ONLY}"


def _experiments(name: str) -> str:
    from monai_anomalyclip.cli.plain_messages import text_table

    table = TABLES[name]
    rows = [("experiment", "tuned on", "tested on", "overlays of configs/")]
    rows += [
        (row.title, row.tuned_on or "nothing", ", ".join(row.tested_on), ", ".join(row.configs))
        for row in table.experiments
    ]
    heading = f"{table.title}. {table.varies}" + (f"\nMind: {table.remark}." if table.remark else "")
    return f"{heading}\n\n{text_table(rows)}\n\n{RESEARCH_USE_ONLY}"
