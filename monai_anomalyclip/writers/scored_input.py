# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""All files of one input that was scored as a whole: pictures, NIfTI, DICOM objects."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from monai.data.meta_tensor import MetaTensor
from PIL import Image
from torch import Tensor

from monai_anomalyclip.atomic_file import make_private_folder, write_atomically
from monai_anomalyclip.data.dicom.pydicom_api import quiet_pydicom
from monai_anomalyclip.data.dicom.series import DicomSeries
from monai_anomalyclip.data.slicing import SliceView
from monai_anomalyclip.data.sources import DicomSource, NiftiSource, Source
from monai_anomalyclip.writers.dicom.provenance import DEFAULT_CATEGORY, DEFAULT_TYPE, Provenance
from monai_anomalyclip.writers.dicom.source_headers import UnsuitableSourceError, is_placed
from monai_anomalyclip.writers.dicom.source_restoration import source_notes
from monai_anomalyclip.writers.findings import Findings
from monai_anomalyclip.writers.overlays import Drawn, Picture, displayable, jpeg, overlay
from monai_anomalyclip.writers.record import Peak
from monai_anomalyclip.writers.report import archive_place
from monai_anomalyclip.writers.result_files import (
    FRAME_RESULTS,
    OVERLAY,
    drawn_frame,
    result_paths,
    write_frame_result,
    write_volume_result,
)
from monai_anomalyclip.writers.slice_pictures import large_slice, montage

if TYPE_CHECKING:
    from monai_anomalyclip.writers.nifti import NiftiGrid

__all__ = [
    "DICOM_RESULTS",
    "WORST",
    "ScoredInput",
    "film_notes",
    "map_precision",
    "worst_caption",
    "write_results",
    "write_series_report",
    "write_worst",
]

WORST = "_worst.jpg"
_LONGEST_SIDE = 1024  # pixels of a picture of the report
DICOM_RESULTS = {
    "seg": "_seg.dcm",
    "fractional": "_seg_fractional.dcm",
    "levels": "_seg_levels.dcm",
    "sr": "_sr.dcm",
    "pm": "_pm.dcm",
    "sc": "_sc.dcm",
}
_NAMES = {
    "seg": "DICOM segmentation",
    "fractional": "fractional DICOM segmentation",
    "levels": "DICOM label map",
    "pm": "DICOM parametric map",
    "sc": "DICOM secondary capture",
}
_SEGMENTATIONS = ("seg", "fractional", "levels")


@dataclass(frozen=True)
class ScoredInput:
    """A picture or a volume with what was found, on the input's own grid.

    Args:
        source: where it came from; None for what was in memory.
        image: (1 or 3, H, W) or (1 or 3, X, Y, Z), uint8 or in [0, 1].
        anomaly_map: (1, H, W) or (1, X, Y, Z) in [0, 1].
        mask: bool, like the map.
        findings: numbers per slice.
        view: how a volume is sliced; None for a picture.
        ceiling: map value that the last colour of pictures stands for.
        beside: the map of another way of scoring, as pictures show it: 1 is its last colour.
        caption: text below its pictures.
    """

    source: Source | None
    image: Tensor
    anomaly_map: Tensor
    mask: Tensor
    findings: Findings
    view: SliceView | None
    ceiling: float = 1.0
    beside: Tensor | None = None
    caption: str = ""

    def slices(self, volume: Tensor) -> Tensor:
        """Slices (n, C, H, W) of one of the tensors."""
        return volume[None] if self.view is None else self.view.to_slices(volume)

    @cached_property
    def drawn(self) -> tuple[Image.Image, tuple[int, int]]:
        """A picture beside its overlay with its margin, and the size without: drawn once, for file and report."""
        aspect = 1.0 if self.source is None else float(self.source.pixel_aspect())
        tensors = (_plain(self.image), _plain(self.anomaly_map), _plain(self.mask))
        return drawn_frame(*tensors, aspect, caption=self.caption, ceiling=self.ceiling, beside=self.beside)

    def picture(self) -> Drawn:
        """What stands for it in the report."""
        if self.view is None:
            # As small as the page shows it: cheaper to keep, and encoded once.
            drawn, size = self.drawn
            factor = math.ceil(max(size) / _LONGEST_SIDE)
            return drawn.crop((0, 0, *size)) if factor == 1 else drawn.reduce(factor, (0, 0, *size))
        labels = [f"slice {index}    score {score:.3f}" for index, score in enumerate(self.findings.scores)]
        tensors = (_plain(self.image), self.anomaly_map, self.mask)
        order = self.findings.order()
        return montage(*tensors, self.view, order, labels, ceiling=self.ceiling, beside=self.beside)


