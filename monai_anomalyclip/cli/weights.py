# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""``monai-anomalyclip weights``: CLIP and the authors' prompts: shown, fetched, packed to be carried, verified."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import Any

from monai_anomalyclip import RESEARCH_USE_ONLY

__all__ = ["add_command"]

# Not imported from the sources: a test holds the two together.
RELEASED = ("mvtec", "visa")

_DESCRIPTION = f"""Weights for real images: OpenAI's CLIP and the AnomalyCLIP authors' prompts.

Connected, `weights bundle -o DIR` fetches both, checks them and makes a folder for `predict --bundle DIR`, which works
without a network: carry it to where it is needed and `weights verify` it there. Nothing is fetched without being asked.

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
    verify = actions.add_parser("verify", help="check such a folder where it arrived")
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
        "-o", "--output", type=Path, required=True, metavar="DIR", help="folder to make; must not exist"
    )
    verify.add_argument("bundle", type=Path, metavar="DIR", help="folder that `weights bundle` made")
    for action, run in ((show, _show), (fetch, _fetch), (bundle, _bundle), (verify, _verify)):
        action.set_defaults(run=run)


def _show(arguments: argparse.Namespace) -> int:
    from monai_anomalyclip.cli.plain_messages import text_table
    from monai_anomalyclip.weights import PROMPTS, clip_source, default_weights_folder

    folder = arguments.folder or default_weights_folder()
    clip = clip_source()
    print(f"CLIP ViT-L/14@336px, about 0.9 GB ({clip.owner})\n  {clip.url}\n  SHA-256 {clip.sha256}")
    for name, prompts in PROMPTS.items():
        print(f"Prompts {name}, tuned on {prompts.tuned_on} ({prompts.owner})\n  {prompts.url}")
    print("  checked against git's blob id, which that repository lists at the same commit")
    files = [clip.name, *(prompts.name for prompts in PROMPTS.values())]
    rows = [("file", "there"), *((name, "yes" if (folder / name).is_file() else "no") for name in files)]
    print(f"\n{text_table(rows)}\n")
    print("Fetch and pack them: monai-anomalyclip weights bundle -o anomalyclip_ready")
    print(
        f"Files fetched by other means go, under these names, into {folder}, where the command checks and takes them."
    )
    return 0


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
    clip = fetch_clip(folder)
    prompts, origin = Path(arguments.prompts), "a file of one's own"
    if source is not None:
        prompts = fetch_prompts(folder, source, read=read_prompts, blob_id=arguments.prompts_blob)
        origin = f"the AnomalyCLIP authors', tuned on {source.tuned_on}"
    digest = make_offline_bundle(arguments.output, clip, prompts, origin=origin)
    print(
        f"{arguments.output}: complete. Where it arrives: monai-anomalyclip weights verify {arguments.output.name}\n"
        f"must show this SHA-256 of its list: {digest}\n"
        f"Then: monai-anomalyclip predict STUDIES -o RESULTS --bundle {arguments.output}\n{RESEARCH_USE_ONLY}"
    )
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    from monai_anomalyclip.bundles.offline import verify_offline_bundle

    found = verify_offline_bundle(arguments.bundle)
    for problem in found.problems:
        print(f"error: {problem}", file=sys.stderr)
    if found.problems:
        print(f"error: {len(found.problems)} problems: do not use it, carry it here again.", file=sys.stderr)
        return 1
    print(
        f"{found.files} files are as they were when the folder was made, CLIP has the SHA-256 that OpenAI publishes, "
        f"and the prompts can be read.\nSHA-256 of its list: {found.digest}\n"
        "Compare it with what `weights bundle` showed: the list itself is not signed."
    )
    return 0


def _blob_id(text: str) -> str:
    if not re.fullmatch("[0-9a-f]{40}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not 40 hexadecimal digits")
    return text
