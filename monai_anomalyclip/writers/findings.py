# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""What was found in an input: the numbers that maps, masks and scores come to, and the record made of them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai.data.meta_tensor import MetaTensor
from pydicom.uid import UID
from torch import Tensor

from monai_anomalyclip.data.dicom.series import StackGeometry, text_of
from monai_anomalyclip.data.slicing import SliceView
from monai_anomalyclip.data.sources import DicomSource, Source, digest
from monai_anomalyclip.ranking import most_suspicious_first
from monai_anomalyclip.writers.finished import Slices
from monai_anomalyclip.writers.record import Compared, Fused, Geometry, InputRecord, Intensity, Peak, Timings

__all__ = ["Findings", "comparisons_of", "finished_record", "margins_of", "view_of"]

_PEAKS = 6  # most suspicious slices that a record names


@dataclass(frozen=True)
class Findings:
    """What was found in the slices or frames of one input, all of one size.

    Args:
        scores: (n,) anomaly score of each.
        map_max: (n,) highest value of each map.
        area_fraction: (n,) share of each mask that is anomalous.
        margins: (n,) abnormal minus normal logit of each; None where the network has none.
        p_value: of the whole input among normal ones; None where there is no reference, or too small a one.
        compared: the same by each way of scoring, with the numbers behind it.
        fused: of both ways of scoring.
        said: what the comparison says, and what speaks against believing it, in sentences.
    """

    scores: npt.NDArray[np.float64]
    map_max: npt.NDArray[np.float64]
    area_fraction: npt.NDArray[np.float64]
    margins: npt.NDArray[np.float64] | None = None
    p_value: float | None = None
    compared: tuple[Compared, ...] = ()
    fused: Fused | None = None
    said: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        scores: npt.NDArray[np.floating],
        maps: npt.NDArray[np.floating],
        masks: npt.NDArray[np.bool_],
        margins: npt.NDArray[np.floating] | None = None,
        **compared: Any,
    ) -> Findings:
        """Take the numbers.

        Args:
            scores: (n,).
            maps: (n, H, W) in [0, 1].
            masks: (n, H, W), True where anomalous.
            margins: (n,), or None.
            compared: further fields, of the whole input.
        """
        return cls(
            np.asarray(scores, dtype=np.float64),
            maps.max(axis=(1, 2)).astype(np.float64),
            np.array([np.count_nonzero(mask) / mask.size for mask in masks]),
            None if margins is None else np.asarray(margins, dtype=np.float64),
            **compared,
        )

    def followed_by(self, later: Findings) -> Findings:
        """The findings of two parts of a film, one after the other; p-values are those of the more suspicious one."""
        ours, theirs = ((part.score_margin or 0.0, part.anomaly_score) for part in (self, later))
        farther = self if ours >= theirs else later
        return Findings(
            np.concatenate([self.scores, later.scores]),
            np.concatenate([self.map_max, later.map_max]),
            np.concatenate([self.area_fraction, later.area_fraction]),
            None if self.margins is None or later.margins is None else np.concatenate([self.margins, later.margins]),
            farther.p_value,
            farther.compared,
            farther.fused,
            farther.said,
        )

    @property
    def anomaly_score(self) -> float:
        """Score of the whole input: the highest."""
        return float(self.scores.max())

    @property
    def anomalous_fraction(self) -> float:
        """Share of all pixels that is anomalous."""
        return float(self.area_fraction.mean())

    @property
    def score_margin(self) -> float | None:
        """Margin of the logits that the score of the whole input comes from."""
        return None if self.margins is None else float(self.margins.max())

    def order(self) -> list[int]:
        """Indices of the slices or frames, the most suspicious first."""
        return most_suspicious_first(self.scores, self.margins, self.map_max, self.area_fraction)

    def peaks(self, source: Source | None = None) -> list[Peak]:
        """The most suspicious slices, the most suspicious first; of DICOM with what finds them in an archive."""
        numbers, positions = archive_places(source, len(self.scores))
        return [
            Peak(
                index=index,
                score=float(self.scores[index]),
                margin=None if self.margins is None else float(self.margins[index]),
                instance_number=numbers[index] if numbers else None,
                position_mm=positions[index] if positions else None,
            )
            for index in self.order()[:_PEAKS]
        ]

    def slices(self, source: Source | None = None) -> Slices:
        """The numbers of every slice, for the input's record file."""
        numbers, positions = archive_places(source, len(self.scores))
        return Slices(
            map_max=tuple(round(float(value), 6) for value in self.map_max),
            area_fraction=tuple(round(float(value), 9) for value in self.area_fraction),
            margin=() if self.margins is None else tuple(round(float(value), 6) for value in self.margins),
            instance_number=numbers,
            position_mm=tuple(None if value is None else round(value, 3) for value in positions),
        )

    def volume_ml(self, voxel_mm3: float | None, pixels: int) -> float | None:
        """Anomalous volume in millilitres; None when the size of a voxel is unknown.

        Args:
            voxel_mm3: size of a voxel in cubic millimetres.
            pixels: number of pixels of a slice.
        """
        return None if voxel_mm3 is None else float(self.area_fraction.sum()) * pixels * voxel_mm3 / 1000


