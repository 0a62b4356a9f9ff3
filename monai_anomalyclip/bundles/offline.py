# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""A bundle with everything in it, to be carried to where nothing can be fetched, and verified there."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from monai_anomalyclip import RESEARCH_USE_ONLY, __version__
from monai_anomalyclip.atomic_file import sha256_of, unfinished_path
from monai_anomalyclip.bundles.shipped import copy_bundle
from monai_anomalyclip.weights.publishers import clip_source

__all__ = ["OfflineBundle", "make_offline_bundle", "verify_offline_bundle"]

_SUMS = "SHA256SUMS"
_LICENCES = Path(__file__).parents[1] / "weights" / "licences.md"
_PROMPTS = "models/model.pt"
_OWN_CLIP = "models/clip"  # with its suffix: CLIP from another file than OpenAI's

_README = """# AnomalyCLIP, to be carried

Made by monai_anomalyclip {version}. {notice}

Everything that `predict` needs, so that nothing is fetched: the bundle, CLIP `models/{clip}` ({clip_origin}), and the
prompts `models/model.pt` ({origin}). Their licences: `docs/licences.md`.

Where it arrives, with the same version of monai_anomalyclip installed:

    monai-anomalyclip weights verify THIS_FOLDER
    monai-anomalyclip predict STUDIES -o RESULTS --bundle THIS_FOLDER

`verify` compares every file with `{sums}` (`sha256sum -c {sums}` does that part, too), OpenAI's file of CLIP with the
SHA-256 that OpenAI publishes, and shows the SHA-256 of `{sums}` itself: compare that with what `weights bundle` showed
where this was made, by another way than this medium.
"""


@dataclass(frozen=True)
class OfflineBundle:
    """What was found in a folder.

    Attributes:
        files: number of files that are as they were when the folder was made.
        problems: one sentence for each thing that is wrong; empty when all is well.
        digest: SHA-256 of the list of SHA-256s; empty when there is no list.
        openai_file: whether CLIP is the file that OpenAI publishes, rather than one that its tensors came in.
    """

    files: int
    problems: tuple[str, ...]
    digest: str
    openai_file: bool


def make_offline_bundle(
    output: str | Path, clip: str | Path, prompts: str | Path, *, origin: str, clip_origin: str = "OpenAI's file"
) -> str:
    """Put the bundle, CLIP and prompts in a folder, which appears when it is complete.

    Args:
        output: the folder to make.
        clip: OpenAI's CLIP file, or another with the same tensors.
        prompts: prompts in any layout.
        origin: words for the folder's README: where the prompts come from.
        clip_origin: likewise, of CLIP.

    Returns:
        SHA-256 of the folder's list of SHA-256s.

    Raises:
        FileExistsError: the output exists.
        ValueError: the prompts cannot be read.
    """
    from monai_anomalyclip.networks.prompt_checkpoint import convert_prompts  # imports torch

    output, clip = Path(output), Path(clip)
    if output.exists():
        raise FileExistsError(f"'{output}' exists: name a folder that does not.")
    output.parent.mkdir(parents=True, exist_ok=True)
    unfinished = unfinished_path(output)
    try:
        copy_bundle("anomalyclip", unfinished)
        shutil.copyfile(_LICENCES, unfinished / "docs" / "licences.md")
        openai, own_name = clip_source(), f"{Path(_OWN_CLIP).name}{clip.suffix}"
        clip_name = openai.name if clip.name == openai.name or sha256_of(clip) == openai.sha256 else own_name
        shutil.copyfile(clip, unfinished / "models" / clip_name)
        convert_prompts(prompts, unfinished / _PROMPTS)
        _use_local_clip(unfinished / "configs", clip_name)
        text = _README.format(
            version=__version__, notice=RESEARCH_USE_ONLY, clip=clip_name, clip_origin=clip_origin, origin=origin,
            sums=_SUMS,
        )  # fmt: skip
        (unfinished / "README.md").write_text(text, encoding="utf-8")
        files = sorted(path for path in unfinished.rglob("*") if path.is_file())
        lines = [f"{sha256_of(path)}  {path.relative_to(unfinished).as_posix()}\n" for path in files]
        (unfinished / _SUMS).write_text("".join(lines), encoding="utf-8", newline="\n")
        digest = sha256_of(unfinished / _SUMS)
        unfinished.rename(output)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return digest


def _use_local_clip(configs: Path, name: str) -> None:
    for path in configs.glob("*.json"):
        config = json.loads(path.read_text(encoding="utf-8"))
        if "clip_in_bundle" in str(config.get("backbone", {}).get("pretrained")):
            config["backbone"]["pretrained"] = f"$@bundle_root + '/models/{name}'"
            path.write_text(json.dumps(config, indent=4) + "\n", encoding="utf-8")


def verify_offline_bundle(folder: str | Path) -> OfflineBundle:
    """Compare a folder with its list of SHA-256s, and CLIP with the SHA-256 that its owner publishes.

    What use adds (results, thresholds) is no problem; configurations that are not in the list are, because MONAI runs
    what they say.

    Raises:
        FileNotFoundError: there is no list.
    """
    folder = Path(folder)
    sums = folder / _SUMS
    if not sums.is_file():
        raise FileNotFoundError(f"'{folder}' was not made by `monai-anomalyclip weights bundle`: it has no {_SUMS}.")
    wanted, problems = _listed(sums)
    found = {name: _found(folder, name) for name in wanted}
    problems += [
        f"{name} is missing." if digest is None else f"{name} is not as it was when the folder was made."
        for name, digest in found.items()
        if digest != wanted[name]
    ]
    added = sorted(path.relative_to(folder).as_posix() for path in (folder / "configs").rglob("*"))
    problems += [f"{name} was added." for name in added if name not in wanted and not (folder / name).is_dir()]
    clip = clip_source()
    own = [name for name in found if name.startswith(f"{_OWN_CLIP}.")]
    if not own and found.get(f"models/{clip.name}") != clip.sha256:
        problems.append(f"models/{clip.name} does not have the SHA-256 that OpenAI publishes, {clip.sha256}.")
    if found.get(_PROMPTS) is None:
        problems.append(f"{_PROMPTS} is not in the list.")
    elif not problems:
        from monai_anomalyclip.networks.prompt_checkpoint import read_prompts  # imports torch

        read_prompts(folder / _PROMPTS)
    right = sum(digest == wanted[name] for name, digest in found.items())
    return OfflineBundle(right, tuple(problems), sha256_of(sums), not own)


def _listed(sums: Path) -> tuple[dict[str, str], list[str]]:
    wanted, problems = {}, []
    for number, line in enumerate(sums.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        match = re.fullmatch(r"([0-9a-f]{64})  ([\w.-]+(?:/[\w.-]+)*)", line)
        if match is None or ".." in PurePosixPath(match[2]).parts:
            problems.append(f"Line {number} of {_SUMS} is damaged.")
        else:
            wanted[match[2]] = match[1]
    return wanted, problems


def _found(folder: Path, name: str) -> str | None:
    path = folder / name
    inside = path.resolve().is_relative_to(folder.resolve())
    return sha256_of(path) if inside and path.is_file() else None
