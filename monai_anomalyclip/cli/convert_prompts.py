# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""``monai-anomalyclip convert-prompts``: between our layout, a bundle's model.pt and the authors' published layout."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from monai_anomalyclip import RESEARCH_USE_ONLY

__all__ = ["add_command"]


def add_command(commands: Any) -> None:
    """Add the command to the sub-parsers of the program."""
    parser = commands.add_parser(
        "convert-prompts",
        help="convert prompts between our layout, a bundle's model.pt and the authors' published layout",
        description=(
            "Convert tuned prompts. The suffix of the output decides: .safetensors (ours), .pt (a bundle's model.pt) "
            f"or .pth (the authors' published layout). {RESEARCH_USE_ONLY}"
        ),
    )
    parser.add_argument("source", type=Path, help="prompts in any of the three layouts")
    parser.add_argument("target", type=Path, help="file to write: .safetensors, .pt or .pth")
    parser.add_argument("--overwrite", action="store_true", help="replace the output when it exists")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from monai_anomalyclip.networks import convert_prompts  # torch is slow to import, and --help needs none of it

    checkpoint = convert_prompts(arguments.source, arguments.target, overwrite=arguments.overwrite)
    words, length, width = checkpoint.context_normal.shape
    print(
        f"{arguments.target}: {words} + {len(checkpoint.context_abnormal)} prompts of {length} tokens, width {width}, "
        f"deep tokens in {len(checkpoint.deep_prompts)} blocks."
    )
    return 0
