# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The folder that weights are fetched into, and what of it can be used without asking anybody again."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

from platformdirs import user_cache_path

from monai_anomalyclip.atomic_file import git_blob_id, replaced_when_complete, sha256_of
from monai_anomalyclip.weights.downloading import download, read_address
from monai_anomalyclip.weights.publishers import CLIP_TAG, PromptsSource, clip_source

__all__ = ["clip_in_bundle", "default_weights_folder", "fetch_clip", "fetch_prompts", "fetched_clip"]

_RECORD = "blob_ids.json"
_LISTING_LIMIT = 8 << 20


def default_weights_folder() -> Path:
    """``MONAI_ANOMALYCLIP_WEIGHTS``, else ``monai_anomalyclip`` in the user's cache folder (Linux: ``~/.cache``)."""
    if chosen := os.environ.get("MONAI_ANOMALYCLIP_WEIGHTS"):
        return Path(chosen)
    return user_cache_path("monai_anomalyclip", appauthor=False)


def fetched_clip(url: str, folder: Path | None = None) -> Path | None:
    """The file of an address of open_clip's, when it lies in the folder of the weights.

    Args:
        url: an address with the SHA-256 as the name of its last folder, as OpenAI's are.
        folder: default is :func:`default_weights_folder`.

    Returns:
        the file, whose SHA-256 was compared; None when there is none or the address has no SHA-256.

    Raises:
        ValueError: the file is not the right one.
    """
    match = re.search(r"/([0-9a-f]{64})/(\w[\w.-]*)$", url)
    if match is None:
        return None
    path = (folder or default_weights_folder()) / match[2]
    if not path.is_file():
        return None
    _check_existing(path, partial(_check_sha256, match[1]))
    return path


def clip_in_bundle(bundle_root: str | Path) -> str:
    """What a bundle takes for CLIP: the file in its ``models/`` where there is one, else the tag that open_clip knows.

    Args:
        bundle_root: folder of the bundle; ``python -m monai.bundle download_large_files`` puts CLIP there.

    Example:
        >>> clip_in_bundle("bundles/anomalyclip")
        'openai'
    """
    path = Path(bundle_root) / "models" / clip_source().name
    return str(path) if path.is_file() else CLIP_TAG


def fetch_clip(folder: str | Path, *, say: Callable[[str], object] = print) -> Path:
    """Fetch OpenAI's CLIP file, unless it is there, and check it.

    Args:
        folder: where the file goes, and where one that was put there by hand is found.
        say: takes lines that say what is done.

    Raises:
        ConnectionError: the address cannot be read, or the connection broke.
        ValueError: the file is not the right one.
    """
    source = clip_source()
    target = Path(folder) / source.name
    _fetch(source.url, target, partial(_check_sha256, source.sha256), source.limit, say)
    say(f"{source.name}: SHA-256 {source.sha256}, as its address says")
    return target


def fetch_prompts(
    folder: str | Path,
    source: PromptsSource,
    *,
    read: Callable[[Path], object],
    blob_id: str | None = None,
    say: Callable[[str], object] = print,
) -> Path:
    """Fetch a file of the authors' prompts, unless it is there, and check it.

    Args:
        folder: where the file goes, and where one that was put there by hand is found.
        source: which prompts.
        read: raises ValueError when a file holds something else than prompts:
            :func:`monai_anomalyclip.networks.read_prompts`, which imports torch.
        blob_id: git's name of the file, 40 hexadecimal digits; by default it is looked up in the authors' repository,
            and remembered in the folder.
        say: takes lines that say what is done.

    Raises:
        ConnectionError: an address cannot be read, or the connection broke.
        ValueError: the file is not the right one, or holds something else than prompts.
    """
    target = Path(folder) / source.name
    blob_ids = _blob_ids(Path(folder))
    blob = blob_id or blob_ids.get(source.name) or source.blob_id(partial(read_address, limit=_LISTING_LIMIT))
    _fetch(source.url, target, partial(_check_prompts, blob, read), source.limit, say)
    if blob_ids.get(source.name) != blob:
        with replaced_when_complete(target.with_name(_RECORD)) as unfinished:
            unfinished.write_text(json.dumps({**blob_ids, source.name: blob}, indent=2) + "\n", encoding="utf-8")
    where = "as given" if blob_id else f"as {source.repository} lists it at {source.commit[:7]}"
    say(f"{source.name}: git blob {blob}, {where}; it holds prompts and nothing else")
    return target


def _fetch(url: str, target: Path, check: Callable[[Path], None], limit: int, say: Callable[[str], object]) -> None:
    if target.exists():
        _check_existing(target, check)
    else:
        say(f"{target.name} from {url}")
        download(url, target, check, limit=limit)


def _blob_ids(folder: Path) -> dict[str, str]:
    try:
        content = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ValueError(f"{_RECORD} in the folder of the weights is damaged: remove it.") from error
    return {str(name): str(blob) for name, blob in content.items()} if isinstance(content, dict) else {}


def _check_existing(path: Path, check: Callable[[Path], None]) -> None:
    try:
        check(path)
    except ValueError as error:
        raise ValueError(
            f"{path.name} in the folder of the weights is not the right file: {error} Remove it."
        ) from error


def _check_sha256(wanted: str, path: Path) -> None:
    found = sha256_of(path)
    if found != wanted:
        raise ValueError(f"its SHA-256 is {found} instead of {wanted}.")


def _check_prompts(wanted: str, read: Callable[[Path], object], path: Path) -> None:
    found = git_blob_id(path)
    if found != wanted:
        raise ValueError(f"its git blob id is {found} instead of {wanted}.")
    try:
        read(path)  # weights only: nothing in the file is run
    except ValueError as error:
        raise ValueError("it does not hold prompts and nothing else.") from error
