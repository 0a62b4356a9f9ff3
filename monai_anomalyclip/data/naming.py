# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Names of results: they say what kind of input it was and nothing about whom it shows."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePath

from monai_anomalyclip.data.sources import Source, digest

__all__ = ["anonymous_names", "names_of_files"]

_MAX_STEM = 80
_MAX_FOLDER = 40
_WINDOWS_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)


def anonymous_names(sources: Sequence[Source]) -> list[str]:
    """Name inputs ``<label>_<key>``, such as ``ct_0a1b2c3d4e5f6071``.

    A name depends on the input alone, whatever others there are: several runs may write into one folder, and one over a
    folder that has grown finds what is finished. Those that share a key (files called the same below two folders of one
    name) are told apart by what is in them, and by a number where that is the same, too.

    Args:
        sources: the inputs.
    """
    names = [f"{source.label}_{source.key}" for source in sources]
    shared = Counter(names)
    names = [
        name if shared[name] == 1 else f"{source.label}_{digest(f'{source.key} {source.state()}')}"
        for name, source in zip(names, sources, strict=True)
    ]
    return _numbered(names)


def names_of_files(files: Sequence[tuple[PurePath, str]], keys: Sequence[str]) -> list[str]:
    """Name inputs after their files: the relative path without the suffix, reduced to letters and digits and ``._-``.

    Letters of all scripts stay, composed (NFC). Names that would collide, also where case does not count, all end in
    their key, which depends on the path alone; those that share it, too (files called the same below two paths), in a
    number.

    Args:
        files: relative path and suffix of each input.
        keys: sixteen hexadecimal digits per input.
    """
    names = [_safe_name(path, suffix) for path, suffix in files]
    taken = Counter(_folded(name) for name in names)
    names = [name if taken[_folded(name)] == 1 else f"{name}_{key}" for name, key in zip(names, keys, strict=True)]
    return _numbered(names)


def _numbered(names: Sequence[str]) -> list[str]:
    seen: set[str] = set()
    numbered = []
    for name in names:
        free, number = name, 1
        while _folded(free) in seen:
            number += 1
            free = f"{name}-{number}"
        seen.add(_folded(free))
        numbered.append(free)
    return numbered


def _safe_name(relative: PurePath, suffix: str) -> str:
    stem = _safe(relative.name[: len(relative.name) - len(suffix)], _MAX_STEM)
    # No dots in folders: nothing may look like a result file, and a UID is not kept.
    folders = [_safe(part.replace(".", "_"), _MAX_FOLDER) for part in relative.parts[:-1]]
    return "/".join([*folders, stem])


def _safe(text: str, limit: int) -> str:
    composed = unicodedata.normalize("NFC", text)
    clean = re.sub(r"\0+", "_", "".join(letter if _kept(letter) else "\0" for letter in composed))[:limit]
    # A file system takes 255 bytes for a name with its ending, and a letter takes up to four.
    clean = clean.encode()[: 2 * limit].decode(errors="ignore").strip("._-") or "input"
    return f"_{clean}" if _WINDOWS_RESERVED.match(clean) else clean


def _kept(letter: str) -> bool:
    if letter.isascii():
        return letter.isalnum() or letter in "._-"
    # Letters, their marks (vowels of many scripts), digits; no control or format characters, spaces or symbols.
    return unicodedata.category(letter)[0] in "LM" or unicodedata.category(letter) == "Nd"


def _folded(name: str) -> str:
    """The same for names that some file system takes for one."""
    return unicodedata.normalize("NFKC", name.casefold())
