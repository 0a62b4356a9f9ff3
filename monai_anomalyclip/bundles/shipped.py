# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Folders that come with the package: the bundles, and the overlays in ``configs``."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from monai.bundle import ConfigParser

__all__ = ["beside_overlays", "bundle_parser", "copy_bundle", "inference_config", "literal_path", "shipped_folder"]

_PACKAGE = Path(__file__).parents[1]
# Beside these may lie prompts that were tuned, data that was made and results of runs.
_BUNDLE_FILES = ("LICENSE", "large_files.yml", "configs/*", "docs/*", "models/README.md")


def shipped_folder(name: str) -> Path:
    """Where a folder such as ``bundles/anomalyclip`` or ``configs`` lies.

    Args:
        name: the folder's place in the repository.

    Returns:
        the folder of that name in the working directory; else the one in the installed package, into which the build
        puts it; else the one beside the package, in a repository.

    Raises:
        FileNotFoundError: there is none.
    """
    for parent in (Path(), _PACKAGE, _PACKAGE.parent):
        if (parent / name).is_dir():
            return parent / name
    raise FileNotFoundError(f"There is no folder {name!r}, neither here nor with the package: install it again.")


def copy_bundle(name: str, target: Path) -> None:
    """Copy what a bundle was shipped with, and nothing that use has added.

    Args:
        name: "anomalyclip", "anomalyclip_demo" or "own_normals".
        target: folder for its files.
    """
    bundle = shipped_folder(f"bundles/{name}")
    for source in (path for pattern in _BUNDLE_FILES for path in bundle.glob(pattern)):
        copy = target / source.relative_to(bundle)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, copy)


def inference_config(bundle: str | os.PathLike[str] | None, *, with_reference: bool = False) -> Path:
    """The bundle's configs/inference.json.

    Args:
        bundle: its folder, or the name of a shipped one such as "anomalyclip_demo"; None for "anomalyclip".
        with_reference: images are compared with a reference: None then stands for "own_normals".

    Raises:
        FileNotFoundError: when there is no bundle.
        ValueError: its metadata are damaged.
    """
    folder = Path(("own_normals" if with_reference else "anomalyclip") if bundle is None else bundle)
    if not folder.is_dir() and len(folder.parts) == 1:
        with contextlib.suppress(FileNotFoundError):
            folder = shipped_folder(f"bundles/{folder}")
    config = folder / "configs" / "inference.json"
    if not config.is_file():
        raise FileNotFoundError(
            f"There is no bundle at {str(folder)!r}: name a folder with configs/inference.json, or a shipped bundle."
        )
    try:
        sound = isinstance(json.loads(config.with_name("metadata.json").read_text(encoding="utf-8")), dict)
    except FileNotFoundError:  # a bundle can do without
        sound = True
    except ValueError:
        sound = False
    if not sound:
        raise ValueError(
            f"configs/metadata.json of the bundle {folder.name!r} is no JSON object: correct or remove it."
        )
    return config


def beside_overlays(bundle: str | os.PathLike[str] | None) -> list[str]:
    """What lays a reference beside the network of a bundle; nothing where it takes its place.

    Args:
        bundle: as for :func:`inference_config`; None for the reference's own.
    """
    if bundle is None or "reference" in json.loads(inference_config(bundle).read_text(encoding="utf-8")):
        return []
    return [str(shipped_folder("configs") / "reference" / "side_by_side.json")]


def bundle_parser(config: Path, overlays: Iterable[str | os.PathLike[str]] = (), **ids: Any) -> ConfigParser:
    """A bundle's configuration, ready to be asked for its parts.

    Args:
        config: in the bundle's folder ``configs``.
        overlays: configuration files that come after it.
        ids: what takes the place of the bundle's own; None leaves that, a path stands for itself.
    """
    from monai.bundle import ConfigParser  # takes seconds, which finding a folder does not need

    parser = ConfigParser()
    parser.read_config([str(config), *map(str, overlays)])
    for key, value in {"bundle_root": config.parents[1], **ids}.items():
        if value is not None:
            parser[key] = literal_path(value.absolute()) if isinstance(value, Path) else value
    return parser


def literal_path(path: Path) -> str:
    """A value of a configuration that stands for a path, whatever it is called.

    In a text MONAI would replace every ``#``, and take ``$``, ``@`` and ``%`` for expressions; in a string literal's
    escape sequences it sees none of them.
    """
    escaped = re.sub(r"[^A-Za-z0-9/._-]", lambda char: f"\\U{ord(char[0]):08x}", str(path))
    return f"$'{escaped}'"
