# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Write what an evaluator finds, input by input, and continue an interrupted run."""

from __future__ import annotations

import functools
import json
import logging
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.data.meta_tensor import MetaTensor
from monai.utils.enums import CommonKeys
from torch import Tensor

from monai_anomalyclip import RESEARCH_USE_ONLY
from monai_anomalyclip.data.errors import failure_reason, may_pass
from monai_anomalyclip.data.input_loader import resolve_workers
from monai_anomalyclip.data.inputs import InputCatalogue
from monai_anomalyclip.data.slicing import SliceView
from monai_anomalyclip.data.sources import DicomSource, Source
from monai_anomalyclip.writers.dicom import Provenance
from monai_anomalyclip.writers.dicom.provenance import (
    DEFAULT_CATEGORY,
    DEFAULT_TYPE,
    describe_model,
    parse_code,
    provenance_of,
    uid_context,
)
from monai_anomalyclip.writers.findings import Findings, comparisons_of, finished_record, margins_of, view_of
from monai_anomalyclip.writers.output_folder import DEFAULT_OUTPUTS, OutputFolder, parse_output_kinds
from monai_anomalyclip.writers.overlays import Drawn, displayable
from monai_anomalyclip.writers.record import MadeWith, redacted
from monai_anomalyclip.writers.resume import NotWritten, Resume
from monai_anomalyclip.writers.scored_input import (
    ScoredInput,
    map_precision,
    write_results,
)
from monai_anomalyclip.writers.tables import RunDocument, made_with
from monai_anomalyclip.writers.viewer_data import preview

if TYPE_CHECKING:
    from monai_anomalyclip.handlers.writing_processes import WritingProcesses
    from monai_anomalyclip.writers.scored_film import ScoredCine

__all__ = ["AnomalyResultWriter"]

_WRITTEN = (
    "name", "image", "anomaly_map", "pred", "anomaly_score", "anomaly_margin", "p_value", "compared", "fused", "doubts",
    "reference_map", "score_s",
)  # fmt: skip

logger = logging.getLogger(__name__)


