# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""What becomes of each input of a run: left out, refused, begun, failed or finished, as the journal has it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from monai_anomalyclip.data.sources import Source
from monai_anomalyclip.writers.earlier_results import (
    InputChangedError,
    earlier_outputs,
    finished_entry,
    refuse_mixture,
    refused_item,
    still_counts,
)
from monai_anomalyclip.writers.findings import Findings
from monai_anomalyclip.writers.input_results import possible_results
from monai_anomalyclip.writers.output_folder import OutputFolder
from monai_anomalyclip.writers.record import InputRecord
from monai_anomalyclip.writers.redaction import redacted
from monai_anomalyclip.writers.results import refuse_existing, result_paths

__all__ = ["InputStates"]

logger = logging.getLogger(__name__)


class InputStates:
    """Keeps the journal of an output folder while a run goes on.

    Args:
        folder: the output folder.
        sources: the inputs by name.
        fingerprint: gives what results depend on besides the input; asked for when the network is complete.
        overwrite: replace results and forget that they exist.

    Attributes:
        failed: reason by input name.
        written: names of the inputs that are finished.
    """

    def __init__(
        self,
        folder: OutputFolder,
        sources: Mapping[str, Source],
        fingerprint: Callable[[], Mapping[str, Any]],
        overwrite: bool,
    ) -> None:
        self.folder = folder
        self.sources = sources
        self.fingerprint = fingerprint
        self.overwrite = overwrite
        self.failed: dict[str, str] = {}
        self.written: list[str] = []

    def pending(
        self, items: Iterable[dict[str, Any]] | Callable[[Collection[str]], list[dict[str, Any]]]
    ) -> list[dict[str, Any]]:
        """Those of the items that no earlier run has finished; how many inputs are left out is logged.

        An input whose files have changed since its results were written fails, and the others go on: its item says so
        when it is read. With `overwrite` the inputs count as unfinished from here on, so that a run without it can
        complete an interrupted one.

        Args:
            items: some, or what lists those of all inputs but for the ones that it is given the names of.

        Raises:
            FileExistsError: the folder holds results, of these inputs or of others, that were made in another way.
        """
        listed = None if callable(items) else list(items)
        names = list(self.sources if listed is None else dict.fromkeys(item["name"] for item in listed))
        done: set[str] = set()
        refused: dict[str, str] = {}
        for name in names:
            try:
                if self.already_done(name):
                    done.add(name)
            except InputChangedError as error:
                refused[name] = str(error)
        if self.folder.journal.entries:
            refuse_mixture(self.folder, set(names), self.fingerprint())
        for name in names:
            entry = self.folder.journal.entries.get(name, {})
            kept = finished_entry(entry)
            if name in refused:
                self._fail(name, refused[name], {"claimed": False, "earlier": kept})
            elif name in done and kept is not None and kept is not entry:
                self.folder.journal.add(kept)  # the files are again those of its results
            elif self.overwrite and kept is not None:
                self._start(name)
        if done:
            logger.info("%d of %d inputs are finished already and left out.", len(done), len(names))
        left_out = done | refused.keys()
        if callable(items):
            pending = items(left_out)
        else:
            pending = [item for item in listed or () if item["name"] not in left_out]
        return [*pending, *(refused_item(name, self.sources[name], reason) for name, reason in refused.items())]

    def already_done(self, name: str) -> bool:
        """Whether an earlier run wrote everything for this input. Never with `overwrite`.

        Raises:
            FileExistsError: it did, but with other settings or (InputChangedError) from other files.
        """
        if self.overwrite or finished_entry(self.folder.journal.entries.get(name, {})) is None:
            return False
        return still_counts(self.folder, name, self.fingerprint(), self.sources[name])

    def claim(self, name: str) -> None:
        """Note that the files of an input are about to be written, so that a next run may replace what is left.

        Raises:
            FileExistsError: there are files that no interrupted run left behind, and `overwrite` is False.
        """
        claimed = self.folder.journal.entries.get(name, {}).get("claimed")
        if not self.overwrite and (not claimed or self.already_done(name)):
            refuse_existing(result_paths(self.folder.path, name, possible_results(self.sources[name])))
        self._start(name)

    def fail(self, name: str, reason: str, journal: bool = True) -> None:
        """Note that an input could not be processed, and why; the first reason counts.

        Args:
            name: of the input.
            reason: why.
            journal: also where the journal knows it; else what that says of existing results stays.
        """
        if name in self.failed:
            return
        entry = self.folder.journal.entries.get(name, {})
        if journal or not entry:
            claimed = entry.get("status") == "started" or entry.get("claimed", False)
            self._fail(name, reason, {"claimed": claimed, **_carried(entry)})
        else:
            self._tell(name, reason)

    def finish(self, name: str, record: InputRecord, findings: Findings) -> None:
        """Note that an input's files are written; those that an earlier run wrote and this one did not are removed."""
        journal = self.folder.journal
        # They would contradict what lies beside them. First, for afterwards nothing would tell of them.
        self.folder.remove(set(earlier_outputs(journal.entries[name])) - set(record.outputs))
        journal.add(
            {
                "name": name,
                "status": "ok",
                "claimed": True,
                "fingerprint": self.fingerprint(),
                "state": self.sources[name].state(),
                "map_max": [round(float(value), 6) for value in findings.map_max],
                "area_fraction": [round(float(value), 9) for value in findings.area_fraction],
                "record": record.as_dict(),
            }
        )
        self.written.append(name)

    def _start(self, name: str) -> None:
        carried = _carried(self.folder.journal.entries.get(name, {}))
        self.folder.journal.add({"name": name, "status": "started", "claimed": True, **carried})

    def _tell(self, name: str, reason: str) -> str:
        self.failed[name] = reason = redacted(reason)
        logger.warning("%s: %s", name, reason)
        return reason

    def _fail(self, name: str, reason: str, files: Mapping[str, Any]) -> None:
        """Note a failure in the journal; `files` is what that says of files that are there."""
        source = self.sources[name]
        record = InputRecord(
            name=name,
            source=source.origin,
            kind=source.kind,
            modality=source.modality or None,
            status="failed",
            reason=self._tell(name, reason),
            files_used=len(source.paths),
        )
        self.folder.journal.add({"name": name, "status": "failed", "record": record.as_dict(), **files})


def _carried(entry: Mapping[str, Any]) -> dict[str, Any]:
    """What the next entry of an input has to keep of its last one: the files that are there."""
    outputs = earlier_outputs(entry)
    return {"outputs": outputs} if outputs else {}
