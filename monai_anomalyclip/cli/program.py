# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Entry point of ``monai-anomalyclip``: the commands are beside this module; what completes them in a shell is here."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from http.client import HTTPException
from importlib import import_module
from pathlib import Path
from typing import Any

from monai_anomalyclip import RESEARCH_USE_ONLY, __version__
from monai_anomalyclip.bundles.errors import cause_of
from monai_anomalyclip.cli.plain_messages import EXIT_STATUS, INPUTS_FAILED
from monai_anomalyclip.data.errors import DamagedInputError

__all__ = ["add_completion", "main", "program_parser"]

# Command -> module (beside this one where it has no dots) and the function in it that adds the command, "add_command"
# where none is named; in the order of --help. A module is imported when its command is used or when all are listed, and
# imports what is slow (torch, MONAI, pydicom) only when the command runs.
_COMMANDS = {
    "predict": "predict",
    "reference": "reference",
    "inspect": "inspect",
    "report": "report",
    "list": "shared_work:add_list",
    "merge": "shared_work:add_merge",
    "template": "shared_work:add_template",
    "app": "app",
    "archive": "archive",
    "serve": "serve",
    "datalist": "datalist",
    "reproduce": "monai_anomalyclip.experiments.reproduce.command",  # a guest by name: nothing here imports it
    "weights": "weights",
    "copy-bundle": "bundle_folders:add_copy_bundle",
    "federated": "federated",
    "convert-prompts": "weights:add_convert_prompts",
    "export": "export",
    "label-app": "bundle_folders:add_label_app",
    "doctor": "doctor",
    "completion": "program:add_completion",
}

_EXAMPLES = f"""examples:
  monai-anomalyclip inspect studies
  monai-anomalyclip predict studies -o results --bundle bundles/anomalyclip --preset ct-brain
  monai-anomalyclip report results
  monai-anomalyclip datalist mvtec mvtec_anomaly_detection -o mvtec_anomaly_detection/datalist.json
  monai-anomalyclip reproduce demo -o runs/reproduce --methods clip
  monai-anomalyclip weights bundle -o anomalyclip_ready
  monai-anomalyclip convert-prompts epoch_15.pth bundles/anomalyclip/models/model.pt
  monai-anomalyclip export --bundle bundles/anomalyclip -o anomalyclip.onnx
  monai-anomalyclip label-app label_app --bundle bundles/anomalyclip
  monai-anomalyclip doctor

Tuning, inference and evaluation are MONAI bundles:
  python -m monai.bundle run training --config_file bundles/anomalyclip_demo/configs/train.json \\
      --bundle_root bundles/anomalyclip_demo

{EXIT_STATUS}"""

SHELLS = ("bash", "zsh", "fish")

_PLACES = """examples:
  monai-anomalyclip completion bash > ~/.local/share/bash-completion/completions/monai-anomalyclip
  monai-anomalyclip completion zsh > ~/.zfunc/_monai-anomalyclip        (with ~/.zfunc in fpath, before compinit)
  monai-anomalyclip completion fish > ~/.config/fish/completions/monai-anomalyclip.fish
"""


def program_parser(command: str | None = None) -> argparse.ArgumentParser:
    """The parser of the program: with one command when that is all that is needed, else with all of them."""
    parser = argparse.ArgumentParser(
        prog="monai-anomalyclip",
        description=f"Zero-shot anomaly detection in medical images. {RESEARCH_USE_ONLY}",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    for name in [command] if command in _COMMANDS else _COMMANDS:
        module, _, function = _COMMANDS[name].partition(":")
        found = import_module(module if "." in module else f"{__package__}.{module}")
        getattr(found, function or "add_command")(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: command line without the program's name; default is ``sys.argv``.

    Returns:
        exit status (see EXIT_STATUS): 1 comes with one sentence on standard error.
    """
    words = sys.argv[1:] if arguments is None else list(arguments)
    parsed = program_parser(words[0] if words else None).parse_args(words)
    try:
        status: int = parsed.run(parsed)
    except KeyboardInterrupt as error:
        anew = parsed.command == "predict" and parsed.force
        again = "the same command without --force" if anew else "the same command"
        print(f"Interrupted: what is finished is kept, and {again} does the rest.", file=sys.stderr)
        return 128 + getattr(error, "number", signal.SIGINT)
    except (OSError, ValueError, RuntimeError, ImportError, HTTPException) as error:
        cause = cause_of(error)
        # Where something is optional, our own sentence says what to install.
        hint = ": `monai-anomalyclip doctor` shows what is missing" if isinstance(cause, ModuleNotFoundError) else ""
        print(f"error: {cause}{hint}", file=sys.stderr)
        return INPUTS_FAILED if isinstance(cause, DamagedInputError) else 1
    return status


def add_completion(commands: Any) -> None:
    """Add the command to the sub-parsers of the program."""
    parser = commands.add_parser(
        "completion",
        help="print a script that completes commands, options and files in a shell",
        description=f"Print a completion script; the examples say where each shell looks for it. {RESEARCH_USE_ONLY}",
        epilog=_PLACES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("shell", choices=SHELLS, metavar="SHELL", help=f"one of {', '.join(SHELLS)}")
    parser.set_defaults(run=_completion)


def _completion(arguments: argparse.Namespace) -> int:
    import shtab

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
