# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Export what a reviewer accepted: segmentations and masks of these regions alone, reports, and a table of all."""

from __future__ import annotations

import csv
import io
import shutil
import zipfile
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from PIL import Image

from monai_anomalyclip import RESEARCH_USE_ONLY
from monai_anomalyclip.app.findings import Decision, Region, Review, find_regions
from monai_anomalyclip.app.studies import Study
from monai_anomalyclip.atomic_file import make_private_folder, replaced_when_complete, write_atomically
from monai_anomalyclip.data.inputs import InputCatalogue
from monai_anomalyclip.data.sources import DicomSource, Source
from monai_anomalyclip.writers.dicom import ReportedFinding, write_report, write_segmentation
from monai_anomalyclip.writers.dicom.provenance import provenance_of
from monai_anomalyclip.writers.finished import InputState

__all__ = ["COLUMNS", "export_accepted"]

COLUMNS = (
    "name", "finding", "verdict", "note", "slice", "instance_number", "position_mm", "first_slice", "last_slice",
    "voxels", "volume_ml", "map_max", "anomaly_score", "threshold",
)  # fmt: skip


def export_accepted(study: Study, review: Review) -> Path:
    """Write ``accepted.zip`` into the study's folder.

    It holds, for each input with an accepted finding, ``<name>_accepted_seg.dcm`` and ``<name>_accepted_sr.dcm``
    (DICOM), ``<name>_accepted_mask.nii.gz`` (volumes) or ``.png`` (pictures); and ``findings.csv``, a row per finding
    with what was decided.

    Args:
        study: with results.
        review: what was decided.

    Returns:
        the archive.
    """
    folder = study.folder / "accepted"
    shutil.rmtree(folder, ignore_errors=True)
    make_private_folder(folder)
    sources: dict[str, Source] | None = None
    rows: list[dict[str, Any]] = []
    for name, state in study.states().items():
        if state is None or state.state != "finished" or state.record is None or state.record.status != "ok":
            continue
        regions, _, labels, mask = find_regions(study.results, state)
        decisions = review.decisions(state)
        rows += [_row(state, region, decisions.get(region.number, Decision())) for region in regions]
        numbers = [number for number, decision in decisions.items() if decision.verdict == "accepted"]
        if not numbers:
            continue
        make_private_folder((folder / name).parent)
        if labels is None or mask is None:
            _copy(study.results, folder, state, ("_seg.dcm", "_sr.dcm", "_frames.csv"))
            continue
        chosen = np.isin(labels, numbers) & (labels > 0)
        if mask.suffix == ".png":
            Image.fromarray(chosen.astype(np.uint8) * 255).save(folder / f"{name}_accepted_mask.png")
        else:
            file = nib.load(mask)
            nib.save(
                nib.Nifti1Image(chosen.astype(np.uint8), file.affine, file.header),
                folder / f"{name}_accepted_mask.nii.gz",
            )
        if any(path.endswith("_seg.dcm") for path in state.record.outputs):
            if sources is None:
                sources = InputCatalogue(study.inputs).sources
            source = sources.get(name)
            if isinstance(source, DicomSource):
                accepted = [
                    _reported(region, decisions[region.number]) for region in regions if region.number in numbers
                ]
                _write_dicom(source, state, chosen, accepted, folder / f"{name}_accepted")
    _write_table(folder / "findings.csv", rows)
    notice = f"{RESEARCH_USE_ONLY}\n\nWhat a reviewer accepted of the findings of this program.\n"
    write_atomically(folder / "NOTICE.txt", notice.encode())
    archive = study.folder / "accepted.zip"
    with (
        replaced_when_complete(archive) as unfinished,
        zipfile.ZipFile(unfinished, "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                packed.write(path, path.relative_to(folder).as_posix())
    archive.chmod(0o600)
    return archive


def _reported(region: Region, decision: Decision) -> ReportedFinding:
    frames = range(region.first, region.last + 1)
    return ReportedFinding(region.number, frames, region.map_max or 0.0, region.volume_ml, decision.note)


def _write_dicom(
    source: DicomSource, state: InputState, chosen: Any, findings: list[ReportedFinding], path: Path
) -> None:
    """The accepted regions as a DICOM Segmentation on the frames of the source, and as a Structured Report."""
    if state.made_with is None or state.record is None:
        return
    # A stack is (columns, rows, frames) as stored; a picture (rows, columns).
    mask = chosen.transpose(2, 1, 0) if chosen.ndim == 3 else chosen[None]
    record = state.record
    shown = {"threshold": record.threshold, "preset": record.intensity.preset if record.intensity else "none"}
    settings = state.made_with.settings
    codes = {"category": settings.get("segment_category"), "segment_type": settings.get("segment_type")}
    provenance = provenance_of(state.made_with.model, {**shown, "reviewed": True})
    write_segmentation(
        source.series,
        np.ascontiguousarray(mask).astype(np.uint8),
        path.with_name(f"{path.name}_seg.dcm"),
        provenance=provenance,
        overwrite=True,
        **{name: code for name, code in codes.items() if code},
    )
    write_report(
        source.series,
        [score or 0.0 for score in record.scores],
        path.with_name(f"{path.name}_sr.dcm"),
        score=record.anomaly_score or 0.0,
        threshold=record.threshold,
        provenance=provenance,
        top=0,
        findings=findings,
        overwrite=True,
    )


def _copy(results: Path, folder: Path, state: InputState, ends: tuple[str, ...]) -> None:
    assert state.record is not None
    for output in state.record.outputs:
        if output.endswith(ends):
            shutil.copyfile(results / output, folder / output)
            (folder / output).chmod(0o600)


def _row(state: InputState, region: Region, decision: Decision) -> dict[str, Any]:
    assert state.record is not None
    numbers, positions = state.slices.instance_number, state.slices.position_mm
    whole = region.number == 0
    return {
        "name": state.name,
        "finding": "all" if whole else region.number,
        "verdict": decision.verdict,
        "note": _no_formula(decision.note),
        "slice": region.slice,
        "instance_number": numbers[region.slice] if region.slice < len(numbers) else "",
        "position_mm": positions[region.slice] if region.slice < len(positions) else "",
        "first_slice": region.first,
        "last_slice": region.last,
        "voxels": region.voxels or "",
        "volume_ml": region.volume_ml,
        "map_max": region.map_max,
        "anomaly_score": state.record.anomaly_score,
        "threshold": state.record.threshold,
    }


def _no_formula(text: str) -> str:
    """A note that no spreadsheet takes for a formula."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def _write_table(path: Path, rows: list[dict[str, Any]]) -> None:
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, stream.getvalue().encode("utf-8", "replace"))
