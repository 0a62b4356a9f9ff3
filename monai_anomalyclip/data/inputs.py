# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Find the inputs of a run, name their results, and read each with the reader of its kind."""

from __future__ import annotations

import contextlib
import copy
import logging
import os
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monai_anomalyclip.data.dicom import DicomSeries, SkippedFile, group_instances, scan_files
from monai_anomalyclip.data.dicom.exclusion import included_reasons
from monai_anomalyclip.data.errors import DamagedInputError, UnreadableInputError
from monai_anomalyclip.data.input_files import (
    FRAME_SUFFIXES,
    NIFTI_SUFFIXES,
    NOT_READ,
    VIDEO_SUFFIXES,
    PathLike,
    find_files,
    format_of,
)
from monai_anomalyclip.data.naming import anonymous_names, names_of_files
from monai_anomalyclip.data.sources import (
    DicomSource,
    FrameSource,
    InputPart,
    NiftiSource,
    ReadOptions,
    Source,
    VideoSource,
)

if TYPE_CHECKING:
    from monai.data.meta_tensor import MetaTensor

    from monai_anomalyclip.data.parts import Part

__all__ = ["InputCatalogue", "load_input"]

_NAMED_SUFFIXES = (*FRAME_SUFFIXES, *NIFTI_SUFFIXES, *VIDEO_SUFFIXES)
_TIFF_SUFFIXES = (".tif", ".tiff")

logger = logging.getLogger(__name__)


