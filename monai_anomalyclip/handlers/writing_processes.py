# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Results are drawn, encoded and written by processes of their own while the network goes on."""

from __future__ import annotations

import gc
import multiprocessing
import os
import shutil
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from monai_anomalyclip.writers.resume import NotWritten

__all__ = ["KILLED", "WritingProcesses", "can_fork"]

KILLED = "The process that wrote its results was killed twice, perhaps because memory ran out: use fewer workers."


_MOST_BYTES = 2**29  # of items that wait to be written
_SHARED = Path("/dev/shm")
_SHARE = 4  # an item takes at most this part of the free shared memory
_write: Callable[[Mapping[str, Any]], NotWritten | None] | None = None  # what a forked process inherits


def can_fork() -> bool:
    """Whether processes can be made that know all that this one knows, and be handed tensors without copying."""
    return os.name == "posix" and _SHARED.is_dir() and "fork" in multiprocessing.get_all_start_methods()


@dataclass
class _Waiting:
    item: Mapping[str, Any]
    size: int
    future: Future[NotWritten | None]


class WritingProcesses:
    """A pool of forked processes that write items.

    Items are handed over through shared memory. Not more than 512 MiB wait: :meth:`submit` waits for the first of
    them. When a process is killed all are started anew, and what they had in hand is written again; an item with which
    that happens twice has failed.

    Args:
        count: how many.
        write: writes an item; says why it could not. It is inherited, with all that it refers to.

    Example:
        >>> processes = WritingProcesses(2, write)
        >>> for item in items:
        ...     for name, outcome in processes.submit(item):
        ...         print(name, outcome)
        >>> list(processes.drain())
    """

    def __init__(self, count: int, write: Callable[[Mapping[str, Any]], NotWritten | None]) -> None:
        self._count = count
        self._task = write
        self._waiting: deque[_Waiting] = deque()
        self._pool = self._start()

    def submit(self, item: Mapping[str, Any]) -> Iterator[tuple[str, NotWritten | None]]:
        """Have an item written; names and outcomes, in the order of submission, of those that are done meanwhile."""
        size = _bytes(item)
        while self._waiting and sum(one.size for one in self._waiting) + size > _MOST_BYTES:
            yield self._first()
        self._waiting.append(_Waiting(item, size, self._handed(item)))
        while self._waiting and self._waiting[0].future.done():
            yield self._first()

    def takes(self, item: Mapping[str, Any]) -> bool:
        """Whether there is shared memory enough for an item."""
        return _SHARE * _bytes(item) <= shutil.disk_usage(_SHARED).free

    def drain(self) -> Iterator[tuple[str, NotWritten | None]]:
        """Names and outcomes of all that is left."""
        while self._waiting:
            yield self._first()

    def close(self) -> None:
        """End the processes; what waits is not written."""
        self._pool.shutdown(cancel_futures=True)

    def _start(self) -> ProcessPoolExecutor:
        global _write
        _write = self._task
        context = multiprocessing.get_context("fork")
        pool = ProcessPoolExecutor(self._count, context, initializer=_begin, initargs=(os.getpid(),))
        pool.submit(int)  # all are forked with the first task: now, while this process has little in memory
        return pool

    def _handed(self, item: Mapping[str, Any]) -> Future[NotWritten | None]:
        try:
            return self._pool.submit(_run, item)
        except BrokenProcessPool as error:
            lost: Future[NotWritten | None] = Future()
            lost.set_exception(error)
            return lost

    def _first(self) -> tuple[str, NotWritten | None]:
        first = self._waiting.popleft()
        try:
            outcome = first.future.result()
        except BrokenProcessPool:
            outcome = self._again(first.item)
        return str(first.item["name"]), outcome

    def _again(self, item: Mapping[str, Any]) -> NotWritten | None:
        self._pool.shutdown()
        self._pool = self._start()
        try:
            outcome: NotWritten | None = self._pool.submit(
                _run, item
            ).result()  # alone, so that it is known which one is to blame
        except BrokenProcessPool:
            self._pool.shutdown()
            self._pool, outcome = self._start(), NotWritten(KILLED, passing=True)
        for one in self._waiting:
            one.future = self._handed(one.item)
        return outcome


def _run(item: Mapping[str, Any]) -> NotWritten | None:
    assert _write is not None
    return _write(item)


def _begin(parent: int) -> None:
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # the run decides when its processes end
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    gc.freeze()  # what was inherited, tensors on a GPU among it, is not this process's to free
    torch.set_num_threads(1)  # OpenMP's threads are not forked
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _bytes(item: Mapping[str, Any]) -> int:
    return sum(value.element_size() * value.nelement() for value in item.values() if isinstance(value, Tensor))
