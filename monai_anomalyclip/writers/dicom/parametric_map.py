# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The anomaly map as a DICOM Parametric Map."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from monai_anomalyclip.data.dicom.series import DicomSeries
from monai_anomalyclip.writers.dicom.provenance import ANOMALY_MAP, NO_UNITS, Provenance, private_scheme_item
from monai_anomalyclip.writers.dicom.source_headers import (
    check_references,
    check_shape,
    frame_headers,
    is_placed,
)
from monai_anomalyclip.writers.dicom.source_restoration import restore_source
from monai_anomalyclip.writers.overlays import check_map_range
from monai_anomalyclip.writers.result_files import check_size, save, silenced

__all__ = ["write_parametric_map"]

_ENTIRE_BODY = Code("38266002", "SCT", "Entire body")


@silenced()
def write_parametric_map(
    series: DicomSeries,
    maps: npt.NDArray[Any],
    path: str | os.PathLike[str],
    *,
    provenance: Provenance,
    overwrite: bool = False,
) -> Path:
    """Write anomaly maps as a DICOM Parametric Map of 32-bit floating point values (DICOM PS3.3 A.75).

    Every frame has the position of its source frame; nothing is resampled or rescaled.

    Args:
        series: the source: a stack, or one frame, with positions.
        maps: (n, rows, columns) in [0, 1], in the order of `series.frames`; stored as float32.
        path: the file to write; its folder must exist.
        provenance: which algorithm made the maps.
        overwrite: replace an existing file.

    Returns:
        The path of the file.

    Raises:
        FileExistsError: the file exists and `overwrite` is False.
        ValueError: the maps' shape is not that of the series, they leave [0, 1], or they are too large; no
            positions, which this object must have; a source without UIDs.
    """
    check_references(series)
    check_shape(series, maps.shape, "maps")
    check_map_range(maps)
    check_size(4 * maps.size)
    if not is_placed(series):
        raise ValueError(
            "A DICOM parametric map needs positions, orientation and pixel spacing, which this series lacks: write the "
            "map in another format, such as PNG."
        )
    mapping = hd.pm.RealWorldValueMapping(
        lut_label="ANOMALY",
        lut_explanation="Anomaly map, from 0 (normal) to 1; not calibrated",
        unit=NO_UNITS,
        value_range=(0.0, 1.0),
        slope=1.0,
        intercept=0.0,
        quantity_definition=ANOMALY_MAP,
    )
    result = hd.pm.ParametricMap(
        source_images=frame_headers(series),
        pixel_array=np.asarray(maps, dtype=np.float32),
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[mapping],
        voi_lut_transformations=[hd.VOILUTTransformation(window_center=0.5, window_width=1.0)],
        content_label="ANOMALY",
        content_description="Anomaly map; research use only",
        content_creator_name="AnomalyCLIP^",
        content_qualification=hd.ContentQualificationValues.RESEARCH,
        coding_schemes=[private_scheme_item()],
        contributing_equipment=[provenance.contributing_equipment()],
        **provenance.identity(series, "parametric map"),
        **provenance.equipment,
    )
    restore_source(result, series)
    provenance.name_dimensions(result, series, "parametric map")
    result.SharedFunctionalGroupsSequence[0].FrameAnatomySequence = [_anatomy(series)]
    return save(result, path, overwrite)


def _anatomy(series: DicomSeries) -> Dataset:
    """Frame Anatomy macro (DICOM PS3.3 C.7.6.16.2.8): dcmqi does not survive its absence."""
    side = str(series.common("ImageLaterality") or series.common("Laterality") or "U").strip().upper()
    item = Dataset()
    item.AnatomicRegionSequence = [hd.sr.CodedConcept.from_code(_ENTIRE_BODY)]
    item.FrameLaterality = side if side in ("L", "R", "B") else "U"
    return item