def map_precision(outputs: Sequence[str]) -> dict[str, str]:
    """How the files of maps are stored and what that loses, in words for the record.

    Args:
        outputs: kinds of files.
    """
    kinds = {
        "heat16": ("heat.png", "16 bits, off by at most 1/131070"),
        "png": ("heat.png", "8 bits, off by at most 1/510"),
        "map32": ("map.nii.gz", "float32, nothing lost"),
        "nifti": ("map.nii.gz", "16 bits, off by at most 1/65536"),
    }
    found: dict[str, str] = {}
    for kind, (file, precision) in kinds.items():
        if kind in outputs:
            found.setdefault(file, precision)
    return found


def write_results(
    folder: str | os.PathLike[str],
    name: str,
    scored: ScoredInput,
    outputs: Sequence[str],
    *,
    provenance: Provenance | None,
    threshold: float,
    max_slices: int = 12,
    sheared_nifti: bool = False,
    segment_category: str = DEFAULT_CATEGORY,
    segment_type: str = DEFAULT_TYPE,
) -> tuple[list[Path], list[str]]:
    """Write the files of one input, replacing what is there: the caller has looked.

    A DICOM object that a source cannot have (such as a parametric map without positions) is left out with a
    note; when one that it can have fails to be written, all others still are.

    Args:
        folder: the output folder.
        name: where below the folder, without suffix.
        scored: the input.
        outputs: see :mod:`monai_anomalyclip.writers.output_folder`; the overlay picture is always written.
        provenance: what DICOM objects say of the algorithm; not asked for where the source has none.
        threshold: of the mask.
        max_slices: greatest number of slices on the picture of a volume.
        sheared_nifti: write NIfTI of a stack with gantry tilt, with its true, sheared affine.
        segment_category: Segmented Property Category of the DICOM segmentation, as ``"code^scheme^meaning"``.
        segment_type: Segmented Property Type, likewise.

    Returns:
        The files, and sentences about what was left out.

    Raises:
        ValueError: a file could not be made; the others are written.
    """
    notes: list[str] = []
    if scored.view is None:
        paths = write_frame_result(
            folder,
            name,
            scored.image,
            scored.anomaly_map,
            scored.mask,
            suffixes=FRAME_RESULTS if {"png", "heat16"} & set(outputs) else (OVERLAY,),
            overwrite=True,
            deep="heat16" in outputs,
            drawn=scored.drawn[0],
            ceiling=scored.ceiling,
        )
    else:
        grid = None
        if {"nifti", "map32"} & set(outputs):
            grid, note = nifti_grid(scored, sheared_nifti)
            notes += note
        paths = write_volume_result(
            folder,
            name,
            scored.image,
            scored.anomaly_map,
            scored.mask,
            view=scored.view,
            grid=grid,
            max_slices=max_slices,
            caption=scored.caption,
            order=scored.findings.order(),
            overwrite=True,
            float_map="map32" in outputs,
            ceiling=scored.ceiling,
            beside=scored.beside,
        )
        peak = scored.findings.peaks(scored.source)[0]
        tensors = (_plain(scored.image), _plain(scored.anomaly_map), _plain(scored.mask))
        sentence = f"{worst_caption(peak, 'slice')}  |  {scored.caption}"
        alone = large_slice(*tensors, scored.view, peak.index, sentence, ceiling=scored.ceiling, beside=scored.beside)
        paths.append(write_worst(folder, name, alone))
    if not isinstance(scored.source, DicomSource):
        return paths, notes
    assert provenance is not None
    kinds = [kind for kind in DICOM_RESULTS if kind in outputs]
    writers = _dicom_writers(scored, scored.source.series, provenance, threshold, segment_category, segment_type)
    failed: list[str] = []
    for kind in kinds:
        needs_places = kind == "pm" or (kind in _SEGMENTATIONS and len(scored.source.series.frames) > 1)
        if needs_places and not is_placed(scored.source.series):
            notes.append(f"No {_NAMES[kind]}: the series lacks positions or pixel spacing.")
            continue
        (path,) = result_paths(folder, name, [DICOM_RESULTS[kind]])
        if problem := _attempt(writers[kind], path):
            failed.append(f"{kind} ({problem})")
        else:
            paths.append(path)
    _refuse_failed(failed)
    if kinds:
        notes += source_notes(scored.source.series)
    return paths, notes