class AnomalyResultWriter:
    """Handler that writes the results of every item of an evaluator's output below one folder.

    Attach it to an evaluator whose output is a list of items (decollated) with

    - ``name``: of an input of the catalogue; ``part`` and ``parts`` for the parts of a film;
    - ``image``: MetaTensor, (1 or 3, H, W) or (1 or 3, X, Y, Z), scaled to [0, 1], on the input's own grid;
    - ``anomaly_map``: (1, *the image's size) in [0, 1]; ``anomaly_score``: one value per slice, or one for a picture;
      ``anomaly_margin``, where the network has one, likewise; where it was compared with normal inputs ``p_value``,
      ``compared`` and ``fused`` (JSON of :class:`Compared` and :class:`Fused`), ``doubts``, a sentence a line, and
      ``reference_map``, the distance to normals as pictures show it beside the map;
    - ``pred``: the mask, with or without the channel; absent: the map is thresholded (>=);
    - or ``error``: why the item could not be read (:class:`monai_anomalyclip.data.FaultTolerantDataset`).

    A run that is started again continues: :meth:`pending` leaves out the inputs that are done. An input's files appear
    when all are written, and its record, which says that it is finished, last. Files that an interrupted run left
    behind are replaced, any others never, unless `overwrite` is set; then those that an earlier run wrote and this one
    does not are removed. One model and one set of settings per folder; several processes may write into it, each its
    own inputs.

    Args:
        output_dir: folder of the results; made if it does not exist, for its owner only. One that is open already is
            not looked through again.
        catalogue: the inputs.
        network: the network that scores, for the records; has its prompts when the first result is written.
        prompts: file of its prompts, or None.
        threshold: value from which the map counts as anomalous, in [0, 1]; for records, captions, and items without
            ``pred``.
        threshold_source: where that came from, for records.
        outputs: which kinds of files (see :mod:`monai_anomalyclip.writers.output_folder`).
        overwrite: replace results and forget that they exist.
        slice_axis: as in :meth:`monai_anomalyclip.data.slicing.SliceView.from_affine`; the inferer's.
        max_slices: greatest number of slices on the picture of a volume.
        sheared_nifti: write NIfTI of stacks with gantry tilt, too.
        deterministic_uids: DICOM UIDs that depend on input and settings alone.
        segment_category: Segmented Property Category of DICOM segmentations, as ``"code^scheme^meaning"``.
        segment_type: Segmented Property Type, likewise.
        workers: processes that write while the network goes on (see
            :func:`~monai_anomalyclip.data.resolve_workers`); 0: this one does.
        settings: further settings that results depend on, such as the smoothing; None is left out.
        tables: make tables and report of the whole folder at the end; without, ``monai-anomalyclip merge`` makes them
            when all parts of a work are done.

    Raises:
        ValueError: the threshold is not in [0, 1], an unknown kind of output, a text that is no code, or the folder
            holds files of another program under the names that this one uses.
        OSError: the folder cannot be made or written to.

    Example::

        writer = AnomalyResultWriter("results", InputCatalogue("study"), network, "model.pt", threshold=0.3)
        writer.attach(evaluator)
    """

    def __init__(
        self,
        output_dir: str | os.PathLike[str] | OutputFolder,
        catalogue: InputCatalogue,
        network: Any,
        prompts: str | os.PathLike[str] | None = None,
        *,
        threshold: float = 0.5,
        threshold_source: str = "setting of the run",
        outputs: str | Sequence[str] = DEFAULT_OUTPUTS,
        overwrite: bool = False,
        slice_axis: int | str = "auto",
        max_slices: int = 12,
        sheared_nifti: bool = False,
        deterministic_uids: bool = False,
        segment_category: str = DEFAULT_CATEGORY,
        segment_type: str = DEFAULT_TYPE,
        workers: int | str = 0,
        settings: Mapping[str, Any] | None = None,
        tables: bool = True,
    ) -> None:
        if not 0 <= threshold <= 1:
            raise ValueError(f"threshold must lie in [0, 1], got {threshold}.")
        self.tables = tables
        self.catalogue = catalogue
        self.network = network
        self.prompts = prompts
        self.threshold = float(threshold)
        self.threshold_source = threshold_source
        self.ceiling = float(getattr(network, "map_ceiling", 1.0))
        self.outputs = parse_output_kinds(outputs)
        self.overwrite = overwrite
        self.slice_axis = slice_axis
        self.max_slices = max_slices
        self.sheared_nifti = sheared_nifti
        self.deterministic_uids = deterministic_uids
        self.segment_codes = {"segment_category": segment_category, "segment_type": segment_type}
        for code in self.segment_codes.values():
            parse_code(code)
        reading = catalogue.options
        self.settings: dict[str, Any] = {
            "threshold": self.threshold,
            "outputs": list(self.outputs),
            "slice_axis": slice_axis,
            "sheared_nifti": sheared_nifti,
            **self.segment_codes,
            **{name: getattr(reading, name) for name in ("preset", "nifti_form", "time_point", "stride")},
            **{name: value for name, value in (settings or {}).items() if value is not None},
            "map_precision": map_precision(self.outputs),
            "deterministic_uids": deterministic_uids,
            **({} if self.ceiling == 1 else {"map_ceiling": self.ceiling}),
        }
        self.workers = resolve_workers(workers)
        self._films: dict[str, ScoredCine] = {}
        self.shown: RunDocument | None = None
        self.folder = output_dir if isinstance(output_dir, OutputFolder) else OutputFolder(output_dir)
        self.states = Resume(self.folder, catalogue.sources, lambda: self.made_with, overwrite, whole=tables)
        self._processes: WritingProcesses | None = None
        self._engine: Engine | None = None
        self.failed, self.written = self.states.failed, self.states.written

    @functools.cached_property
    def made_with(self) -> MadeWith:
        """What results depend on besides the input."""
        device = str(next((parameter.device for parameter in self.network.parameters()), "cpu"))
        return made_with(describe_model(self.network, self.prompts), self.settings, device)

    def attach(self, engine: Engine) -> None:
        """Write after every iteration, and finish when the run is completed or interrupted."""
        self._engine = engine
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)
        engine.add_event_handler(Events.COMPLETED, self.finish)
        engine.add_event_handler(Events.TERMINATE, self.finish)

    def pending(self, items: Iterable[dict[str, Any]] | None = None) -> list[dict[str, Any]]:
        """Those of the items, by default all of the catalogue's, that are not finished, see :meth:`Resume.pending`."""
        return self.states.pending(self.catalogue.items if items is None else items)

    def __call__(self, engine: Engine) -> None:
        """Write every item of the engine's output."""
        for item in engine.state.output:
            if "error" in item:
                self.record_failure(item["name"], item["error"])
                continue
            whole = self.catalogue.sources[item["name"]].kind != "cine"  # the parts of a film follow each other
            if whole and self._processes is not None and self._processes.takes(item):
                self._note(self._processes.submit({key: item[key] for key in _WRITTEN if key in item}))
            else:
                self._note([(item["name"], self._attempt(item))])

    def _start(self, engine: Engine) -> None:
        """Start the processes that write, where there is more than one input for them."""
        if not self.workers or (engine.state.epoch_length or 0) < 2:
            return
        from monai_anomalyclip.handlers.writing_processes import WritingProcesses, can_fork

        if can_fork():
            self.made_with  # noqa: B018 - once, before processes are made that inherit it
            self._processes = WritingProcesses(self.workers, self._attempt)

    def _attempt(self, item: Mapping[str, Any]) -> NotWritten | None:
        """Write an item; why it could not be."""
        try:
            self.write(item)
        except Exception as error:  # whatever it is, the other items are not to suffer
            reason = redacted(failure_reason(error, {"image": self.folder.staging(item["name"]) / item["name"]}))
            # What the record says of existing results stays true.
            return NotWritten(reason, recorded=not isinstance(error, FileExistsError), passing=may_pass(error))
        return None

    def _note(self, outcomes: Iterable[tuple[str, NotWritten | None]]) -> None:
        for name, outcome in outcomes:
            if outcome is not None:
                noted: Any = self._engine  # of another kind than ours it may have no such lists
                getattr(noted, "failures", {})[name] = outcome.reason
                if outcome.passing and hasattr(noted, "passing"):
                    noted.passing.add(name)
                self.record_failure(name, outcome.reason, keep=outcome.recorded)
            elif self._processes is not None and name not in self.written and name not in self._films:
                self.written.append(name)

    def write(self, item: Mapping[str, Any]) -> None:
        """Write the results of one item, or take one part of a film.

        Raises:
            FileExistsError: results exist that no interrupted run left behind, and `overwrite` is False.
            KeyError: the item lacks one of the keys.
            ValueError: shapes or values do not fit, or a file could not be made.
        """
        begun = time.perf_counter()
        name = item["name"]
        source = self.catalogue.sources[name]
        content = getattr(item[CommonKeys.IMAGE], "meta", {}).get("content")
        image, anomaly_map = item[CommonKeys.IMAGE].detach().cpu(), _plain(item["anomaly_map"])
        mask = item.get(CommonKeys.PRED)
        mask = anomaly_map >= self.threshold if mask is None else _plain(mask).reshape(anomaly_map.shape).bool()
        scores = np.atleast_1d(np.asarray(_plain(torch.as_tensor(item["anomaly_score"])), dtype=np.float64))
        extremes = [float(anomaly_map.amin()), float(anomaly_map.amax())]  # NaN where there is one
        if not (np.isfinite(scores).all() and np.isfinite(extremes).all()):
            raise ValueError("The network gave scores or maps that are not finite.")
        view = None if source.kind == "frame" else view_of(source, image, self.slice_axis)
        if view is not None and len(scores) != view.n_slices:
            raise ValueError(
                f"{name!r} has {len(scores)} scores for {view.n_slices} slices: give the writer the inferer's "
                f"slice_axis (it has {self.slice_axis!r})."
            )
        slices = [volume[None] if view is None else view.to_slices(volume) for volume in (anomaly_map, mask)]
        maps, masks = (one[:, 0] for one in slices)
        findings = Findings.of(scores, maps.numpy(), masks.numpy(), margins_of(item), **comparisons_of(item))
        timings = {"read_s": _number(image.meta.get("read_s", 0)), "score_s": _number(item.get("score_s", 0))}
        if source.kind == "cine":
            assert view is not None
            frames = view.to_slices(displayable(_plain(image))).permute(0, 2, 3, 1).expand(-1, -1, -1, 3)
            if name not in self._films:
                size = (int(frames.shape[1]), int(frames.shape[2]))
                self._films[name] = self._film(name, source, size, content or source.state())
            film = self._films[name]
            part = int(_number(item.get("part", 0)))
            # Only the last part may be short: the frames behind a gap would be shown at wrong times.
            if film.written != (due := source.parts()[part][0]):
                raise ValueError(f"Part {part + 1} of the film begins at frame {due}, but {film.written} were given.")
            film.add(frames.contiguous().numpy(), maps.numpy(), masks.numpy(), findings)
            film.read_s += timings["read_s"]
            film.score_s += timings["score_s"]
            if part + 1 >= _number(item.get("parts", 1)):
                self._finish_film(name, source, image, begun)
            return
        content = content or source.state()
        beside = None if (given := item.get("reference_map")) is None else _plain(given).reshape(anomaly_map.shape)
        caption = f"anomaly score {findings.anomaly_score:.3f}  |  outline: map >= {self.threshold:g}"
        caption = caption if beside is None else f"{caption}  |  right: distance to normals"
        scored = ScoredInput(source, image, anomaly_map, mask, findings, view, self.ceiling, beside, caption)
        try:
            paths, notes = write_results(
                self.folder.stage(name), name, scored, self.outputs,
                provenance=self._provenance(image, source) if isinstance(source, DicomSource) else None,
                threshold=self.threshold,
                max_slices=self.max_slices, sheared_nifti=self.sheared_nifti, **self.segment_codes,
            )  # fmt: skip
            picture = scored.picture()
            shown = preview(name, source, image, anomaly_map, findings, view, self.threshold, self.ceiling)
            timings["write_s"] = time.perf_counter() - begun
            self._finish(name, paths, image, view, findings, timings, notes, content, picture, (), shown)
        finally:
            self.folder.unstage(name)

    def record_failure(self, name: str, reason: str, keep: bool = True) -> None:
        """Note that an input could not be processed, and why; without `keep` only if nothing else is known of it."""
        if film := self._films.pop(name, None):
            film.abort()
        self.folder.unstage(name)
        try:
            self.states.fail(name, reason, keep)
        except OSError as error:  # a full disk, perhaps the reason itself: the run goes on to say so
            logger.warning("%s: the record could not be written (%s).", name, error.strerror)

    def finish(self) -> None:
        """Save table, results and report, and log a summary."""
        if self._processes is not None:
            self._note(self._processes.drain())
            self._processes.close()
            self._processes = None
        for name in [*self._films, *self.catalogue.sources]:
            if film := self._films.pop(name, None):
                film.abort()
                self.folder.unstage(name)
        roots = [self.catalogue.roots, self.catalogue.wanted]
        if not self.tables:
            self.folder.keep_left_out(repr(roots), self.catalogue.left_out())
            logger.info("%d results written, %d inputs failed.", len(self.written), len(self.failed))
            return
        self.shown = document = self.folder.summarise(self.made_with, repr(roots), self.catalogue.left_out()).document
        logger.info(
            "%d results written, %d inputs failed; the folder now holds %d of %d. %s", len(self.written),
            len(self.failed), document.summary.ok, document.summary.inputs, RESEARCH_USE_ONLY,
        )  # fmt: skip

    def document(self) -> RunDocument:
        """What the folder holds: its most suspicious inputs, or without `tables` those of the catalogue."""
        if self.shown is not None:
            return self.shown
        return self.folder.document(self.catalogue.sources, self.made_with, self.catalogue.left_out())

    def _film(self, name: str, source: Source, size: tuple[int, int], content: str) -> ScoredCine:
        from monai_anomalyclip.writers.scored_film import ScoredCine  # PyAV is for films alone

        times, fps = source.timing()
        place = self.folder.stage(name), name
        return ScoredCine(*place, size, times, fps, self.threshold, source.pixel_aspect(), self.ceiling, content)

    def _finish_film(self, name: str, source: Source, image: Tensor, begun: float) -> None:
        film = self._films[name]
        paths, notes, picture = film.finish(source, self.outputs, lambda: self._provenance(image, source))
        del self._films[name]
        assert film.findings is not None
        timings = {"read_s": film.read_s, "score_s": film.score_s, "write_s": time.perf_counter() - begun}
        view = view_of(source, image, self.slice_axis)
        self._finish(
            name, paths, image, view, film.findings, timings, notes, film.content, picture, film.times, film.preview()
        )  # fmt: skip
        self.folder.unstage(name)

    def _finish(
        self, name: str, paths: Sequence[Path], image: Tensor, view: SliceView | None, findings: Findings,
        timings: Mapping[str, float], notes: Sequence[str], content: str, picture: Drawn,
        times: Sequence[float] = (), preview: str = "",
    ) -> None:  # fmt: skip
        staging = self.folder.staging(name)
        outputs = [path.relative_to(staging).as_posix() for path in paths]
        record = finished_record(
            name, self.catalogue.sources[name], image, view, findings, self.threshold, timings,
            [*notes, *findings.said], outputs, times, self.threshold_source,
        )  # fmt: skip
        self.states.finish(name, outputs, record, findings, content, picture, preview)

    def _provenance(self, image: Tensor, source: Source) -> Provenance:
        intensity = json.loads(image.meta.get("intensity") or "{}") if isinstance(image, MetaTensor) else {}
        shown = {"threshold": self.threshold, "preset": intensity.get("preset", "none")}
        shown |= {name: self.settings[name] for name in ("sigma",) if name in self.settings}
        context = ""
        if self.deterministic_uids and isinstance(source, DicomSource):
            series = source.series
            ordinal = self._stacks[series.group].index(source)
            context = uid_context(self.made_with, series.group, series.source_digest, ordinal)
        return provenance_of(self.made_with.model, shown, self.deterministic_uids, context)

    @functools.cached_property
    def _stacks(self) -> dict[str, list[Source]]:
        """The stacks of each series that are scored, in order."""
        found: dict[str, list[Source]] = {}
        for source in self.catalogue.sources.values():
            found.setdefault(source.group, []).append(source)
        return found


def _plain(tensor: Tensor) -> Tensor:
    return (tensor.as_tensor() if isinstance(tensor, MetaTensor) else tensor).detach().cpu()


def _number(value: Any) -> float:
    return float(torch.as_tensor(value).flatten()[0])
