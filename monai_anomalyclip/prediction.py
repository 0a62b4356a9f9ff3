# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""What the network says of one image: map, scores, pictures, files."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from monai.data.meta_tensor import MetaTensor
from PIL import Image

from monai_anomalyclip import RESEARCH_USE_ONLY
from monai_anomalyclip.atomic_file import make_private_folder
from monai_anomalyclip.data.naming import anonymous_names
from monai_anomalyclip.data.slicing import SliceView
from monai_anomalyclip.data.sources import DicomSource
from monai_anomalyclip.writers.record import Compared, Fused, caution_of

if TYPE_CHECKING:
    import nibabel as nib
    from pydicom import Dataset

    from monai_anomalyclip.data.in_memory import GivenImage

__all__ = ["Geometry", "Prediction"]


@dataclass(frozen=True)
class Geometry:
    """Where an image lies.

    Attributes:
        verdict: of the geometry check: "regular", "picture", "single slice", "sheared", or what keeps a DICOM stack
            from being a volume ("gaps", "irregular spacing", "gantry tilt", ...).
        affine: (4, 4) from voxel index to mm in RAS; None where none is true.
    """

    verdict: str
    affine: npt.NDArray[np.float64] | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Prediction:
    """The result of :class:`~monai_anomalyclip.Predictor` for one image. No file is written unless asked for.

    Research use only. Scores are not calibrated: they rank images.

    Attributes:
        map: anomaly map as MetaTensor (1, H, W) or (1, X, Y, Z), float32 in [0, 1], on the image's own grid.
        scores: (n,) float32 in [0, 1], the anomaly score of every slice or frame; one for a picture.
        margins: (n,) float32, the difference of the two logits: it ranks where scores round to 1. None where the
            network has none.
        p_value: share of the normals of a reference, this image counted in, that are at least as far; None without a
            reference, or with fewer than four normals.
        compared: the numbers behind it, for each way of scoring.
        fused: both ways of scoring as one, where that was asked for.
        threshold: of masks, unless another is given: the bundle's.
        warnings: sentences about the image that a reader of the result should know.
        image: what the network saw: MetaTensor in [0, 1], channel first.
    """

    map: MetaTensor = field(repr=False)
    scores: npt.NDArray[np.float32]
    margins: npt.NDArray[np.float32] | None = field(repr=False)
    p_value: float | None
    threshold: float
    warnings: tuple[str, ...]
    image: MetaTensor = field(repr=False)
    compared: tuple[Compared, ...]
    fused: Fused | None
    _given: GivenImage = field(repr=False)
    _view: SliceView | None = field(repr=False)
    _model: Any = field(repr=False)

    @property
    def anomaly_map(self) -> Any:
        """The anomaly map, float32 in [0, 1], as the kind of object that was given and in its geometry.

        NumPy in, NumPy out, without channel; PIL gives NumPy (H, W); nibabel and SimpleITK give images of the same
        affine; tensors and MetaTensors keep their channel; paths and DICOM datasets give a MetaTensor (1, ...).
        """
        return self._given.like_given(self.map)

    @property
    def anomaly_score(self) -> float:
        """Score of the whole image in [0, 1]: that of its most suspicious slice. Not calibrated."""
        return float(self.scores.max())

    @property
    def most_suspicious(self) -> int:
        """Index of the most suspicious slice: by score, then margin, highest value of the map, and area of the mask."""
        return int(self._findings.order()[0])

    @property
    def geometry(self) -> Geometry:
        """Where the image lies."""
        if isinstance(source := self._given.source, DicomSource):
            stack = source.series.geometry
            return Geometry(stack.verdict, stack.affine())
        if self._view is None:
            return Geometry("picture")
        matrix = np.asarray(self.map.affine, dtype=np.float64)
        axes = matrix[:3, :3] / np.linalg.norm(matrix[:3, :3], axis=0)
        sheared = not np.allclose(axes.T @ axes, np.eye(3), atol=1e-3)
        return Geometry("sheared" if sheared else "regular", matrix)

    @property
    def _ceiling(self) -> float:
        return float(getattr(self._model.network, "map_ceiling", 1.0))

    def mask(self, threshold: float | None = None) -> Any:
        """Where the map reaches a threshold, as the kind of object that was given (bool; uint8 in image files' types).

        Args:
            threshold: in [0, 1]; default the bundle's.

        Raises:
            ValueError: it is not in [0, 1].
        """
        return self._given.like_given(self._mask(threshold))

    def overlay(self, index: int | None = None, threshold: float | None = None) -> Image.Image:
        """The map over a picture, or over one slice of a volume, with the mask's outline.

        Args:
            index: of the slice; default the most suspicious one.
            threshold: of the outline; default the bundle's.

        Raises:
            IndexError: there is no such slice.
        """
        from monai_anomalyclip.writers.overlays import displayable, overlay

        chosen = self.most_suspicious if index is None else index
        if not 0 <= chosen < len(self.scores):
            raise IndexError(f"There is no slice {chosen}: those of this image are 0 to {len(self.scores) - 1}.")
        picture, values, mask = (
            self._slices(tensor)[chosen] for tensor in (self.image, self.map, self._mask(threshold))
        )
        shown = displayable(picture).permute(1, 2, 0).expand(-1, -1, 3).contiguous().numpy()
        return Image.fromarray(
            overlay(shown, values[0].numpy(), mask[0].numpy().astype(np.uint8), ceiling=self._ceiling)
        )

    def to_nifti(self, threshold: float | None = None) -> nib.Nifti1Image:
        """The map as a NIfTI image (X, Y, Z) float32; with a threshold the mask, uint8.

        Raises:
            ValueError: a picture, or a stack without a true affine, has no place in a NIfTI file.
        """
        from monai_anomalyclip.writers.nifti import NiftiGrid

        affine = self.geometry.affine
        if affine is None:
            raise ValueError(f"The geometry of this image is {self.geometry.verdict!r}: it has no affine for NIfTI.")
        values = self.map if threshold is None else self._mask(threshold)
        array = values.as_tensor()[0].numpy()
        image: nib.Nifti1Image = NiftiGrid(affine, array.shape).image(
            array if threshold is None else array.astype(np.uint8)
        )
        return image

    def to_dicom_seg(self, threshold: float | None = None) -> Dataset:
        """The mask as a DICOM Segmentation of the source's frames.

        Raises:
            ValueError: the image did not come from DICOM, or its frames have no places.
        """
        from monai_anomalyclip.writers.dicom import segmentation

        source = self._given.source
        if not isinstance(source, DicomSource):
            raise ValueError("Only DICOM images can have a DICOM segmentation: this one came from elsewhere.")
        limit = self.threshold if threshold is None else threshold
        stack = self._slices(self._mask(threshold))[:, 0].numpy()
        return segmentation.make_segmentation(source.series, stack, provenance=self._provenance(limit))

    def _mask(self, threshold: float | None) -> MetaTensor:
        limit = self.threshold if threshold is None else threshold
        if not 0 <= limit <= 1:
            raise ValueError(f"A threshold must lie in [0, 1], got {limit}.")
        mask: MetaTensor = self.map >= limit
        return mask

    def _slices(self, tensor: MetaTensor) -> torch.Tensor:
        """Slices (n, C, H, W)."""
        return tensor.as_tensor()[None] if self._view is None else self._view.to_slices(tensor)

    @cached_property
    def _findings(self) -> Any:
        from monai_anomalyclip.writers.findings import Findings

        maps, masks = (self._slices(tensor)[:, 0].numpy() for tensor in (self.map, self._mask(None)))
        return Findings.of(self.scores, maps, masks, self.margins)

    def _provenance(self, threshold: float) -> Any:
        from monai_anomalyclip.writers.dicom.provenance import describe_model, provenance_of

        model = describe_model(self._model.network, self._model.prompts)
        preset = json.loads(self.image.meta.get("intensity") or "{}").get("preset", "none")
        return provenance_of(model, {"threshold": threshold, "preset": preset}, False, "")

    def _repr_png_(self) -> bytes:
        import io

        stream = io.BytesIO()
        self.overlay().save(stream, format="PNG")
        return stream.getvalue()

    def _repr_html_(self) -> str:
        rows: Sequence[tuple[str, str]] = [
            ("anomaly score", f"{self.anomaly_score:.3f} (not calibrated)"),
            *([("slices", f"{len(self.scores)}, most suspicious {self.most_suspicious}")] if self._view else []),
            ("geometry", self.geometry.verdict),
            *(("warning", text) for text in self.warnings),
        ]
        said = f"{RESEARCH_USE_ONLY} {caution_of(self._model.network.backbone_sha256)}".strip()
        table = "".join(f"<tr><th>{html.escape(name)}</th><td>{html.escape(text)}</td></tr>" for name, text in rows)
        picture = base64.b64encode(self._repr_png_()).decode()
        return (
            f'<img src="data:image/png;base64,{picture}" alt="anomaly map over the image" style="max-width: 30em">'
            f"<table>{table}</table><small>{html.escape(said)}</small>"
        )

    def save(self, folder: str | Path, outputs: Sequence[str] = ("default",), name: str = "") -> list[Path]:
        """Write the files that the command would write for this image (see docs/studies.md); nothing is replaced.

        Args:
            folder: made when absent.
            outputs: kinds of files: "nifti", "map32", "seg", "sr", "png", "heat16", "pm", "sc" or "default".
            name: beginning of the files' names; by default the name that the command gives to the path, and what kind
                of image it is for those in memory.

        Returns:
            the files.

        Raises:
            FileExistsError: a file exists.
            ValueError: an unknown kind, or a film: those are written while they are scored, by ``predict``.
        """
        from monai_anomalyclip.writers.output_folder import parse_output_kinds
        from monai_anomalyclip.writers.result_files import FRAME_RESULTS, NIFTI_RESULTS, refuse_existing, result_paths
        from monai_anomalyclip.writers.scored_input import DICOM_RESULTS, WORST, ScoredInput, write_results

        if self.map.ndim == 4 and self.image.meta.get("kind") == "cine":
            raise ValueError("The files of a film are written while it is scored: use monai_anomalyclip.predict.")
        mask = self._mask(None)
        kinds = parse_output_kinds(outputs)
        source = self._given.source
        scored = ScoredInput(
            source,
            self.image,
            self.map,
            mask,
            self._findings,
            self._view,
            self._ceiling,
            caption=f"anomaly score {self.anomaly_score:.3f}  |  outline: map >= {self.threshold:g}",
        )
        stem = name or (anonymous_names([source])[0] if source else "volume" if self._view else "frame")
        make_private_folder(Path(folder))
        refuse_existing(result_paths(folder, stem, [*FRAME_RESULTS, *NIFTI_RESULTS, WORST, *DICOM_RESULTS.values()]))
        provenance = self._provenance(self.threshold)
        paths, _ = write_results(folder, stem, scored, kinds, provenance=provenance, threshold=self.threshold)
        return paths
