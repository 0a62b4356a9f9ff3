# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Of the films that are read part by part, a process keeps one open."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Protocol

__all__ = ["Reader", "one_open"]


class Reader(Protocol):
    """Anything that opens by itself when it is asked for something, and can be closed."""

    def close(self) -> None:
        """Release what is open."""


_kept: list[weakref.ref[Reader]] = []  # one at most; weak, so that it goes when its source goes
_lock = Lock()


@contextmanager
def one_open(reader: Reader, *, last: bool) -> Iterator[None]:
    """Within the block a reader is in use; afterwards it stays open until another one is used in this process.

    The worker of a data loader rarely meets the last part of a film, which would close it: without this it would end
    with all films open, each of which may hold gigabytes. What is in use in another thread is left alone.

    Args:
        reader: what is used.
        last: nothing more will be asked for: it is closed after the block, as it is when the block raises.
    """
    with _lock:
        _release(reader)
    keep = False
    try:
        yield
        keep = not last
    finally:
        if not keep:
            reader.close()
        else:
            with _lock:
                _release(reader)
                _kept.append(weakref.ref(reader))


def _release(used: Reader) -> None:
    """Nothing is kept any more; unless it is the one that is used, it is closed."""
    while _kept:
        former = _kept.pop()()
        if former is not None and former is not used:
            former.close()
