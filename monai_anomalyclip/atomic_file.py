# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Files that appear under their names only when they are complete."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

__all__ = ["remove_abandoned", "replaced_when_complete", "unfinished_path"]

_UNFINISHED = re.compile(r"\.unfinished-(\d+)\..+")


@contextmanager
def replaced_when_complete(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path in the same folder, with the same suffix, to write to; then rename it.

    When the block raises, the temporary file is removed and what was at ``path`` stays as it was.

    Example::

        with replaced_when_complete("model.pt") as unfinished:
            torch.save(state, unfinished)
    """
    unfinished = unfinished_path(path)
    try:
        yield unfinished
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def unfinished_path(path: str | os.PathLike[str]) -> Path:
    """Where this process writes a file before it is complete: hidden, in the same folder, with the same suffix."""
    final = Path(path)
    return final.with_name(f".unfinished-{os.getpid()}.{final.name}")


def remove_abandoned(folder: str | os.PathLike[str]) -> None:
    """Remove what killed processes had not finished, in a folder and below; other processes' work goes on."""
    for path in list(Path(folder).rglob(".unfinished-*")):  # all, for folders vanish with what is in them
        process = _UNFINISHED.fullmatch(path.name)
        if not process or psutil.pid_exists(int(process[1])):
            continue
        if path.is_dir() and not path.is_symlink():  # of a bundle that was being made
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
