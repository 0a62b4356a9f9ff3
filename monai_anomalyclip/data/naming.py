# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Names of results: they say what kind of input it was and nothing about whom it shows."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import PurePath

from monai_anomalyclip.data.sources import Source

__all__ = ["anonymous_names", "names_of_files"]

_MAX_STEM = 80
_MAX_FOLDER = 40
_WINDOWS_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)
_ANONYMOUS = re.compile(r"([a-z0-9]+)-(\d+)_([0-9a-f]{8})")


def anonymous_names(sources: Sequence[Source], known: Iterable[str] = ()) -> list[str]:
    """Name inputs ``<label>-<number>_<key>``, such as ``ct-1_0a1b2c3d``.

    Numbers count from 1 per label in the order given. An input that has a name already keeps it, and its number is
    not given again: a second run over a folder that has grown finds what it finished.

    Args:
        sources: the inputs.
        known: names that earlier runs gave.
    """
    # Inputs share a key when they are called the same below two paths: each takes the next of its key's numbers.
    numbers: dict[tuple[str, str], list[int]] = defaultdict(list)
    highest: Counter[str] = Counter()
    for name in known:
        if match := _ANONYMOUS.fullmatch(name):
            label, number, key = match[1], int(match[2]), match[3]
            numbers[label, key].append(number)
            highest[label] = max(highest[label], number)
    unused = {identity: iter(sorted(given)) for identity, given in numbers.items()}
    names = []
    for source in sources:
        given = next(unused.get((source.label, source.key), iter(())), None)
        if given is None:
            given = highest[source.label] = highest[source.label] + 1
        names.append(f"{source.label}-{given}_{source.key}")
    return names


def names_of_files(files: Sequence[tuple[PurePath, str]], keys: Sequence[str]) -> list[str]:
    """Name inputs after their files: the relative path reduced to ``A-Za-z0-9._-``, without the suffix.

    Names that would collide, also where case does not count, all end in their key, which depends on the path alone;
    those that share it, too (files called the same below two paths), in a number.

    Args:
        files: relative path and suffix of each input.
        keys: eight hexadecimal digits per input.
    """
    names = [_safe_name(path, suffix) for path, suffix in files]
    taken = Counter(name.lower() for name in names)
    names = [name if taken[name.lower()] == 1 else f"{name}_{key}" for name, key in zip(names, keys, strict=True)]
    seen: set[str] = set()
    numbered = []
    for name in names:
        free, number = name, 1
        while free.lower() in seen:
            number += 1
            free = f"{name}-{number}"
        seen.add(free.lower())
        numbered.append(free)
    return numbered


def _safe_name(relative: PurePath, suffix: str) -> str:
    stem = _safe(relative.name[: len(relative.name) - len(suffix)], _MAX_STEM)
    # No dots in folders: nothing may look like a result file, and a UID is not kept.
    folders = [_safe(part.replace(".", "_"), _MAX_FOLDER) for part in relative.parts[:-1]]
    return "/".join([*folders, stem])


def _safe(text: str, limit: int) -> str:
    clean = re.sub(r"[^A-Za-z0-9._-]+", "_", text)[:limit].strip("._-") or "input"
    return f"_{clean}" if _WINDOWS_RESERVED.match(clean) else clean
