# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""A bundle as the archive that the MONAI model zoo hands out, with a card for the Hugging Face Hub.

Command: ``python -m monai_anomalyclip.bundles.zoo_archive BUNDLE -o DIR``.

The archive ``<name>_v<version>.zip`` holds one folder ``<name>``, as ``monai.bundle.download`` and ``load`` expect;
unpacked, it can be uploaded to the Hugging Face Hub as it is.
"""

from __future__ import annotations

import argparse
import json
import re
import zipfile
from pathlib import Path

from monai_anomalyclip.atomic_file import replaced_when_complete

__all__ = [
    "hub_card",
    "zip_bundle",
]

# What a bundle consists of. Beside it may lie data that was made and results of runs.
_FILES = ("LICENSE", "large_files.yml", "configs/*", "docs/*", "models/*")


def zip_bundle(bundle: str | Path, folder: str | Path, *, overwrite: bool = False) -> Path:
    """Pack a bundle with its prompts.

    Args:
        bundle: the bundle's folder; its name becomes the archive's.
        folder: where the archive goes.
        overwrite: replace the archive when it exists.

    Returns:
        the archive. The same files give the same bytes.

    Raises:
        FileNotFoundError: the bundle has no metadata or no ``models/model.pt``, without which it cannot be loaded.
        FileExistsError: the archive exists.
        ValueError: the bundle's version is not of three numbers.
    """
    bundle = Path(bundle).resolve()
    for name in ("configs/metadata.json", "models/model.pt"):
        if not (bundle / name).is_file():
            raise FileNotFoundError(f"'{bundle.name}' has no {name}: a bundle is packed with tuned prompts.")
    version = str(json.loads((bundle / "configs" / "metadata.json").read_text(encoding="utf-8"))["version"])
    if not re.fullmatch(r"\d+\.\d+\.\d+", version):
        raise ValueError(f"'{bundle.name}' has the version {version!r}: the model zoo takes three numbers, as 0.1.0.")
    archive = Path(folder) / f"{bundle.name}_v{version}.zip"
    if archive.exists() and not overwrite:
        raise FileExistsError(f"'{archive}' exists: give --overwrite to replace it.")
    archive.parent.mkdir(parents=True, exist_ok=True)
    fetched = _large_files(bundle)
    files = sorted({path for pattern in _FILES for path in bundle.glob(pattern) if path.is_file()})
    with replaced_when_complete(archive) as unfinished, zipfile.ZipFile(unfinished, "w") as packed:
        packed.writestr(_place(bundle, "README.md"), hub_card(bundle))
        for path in files:
            if not path.name.startswith(".") and path.relative_to(bundle).as_posix() not in fetched:
                place = _place(bundle, path.relative_to(bundle).as_posix())
                with path.open("rb") as source, packed.open(place, "w", force_zip64=True) as target:
                    while chunk := source.read(1 << 20):
                        target.write(chunk)
    return archive


def _large_files(bundle: Path) -> set[str]:
    """What the zoo fetches by itself, and does not take into archives."""
    listed = bundle / "large_files.yml"
    return (
        set(re.findall(r'^ *- path: "([^"]+)"', listed.read_text(encoding="utf-8"), re.M))
        if listed.is_file()
        else set()
    )


def _place(bundle: Path, name: str) -> zipfile.ZipInfo:
    place = zipfile.ZipInfo(f"{bundle.name}/{name}")  # of 1980, always
    place.compress_type, place.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
    return place


def _main() -> None:
    parser = argparse.ArgumentParser(prog="python -m monai_anomalyclip.bundles.zoo_archive", description=__doc__)
    parser.add_argument("bundle", type=Path, help="folder of the bundle, with tuned prompts")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="folder of the archive")
    parser.add_argument("--overwrite", action="store_true", help="replace the archive when it exists")
    arguments = parser.parse_args()
    try:
        print(zip_bundle(arguments.bundle, arguments.output, overwrite=arguments.overwrite))
    except (OSError, ValueError) as error:
        parser.exit(1, f"error: {error}\n")


_CLIP = "openai/clip-vit-large-patch14-336"
_LINK = re.compile(r"!?\[([^\]]*)\]\((?!\w+:|#)[^)\s]+\)")


def hub_card(bundle: str | Path) -> str:
    """A bundle's ``README.md`` for the Hub.

    MONAI's own ``push_to_hf_hub`` writes tags, library and licence only; this card also has the task, the model that
    it is based on and the paper, by which it is found. Links to other files of the repository become plain text.

    Args:
        bundle: folder of the bundle.

    Returns:
        ``docs/README.md`` with a YAML head.

    Raises:
        FileNotFoundError: it has no metadata or no documentation.

    Example:
        >>> print(hub_card("bundles/anomalyclip"))  # doctest: +ELLIPSIS
        ---
        ...
    """
    from huggingface_hub import ModelCardData

    bundle = Path(bundle)
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text(encoding="utf-8"))
    papers = re.findall(r"arxiv\.org/abs/([\d.]+\d)", " ".join(metadata.get("references", ())))
    based_on_clip = (bundle / "large_files.yml").is_file()
    head = ModelCardData(
        language="en",
        license="apache-2.0",
        library_name="monai",
        pipeline_tag="image-segmentation",
        tags=["monai", "medical", "anomaly-detection", "zero-shot", *(f"arxiv:{paper}" for paper in papers)],
        base_model=_CLIP if based_on_clip else None,
        model_name=metadata["name"],
    )
    text = (bundle / "docs" / "README.md").read_text(encoding="utf-8")
    return f"---\n{head.to_yaml()}\n---\n\n{_LINK.sub(lambda link: link[1], text)}"


if __name__ == "__main__":
    _main()
