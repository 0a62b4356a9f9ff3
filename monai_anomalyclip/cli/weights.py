# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""``monai-anomalyclip weights``: CLIP and the authors' prompts: shown, fetched, packed, verified; and converted."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import Any

from monai_anomalyclip import RESEARCH_USE_ONLY

__all__ = ["add_command", "add_convert_prompts"]

# Not imported from the sources: a test holds the two together.
RELEASED = ("mvtec", "visa")

_DESCRIPTION = f"""Weights for real images: OpenAI's CLIP and the AnomalyCLIP authors' prompts.

With a network, `weights bundle -o DIR` fetches both, checks them and makes a folder for `predict --bundle DIR`, which
works without one: carry it to where it is needed and check it there with `weights verify`. Nothing is fetched unless
you ask for it.

{RESEARCH_USE_ONLY}
"""

_EXAMPLES = """examples:
  monai-anomalyclip weights show
  monai-anomalyclip weights bundle -o anomalyclip_ready
  monai-anomalyclip weights verify anomalyclip_ready
  monai-anomalyclip predict studies -o results --bundle anomalyclip_ready
"""


def add_command(commands: Any) -> None:
    """Add the command to the sub-parsers of the program."""
    parser = commands.add_parser(
        "weights",
        help="show, fetch, pack and verify CLIP and the authors' prompts",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    show = actions.add_parser("show", help="what is needed, where it comes from, and what is there")
    fetch = actions.add_parser("fetch", help="fetch what is not there yet, and check it")
    bundle = actions.add_parser("bundle", help="make a folder with everything in it, for use without a network")
    verify = actions.add_parser("verify", help="check such a folder after it was carried")
    show.add_argument(
        "files", nargs="*", type=Path, metavar="FILE", help="files to look into: CLIP in any form, or prompts"
    )
    for action in (show, fetch, bundle):
        action.add_argument(
            "--folder",
            type=Path,
            metavar="DIR",
            help="where fetched files are kept (default: MONAI_ANOMALYCLIP_WEIGHTS, else the user's cache folder); "
            "`predict` looks into the default one only",
        )
    for action in (fetch, bundle):
        action.add_argument(
            "--prompts-blob",
            type=_blob_id,
            metavar="ID",
            help="git's blob id of the file of prompts, 40 digits (default: as the authors' repository lists it)",
        )
    fetch.add_argument("--prompts", choices=RELEASED, default="mvtec", help="what they were tuned on (default: mvtec)")
    bundle.add_argument(
        "--prompts", default="mvtec", metavar="WHICH", help="mvtec (the default), visa, or a file of your own prompts"
    )
    bundle.add_argument(
        "--clip",
        type=Path,
        metavar="FILE",
        help="take CLIP from here: any file with OpenAI's tensors, as open_clip or transformers have it, or its folder",
    )
    bundle.add_argument(
        "--clip-tensors",
        type=_sha256,
        metavar="SHA256",
        help="what `weights show` says of the tensors where OpenAI's own file is: those of --clip must be the same",
    )
    bundle.add_argument(
        "-o", "--output", type=Path, required=True, metavar="DIR", help="folder to make; must not exist"
    )
    verify.add_argument("bundle", type=Path, metavar="DIR", help="folder that `weights bundle` made")
    for action, run in ((show, _show), (fetch, _fetch), (bundle, _bundle), (verify, _verify)):
        action.set_defaults(run=run)


def _show(arguments: argparse.Namespace) -> int:
    from monai_anomalyclip.cli.plain_messages import text_table
    from monai_anomalyclip.weights import PROMPTS, clip_source, default_weights_folder

    if arguments.files:
        lines = [_inside(path) for path in arguments.files]
        print("\n".join(text for _, text in lines))
        return int(not all(known for known, _ in lines))
    folder = arguments.folder or default_weights_folder()
    clip = clip_source()
    print(f"CLIP ViT-L/14@336px, about 0.9 GB ({clip.owner})\n  {clip.url}\n  SHA-256 {clip.sha256}")
    for name, prompts in PROMPTS.items():
        print(f"Prompts {name}, tuned on {prompts.tuned_on} ({prompts.owner})\n  {prompts.url}")
    print("  checked against git's blob id, which that repository lists at the same commit")
    rows = [("file", "there"), (clip.name, _clip_state(folder / clip.name))]
    rows += [(prompts.name, _prompts_state(folder / prompts.name)) for prompts in PROMPTS.values()]
    print(f"\n{text_table(rows)}\n")
    print("Fetch and pack them: monai-anomalyclip weights bundle -o anomalyclip_ready")
    print(
        f"Files fetched by other means go, under these names, into {folder}, where the command checks and takes them."
    )
    return 0


def _clip_state(path: Path) -> str:
    from monai_anomalyclip.atomic_file import sha256_of
    from monai_anomalyclip.weights import clip_source

    if not path.is_file():
        return "no"
    right = sha256_of(path) == clip_source().sha256
    return "yes, OpenAI's file" if right else "another file has its name: remove it"


def _prompts_state(path: Path) -> str:
    if not path.is_file():
        return "no"
    from monai_anomalyclip.networks import read_prompts  # imports torch

    try:
        read_prompts(path)
    except ValueError:
        return "another file has its name: remove it"
    return "yes, prompts"


def _inside(path: Path) -> tuple[bool, str]:
    """Whether a file is of use, and what is in it."""
    from monai_anomalyclip.networks import describe_clip, read_prompts
    from monai_anomalyclip.weights import clip_source

    if not path.exists():
        return False, f"{path}: there is no such file"
    try:
        prompts = read_prompts(path)
    except (ValueError, FileNotFoundError):  # of other kinds, and folders
        try:
            weights, digest = describe_clip(path, clip_source().model)
        except ValueError as error:
            return False, f"{path}: neither prompts nor CLIP ViT-L/14@336px. {error}"
        openai = "recognisably OpenAI's" if weights.from_openai else "not recognised as OpenAI's"
        form = f"CLIP ViT-L/14@336px in the form of {weights.layout}, {openai}"
        return True, f"{path}: {form}; SHA-256 of its tensors {digest}"
    length = prompts.context_normal.shape[-2]
    return True, f"{path}: prompts, {length} tokens long, {len(prompts.deep_prompts)} text blocks with tokens"


def _fetch(arguments: argparse.Namespace) -> int:
    from monai_anomalyclip.networks import read_prompts
    from monai_anomalyclip.weights import PROMPTS, default_weights_folder, fetch_clip, fetch_prompts

    folder = arguments.folder or default_weights_folder()
    fetch_clip(folder)
    fetch_prompts(folder, PROMPTS[arguments.prompts], read=read_prompts, blob_id=arguments.prompts_blob)
    print("All is there. A folder for `predict --bundle`: monai-anomalyclip weights bundle -o anomalyclip_ready")
    return 0


def _bundle(arguments: argparse.Namespace) -> int:
    from monai_anomalyclip.bundles.offline import make_offline_bundle
    from monai_anomalyclip.networks import read_prompts
    from monai_anomalyclip.weights import PROMPTS, default_weights_folder, fetch_clip, fetch_prompts

    if arguments.output.exists():
        raise FileExistsError(f"'{arguments.output}' exists: name a folder that does not.")
    folder = arguments.folder or default_weights_folder()
    source = PROMPTS.get(arguments.prompts)
    if source is None and not Path(arguments.prompts).is_file():
        raise FileNotFoundError(f"--prompts {arguments.prompts!r} is neither {' nor '.join(PROMPTS)} nor a file.")
    clip, clip_origin = (fetch_clip(folder), "OpenAI's file") if arguments.clip is None else _own_clip(arguments)
    prompts, origin = Path(arguments.prompts), "a file of one's own"
    if source is not None:
        prompts = fetch_prompts(folder, source, read=read_prompts, blob_id=arguments.prompts_blob)
        origin = f"the AnomalyCLIP authors', tuned on {source.tuned_on}"
    digest = make_offline_bundle(arguments.output, clip, prompts, origin=origin, clip_origin=clip_origin)
    print(
        f"{arguments.output}: complete. Where it arrives: monai-anomalyclip weights verify {arguments.output.name}\n"
        f"must show this SHA-256 of its list: {digest}\n"
        f"Then: monai-anomalyclip predict STUDIES -o RESULTS --bundle {arguments.output}\n{RESEARCH_USE_ONLY}"
    )
    return 0


def _own_clip(arguments: argparse.Namespace) -> tuple[Path, str]:
    """The file of ``--clip``, and what is known of its tensors.

    Raises:
        ValueError: they are not OpenAI's.
    """
    from monai_anomalyclip.atomic_file import sha256_of
    from monai_anomalyclip.networks import describe_clip
    from monai_anomalyclip.networks.clip_weights import clip_file
    from monai_anomalyclip.weights import clip_source, default_weights_folder

    source, path = clip_source(), clip_file(arguments.clip)
    if not path.is_file():
        raise FileNotFoundError(f"--clip {str(arguments.clip)!r} is no file, nor a folder with one.")
    if sha256_of(path) == source.sha256:
        return path, "OpenAI's file"
    weights, digest = describe_clip(path, source.model)
    wanted = arguments.clip_tensors
    fetched = (arguments.folder or default_weights_folder()) / source.name
    if wanted is None and fetched.is_file() and sha256_of(fetched) == source.sha256:
        wanted = describe_clip(fetched, source.model)[1]
    if wanted is not None:
        if digest != wanted:
            raise ValueError(f"--clip {path.name}: SHA-256 of its tensors is {digest} instead of {wanted}.")
        known = "the same as in OpenAI's file"
    elif weights.from_openai:
        known = "with OpenAI's start-of-text embedding; the others were not compared, since OpenAI's file is not here"
    else:
        raise ValueError(
            f"--clip {path.name} fits {source.model}, but does not hold OpenAI's tensors, on which the prompts depend."
        )
    print(f"{path.name}: tensors {known}; their SHA-256 is {digest}")
    return path, f"in the form of {weights.layout}, its tensors {known}"


def _verify(arguments: argparse.Namespace) -> int:
    from monai_anomalyclip.bundles.offline import verify_offline_bundle

    found = verify_offline_bundle(arguments.bundle)
    for problem in found.problems:
        print(f"error: {problem}", file=sys.stderr)
    if found.problems:
        print(f"error: {len(found.problems)} problems: do not use it, carry it here again.", file=sys.stderr)
        return 1
    clip = "has the SHA-256 that OpenAI publishes" if found.openai_file else "is another file than OpenAI's (README.md)"
    print(
        f"{found.files} files are as they were when the folder was made, CLIP {clip}, "
        f"and the prompts can be read.\nSHA-256 of its list: {found.digest}\n"
        "Compare it with what `weights bundle` showed: the list itself is not signed."
    )
    return 0


def _sha256(text: str) -> str:
    if not re.fullmatch("[0-9a-f]{64}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not 64 hexadecimal digits")
    return text


def _blob_id(text: str) -> str:
    if not re.fullmatch("[0-9a-f]{40}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not 40 hexadecimal digits")
    return text


def add_convert_prompts(commands: Any) -> None:
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
    parser.set_defaults(run=_convert_prompts)


def _convert_prompts(arguments: argparse.Namespace) -> int:
    from monai_anomalyclip.networks import convert_prompts  # torch is slow to import, and --help needs none of it

    checkpoint = convert_prompts(arguments.source, arguments.target, overwrite=arguments.overwrite)
    words, length, width = checkpoint.context_normal.shape
    print(
        f"{arguments.target}: {words} + {len(checkpoint.context_abnormal)} prompts of {length} tokens, width {width}, "
        f"deep tokens in {len(checkpoint.deep_prompts)} blocks."
    )
    return 0
