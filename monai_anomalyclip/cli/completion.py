# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""``monai-anomalyclip completion``: a script that completes the program's commands and options in a shell."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from monai_anomalyclip import RESEARCH_USE_ONLY

__all__ = ["add_command"]

SHELLS = ("bash", "zsh", "fish")

_EXAMPLES = """examples:
  monai-anomalyclip completion bash > ~/.local/share/bash-completion/completions/monai-anomalyclip
  monai-anomalyclip completion zsh > ~/.zfunc/_monai-anomalyclip        (with ~/.zfunc in fpath, before compinit)
  monai-anomalyclip completion fish > ~/.config/fish/completions/monai-anomalyclip.fish
"""


def add_command(commands: Any) -> None:
    """Add the command to the sub-parsers of the program."""
    parser = commands.add_parser(
        "completion",
        help="print a script that completes commands, options and files in a shell",
        description=f"Print a completion script; the examples say where each shell looks for it. {RESEARCH_USE_ONLY}",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("shell", choices=SHELLS, metavar="SHELL", help=f"one of {', '.join(SHELLS)}")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    import shtab

    from monai_anomalyclip.cli.program import program_parser  # which imports this module

    parser = program_parser()
    _complete_files(parser, shtab.FILE)
    print(shtab.complete(parser, shell=arguments.shell))
    return 0


def _complete_files(parser: argparse.ArgumentParser, files: Any) -> None:
    """Let every argument that takes a path complete one."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                _complete_files(command, files)
        elif action.type is Path or action.metavar == "INPUT":
            action.complete = files  # type: ignore[attr-defined]
