# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Entry point of ``monai-anomalyclip``: one module per command beside this one."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from http.client import HTTPException
from importlib import import_module

from monai_anomalyclip import RESEARCH_USE_ONLY, __version__
from monai_anomalyclip.bundles.errors import cause_of
from monai_anomalyclip.cli.plain_messages import EXIT_STATUS, INPUTS_FAILED
from monai_anomalyclip.data.errors import DamagedInputError

__all__ = ["main", "program_parser"]

# Command -> module (beside this one where it has no dots), in the order of --help; imported only when it is used or
# when all are listed, and imports what is slow (torch, MONAI, pydicom) only when it runs.
_COMMANDS = {
    "predict": "predict",
    "reference": "reference",
    "inspect": "inspect",
    "report": "report",
    "list": "work_list",
    "merge": "merge",
    "template": "template",
    "app": "app",
    "archive": "archive",
    "serve": "serve",
    "datalist": "datalist",
    "reproduce": "monai_anomalyclip.experiments.reproduce.command",  # a guest by name: nothing here imports it
    "weights": "weights",
    "copy-bundle": "copy_bundle",
    "federated": "federated",
    "convert-prompts": "convert_prompts",
    "export": "export",
    "label-app": "label_app",
    "doctor": "doctor",
    "completion": "completion",
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
        module = _COMMANDS[name]
        import_module(module if "." in module else f"{__package__}.{module}").add_command(commands)
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
