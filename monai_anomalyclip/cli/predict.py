# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""``monai-anomalyclip predict``: a bundle's inference workflow on anything that can be read."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from monai_anomalyclip import RESEARCH_USE_ONLY
from monai_anomalyclip.cli.options import (
    add_reading_options,
    add_sharing_options,
    check_sharing,
    matching,
    numbers,
    reading_options,
    status_of_part,
)
from monai_anomalyclip.cli.plain_messages import EXIT_STATUS, INPUTS_FAILED, damaged_files, plain_messages, show_summary
from monai_anomalyclip.cli.program import lasting_imports

__all__ = ["add_command"]

_MOST_WORKERS = 256

_DESCRIPTION = f"""Score images and show where they are anomalous.

INPUT is a DICOM file, a series, a tree of studies, NIfTI volumes, pictures, videos, or folders with a mixture. Each
input gets its own files: anomaly map, mask and overlay, and for DICOM also SEG and SR. inputs.csv, scores.csv,
results.json and report.html cover all inputs. An input that fails does not stop the others. A second run skips what is
finished.
With --part, several processes share the work; `monai-anomalyclip merge OUT` then makes the tables.

{RESEARCH_USE_ONLY}
"""

_EXAMPLES = f"""examples:
  monai-anomalyclip predict study -o results --bundle bundles/anomalyclip
  monai-anomalyclip predict ct -o results --bundle bundles/anomalyclip --preset ct-lung --outputs default,pm
  monai-anomalyclip predict ct -o results --normals my_normal_ct
  monai-anomalyclip predict clip.mp4 frames brain.nii.gz -o results --bundle bundles/anomalyclip_demo --keep-names
  monai-anomalyclip predict studies -o results --part 3/8

{EXIT_STATUS}"""


