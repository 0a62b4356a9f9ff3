# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Write a finished DICOM object to a file."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydicom.dataset import Dataset

from monai_anomalyclip.atomic_file import replaced_when_complete
from monai_anomalyclip.data.dicom.pydicom_api import quiet_pydicom
from monai_anomalyclip.writers.result_files import refuse_existing

__all__ = ["check_size", "save", "silenced"]


@contextmanager
def silenced() -> Iterator[None]:
    """Silence pydicom and highdicom, whose messages quote names and identifiers; also a decorator: ``@silenced()``."""
    logger = logging.getLogger("highdicom")
    level = logger.level
    with quiet_pydicom():  # and all warnings
        logger.setLevel(logging.CRITICAL + 1)
        try:
            yield
        finally:
            logger.setLevel(level)


_LARGEST_VALUE = 2**32 - 2  # bytes of one uncompressed element (DICOM PS3.5 section 7.1)


def check_size(n_bytes: int) -> None:
    """Refuse pixels that do not fit into one element.

    Raises:
        ValueError: more than 4 GiB.
    """
    if n_bytes > _LARGEST_VALUE:
        raise ValueError(f"A DICOM object holds at most 4 GiB of pixels, got {n_bytes:,} bytes: use another format.")


@silenced()
def save(dataset: Dataset, path: str | os.PathLike[str], overwrite: bool) -> Path:
    """Write an object as a DICOM file that its owner alone can read, and that is never seen half-written.

    Args:
        dataset: with file meta information.
        path: of the file; its folder must exist.
        overwrite: replace an existing file.

    Returns:
        The path.

    Raises:
        FileExistsError: the file exists and `overwrite` is False.
    """
    final = Path(path)
    if not overwrite:
        refuse_existing([final])
    with replaced_when_complete(final) as unfinished:
        handle = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "wb") as stream:
            dataset.save_as(stream, enforce_file_format=True)
    return final