class InputCatalogue:
    """All inputs at one or more paths, in a fixed order, each with the name of its results.

    Folders are scanned with their sub-folders. Pictures, NIfTI volumes and videos are known by their suffix; every
    other file is looked at as DICOM, whatever its name. Hidden files are passed over; links that lead out of the
    folder and what is no input are skipped and counted. DICOM series that are no images to score (localizers,
    secondary captures, reformatted images, segmentations, ...) are left out unless they are asked for by their UID.

    Args:
        path: a file or a folder, or several.
        exclude: a folder below a path that is not scanned, such as that of the results.
        exclude_patterns: files and folders that are left out, such as ``"*scout*"`` or ``"*/old/*"`` (see
            :func:`~monai_anomalyclip.data.input_files.matches`); those that are given as paths themselves never are.
        series: Series Instance UIDs; when given, these series alone are the inputs.
        include: reasons of :data:`~monai_anomalyclip.data.dicom.exclusion.EXCLUSION_REASONS`, such as
            ``"secondary-capture"``: DICOM series that would be left out for one of them are inputs like others.
        keep_names: name the results of files after the files. By default names hold nothing of a path, for paths
            often hold names of patients; DICOM series are never named otherwise.
        options: how inputs are read.
        progress: show a progress bar while DICOM headers are read.
        empty: do not mind that there is nothing to read.
        part: of the inputs only those of this part, such as ``"3/8"`` (see
            :func:`~monai_anomalyclip.data.parts.parse_part`); there may be none.
        work_list: a list of inputs (see :mod:`monai_anomalyclip.data.work_list`) in place of `path`, which is then
            empty: it has been decided already what is an input, and what its results are called.

    Attributes:
        sources: the inputs by name.
        excluded: DICOM series that are left out, and why (their attribute ``excluded``).
        skipped: files that are no inputs.
        roots: the paths.
        wanted: the series that were asked for.

    Raises:
        UnreadableInputError: a path does not exist, or there is nothing to read.
        ValueError: the excluded folder is an input itself, a series is not there, or no series is left out for such a
            reason.

    Example::

        catalogue = InputCatalogue("studies", options={"preset": "ct-brain"})
        for item in catalogue.items():
            image = load_input(item["image"])
    """

    def __init__(
        self,
        path: PathLike | int | Sequence[PathLike | int],
        *,
        exclude: PathLike | None = None,
        exclude_patterns: str | Sequence[str] = (),
        series: str | Sequence[str] = (),
        include: str | Sequence[str] = (),
        keep_names: bool = False,
        options: ReadOptions | Mapping[str, Any] | None = None,
        progress: bool = False,
        empty: bool = False,
        part: str | Part | None = None,
        work_list: PathLike | None = None,
    ) -> None:
        self.options = options if isinstance(options, ReadOptions) else ReadOptions(**(options or {}))
        if isinstance(part, str):
            from monai_anomalyclip.data.parts import parse_part  # not needed where one process does it all

            part = parse_part(part)
        self.part = part
        self._left_out: dict[str, int] = {}
        self.skipped: list[SkippedFile] = []
        self.excluded: list[DicomSeries] = []
        # In a file of arguments for MONAI's bundles a name of digits may stand as a number.
        given = [path] if isinstance(path, str | os.PathLike | int) else path
        roots: list[PathLike] = [str(root) if isinstance(root, int) else root for root in given]
        wanted = [series] if isinstance(series, str) else [str(uid) for uid in series]
        included = included_reasons(include)
        self._given = [str(root) for root in roots]
        self.roots = [str(Path(root).resolve()) for root in roots]
        self.wanted = wanted
        if work_list is not None:
            self._from_list(work_list, bool(roots or wanted or included or exclude_patterns), progress)
            return
        patterns = [exclude_patterns] if isinstance(exclude_patterns, str) else list(exclude_patterns)
        files = find_files(roots, Path(exclude).resolve() if exclude else None, self.skipped, patterns)
        named = [] if wanted else [(root, file) for root, file in files if _suffix(file)]
        sources: list[Source] = []
        relative: list[tuple[Path, str]] = []
        places = {root: root.resolve() for root, _ in named}
        for root, file in named:
            for source, name in self._from_file(root, places[root].name, file):
                sources.append(source)
                relative.append((name, _suffix(file)))
        dicom = self._dicom_sources([file for _, file in files if not _suffix(file)], wanted, included, progress)
        for source in sources:
            if isinstance(source, NiftiSource):
                source.among_others = len(sources) + len(dicom) > 1
        if not sources and not dicom and not empty:
            refused = DamagedInputError if any(file.damaged for file in self.skipped) else UnreadableInputError
            raise refused(self.nothing_found())
        if keep_names:
            names = names_of_files(relative, [source.key for source in sources]) + anonymous_names(dicom)
        else:
            names = anonymous_names([*sources, *dicom])
        self.sources = dict(zip(names, [*sources, *dicom], strict=True))
        if self.part is not None:
            self.sources = {name: one for name, one in self.sources.items() if self.part.holds(one.group)}
        if ways := {file.code: file.detail for file in self.skipped if file.code.endswith(NOT_READ)}:
            count = sum(file.code in ways for file in self.skipped)
            logger.warning("%d files may hold images but are not read. %s", count, " ".join(ways.values()))
        self._warn_of_masks([file.relative_to(root) for root, file in named], len(dicom))
        if self.skipped or self.excluded:
            logger.info("%d inputs found; left out: %s.", len(self.sources), _counted(self.left_out()))

    def left_out(self) -> dict[str, int]:
        """How many files are skipped and how many series left out, by reason."""
        codes = Counter(file.code for file in self.skipped)
        codes.update(f"{series.excluded} series" for series in self.excluded)
        codes.update(self._left_out)
        return dict(sorted(codes.items()))

    def only(self, names: Collection[str]) -> InputCatalogue:
        """The same with some of the inputs alone; names and what was left out stay.

        Args:
            names: of the inputs.
        """
        other = copy.copy(self)
        other.sources = {name: source for name, source in self.sources.items() if name in names}
        return other

    def items(self, leave_out: Collection[str] = ()) -> list[dict[str, Any]]:
        """One item per input, or per part of a film: ``image`` (:class:`InputPart`), ``name``, ``part``, ``parts``.

        Args:
            leave_out: names of inputs that are not asked for: the frames of a film may have to be counted.
        """
        items = []
        for name, source in self.sources.items():
            if name in leave_out:
                continue
            parts = source.parts()
            for number, (start, stop) in enumerate(parts):
                items.append(
                    {"image": InputPart(source, start, stop), "name": name, "part": number, "parts": len(parts)}
                )
        return items

    def _warn_of_masks(self, files: Sequence[Path], others: int) -> None:
        """Masks, and pictures of results, that lie beside images would be scored like these."""
        if not files:
            return
        from monai_anomalyclip.data.masks import mask_words  # not needed for DICOM alone

        marks = [words for file in files if (words := mask_words(file))]
        if not marks or len(marks) == len(files) + others:
            return
        named = sorted(frozenset().union(*marks))
        logger.warning(
            "%d files have names as masks and results have (%s), and are scored like images: %s leaves them out.",
            len(marks),
            ", ".join(named),
            " ".join(f"--exclude '*{word}*'" for word in named),
        )

    def _from_list(self, work_list: PathLike, chosen: bool, progress: bool) -> None:
        if chosen:
            raise ValueError("A work list says what the inputs are: choose among them when it is made.")
        from monai_anomalyclip.data.work_list import read_work_list, sources_of_units

        header, units = read_work_list(work_list, self.part)
        self.roots = [str(Path(work_list).resolve())]
        self._left_out = dict(header.left_out)
        self.sources = sources_of_units(list(units), self.options, progress=progress)

    def _from_file(self, root: Path, called: str, file: Path) -> list[tuple[Source, Path]]:
        """The sources of a picture, volume or video below a folder of that name, and the path that names each."""
        name = file.relative_to(root)
        identity = f"{called}/{name.as_posix()}"
        suffix = _suffix(file)
        if suffix in NIFTI_SUFFIXES:
            return [(NiftiSource(file, identity, self.options), name)]
        if suffix in VIDEO_SUFFIXES:
            return [(VideoSource(file, identity, self.options), name)]
        from monai_anomalyclip.data.frames import pictures_in  # each reader is imported for what it reads

        pages, left_out = [0], 0
        with contextlib.suppress(UnreadableInputError):  # reading it says why
            pages, left_out = pictures_in(file)
        self.skipped += [SkippedFile(file, "further picture of a file")] * left_out
        if len(pages) == 1:
            return [(FrameSource(file, identity, pages[0], self.options), name)]
        stem = file.name[: len(file.name) - len(suffix)]
        word = "page" if suffix in _TIFF_SUFFIXES else "frame"
        return [
            (FrameSource(file, identity, page, self.options), name.with_name(f"{stem}_{word}{page + 1}{suffix}"))
            for page in pages
        ]

    def _dicom_sources(
        self, files: Sequence[Path], wanted: Sequence[str], included: Collection[str], progress: bool
    ) -> list[Source]:
        scan = scan_files(files, progress=progress)
        stacks, not_grouped = group_instances(scan.instances, scan.skipped)
        skipped = [*scan.skipped, *not_grouped]
        self.skipped += [format_of(file) if file.code == "not DICOM" else file for file in skipped]
        if absent := [uid for uid in wanted if uid not in {stack.series_uid for stack in stacks}]:
            raise ValueError(
                f"Series {', '.join(absent)} is not among the {len({stack.series_uid for stack in stacks})} series of "
                "the input: `monai-anomalyclip inspect --show-uids` lists them."
            )
        if wanted:
            return [DicomSource(stack, self.options) for stack in stacks if stack.series_uid in wanted]
        chosen = [not stack.excluded or stack.excluded in included for stack in stacks]
        self.excluded = [stack for stack, kept in zip(stacks, chosen, strict=True) if not kept]
        return [DicomSource(stack, self.options) for stack, kept in zip(stacks, chosen, strict=True) if kept]

    def nothing_found(self) -> str:
        """A sentence for a catalogue without inputs: where it looked, and what it left out."""
        shown = ", ".join(map(repr, self._given))
        if len(self.skipped) == 1 and not self.excluded and self.skipped[0].detail:
            return f"Nothing to read in {shown}: {self.skipped[0].detail}"
        left_out = _counted(self.left_out()) or "nothing"
        hint = "; --include REASON or --series UID processes what is left out" if self.excluded else ""
        return (
            f"Nothing to read in {shown}: no DICOM image, NIfTI volume, picture or video (left out: {left_out}{hint})."
        )