def add_command(commands: Any) -> None:
    """Add the command to the sub-parsers of the program."""
    parser = commands.add_parser(
        "predict",
        help="score DICOM studies, NIfTI volumes, pictures and videos, and write maps, masks and a report",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("input", nargs="*", metavar="INPUT", help="files or folders")
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="OUT", help="folder of the results")
    parser.add_argument(
        "--bundle", type=Path, metavar="DIR", help="the MONAI bundle to run (default: bundles/anomalyclip)"
    )
    add_sharing_options(parser)
    parser.add_argument("--prompts", type=Path, help="tuned prompts (default: the bundle's models/model.pt)")
    parser.add_argument(
        "--clip",
        type=Path,
        metavar="FILE",
        help="weights of CLIP in any form (see `monai-anomalyclip weights show FILE`)",
    )
    parser.add_argument(
        "--reference",
        type=Path,
        metavar="FILE",
        help=(
            "compare with your own normal images (see `monai-anomalyclip reference build`) in place of AnomalyCLIP, or "
            "beside it where --bundle names one"
        ),
    )
    parser.add_argument(
        "--normals",
        nargs="+",
        type=Path,
        metavar="NORMALS",
        help="the same in one step: make a reference of these normal images, kept in OUT/.normals for the next run",
    )
    parser.add_argument(
        "--calibrate-on",
        nargs="+",
        type=Path,
        metavar="NORMALS",
        help="first score these normal images, so that AnomalyCLIP's scores have p-values; kept beside the prompts",
    )
    parser.add_argument(
        "--fuse",
        choices=("fisher", "geometric"),
        help="fuse AnomalyCLIP's score with the reference's; only if a measurement on labelled images has shown a gain",
    )
    parser.add_argument(
        "--cohort",
        action="store_true",
        help="compare the inputs with each other, without normal images: finds what few of them share",
    )
    parser.add_argument(
        "--group-by",
        choices=("input", "folder"),
        default="input",
        help="what belongs to one patient if no DICOM header says so: each input (the default), or each folder",
    )
    parser.add_argument(
        "--false-positive-rate",
        type=_rate,
        metavar="R",
        help="share of the normals' pixels that a reference's mask may flag (default: 0.01)",
    )
    parser.add_argument(
        "--encoder-weights",
        metavar="PATH",
        help="weights of the reference's encoder if it is not a package: its file, or its bundle",
    )
    add_reading_options(parser)
    parser.add_argument(
        "--threshold",
        type=_threshold,
        metavar="T",
        help="map value (0 to 1) from which a pixel is anomalous, or 'calibrated': the one kept beside the prompts",
    )
    parser.add_argument(
        "--outputs",
        type=_kinds,
        metavar="KINDS",
        help=(
            "comma-separated: nifti (map and mask), seg, sr (DICOM segmentation and report), png (map and mask of "
            "pictures): all of these by default, where they apply; heat16, map32 (their maps in 16 bits, in "
            "float32); fractional, levels (the map as a DICOM segmentation, as probabilities or as a label map); "
            "pm, sc (DICOM parametric map and overlay pictures). "
            "'default,pm' adds to the default. Overlays, films, tables and report are always written"
        ),
    )
    parser.add_argument(
        "--sheared-nifti",
        action="store_true",
        help="also write NIfTI for a CT with gantry tilt; its geometry is right, but sheared",
    )
    parser.add_argument(
        "--deterministic-uids", action="store_true", help="DICOM UIDs that depend on input and settings alone"
    )
    parser.add_argument(
        "--scales",
        type=numbers,
        metavar="S,S",
        help="average the map over these sizes, relative to the network's input, e.g. 1,1.5; the score does not change",
    )
    parser.add_argument("--flip", action="store_true", help="average over the mirrored image, too")
    parser.add_argument("--slice-batch-size", type=int, metavar="N", help="how many slices the network sees at once")
    parser.add_argument(
        "--workers",
        type=_workers,
        metavar="N",
        help=(
            "processes that read ahead, and as many that write, each an input at a time (default: the bundle's, auto: "
            "half of the cores where there are 4 or more, else 0)"
        ),
    )
    parser.add_argument(
        "--precision",
        choices=("auto", "float32", "bfloat16", "float16"),
        help=(
            "of matrix products (default: the bundle's). auto: bfloat16 or float16 where device or CPU has units for it"
        ),
    )
    parser.add_argument(
        "--compile", action="store_true", help="compile the vision pass first; pays off only for many images"
    )
    parser.add_argument(
        "--device",
        type=matching(r"cpu|mps|cuda(:\d+)?"),
        help="cpu, cuda, cuda:1, ... (default: the first GPU, else the CPU)",
    )
    again = parser.add_mutually_exclusive_group()
    again.add_argument(
        "--resume", action="store_true", default=True, help="skip what an earlier run finished (the default)"
    )
    again.add_argument("--force", action="store_true", help="score everything and replace existing results")
    parser.add_argument(
        "--config", action="append", default=[], type=Path, metavar="FILE", help="further configuration to overlay"
    )
    parser.add_argument("--verbose", action="store_true", help="show the program's log")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    # Pillow keeps memory for the next picture, here and in the processes that follow: fetching it anew takes longer
    # than filling it.
    os.environ.setdefault("PILLOW_BLOCKS_MAX", "8")
    with lasting_imports():
        from monai_anomalyclip.data.input_files import mode_of_input  # slow to import, and --help needs none of it

    check_sharing(arguments)
    for path in arguments.input:
        mode_of_input(Path(path))  # before anything is loaded
    if arguments.cluster is not None:
        return _on_cluster(arguments)
    with plain_messages(arguments.verbose):
        with lasting_imports():
            from monai_anomalyclip.inference import RunOutcome, predict

        outcome = RunOutcome()
        document = predict(
            arguments.input,
            arguments.output,
            arguments.bundle,
            prompts=arguments.prompts,
            clip=arguments.clip,
            reference=arguments.reference,
            normals=arguments.normals,
            calibrate_on=arguments.calibrate_on,
            fuse=arguments.fuse,
            cohort=arguments.cohort,
            grouping=arguments.group_by,
            force=arguments.force,
            configs=arguments.config,
            links=arguments.links,
            part=None if arguments.part is None else str(arguments.part),
            work_list=arguments.work_list,
            outcome=outcome,
            **_overrides(arguments),
        )
    show_summary(document, arguments.output, report=arguments.part is None)  # of all that is in the folder
    if (failed := outcome.failed) is not None and failed.passing:
        print(f"{len(failed.passing)} inputs failed for a reason that may pass: run the same command again.")
        return 1
    # What the list's scan left aside was told when it was made.
    damaged = arguments.work_list is None and damaged_files(outcome.left_out) > 0
    return status_of_part(arguments, INPUTS_FAILED if failed is not None or damaged else 0)


