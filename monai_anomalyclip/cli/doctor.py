# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""``monai-anomalyclip doctor``: what is installed, what is missing, and the command that provides it."""

from __future__ import annotations

import argparse
import contextlib
import platform
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from packaging.requirements import Requirement

from monai_anomalyclip import RESEARCH_USE_ONLY, __version__

__all__ = ["Finding", "add_command", "installation_findings"]

_DISTRIBUTION = "monai_anomalyclip"
_MODEL = "timm/vit_large_patch14_clip_336.openai"
_READY = "monai-anomalyclip weights bundle -o anomalyclip_ready"
_TUNE = "python -m monai.bundle run training --config_file BUNDLE/configs/train.json --bundle_root BUNDLE"
_REFERENCE = "monai-anomalyclip reference build NORMALS -o BUNDLE/models/model.reference"
_EXTRAS = {
    "video": "MP4 and AVI in, films out",
    "export": "ONNX",
    "fullshot": "PatchCore and RD4AD",
    "reference": "encoder for comparing with your normals",
    "notebooks": "the notebooks",
}
_SYNTAXES = {
    "JPEG Baseline": "1.2.840.10008.1.2.4.50",
    "JPEG Lossless": "1.2.840.10008.1.2.4.70",
    "JPEG-LS": "1.2.840.10008.1.2.4.80",
    "JPEG 2000": "1.2.840.10008.1.2.4.90",
    "High-Throughput JPEG 2000": "1.2.840.10008.1.2.4.201",
    "RLE": "1.2.840.10008.1.2.5",
}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: what it is.
        state: "ok"; "missing" when work on real images fails without it; "optional" when something else does.
        text: what was found; holds no path.
        remedy: the command that provides it, empty when nothing is missing.
        path: where it lies, for those who ask; empty when it has no place.
    """

    name: str
    state: Literal["ok", "missing", "optional"]
    text: str
    remedy: str = ""
    path: str = ""


def installation_findings(bundle: Path | None = None) -> Iterator[Finding]:
    """Look at everything in turn.

    Args:
        bundle: the bundle whose weights are looked for; by default the one that ``predict`` takes by default.
    """
    yield Finding("monai_anomalyclip", "ok", f"{__version__}, Python {platform.python_version()}", path=str(_HERE))
    yield from _packages()
    yield from _torchvision()
    yield _accelerator()
    yield from _although_packages_lack("DICOM decoders", _decoders)
    yield from _extras()
    yield from _although_packages_lack("weights", lambda: _weights(bundle))
    yield from _although_packages_lack("folder of the weights", _cache)


_HERE = Path(__file__).parents[1]


def _although_packages_lack(name: str, look: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    """What a look finds, or that it cannot be taken: this is what one asks when something cannot be imported."""
    try:
        yield from look()
    except ImportError as error:
        text = f"cannot be looked at, for {error.name or 'a package'} cannot be imported"
        yield Finding(name, "missing", text, f"pip install '{_DISTRIBUTION}'")


def _requirements(extra: str = "") -> list[Requirement]:
    found = map(Requirement, metadata.requires(_DISTRIBUTION) or ())
    always: list[Requirement] = []
    others: list[Requirement] = []
    for item in found:
        (always if item.marker is None or item.marker.evaluate({"extra": ""}) else others).append(item)
    if not extra:
        return always
    return [item for item in others if item.marker and item.marker.evaluate({"extra": extra}) and not item.extras]


def _lacking(requirement: Requirement) -> str:
    """What is wrong with an installed package, or nothing."""
    try:
        version = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return f"{requirement.name} is not installed"
    if not requirement.specifier.contains(version, prereleases=True):
        return f"{requirement.name} is {version}, not {requirement.specifier}"
    return ""


def _packages() -> Iterator[Finding]:
    shown = []
    for requirement in _requirements():
        if lacking := _lacking(requirement):
            yield Finding("packages", "missing", lacking, f"pip install '{requirement.name}{requirement.specifier}'")
        elif requirement.name in ("torch", "monai", "open_clip_torch", "pydicom", "highdicom"):
            shown.append(f"{requirement.name} {metadata.version(requirement.name)}")
    yield Finding("packages", "ok", ", ".join(shown))


def _torchvision() -> Iterator[Finding]:
    """Whether it loads: its compiled part fits one build of torch, which versions alone do not tell."""
    try:
        import torchvision  # noqa: F401
    except (ImportError, OSError, RuntimeError) as error:
        text = f"cannot be imported ({type(error).__name__}): it must be built for the torch that is installed"
        yield Finding("torchvision", "missing", text, "pip install --force-reinstall torch torchvision")


def _accelerator() -> Finding:
    try:
        import torch
    except (ImportError, OSError) as error:
        return Finding(
            "accelerator", "missing", f"torch cannot be imported ({type(error).__name__})", "pip install torch"
        )
    if torch.cuda.is_available():
        cards = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
        return Finding("accelerator", "ok", ", ".join(f"{it.name}, {it.total_memory / 2**30:.0f} GiB" for it in cards))
    if torch.backends.mps.is_available():
        return Finding("accelerator", "ok", "Apple GPU")
    built = "for CUDA " + torch.version.cuda if torch.version.cuda else "without CUDA"
    return Finding("accelerator", "optional", f"no GPU is found (torch is built {built}): the CPU is used, slowly")


def _decoders() -> Iterator[Finding]:
    from pydicom.pixels import get_decoder

    lacking = [name for name, syntax in _SYNTAXES.items() if not get_decoder(syntax).is_available]
    if lacking:
        remedy = "pip install pylibjpeg pylibjpeg-openjpeg python-gdcm"
        yield Finding("DICOM decoders", "missing", f"none for {', '.join(lacking)}", remedy)
    else:
        yield Finding("DICOM decoders", "ok", f"uncompressed, {', '.join(_SYNTAXES)}")


def _extras() -> Iterator[Finding]:
    for extra, purpose in _EXTRAS.items():
        lacking = {item: text for item in _requirements(extra) if (text := _lacking(item))}
        if lacking:
            # By their own names: this package need not be on an index.
            remedy = " ".join(["pip install", *(f"'{item.name}{item.specifier}'" for item in lacking)])
            yield Finding(f"extra {extra}", "optional", f"{'; '.join(lacking.values())}: no {purpose}", remedy)
        elif extra == "video":
            yield _video(purpose)
        else:
            yield Finding(f"extra {extra}", "ok", purpose)


def _video(purpose: str) -> Finding:
    try:
        import av  # PyAV brings FFmpeg along
    except ImportError as error:
        text, remedy = (
            f"PyAV cannot be imported ({type(error).__name__}): no {purpose}",
            "pip install --force-reinstall av",
        )
        return Finding("extra video", "optional", text, remedy)
    return Finding("extra video", "ok", f"{purpose}: PyAV {av.__version__}, FFmpeg {av.ffmpeg_version_info}")


def _weights(bundle: Path | None) -> Iterator[Finding]:
    from monai_anomalyclip.bundles.offline import verify_offline_bundle
    from monai_anomalyclip.weights import clip_source, default_weights_folder, fetched_clip

    bundle = _folder(bundle)
    if (bundle / "SHA256SUMS").is_file():
        found = verify_offline_bundle(bundle)
        if found.problems:
            yield Finding("weights", "missing", f"the bundle is damaged: {found.problems[0]}", _READY, str(bundle))
        else:
            yield Finding("weights", "ok", "CLIP and prompts, in a complete offline bundle", path=str(bundle))
        return
    if (bundle / "configs" / "inference.json").is_file():
        text = (bundle / "configs" / "inference.json").read_text(encoding="utf-8")
        if "models/model.reference" in text:
            yield _found_or(bundle / "models" / "model.reference", "normals", _REFERENCE)
            return
        if "demo_backbone" in text:
            yield Finding("CLIP", "ok", "the demonstration's, which comes with the package; for synthetic images only")
            yield _found_or(bundle / "models" / "model.pt", "prompts", _TUNE)
            return
    source = clip_source()
    place = default_weights_folder() / source.name
    try:
        fetched = fetched_clip(source.url)
    except ValueError:
        yield Finding("CLIP", "missing", "the fetched file is damaged: remove it first", _READY, str(place))
    else:
        if fetched is not None:
            yield Finding("CLIP", "ok", f"{source.name}, with the SHA-256 that OpenAI publishes", path=str(fetched))
        elif (cached := _hub_file()) is not None:
            yield Finding("CLIP", "ok", "as open_clip fetched it", path=str(cached))
        else:
            yield Finding(
                "CLIP", "missing", "not there; open_clip fetches it when a network is there", _READY, str(place)
            )
    yield _found_or(bundle / "models" / "model.pt", "prompts", _READY)


def _folder(bundle: Path | None) -> Path:
    """That of a bundle, which may be named as `predict` takes it."""
    from monai_anomalyclip.bundles.shipped import shipped_folder

    bundle = Path("anomalyclip") if bundle is None else bundle
    if not bundle.is_dir() and len(bundle.parts) == 1:
        with contextlib.suppress(FileNotFoundError):
            return shipped_folder(f"bundles/{bundle}")
    return bundle


def _found_or(file: Path, name: str, remedy: str) -> Finding:
    if file.is_file():
        return Finding(name, "ok", f"models/{file.name} of the bundle", path=str(file))
    return Finding(name, "missing", "the bundle has none", remedy, str(file))


def _hub_file() -> str | None:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(_MODEL, "open_clip_model.safetensors")
    return found if isinstance(found, str) else None


def _cache() -> Iterator[Finding]:
    from monai_anomalyclip.weights import default_weights_folder

    folder = default_weights_folder()
    there = next(parent for parent in (folder, *folder.absolute().parents) if parent.is_dir())
    free = shutil.disk_usage(there).free / 2**30
    state: Literal["ok", "optional"] = "ok" if free >= 2 else "optional"
    yield Finding("folder of the weights", state, f"{free:.0f} GiB are free, CLIP needs 0.9", path=str(folder))


_MARKS = {"ok": "ok      ", "missing": "MISSING ", "optional": "optional"}


def add_command(commands: Any) -> None:
    """Add the command to the sub-parsers of the program."""
    parser = commands.add_parser(
        "doctor",
        help="show versions, GPU, decoders and weights, and the command that provides what is missing",
        description=(
            "Look at what is installed: versions, GPU, DICOM decoders, extras, CLIP, prompts, free space. The exit "
            f"status is 1 when `predict` would fail. Nothing is fetched or changed. {RESEARCH_USE_ONLY}"
        ),
    )
    parser.add_argument(
        "--bundle", type=Path, metavar="DIR", help="whose weights are looked for (default: bundles/anomalyclip)"
    )
    parser.add_argument("--show-paths", action="store_true", help="show where things lie; may show the user's name")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    missing = 0
    for finding in installation_findings(arguments.bundle):
        print(f"{_MARKS[finding.state]}  {finding.name}: {finding.text}")
        if arguments.show_paths and finding.path:
            print(f"            at {finding.path}")
        if finding.remedy:
            print(f"            {finding.remedy}")
        missing += finding.state == "missing"
    if missing:
        print(f"\n{missing} missing: the commands above provide it.")
    else:
        print("\nEverything that `predict` needs is there.")
    print(RESEARCH_USE_ONLY)
    return int(missing > 0)