def archive_places(source: Source | None, count: int) -> tuple[tuple[int | None, ...], tuple[float | None, ...]]:
    """Instance Number and position in mm of the first `count` slices of a DICOM series; of all else nothing."""
    if not isinstance(source, DicomSource):
        return (), ()
    return source.series.instance_numbers[:count], source.series.slice_positions[:count]


_PLANES = ("sagittal", "coronal", "axial")


def comparisons_of(item: Mapping[str, Any]) -> dict[str, Any]:
    """What an item says of the whole input beside normal ones; p is None without normals, or with too few."""
    p = float(torch.as_tensor(item.get("p_value", math.nan)).flatten()[0])
    fused = json.loads(item.get("fused") or "null")
    return {
        "p_value": p if math.isfinite(p) else None,
        "compared": tuple(Compared(**one) for one in json.loads(item.get("compared") or "[]")),
        "fused": None if fused is None else Fused(**fused),
        "said": tuple(str(item.get("doubts") or "").splitlines()),
    }


def margins_of(item: Mapping[str, Any]) -> npt.NDArray[np.float64] | None:
    """Margins of the logits, one per score; None where the network gives none, or some that are no numbers."""
    if (given := item.get("anomaly_margin")) is None:
        return None
    margins = np.atleast_1d(np.asarray(torch.as_tensor(given).as_subclass(Tensor).cpu(), dtype=np.float64))
    return margins if np.isfinite(margins).all() else None


def view_of(source: Source, image: Tensor, slice_axis: int | str) -> SliceView:
    """How the slices of a volume or film lie in its tensor: DICOM and films as stored, NIfTI as its affine says.

    Args:
        source: the input.
        image: (C, X, Y, Z).
        slice_axis: for NIfTI, as in :meth:`SliceView.from_affine`.
    """
    if isinstance(source, DicomSource):
        geometry = source.series.geometry
        spacing = geometry.pixel_spacing or (1.0, float(source.pixel_aspect()))
        return SliceView.native(image.shape[1:], spacing, _plane(geometry))
    if source.kind == "cine":
        return SliceView.native(image.shape[1:], (1.0, float(source.pixel_aspect())))
    assert isinstance(image, MetaTensor)
    return SliceView.from_affine(image.affine, image.shape[1:], slice_axis)


