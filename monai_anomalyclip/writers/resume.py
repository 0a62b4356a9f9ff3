# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""What a run does about the results that its output folder holds: go on, refuse, or replace them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from monai.data.meta_tensor import MetaTensor

from monai_anomalyclip.data.errors import UnreadableInputError
from monai_anomalyclip.data.sources import InputPart, Source
from monai_anomalyclip.writers.findings import Findings
from monai_anomalyclip.writers.finished import DamagedRecordError, InputState, alone, differences
from monai_anomalyclip.writers.output_folder import OutputFolder
from monai_anomalyclip.writers.record import InputRecord, MadeWith, redacted

if TYPE_CHECKING:
    from monai_anomalyclip.writers.overlays import Drawn

__all__ = ["InputChangedError", "NotWritten", "Resume"]

logger = logging.getLogger(__name__)

_FEW = 20  # records of others that a part looks at
_OVERWRITE = "set overwrite (--force; --overwrite True for a bundle)"


class InputChangedError(FileExistsError):
    """The results of one input were made in the same way, but do not belong to it as it is; the others can go on."""


class NotWritten(NamedTuple):
    """Why an item could not be written, whether its record is to say so, and whether it may do well another time."""

    reason: str
    recorded: bool = True
    passing: bool = False


class Resume:
    """Tells for each input of a run whether it is finished, and keeps its record.

    Args:
        folder: the output folder.
        sources: the inputs by name.
        made_with: gives what results depend on besides the input; asked for when the network is complete.
        overwrite: replace results and forget that they exist.
        whole: look at all results of the folder, so that it holds one kind; else at a few, for reading all of a large
            folder in each of many parts takes long.

    Attributes:
        failed: reason by input name.
        written: names of the inputs that are finished.
    """

    def __init__(
        self,
        folder: OutputFolder,
        sources: Mapping[str, Source],
        made_with: Callable[[], MadeWith],
        overwrite: bool,
        whole: bool = True,
    ) -> None:
        self.whole = whole
        self.folder = folder
        self.sources = sources
        self.made_with = made_with
        self.overwrite = overwrite
        self.failed: dict[str, str] = {}
        self.written: list[str] = []

    def pending(
        self, items: Iterable[dict[str, Any]] | Callable[[Collection[str]], list[dict[str, Any]]]
    ) -> list[dict[str, Any]]:
        """Those of the items that no earlier run has finished; how many inputs are left out is logged.

        An input whose files have changed since its results were written fails, and so does one whose results somebody
        has changed; the others go on: its item says so when it is read. With `overwrite` the inputs count as
        unfinished from here on, so that a run without it can complete an interrupted one.

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
        self._refuse_mixture(set(names))
        for name in names:
            state = self._state(name)
            if name in refused:
                self._tell(name, refused[name])
            if state is None or state.state != "finished":
                continue
            if state.refused != (reason := refused.get(name, "")):  # or it is that of its results again
                self.folder.put(state.model_copy(update={"refused": redacted(reason)}))
            elif self.overwrite:
                self.folder.put(InputState(name=name, state="unfinished", files=state.files))
        if done:
            logger.info("%d of %d inputs are finished already and left out.", len(done), len(names))
        left_out = done | refused.keys()
        if callable(items):
            pending = items(left_out)
        else:
            pending = [item for item in listed or () if item["name"] not in left_out]
        return [*pending, *(_refused_item(name, self.sources[name], reason) for name, reason in refused.items())]

    def already_done(self, name: str) -> bool:
        """Whether an earlier run wrote everything for this input. Never with `overwrite`.

        Raises:
            FileExistsError: it did, but with other settings, or (InputChangedError) from other files, or somebody has
                changed what it wrote.
        """
        if self.overwrite:
            return False
        try:
            state = self.folder.state(name)
        except DamagedRecordError as error:
            raise InputChangedError(str(error)) from None
        return state is not None and self._counts(state, self.sources[name].state())

    def _counts(self, state: InputState, content: str) -> bool:
        if state.state != "finished" or state.made_with is None or not state.present(self.folder.path):
            return False
        changed = differences(state.made_with, self.made_with())
        kind = FileExistsError if changed else InputChangedError
        if state.content != content:
            changed.append("the input's files")
        if changed:
            raise kind(
                f"The output folder holds results of {state.name!r} that differ in {', '.join(changed)}: choose "
                f"another folder, or {_OVERWRITE}."
            )
        if missing := set(state.missing(self.folder.path)):  # removed, or cut by a loss of power: made again
            logger.info("%s: %d of its files are missing or empty.", state.name, len(missing))
            return False
        if altered := state.altered(self.folder.path):
            raise InputChangedError(
                f"Somebody has changed {', '.join(altered)} in the output folder since it was written: move it "
                f"away, or {_OVERWRITE}."
            )
        return True

    def _refuse_mixture(self, names: Collection[str]) -> None:
        """Refuse results of two kinds in one folder, whose ``results.json`` and report name one model and its settings.

        Args:
            names: inputs of the run, whose results are looked at one by one, or replaced.
        """
        others = self.folder.states().values() if self.whole else self.folder.first_states(_FEW)
        for state in others:
            name = state.name
            if name in names or state.state != "finished" or state.made_with is None:
                continue
            if changed := differences(state.made_with, self.made_with()):
                raise FileExistsError(
                    f"The output folder holds results of {name!r}, which is not among these inputs, that differ in "
                    f"{', '.join(changed)}: choose another folder, or give all inputs at once and {_OVERWRITE}."
                )

    def finish(
        self,
        name: str,
        outputs: Sequence[str],
        record: InputRecord,
        findings: Findings,
        content: str,
        picture: Drawn | None = None,
        preview: str = "",
    ) -> None:
        """Put an input's files in place and note that it is finished.

        When another process has done so meanwhile, in the same way, its results stay.

        Args:
            name: of the input.
            outputs: the files, relative to the folder that :meth:`OutputFolder.stage` made.
            record: for the tables.
            findings: numbers per slice.
            content: the input's :meth:`Source.state` before it was read.
            picture: for the report.
            preview: for its viewer.

        Raises:
            FileExistsError: there are files that no run of this program has left behind, or results that were made in
                another way, and `overwrite` is False.
            ValueError: the input was changed while it was scored.
        """
        if self.sources[name].state() != content:
            raise ValueError("The input's files were changed while it was being scored: run it again.")
        spent = record.timings.read_s + record.timings.score_s + record.timings.write_s if record.timings else 0.0
        state = InputState(
            name=name,
            state="finished",
            content=content,
            started=(datetime.now(timezone.utc) - timedelta(seconds=spent)).isoformat(timespec="seconds"),
            made_with=self.made_with(),
            slices=findings.slices(self.sources[name]),
            record=record,
        )
        with alone(self.folder.path):
            if not self._done_by_another(name, outputs, content):
                if picture is not None:
                    self.folder.keep_picture(name, picture, preview)
                self.folder.publish(state, outputs)
        self.written.append(name)

    def _done_by_another(self, name: str, outputs: Sequence[str], content: str) -> bool:
        if self.overwrite:
            return False
        before = self.folder.state(name)
        if before is not None and self._counts(before, content):
            return True
        known = {file.path for file in before.files} if before is not None else set()
        if existing := [path for path in outputs if path not in known and (self.folder.path / path).exists()]:
            raise FileExistsError(
                f"{', '.join(Path(path).name for path in existing)} exist already in the output folder: choose another "
                f"folder, or {_OVERWRITE}."
            )
        return False

    def fail(self, name: str, reason: str, keep: bool = True) -> None:
        """Note that an input could not be processed, and why; the first reason counts, and finished results stay.

        Args:
            name: of the input.
            reason: why.
            keep: also in its record where there is one; else what that says of existing results stays.
        """
        if name in self.failed:
            return
        source, before = self.sources[name], self._state(name)
        reason = self._tell(name, reason)
        if before is not None and not keep:
            return
        if before is not None and before.state == "finished" and before.present(self.folder.path):
            self.folder.put(before.model_copy(update={"refused": reason}))
            return
        record = InputRecord(
            name=name,
            source=source.origin,
            kind=source.kind,
            modality=source.modality or None,
            status="failed",
            reason=reason,
            files_used=len(source.paths),
        )
        self.folder.put(
            InputState(
                name=name,
                state="failed",
                started=datetime.now(timezone.utc).isoformat(timespec="seconds"),
                made_with=self.made_with(),
                files=before.files if before is not None else (),
                record=record,
            )
        )

    def _state(self, name: str) -> InputState | None:
        try:
            return self.folder.state(name)
        except DamagedRecordError:
            return None

    def _tell(self, name: str, reason: str) -> str:
        self.failed[name] = reason = redacted(reason)
        logger.warning("%s: %s", name, reason)
        return reason


def _refused_item(name: str, source: Source, reason: str) -> dict[str, Any]:
    """An item of the data set that fails for a reason when it is read, so that the run counts it as failed."""
    return {"image": InputPart(_RefusedSource(source, reason)), "name": name, "part": 0, "parts": 1}


class _RefusedSource(Source):
    """Stands for an input that must not be scored."""

    def __init__(self, source: Source, reason: str) -> None:
        self.origin, self.kind, self.label, self.key = source.origin, source.kind, source.label, source.key
        self.group, self.modality, self.paths = source.group, source.modality, source.paths
        self.reason = reason

    def state(self) -> str:
        """Nothing is read of it."""
        return ""

    def load(self, start: int = 0, stop: int | None = None) -> MetaTensor:
        """Say why.

        Raises:
            UnreadableInputError: always.
        """
        raise UnreadableInputError(self.reason)