def _on_cluster(arguments: argparse.Namespace) -> int:
    with plain_messages(arguments.verbose):
        with lasting_imports():
            from tqdm import tqdm

            from monai_anomalyclip.data.work_list import read_work_list, units_of
            from monai_anomalyclip.scale.cluster import ClusterDone, connected, predict_on_cluster
            from monai_anomalyclip.scale.warm_run import RunOptions, catalogue_of
            from monai_anomalyclip.writers.output_folder import OutputFolder

        # Workers may have been started in another folder; what is none here is the name of a shipped bundle.
        bundle = arguments.bundle.absolute() if arguments.bundle and arguments.bundle.is_dir() else arguments.bundle
        options = RunOptions(
            bundle=bundle,
            prompts=arguments.prompts and arguments.prompts.absolute(),
            reference=arguments.reference and arguments.reference.absolute(),
            configs=tuple(path.absolute() for path in arguments.config),
            force=arguments.force,
            ids=_overrides(arguments),
        )
        folder = OutputFolder(arguments.output.absolute())
        damaged = 0
        if arguments.work_list is not None:
            header, units = read_work_list(arguments.work_list)
            left_out, total = header.left_out, header.inputs
        else:
            catalogue = catalogue_of(options, arguments.input, folder.path)
            left_out, total = catalogue.left_out(), len(catalogue.sources)
            units = iter(units_of(catalogue.sources, catalogue.skipped))
            damaged = damaged_files(left_out)
        with connected(arguments.cluster) as client, tqdm(total=total, desc="inputs") as bar:

            def tell(done: ClusterDone) -> None:
                bar.update(done.written + done.failed - bar.n)

            done = predict_on_cluster(client, units, folder.path, options, tell)
        document = folder.summarise(None, str(arguments.work_list or arguments.input), left_out).document
    show_summary(document, arguments.output)
    if done.passing:
        print(f"{done.passing} inputs failed for a reason that may pass: run the same command again.")
        return 1
    return INPUTS_FAILED if done.failed or damaged else 0


def _overrides(arguments: argparse.Namespace) -> dict[str, Any]:
    """What the command line says, by the bundle's ids; the bundle's own settings hold for the rest."""
    chosen: dict[str, Any] = {f"reading#{key}": value for key, value in reading_options(arguments).items()}
    chosen |= {
        "threshold": arguments.threshold,
        "outputs": arguments.outputs,
        "scales": arguments.scales,
        "flip": arguments.flip or None,
        "slice_batch_size": arguments.slice_batch_size,
        "workers": arguments.workers,
        "precision": arguments.precision,
        "compile": arguments.compile or None,
        "device": arguments.device,
        "sheared_nifti": arguments.sheared_nifti or None,
        "deterministic_uids": arguments.deterministic_uids or None,
        "series": arguments.series or None,
        "include": arguments.include or None,
        "exclude_patterns": arguments.exclude or None,
        "keep_names": arguments.keep_names,
        "slice_axis": arguments.slice_axis,
        "encoder_weights": arguments.encoder_weights,
        "false_positive_rate": arguments.false_positive_rate,
    }
    return {key: value for key, value in chosen.items() if value is not None}


def _rate(text: str) -> float:
    if not 0 < (value := float(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text[:20]!r} is no rate above 0 and below 1")
    return value


def _threshold(text: str) -> float | str:
    return text if text == "calibrated" else float(text)


def _workers(text: str) -> int | str:
    if text == "auto":
        return text
    if not (text.isdecimal() and len(text) < 4 and int(text) <= _MOST_WORKERS):
        raise argparse.ArgumentTypeError(f"{text[:20]!r} is not auto or a number of processes, 0 to {_MOST_WORKERS}")
    return int(text)


def _kinds(text: str) -> list[str]:
    from monai_anomalyclip.writers.output_folder import parse_output_kinds

    try:
        return list(parse_output_kinds(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
