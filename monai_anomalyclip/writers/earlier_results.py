# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""What an output folder holds of earlier runs: whether it still counts, and what a new run does about it."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

from monai.data.meta_tensor import MetaTensor

from monai_anomalyclip.data.errors import UnreadableInputError
from monai_anomalyclip.data.sources import InputPart, Source
from monai_anomalyclip.writers.output_folder import OutputFolder

__all__ = [
    "InputChangedError",
    "earlier_outputs",
    "finished_entry",
    "refuse_mixture",
    "refused_item",
    "still_counts",
]

_OVERWRITE = "set overwrite (--force; --overwrite True for a bundle)"


class InputChangedError(FileExistsError):
    """The results of an input were made in the same way, but from other files."""


def finished_entry(entry: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The journal's entry of an input's results: itself, or the one that was kept when the input's files changed."""
    kept: Mapping[str, Any] = entry.get("earlier", entry)
    return kept if kept.get("status") == "ok" else None


def earlier_outputs(entry: Mapping[str, Any]) -> list[str]:
    """The files that are there of an input by its entry, also when it has been claimed or has failed since."""
    finished = finished_entry(entry)
    outputs: list[str] = entry.get("outputs", []) if finished is None else finished["record"]["outputs"]
    return outputs


def still_counts(folder: OutputFolder, name: str, fingerprint: Mapping[str, Any], source: Source) -> bool:
    """Whether the folder holds everything of an input, made in the same way from the same files.

    Args:
        folder: the output folder.
        name: of the input.
        fingerprint: what results depend on besides the input.
        source: the input.

    Raises:
        InputChangedError: it holds results that were made from other files.
        FileExistsError: it holds results that were made in another way.
    """
    entry = finished_entry(folder.journal.entries.get(name, {}))
    if entry is None or not folder.holds_any(entry["record"]["outputs"]):
        return False
    changed = _differences(entry["fingerprint"], fingerprint)
    kind = FileExistsError if changed else InputChangedError
    if entry["state"] != source.state():
        changed.append("the input's files")
    if changed:
        raise kind(
            f"The output folder holds results of {name!r} that differ in {', '.join(changed)}: choose another folder, "
            f"or {_OVERWRITE}."
        )
    return folder.holds_all(entry["record"]["outputs"])


def refuse_mixture(folder: OutputFolder, names: Collection[str], fingerprint: Mapping[str, Any]) -> None:
    """Refuse results of two kinds in one folder, whose ``results.json`` and report name one model and its settings.

    Args:
        folder: the output folder.
        names: inputs of the run, whose results are looked at one by one, or replaced.
        fingerprint: what the run's results depend on besides the input.

    Raises:
        FileExistsError: the folder holds results of another input that were made in another way.
    """
    for name, entry in folder.journal.entries.items():
        if name in names or entry["status"] != "ok" or not folder.holds_any(entry["record"]["outputs"]):
            continue
        if changed := _differences(entry["fingerprint"], fingerprint):
            raise FileExistsError(
                f"The output folder holds results of {name!r}, which is not among these inputs, that differ in "
                f"{', '.join(changed)}: choose another folder, or give all inputs at once and {_OVERWRITE}."
            )


def refused_item(name: str, source: Source, reason: str) -> dict[str, Any]:
    """An item of the data set that fails for a reason when it is read, so that the run counts it as failed."""
    return {"image": InputPart(_RefusedSource(source, reason)), "name": name, "part": 0, "parts": 1}


class _RefusedSource(Source):
    """Stands for an input that must not be scored."""

    def __init__(self, source: Source, reason: str) -> None:
        self.origin, self.kind, self.label, self.key = source.origin, source.kind, source.label, source.key
        self.modality, self.paths = source.modality, source.paths
        self.reason = reason

    def load(self, start: int = 0, stop: int | None = None) -> MetaTensor:
        """Say why.

        Raises:
            UnreadableInputError: always.
        """
        raise UnreadableInputError(self.reason)


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    now = json.loads(json.dumps(now))  # as the journal holds them
    return sorted(key for key in {*before, *now} if before.get(key) != now.get(key))