def finished_record(
    name: str,
    source: Source,
    image: Tensor,
    view: SliceView | None,
    findings: Findings,
    threshold: float,
    timings: Mapping[str, float],
    notes: Sequence[str],
    outputs: Sequence[str],
    times: Sequence[float] = (),
    threshold_source: str = "setting of the run",
) -> InputRecord:
    """Make the record of an input whose results are written.

    Args:
        name: of the results.
        source: the input.
        image: MetaTensor with the meta entries ``intensity`` (JSON) and ``notes`` of the readers.
        view: how a volume or film is sliced.
        findings: what was found.
        threshold: of the mask.
        timings: ``read_s``, ``score_s`` and ``write_s``.
        notes: what was left out when the files were written.
        outputs: the files.
        times: of the frames of a film.
        threshold_source: where the threshold came from.
    """
    meta = image.meta if isinstance(image, MetaTensor) else {}
    chosen = json.loads(meta.get("intensity") or "null")
    warnings = [*(chosen or {}).get("warnings", ()), meta.get("notes") or "", *notes]
    geometry, voxel = _geometry(source, image, view)
    dicom = source.series if isinstance(source, DicomSource) else None
    return InputRecord(
        name=name,
        source=source.origin,
        kind=source.kind,
        modality=source.modality or None,
        study=_study(source),
        files_used=len(source.paths),
        frames=len(findings.scores),
        slice_axis=None if view is None or source.kind == "cine" else view.slice_axis,
        plane=None if view is None or source.kind == "cine" else view.plane,
        geometry=geometry,
        transfer_syntaxes=tuple(sorted({_syntax(instance.transfer_syntax) for instance in dicom.instances}))
        if dicom
        else (),
        intensity=None if chosen is None else Intensity(**{key: chosen.get(key) for key in Intensity.model_fields}),
        split=dicom.split if dicom else None,
        scores=tuple(findings.scores.tolist()),
        times=tuple(times),
        anomaly_score=findings.anomaly_score,
        map_max=float(findings.map_max.max()),
        score_margin=findings.score_margin,
        p_value=findings.p_value,
        compared=findings.compared,
        fused=findings.fused,
        most_suspicious=tuple(findings.peaks(source)),
        threshold=threshold,
        threshold_source=threshold_source,
        anomalous_fraction=findings.anomalous_fraction,
        anomalous_volume_ml=findings.volume_ml(voxel, int(np.prod(view.slice_shape))) if view else None,
        timings=Timings(**timings),
        warnings=tuple(text for text in dict.fromkeys(warnings) if text),
        outputs=tuple(outputs),
    )


def _study(source: Source) -> str | None:
    """Eight hexadecimal digits that inputs of one DICOM study share; None where no study is named."""
    if not isinstance(source, DicomSource) or not (uid := text_of(source.series.header, "StudyInstanceUID")):
        return None
    return digest(uid)[:8]


def _geometry(source: Source, image: Tensor, view: SliceView | None) -> tuple[Geometry | None, float | None]:
    """The geometry for the record, and the size of a voxel in cubic millimetres where there is one."""
    if isinstance(source, DicomSource):
        stack = source.series.geometry
        matrix = stack.affine(sheared=True) if len(source.series.frames) > 1 or stack.slice_spacing else None
        return Geometry(
            verdict=stack.verdict,
            spacing=stack.pixel_spacing,
            spacing_source=stack.spacing_source,
            slice_spacing=stack.slice_spacing,
            missing_slices=stack.missing_slices,
            tilt_degrees=stack.tilt_degrees if "gantry tilt" in stack.flaws else 0.0,
        ), None if matrix is None else abs(float(np.linalg.det(matrix[:3, :3])))
    if view is None or source.kind == "cine":
        return None, None
    assert isinstance(image, MetaTensor)
    matrix = np.asarray(image.affine, dtype=np.float64)[:3, :3]
    lengths = np.linalg.norm(matrix, axis=0)
    sheared = not np.allclose((matrix / lengths).T @ (matrix / lengths), np.eye(3), atol=1e-3)
    return Geometry(
        verdict="sheared" if sheared else "regular",
        spacing=view.pixel_spacing,
        spacing_source="NIfTI header",
        slice_spacing=float(lengths[view.slice_axis]),
        missing_slices=0,
        tilt_degrees=None,
    ), abs(float(np.linalg.det(matrix)))


def _plane(geometry: StackGeometry) -> str:
    """The plane that the slices are closest to."""
    if geometry.orientation is None:
        return "native"
    normal = np.cross(geometry.orientation[:3], geometry.orientation[3:])
    return _PLANES[int(np.abs(normal).argmax())]


def _syntax(uid: str) -> str:
    name: str = UID(uid).name
    return name if name != uid else "private transfer syntax"
