# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""``monai-anomalyclip reference``: normal images of one's own, made into what other images are compared with."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monai_anomalyclip import RESEARCH_USE_ONLY
from monai_anomalyclip.cli.options import add_reading_options, reading_options
from monai_anomalyclip.cli.plain_messages import INPUTS_FAILED, plain_messages, text_table

if TYPE_CHECKING:
    from monai_anomalyclip.data import InputCatalogue
    from monai_anomalyclip.reference import NormalImage, NormalReference

__all__ = ["add_command"]

_DESCRIPTION = f"""Normal images of your own as the reference for others.

`build` reads every picture and every slice of every volume in NORMALS and keeps what their patches look like to an
encoder; images of one patient are kept apart in everything that compares them. 32 normals are recommended. Look at
`rank` before you trust a reference: an abnormal image among the normals hides others like it. The file holds features,
sizes and tiny thumbnails, but no names: treat it as you treat the images.

{RESEARCH_USE_ONLY}
"""

_EXAMPLES = """examples:
  monai-anomalyclip reference build normals -o my_ct.reference --preset ct-brain
  monai-anomalyclip reference rank my_ct.reference normals -o ranking
  monai-anomalyclip reference add my_ct.reference more_normals
  monai-anomalyclip reference show my_ct.reference
"""

_PICTURES = 12


