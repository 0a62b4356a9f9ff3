# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Read valid but odd pictures and compare them with what they were made of; then damage their pixels and read again.

A fault is a valid picture that is refused, or read as another one; and a damaged one that is read although its decoder
complained, or although a checksum tells of it. benchmarks/fuzz.py runs this.
"""

from __future__ import annotations

import os
import random
import re
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
from odd_pictures import MAKERS, OddPicture

from monai_anomalyclip.data.errors import UnreadableInputError
from monai_anomalyclip.data.frames import load_frame, pictures_in

__all__ = ["check_pictures"]

_DAMAGES = 3  # of each picture
_ASIDE = re.compile("(Resolution|ResolutionUnit|Software|DateTime)")  # tags of TIFF of which no pixel depends


def check_pictures(cases: int, seed: int, keep: Callable[[str, bytes], None] | None = None) -> tuple[str, Counter[str]]:
    """Run so many valid pictures, each with some damaged copies.

    Args:
        cases: number of valid pictures.
        seed: of the random numbers.
        keep: gets name and content of the first file of each kind of fault.

    Returns:
        a sentence with the counts, and the faults by kind.
    """
    counts: Counter[str] = Counter()
    faults: Counter[str] = Counter()

    def note(fault: str, name: str, content: bytes) -> None:
        faults[fault] += 1
        if faults[fault] == 1 and keep is not None:
            keep(name, content)

    with tempfile.TemporaryDirectory() as folder:
        for case in range(cases):
            maker = MAKERS[case % len(MAKERS)]
            source = random.Random(f"{seed} {case}")
            picture = maker(source)
            path, name = Path(folder, f"picture{picture.suffix}"), f"{seed}_{case}{picture.suffix}"
            path.write_bytes(picture.content)
            try:
                shown, _ = _read(path)
            except Exception as error:
                note(f"{maker.__name__}: refused or failed: {str(error)[:100]}", name, picture.content)
                continue
            if problem := _difference(picture, shown):
                note(f"{maker.__name__}: {problem}", name, picture.content)
            counts["read"] += 1
            for number in range(_DAMAGES):
                content = _damaged(picture.content, source)
                path.write_bytes(content)
                try:
                    found, complaint = _read(path)
                except UnreadableInputError:
                    counts["damaged and refused"] += 1
                    continue
                except Exception as error:
                    note(f"{maker.__name__}: damaged: {type(error).__name__}: {str(error)[:100]}", name, content)
                    continue
                same = len(found) == len(shown) and all(map(np.array_equal, found, shown))
                counts["damaged and read as before" if same else "damaged and read as another"] += 1
                if complaint:
                    note(f"{maker.__name__}: damaged, read in spite of {complaint[:60]!r}", f"{number}_{name}", content)
                elif picture.checked and not same:
                    note(f"{maker.__name__}: damaged, checksum not looked at", f"{number}_{name}", content)
    told = ", ".join(f"{count} {end}" for end, count in counts.items())
    return f"{cases} valid pictures: {told}; {sum(faults.values())} faults of {len(faults)} kinds.", faults


def _read(path: Path) -> tuple[list[npt.NDArray[np.uint8]], str]:
    """All pictures of a file, and what its decoders said on standard error or warned of without a note for the user."""
    with warnings.catch_warnings(record=True) as warned, _standard_error() as noise:
        warnings.simplefilter("always")
        pages, _ = pictures_in(path)
        read = [load_frame(path, page) for page in pages]
    noted = any(picture.meta["notes"] for picture in read)
    complaint = "" if noted else " ".join([*noise, *(str(warning.message) for warning in warned)])
    return [picture.numpy().transpose(1, 2, 0) for picture in read], complaint


def _difference(picture: OddPicture, shown: list[npt.NDArray[np.uint8]]) -> str:
    if [page.shape for page in shown] != [page.shape for page in picture.expected]:
        return "another number or size of pictures"
    for page, expected in zip(shown, picture.expected, strict=True):
        difference = np.abs(page - expected)
        if (difference.mean() if picture.lossy else difference.max()) > picture.tolerance:
            return "another picture"
    return ""


def _damaged(content: bytes, source: random.Random) -> bytes:
    """Some bytes changed behind the first fifth, where pixels are, or the end missing."""
    first = max(len(content) // 5, min(60, len(content) - 1))
    if source.random() < 0.2:
        return content[: source.randrange(first, len(content))]
    changed = bytearray(content)
    for _ in range(source.choice((1, 1, 2, 8))):
        changed[source.randrange(first, len(content))] ^= 1 << source.randrange(8)
    return bytes(changed)


@contextmanager
def _standard_error() -> Iterator[list[str]]:
    """Catch what libraries in C write to standard error; the list is filled at the end."""
    written: list[str] = []
    with tempfile.TemporaryFile() as file:
        saved = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            yield written
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            file.seek(0)
            written += [line for line in file.read().decode(errors="replace").splitlines() if not _ASIDE.search(line)]
