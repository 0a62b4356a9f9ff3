# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The entries of a datalist that can be read, and the others with the reason."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ignite.distributed as idist
from tqdm import tqdm

from monai_anomalyclip.data.errors import failure_reason

__all__ = ["ReadableItems", "UnreadableItem", "UnreadableItemsError"]

logger = logging.getLogger(__name__)

_LISTED = 20
_THREADS = 4


class UnreadableItemsError(RuntimeError):
    """Entries of a datalist cannot be read."""


@dataclass(frozen=True)
class UnreadableItem:
    """An entry that cannot be read.

    Attributes:
        index: its place in the section of the datalist, from 0.
        file: name of its image, without the folder.
        reason: what is wrong, in one line without folders.
    """

    index: int
    file: str
    reason: str

    def __str__(self) -> str:
        return f"entry {self.index}, {self.file} ({self.reason})"


class ReadableItems:
    """Reads every entry of a datalist once, so that a damaged file is known before the work begins.

    What is kept are the entries, not the images: they are read anew when they are needed. Several processes share the
    reading, so they must all make this object.

    Args:
        data: entries with ``image``, as :func:`monai_anomalyclip.data.load_datalist` gives them.
        transform: reads an entry; whatever it raises makes the entry unreadable.
        skip: whether to leave out, with a warning, what cannot be read.
        progress: whether to show a progress bar, when it takes more than a few seconds.

    Attributes:
        readable: the entries that can be read, each with its ``index`` (place in ``data``, from 0), and its ``class``
            as text: "all" when no entry has one, "without class" for those that have none beside others that have.
        unreadable: the others.

    Raises:
        UnreadableItemsError: an entry cannot be read, without ``skip``; or none can.
        ValueError: there are fewer readable entries than processes: one without any would wait for ever.

    Example::

        items = ReadableItems(load_datalist("datalist.json", "testing"), LoadFramed("image"), skip=True)
        print(len(items.readable), [item.file for item in items.unreadable])
    """

    def __init__(
        self,
        data: Sequence[Mapping[str, Any]],
        transform: Callable[[Mapping[str, Any]], Any],
        *,
        skip: bool = False,
        progress: bool = True,
    ) -> None:
        unnamed = "without class" if any(entry.get("class") for entry in data) else "all"
        self.data = [
            {**entry, "index": index, "class": str(entry.get("class") or unnamed)} for index, entry in enumerate(data)
        ]
        own = self.data[idist.get_rank() :: idist.get_world_size()]
        parts = idist.all_gather(list(_failures(own, transform, progress)))
        self.unreadable = sorted((item for part in parts for item in part), key=lambda item: item.index)
        bad = {item.index for item in self.unreadable}
        self.readable = [entry for entry in self.data if entry["index"] not in bad]
        if self.unreadable and not skip:
            raise UnreadableItemsError(
                f"{self._summary()} Repair or remove them, or leave them out with --skip_unreadable True."
            )
        if self.data and not self.readable:
            raise UnreadableItemsError(self._summary())
        if self.data and len(self.readable) < idist.get_world_size():
            raise ValueError(
                f"{len(self.readable)} images are too few for {idist.get_world_size()} processes, each of which needs "
                f"one: start at most {len(self.readable)}."
            )
        if self.unreadable and idist.get_rank() == 0:
            logger.warning(f"{self._summary()} Left out.")

    def raise_for_unreadable(self) -> None:
        """The last step of an evaluation, so that its exit status tells that it was not of all images.

        Raises:
            UnreadableItemsError: entries were left out.
        """
        if not self.unreadable:
            return
        if idist.get_world_size() > 1:
            idist.barrier()  # the first process that fails takes the others with it, also while they write
        raise UnreadableItemsError(f"{self._summary()} Everything else is done, without them.")

    def _summary(self) -> str:
        listed = "; ".join(map(str, self.unreadable[:_LISTED]))
        more = f"; and {len(self.unreadable) - _LISTED} more" if len(self.unreadable) > _LISTED else ""
        return f"{len(self.unreadable)} of {len(self.data)} images cannot be read: {listed}{more}."


def _failures(
    entries: Sequence[Mapping[str, Any]], transform: Callable[[Mapping[str, Any]], Any], progress: bool
) -> Iterator[UnreadableItem]:
    def failure(entry: Mapping[str, Any]) -> UnreadableItem | None:
        try:
            transform(entry)
        except Exception as error:  # whatever it is, the entry is of no use
            return UnreadableItem(entry["index"], Path(entry["image"]).name, failure_reason(error, entry))
        return None

    shown = progress and idist.get_rank() == 0
    with ThreadPoolExecutor(_THREADS) as pool:
        found = tqdm(pool.map(failure, entries), "Checking the images", len(entries), delay=3, disable=not shown)
        yield from (item for item in found if item is not None)