def add_command(commands: Any) -> None:
    """Add the command to the sub-parsers of the program."""
    parser = commands.add_parser(
        "reference",
        help="make a reference of your own normal images, for comparing others with them",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    build = actions.add_parser("build", help="make a reference of normal images; resumes where it was interrupted")
    add = actions.add_parser("add", help="add more normal images to a reference")
    show = actions.add_parser("show", help="describe a reference, and what to know about its normals")
    rank = actions.add_parser("rank", help="compare each normal with the others: an odd one comes first")
    build.add_argument("normals", nargs="+", metavar="NORMALS", help="files or folders of normal images only")
    build.add_argument("-o", "--output", required=True, type=Path, metavar="FILE", help="the reference to make")
    build.add_argument(
        "--encoder",
        default="efficientnet-lite0",
        metavar="NAME",
        help="efficientnet-lite0 (the default, from the extra 'reference'), timm:NAME, torchvision:NAME or clip:BUNDLE",
    )
    build.add_argument(
        "--alike",
        action="append",
        default=[],
        choices=("framing", "brightness"),
        help="make normals and inputs alike: cut off dark frames, or stretch gray values; may be given twice",
    )
    build.add_argument("--seed", type=int, default=0, help="seed for choosing patches if there are too many images")
    build.add_argument("--coreset", action="store_true", help="if so, keep patches that are far apart, not random ones")
    build.add_argument("--force", action="store_true", help="replace the file when it exists")
    for action in (add, show, rank):
        action.add_argument("reference", type=Path, metavar="FILE", help="the reference")
    add.add_argument("normals", nargs="+", metavar="NORMALS", help="files or folders of normal images only")
    rank.add_argument(
        "normals", nargs="*", metavar="NORMALS", help="the same images, so that they can be named and shown"
    )
    rank.add_argument(
        "-o", "--output", type=Path, metavar="DIR", help=f"put pictures of the {_PICTURES} farthest there"
    )
    show.add_argument("--json", action="store_true", help="print JSON")
    for action in (build, add, rank):
        action.add_argument(
            "--weights",
            metavar="PATH",
            help="weights of the encoder if it is not a package; for clip:BUNDLE the bundle",
        )
        action.add_argument(
            "--group-by",
            choices=("input", "folder"),
            default="input",
            help="what belongs to one patient if no DICOM header says so: each file (the default), or each folder",
        )
        action.add_argument("--device", metavar="DEVICE", help="cpu, cuda, ... (default: the first GPU, else the CPU)")
        add_reading_options(action)
    for action, run in ((build, _build), (add, _add), (show, _show), (rank, _rank)):
        action.set_defaults(run=run)


def _build(arguments: argparse.Namespace) -> int:
    from monai_anomalyclip.networks import default_device
    from monai_anomalyclip.reference.encoder_choice import make_encoder
    from monai_anomalyclip.reference.folders import build_reference

    output: Path = arguments.output
    if output.exists() and not arguments.force:
        raise FileExistsError(f"'{output}' exists: name another file, add to it, or give --force.")
    failed: list[str] = []
    with plain_messages(False):
        encoder = make_encoder(arguments.encoder, arguments.weights).to(arguments.device or default_device())
        catalogue = _catalogue(arguments)
        reference = build_reference(
            catalogue,
            output,
            encoder=encoder,
            **_images_as(arguments, failed),
            progress=True,
            alike=arguments.alike,
            seed=arguments.seed,
            coreset=arguments.coreset,
        )
    _report(reference, failed)
    print(f"Look for odd ones among them: monai-anomalyclip reference rank {output.name} NORMALS -o FOLDER")
    return INPUTS_FAILED if failed else 0


def _add(arguments: argparse.Namespace) -> int:
    from monai_anomalyclip.reference.folders import complete

    failed: list[str] = []
    with plain_messages(False):
        reference = _loaded(arguments)
        catalogue = _catalogue(arguments, reference)
        taken = reference.add(_images(catalogue, arguments, failed), progress=True)
        reference.save(arguments.reference)
        how = {key: value for key, value in _images_as(arguments, failed).items() if key != "failed"}
        complete(reference, catalogue, arguments.reference, progress=True, **how)
    print(f"{taken.new} new images, {taken.known} were there already.")
    _report(reference, failed)
    return INPUTS_FAILED if failed else 0


def _show(arguments: argparse.Namespace) -> int:
    from monai_anomalyclip.reference.comparison import description_of, notes_on
    from monai_anomalyclip.reference.reference_file import read_reference

    content = read_reference(arguments.reference)
    described, notes = description_of(content), notes_on(content)
    if arguments.json:
        print(json.dumps({**described, "notes": notes}, indent=2))
        return 0
    rows = [("what", "value"), *((key, str(value)) for key, value in described.items())]
    print(text_table(rows))
    for note in notes:
        print(note)
    print(RESEARCH_USE_ONLY)
    return 0


def _rank(arguments: argparse.Namespace) -> int:
    failed: list[str] = []
    with plain_messages(False):
        reference = _loaded(arguments)
        if arguments.normals:
            ranked = _ranked_inputs(reference, arguments, failed)
            rows = [("place", "input", "slice", "score", "p"), *ranked]
        elif arguments.output:
            raise ValueError("Pictures need the images: give NORMALS, too.")
        else:
            rows = [("place", "image", "score", "p")]
            for place, one in enumerate(reference.rank_normals(), start=1):
                rows.append((str(place), str(one.index + 1), f"{one.score:.3f}", _p(one.p_value)))
    print(text_table(rows))
    _tell(failed)
    print(
        "Each was compared with those of others. The first are the least like the rest: look at them, and build anew "
        f"without what is not normal. {RESEARCH_USE_ONLY}"
    )
    return INPUTS_FAILED if failed else 0


def _ranked_inputs(
    reference: NormalReference, arguments: argparse.Namespace, failed: list[str]
) -> list[tuple[str, ...]]:
    """One row per image, the farthest first; pictures of the first ones where a folder is named."""
    found = []
    catalogue = _catalogue(arguments, reference)
    for number, one in enumerate(_images(catalogue, arguments, failed)):
        comparison = reference.score(one.image, group=one.group)
        found.append((comparison.score, number, one.name, one.index, comparison.p_value))
    found.sort(key=lambda row: (-row[0], row[1]))
    if arguments.output:
        _write_pictures(reference, catalogue, arguments, {row[1]: place for place, row in enumerate(found[:_PICTURES])})
    return [
        (str(place), name, str(index), f"{score:.3f}", _p(p))
        for place, (score, _, name, index, p) in enumerate(found, start=1)
    ]


def _write_pictures(
    reference: NormalReference, catalogue: InputCatalogue, arguments: argparse.Namespace, places: dict[int, int]
) -> None:
    """Read the first ones again: all of them would not fit into the memory."""
    import numpy as np
    from PIL import Image

    from monai_anomalyclip.writers.overlays import side_by_side

    arguments.output.mkdir(parents=True, exist_ok=True)
    for number, one in enumerate(_images(catalogue, arguments, [])):
        if number not in places:
            continue
        comparison = reference.score(one.image, group=one.group)
        shown = (one.image.expand(3, -1, -1).permute(1, 2, 0).cpu().numpy() * 255).round().astype(np.uint8)
        caption = f"place {places[number] + 1}, {one.name}, slice {one.index}, score {comparison.score:.3f}"
        picture = side_by_side(shown, comparison.anomaly_map[0].numpy(), None, caption)
        name = f"{places[number] + 1:02d}_{Path(one.name).name}_{one.index}.png"
        Image.fromarray(picture).save(arguments.output / name)


def _catalogue(arguments: argparse.Namespace, reference: NormalReference | None = None) -> InputCatalogue:
    """The inputs, read as a reference's normals were unless the command line says how."""
    from monai_anomalyclip.data import InputCatalogue
    from monai_anomalyclip.transforms.intensity_presets import PRESET_NAMES

    options = reading_options(arguments)
    if reference is not None and (preset := reference.settings["preset"]) in PRESET_NAMES:
        options.setdefault("preset", preset)
    return InputCatalogue(
        arguments.normals,
        series=arguments.series,
        keep_names=bool(arguments.keep_names),
        options=options,
        progress=True,
    )


def _images(catalogue: InputCatalogue, arguments: argparse.Namespace, failed: list[str]) -> Iterator[NormalImage]:
    from monai_anomalyclip.reference import normal_images

    return normal_images(catalogue, **_images_as(arguments, failed))


def _images_as(arguments: argparse.Namespace, failed: list[str]) -> dict[str, Any]:
    """How images are taken out of inputs, and where it is noted that one cannot be read."""
    return {
        "slice_axis": "auto" if arguments.slice_axis is None else arguments.slice_axis,
        "grouping": arguments.group_by,
        "failed": lambda name, reason: failed.append(f"{name}: {reason}"),
    }


def _loaded(arguments: argparse.Namespace) -> NormalReference:
    from monai_anomalyclip.networks import default_device
    from monai_anomalyclip.reference import NormalReference

    reference = NormalReference.load(arguments.reference, weights=arguments.weights)
    reference.encoder.to(arguments.device or default_device())
    return reference


def _report(reference: NormalReference, failed: list[str]) -> None:
    from monai_anomalyclip.reference.conformal import FEWEST_NORMALS

    described = reference.describe()
    k = described["k"]
    allows = (
        f"the smallest p-value is {described['smallest_p']:.2g}" if k >= FEWEST_NORMALS else "they only rank images"
    )
    print(f"Normal images: {described['images']}, k = {k}: {allows}.")
    for note in reference.notes():
        print(note)
    _tell(failed)


def _tell(failed: list[str]) -> None:
    for line in failed:
        print(f"left out: {line}", file=sys.stderr)


def _p(value: float | None) -> str:
    return "" if value is None else f"{value:.2g}"
