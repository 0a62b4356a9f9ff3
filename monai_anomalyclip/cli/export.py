# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""``monai-anomalyclip export``: one model with the prompts baked in, for use outside of PyTorch or of this package."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from monai_anomalyclip import RESEARCH_USE_ONLY
from monai_anomalyclip.bundles.shipped import bundle_parser, inference_config

__all__ = ["add_command"]

_DESCRIPTION = f"""Write one model with the prompts built in: image -> anomaly map and anomaly score.

The image is (B, 3, S, S), float32, normalised with CLIP's mean and std; the batch size is free. The file is run on the
CPU and compared with PyTorch before it gets its name; it carries what it was made from and how to prepare images
(docs/export.md). Needs monai_anomalyclip[export] for ONNX.

{RESEARCH_USE_ONLY}
"""

_EXAMPLES = """examples:
  monai-anomalyclip export --bundle bundles/anomalyclip -o anomalyclip.onnx
  monai-anomalyclip export --bundle bundles/anomalyclip -o anomalyclip_int8.onnx --int8
  monai-anomalyclip export --bundle bundles/anomalyclip -o anomalyclip.pt2
"""


def add_command(commands: Any) -> None:
    """Add the command to the sub-parsers of the program."""
    parser = commands.add_parser(
        "export",
        help="write one ONNX or torch.export model with the prompts built in",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--bundle", type=Path, metavar="DIR", help="the MONAI bundle to export (default: bundles/anomalyclip)"
    )
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="FILE", help="file to write: .onnx or .pt2")
    parser.add_argument(
        "--reference",
        type=Path,
        metavar="FILE",
        help="export a reference of normal images, encoder and bank, instead of a bundle; image in [0, 1]",
    )
    parser.add_argument("--encoder-weights", metavar="FILE", help="of the reference's encoder, where it is no package")
    parser.add_argument("--prompts", type=Path, help="tuned prompts (default: the bundle's models/model.pt)")
    parser.add_argument(
        "--format", choices=("onnx", "torch_export"), help="default: what the suffix says, .onnx or .pt2"
    )
    parser.add_argument(
        "--image-size",
        "--image_size",
        type=int,
        metavar="S",
        help="side of the input, a multiple of the patch (default: the bundle's)",
    )
    parser.add_argument(
        "--int8", action="store_true", help="8-bit weights for CPUs (ONNX); less exact, the difference is measured"
    )
    parser.add_argument(
        "--float16", action="store_true", help="half precision for GPUs (ONNX); less exact, the difference is measured"
    )
    parser.add_argument("--opset", type=int, default=18, metavar="N", help="ONNX operators (default: 18)")
    parser.add_argument("--force", action="store_true", help="replace the file when it exists")
    parser.add_argument(
        "--config", action="append", default=[], type=Path, metavar="FILE", help="further configuration to overlay"
    )
    parser.set_defaults(run=_run)


def _export_reference(arguments: argparse.Namespace) -> int:
    from monai_anomalyclip.export.agreement import Agreement
    from monai_anomalyclip.export.baked_reference import export_reference
    from monai_anomalyclip.reference import NormalReference

    if (
        arguments.bundle
        or arguments.prompts
        or arguments.int8
        or arguments.float16
        or arguments.config
        or arguments.image_size
    ):
        raise ValueError("A reference is exported as it is: leave the options of bundles out.")
    reference = NormalReference.load(arguments.reference, weights=arguments.encoder_weights)
    description = export_reference(reference, arguments.output, opset=arguments.opset, overwrite=arguments.force)
    side = description["image_size"]
    print(f"{arguments.output}: onnx, opset {description['opset']}, image (B, 3, {side}, {side}) in [0, 1].")
    print(f"Difference from PyTorch on the CPU: {Agreement(**description['agreement'])}.")
    print(RESEARCH_USE_ONLY)
    return 0


def _run(arguments: argparse.Namespace) -> int:
    if arguments.reference is not None:
        return _export_reference(arguments)
    config = inference_config(arguments.bundle)
    # Slow to import, and --help needs none of it.
    from monai_anomalyclip.export.agreement import Agreement
    from monai_anomalyclip.export.exporting import SUFFIXES, export_model
    from monai_anomalyclip.export.onnx_file import MAP_MEAN_BOUND, SCORE_BOUND
    from monai_anomalyclip.networks import FrozenCLIPNetwork

    output: Path = arguments.output
    if arguments.format and output.suffix != SUFFIXES[arguments.format]:
        raise ValueError(f"--format {arguments.format} needs an output that ends in {SUFFIXES[arguments.format]}.")
    if output.exists() and not arguments.force:  # before the backbone is loaded
        raise FileExistsError(f"'{output}' exists; give another name or --force.")
    parser = bundle_parser(config, arguments.config, device="cpu", prompts=arguments.prompts)
    for step in ("check_prompts", "load_prompts"):
        parser.get_parsed_content(step)
    network = parser.get_parsed_content("network_def")
    if not isinstance(network, FrozenCLIPNetwork):
        raise ValueError(f"Only AnomalyCLIP and its CLIP baselines can be exported, not {type(network).__name__}.")
    description = export_model(
        network,
        output,
        prompts=parser.get_parsed_content("prompts"),
        image_size=arguments.image_size,
        sigma=parser.get_parsed_content("sigma"),
        opset=arguments.opset,
        int8=arguments.int8,
        float16=arguments.float16,
        overwrite=arguments.force,
    )
    opset = f", opset {description['opset']}" if "opset" in description else ""
    size = description["image_size"]
    print(f"{output}: {description['format']}{opset}, image (B, 3, {size}, {size}), {description['precision']}.")
    print(f"Difference from PyTorch on the CPU: {Agreement(**description['agreement'])}.")
    for smaller in [name for name in ("int8", "float16") if getattr(arguments, name)]:
        measured = Agreement(**description[f"agreement_{smaller}"])
        print(f"Difference of {smaller.replace('int', 'INT')} from PyTorch on the CPU: {measured}.")
        if not (measured.map_mean <= MAP_MEAN_BOUND and measured.score_max <= SCORE_BOUND):
            print(
                f"Warning: that is more than {MAP_MEAN_BOUND} for the mean of the map or {SCORE_BOUND} for a score: "
                "compare both models on your own images before it is used, and calibrate its threshold again."
            )
    print(RESEARCH_USE_ONLY)
    return 0