def worst_caption(peak: Peak, unit: str) -> str:
    """Where a slice or frame lies, for the margin of its picture."""
    place = archive_place(peak).replace("\N{NO-BREAK SPACE}", " ")
    return f"{unit} {peak.index}{f' ({place})' if place else ''}"


def write_worst(folder: str | os.PathLike[str], name: str, picture: Picture) -> Path:
    """Write the picture of the most suspicious slice alone, replacing what is there."""
    (path,) = result_paths(folder, name, [WORST])
    make_private_folder(path.parent)
    write_atomically(path, jpeg(picture, quality=90), durable=False)
    return path


def film_notes(source: Source, outputs: Sequence[str], written: int, claimed: int) -> list[str]:
    """Sentences about what is missing of a film, and the DICOM objects that were asked for and that it does not get.

    Args:
        source: the film.
        outputs: the kinds that were asked for.
        written: number of frames that there are.
        claimed: number that its file claims.
    """
    notes = [] if written == claimed else [f"The film ends after {written} of the {claimed} frames that it claims."]
    if not isinstance(source, DicomSource):
        return notes
    if "sr" in outputs and written == claimed:
        notes += source_notes(source.series)
    if written != claimed and "sr" in outputs:
        notes.append("No DICOM structured report: it could not refer to the frames of a film that ends early.")
    asked = [kind for kind in _NAMES if kind in outputs]
    return [*notes, *(f"No {_NAMES[kind]} of a film: its overlay is an MP4, its scores are a table." for kind in asked)]


def write_series_report(
    folder: str | os.PathLike[str],
    name: str,
    series: DicomSeries,
    findings: Findings,
    threshold: float,
    provenance: Provenance,
) -> Path:
    """Write the structured report alone, replacing what is there; arguments as for :func:`write_results`.

    Raises:
        ValueError: it could not be made; the message quotes nothing of the headers.
    """
    (path,) = result_paths(folder, name, [DICOM_RESULTS["sr"]])
    if problem := _attempt(lambda path: _report(path, series, findings, threshold, provenance), path):
        _refuse_failed([f"sr ({problem})"])
    return path


def _attempt(write: Callable[[Path], Path], path: Path) -> str:
    """Write a DICOM object; what went wrong, in words that quote nothing of the source, or nothing."""
    try:
        with quiet_pydicom():  # once for the many headers that are looked into
            write(path)
    except UnsuitableSourceError as error:
        return str(error)
    except Exception as error:  # headers can be odd in any way, and other libraries quote them
        return type(error).__name__
    return ""


def _refuse_failed(failed: Sequence[str]) -> None:
    # Outside of any except block: the exception must not lead on to one that quotes a header.
    if failed:
        raise ValueError(f"These DICOM objects could not be written: {'; '.join(failed)}; the other files are there.")