def load_input(
    value: PathLike | InputPart, options: ReadOptions | Mapping[str, Any] | None = None, eight_bit: bool = False
) -> MetaTensor:
    """Read one input: (3, H, W) for a picture, (1, X, Y, Z) for a volume, float32 in [0, 1]; see the readers for more.

    The metadata holds ``kind`` ("frame", "volume" or "cine"), ``intensity``, JSON that says how the values were scaled
    (an :class:`~monai_anomalyclip.transforms.intensity_presets.IntensityChoice`), ``read_s``, the seconds that reading
    took, and ``content``, the input's :meth:`Source.state` before that ("" for later parts of a film).

    Args:
        value: an item of :class:`InputCatalogue`, a file, or a folder that holds one DICOM series. A long film does
            not fit into memory as a whole: the items are parts of it.
        options: how a path is read; an item knows for itself.
        eight_bit: leave what is stored in 8 bits as it is: uint8, which stands for [0, 1] in steps of 1/255.

    Raises:
        UnreadableInputError: it cannot be read, or it is more than one input; the message says why.

    Example::

        image = load_input("head_ct", {"preset": "ct-brain"})  # a folder with one DICOM series
        AnomalySliceInferer(network.image_size)(image[None], network)
    """
    part = value if isinstance(value, InputPart) else _only_part(value, options)
    begun = time.perf_counter()
    content = "" if part.start else part.source.state()  # before it is read: afterwards it may be another
    image = part.load(eight_bit)
    image.meta["read_s"] = time.perf_counter() - begun
    image.meta["content"] = content
    return image


def _only_part(path: PathLike, options: ReadOptions | Mapping[str, Any] | None) -> InputPart:
    source, *others = InputCatalogue(path, options=options).sources.values()
    if others:
        raise UnreadableInputError(
            f"{Path(path).name!r} holds {1 + len(others)} inputs: give the file or the folder of one series."
        )
    return InputPart(source)


def _suffix(path: Path) -> str:
    """The suffix that says what a file is, in lower case; "" for what may be DICOM."""
    name = path.name.lower()
    return max((suffix for suffix in _NAMED_SUFFIXES if name.endswith(suffix)), key=len, default="")


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} x {code}" for code, count in counts.items())
