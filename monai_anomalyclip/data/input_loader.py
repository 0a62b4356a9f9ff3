# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The inputs of a run, read ahead in batches of pictures and one by one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.data.dataloader import DataLoader
from monai.data.dataset import Dataset

__all__ = ["InputLoader", "picture_batches", "resolve_workers"]

_MANY_CORES = 4
_MOST_WORKERS = 8  # two processes each, one that reads and one that writes
_SHARED = Path("/dev/shm")
_SHARED_BYTES = 2**30  # that processes need for handing volumes over
_FILE_BYTES = 2**25  # of the pictures of one batch, as they are stored


def resolve_workers(workers: int | str) -> int:
    """How many processes read ahead, and as many write.

    Args:
        workers: a number, or "auto": half of the cores, at most 8, where there are 4 or more and 1 GiB of shared
            memory, else none.

    Raises:
        ValueError: it is neither.
    """
    if isinstance(workers, int) and not isinstance(workers, bool) and workers >= 0:
        return workers
    if workers != "auto":
        raise ValueError(f"workers must be a whole number of processes, or 'auto', got {workers!r}.")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
    if cores < _MANY_CORES or not _SHARED.is_dir() or shutil.disk_usage(_SHARED).free < _SHARED_BYTES:
        return 0
    return min(cores // 2, _MOST_WORKERS)


def picture_batches(items: Sequence[Mapping[str, Any]], batch_size: int) -> list[list[int]]:
    """Indices of the items, in their order, up to `batch_size` neighbouring pictures together and all else alone.

    Args:
        items: of a catalogue, with an ``image`` (:class:`~monai_anomalyclip.data.sources.InputPart`).
        batch_size: pictures of one batch; fewer where their files are large.
    """
    batches: list[list[int]] = []
    room = 0
    for index, item in enumerate(items):
        source = getattr(item["image"], "source", None)
        size = _size(source.paths[0]) if source is not None and source.kind == "frame" else None
        if size is not None and batches and size <= room and len(batches[-1]) < batch_size:
            batches[-1].append(index)
            room -= size
        else:
            batches.append([index])
            room = 0 if size is None else _FILE_BYTES - size
    return batches


class InputLoader(DataLoader):
    """Hands a data set on in lists of items (see :func:`picture_batches`), uncollated: pictures differ in size.

    Args:
        dataset: with an attribute ``data``, the items.
        batch_size: pictures of one list.
        workers: processes that read ahead (see :func:`resolve_workers`), each one list while another waits.

    Example:
        >>> [[item["name"] for item in items] for items in InputLoader(dataset, batch_size=8)]
    """

    def __init__(self, dataset: Dataset, batch_size: int = 8, workers: int | str = 0) -> None:
        batches = picture_batches(dataset.data, batch_size)
        count = min(resolve_workers(workers), len(batches))
        super().__init__(
            dataset,
            num_workers=count,
            batch_sampler=batches,
            collate_fn=list,
            prefetch_factor=1 if count else None,
        )


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # reading it will say why
        return 0