def _report(path: Path, series: DicomSeries, findings: Findings, threshold: float, provenance: Provenance) -> Path:
    from monai_anomalyclip.writers.dicom.structured_report import (
        write_report,
    )  # each kind of object is imported when it is asked for

    return write_report(
        series,
        findings.scores,
        path,
        score=findings.anomaly_score,
        threshold=threshold,
        provenance=provenance,
        overwrite=True,
    )


def _dicom_writers(
    scored: ScoredInput, series: DicomSeries, provenance: Provenance, threshold: float, category: str, kind: str
) -> dict[str, Callable[[Path], Path]]:
    """Per kind of DICOM object what writes it to a path."""

    def segmentation(volume: Tensor, content: str) -> Callable[[Path], Path]:
        def write(path: Path) -> Path:
            from monai_anomalyclip.writers.dicom.segmentation import write_segmentation

            codes = {"category": category, "segment_type": kind, "kind": content}
            pixels = _stack(scored, volume)
            return write_segmentation(series, pixels, path, provenance=provenance, overwrite=True, **codes)

        return write

    def sr(path: Path) -> Path:
        return _report(path, series, scored.findings, threshold, provenance)

    def pm(path: Path) -> Path:
        from monai_anomalyclip.writers.dicom.parametric_map import write_parametric_map

        maps = _stack(scored, scored.anomaly_map)
        return write_parametric_map(series, maps, path, provenance=provenance, overwrite=True)

    def sc(path: Path) -> Path:
        from monai_anomalyclip.writers.dicom.secondary_capture import write_secondary_capture

        pictures = scored.slices(displayable(_plain(scored.image))).permute(0, 2, 3, 1).expand(-1, -1, -1, 3).numpy()
        frames = zip(pictures, _stack(scored, scored.anomaly_map), _stack(scored, scored.mask), strict=True)
        drawn = np.stack([overlay(*frame, ceiling=scored.ceiling) for frame in frames])
        return write_secondary_capture(series, drawn, path, provenance=provenance, overwrite=True)

    segmentations = {
        "seg": segmentation(scored.mask, "mask"),
        "fractional": segmentation(scored.anomaly_map, "probability"),
        "levels": segmentation(scored.anomaly_map, "levels"),
    }
    return {**segmentations, "sr": sr, "pm": pm, "sc": sc}


def nifti_grid(scored: ScoredInput, sheared: bool) -> tuple[NiftiGrid | None, list[str]]:
    """The grid of the NIfTI files, or None and why there is none."""
    from monai_anomalyclip.writers.nifti import NiftiGrid

    shape = tuple(scored.anomaly_map.shape[1:])
    if isinstance(scored.source, NiftiSource):
        affine = scored.image.affine.numpy() if isinstance(scored.image, MetaTensor) else None
        return NiftiGrid(scored.source.paths[0], shape, affine), []
    if not isinstance(scored.source, DicomSource):
        return NiftiGrid(np.asarray(scored.image.affine, np.float64), shape), []  # type: ignore[attr-defined]
    geometry = scored.source.series.geometry
    matrix = geometry.affine(sheared=sheared)
    if matrix is not None:
        return NiftiGrid(matrix, shape), []
    if geometry.positions is None or geometry.pixel_spacing is None:
        return None, ["No NIfTI: position or pixel spacing of the slices is unknown."]
    hint = "; a sheared one is written on request (sheared_nifti)" if set(geometry.flaws) == {"gantry tilt"} else ""
    return None, [f"No NIfTI: the stack is no regular volume ({geometry.verdict}){hint}."]


def _stack(scored: ScoredInput, volume: Tensor) -> npt.NDArray[np.generic]:
    """Slices (n, H, W) of a map or a mask, in the order of the series' frames."""
    stack: npt.NDArray[np.generic] = scored.slices(_plain(volume))[:, 0].numpy()
    return stack


def _plain(tensor: Tensor) -> Tensor:
    return tensor.as_tensor() if isinstance(tensor, MetaTensor) else tensor
