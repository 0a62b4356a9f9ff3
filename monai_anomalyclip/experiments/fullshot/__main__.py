# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""``python -m monai_anomalyclip.experiments.fullshot``: fit PatchCore or RD4AD class by class and print its table."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from monai_anomalyclip import RESEARCH_USE_ONLY
from monai_anomalyclip.engines import default_device
from monai_anomalyclip.experiments.fullshot.network import BACKBONES
from monai_anomalyclip.experiments.fullshot.running import OPTIONS, run_full_shot

__all__ = ["main"]

_EXAMPLES = """example:
  monai-anomalyclip datalist mvtec mvtec_anomaly_detection -o mvtec.json --split original
  python -m monai_anomalyclip.experiments.fullshot --method patchcore --datalist mvtec.json \\
      --output_dir runs/patchcore --weights wide_resnet50_2.safetensors
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m monai_anomalyclip.experiments.fullshot",
        description=(
            "Fit PatchCore or RD4AD to the normal images of each class and measure it on that class's test images. A "
            f"run that was stopped goes on with the next class. {RESEARCH_USE_ONLY}"
        ),
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--method", choices=tuple(OPTIONS), required=True)
    parser.add_argument("--datalist", type=Path, required=True, metavar="FILE", help="with normal images in 'training'")
    parser.add_argument("--output_dir", type=Path, required=True, metavar="DIR", help="for tables and fullshot.json")
    parser.add_argument(
        "--testing_section", default="testing", metavar="NAME", help="list to test on; default: testing"
    )
    parser.add_argument("--backbone", choices=BACKBONES, default=BACKBONES[0], help=f"default: {BACKBONES[0]}")
    parser.add_argument(
        "--weights",
        required=True,
        metavar="FILE|none",
        help="the backbone's ImageNet weights, a state dict of torchvision or timm; 'none' for random ones",
    )
    parser.add_argument("--image_size", type=int, default=256, help="side in pixels, a multiple of 32; default: 256")
    parser.add_argument("--batch_size", type=int, default=16, help="default: 16")
    parser.add_argument("--epochs", type=int, help="rd4ad: of the training; default: 200")
    parser.add_argument("--learning_rate", type=float, help="rd4ad: default: 0.005")
    parser.add_argument("--coreset_ratio", type=float, help="patchcore: share of the features kept; default: 0.1")
    parser.add_argument("--num_neighbors", type=int, help="patchcore: neighbours that weight a score; default: 9")
    parser.add_argument("--seed", type=int, default=111, help="default: 111")
    parser.add_argument("--device", type=torch.device, help="default: the first GPU, or the CPU")
    return parser


def _method_options(parsed: argparse.Namespace) -> dict[str, Any]:
    for method, defaults in OPTIONS.items():
        given = [name for name in defaults if getattr(parsed, name) is not None]
        if given and method != parsed.method:
            raise ValueError(f"--{given[0]} is an option of {method}, not of {parsed.method}.")
    return {name: value for name in OPTIONS[parsed.method] if (value := getattr(parsed, name)) is not None}


def _run(parsed: argparse.Namespace) -> None:
    options = _method_options(parsed)
    if parsed.batch_size < 1:
        raise ValueError(f"--batch_size {parsed.batch_size} must be at least 1.")
    results = run_full_shot(
        parsed.method,
        parsed.datalist,
        parsed.output_dir,
        weights=None if parsed.weights == "none" else Path(parsed.weights),
        device=parsed.device or default_device(),
        **{key: getattr(parsed, key) for key in ("testing_section", "backbone", "image_size", "batch_size", "seed")},
        options=options,
        say=lambda line: print(line, flush=True),
    )
    print(f"\n{parsed.method}, in per cent:\n\n{results.markdown()}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: command line without the program's name; default is ``sys.argv``.

    Returns:
        exit status: 0, or 1 with one sentence on standard error when the command failed.
    """
    parsed = _parser().parse_args(arguments)
    try:
        _run(parsed)
    except (ImportError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
