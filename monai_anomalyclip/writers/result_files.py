# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Write the results of one input in its own geometry: map, mask and overlay, and finished DICOM objects as files."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from monai.data.meta_tensor import MetaTensor
from PIL import Image
from pydicom.dataset import Dataset
from torch import Tensor

from monai_anomalyclip.atomic_file import make_private_folder, replaced_when_complete, write_atomically
from monai_anomalyclip.data.dicom.pydicom_api import quiet_pydicom
from monai_anomalyclip.data.slicing import SliceView
from monai_anomalyclip.writers.overlays import (
    check_map_range,
    displayable,
    gray_png,
    jpeg,
    panels,
    whole_levels,
    with_square_pixels,
)
from monai_anomalyclip.writers.record import SAFE_NAME
from monai_anomalyclip.writers.slice_pictures import contact_sheet

if TYPE_CHECKING:
    from monai_anomalyclip.writers.nifti import NiftiGrid

__all__ = [
    "FRAME_RESULTS",
    "NIFTI_RESULTS",
    "OVERLAY",
    "check_size",
    "drawn_frame",
    "refuse_existing",
    "result_paths",
    "save",
    "silenced",
    "write_frame_result",
    "write_volume_result",
]

OVERLAY = "_overlay.jpg"
FRAME_RESULTS = ("_heat.png", "_mask.png", OVERLAY)
NIFTI_RESULTS = ("_map.nii.gz", "_mask.nii.gz")

_QUALITY = 90  # of JPEG


def write_frame_result(
    folder: str | os.PathLike[str],
    name: str,
    image: Tensor,
    anomaly_map: Tensor,
    mask: Tensor,
    *,
    suffixes: Sequence[str] = FRAME_RESULTS,
    caption: str = "",
    overwrite: bool = False,
    deep: bool = False,
    drawn: Image.Image | None = None,
    ceiling: float = 1.0,
) -> list[Path]:
    """Write a frame's map, mask and overlay, at the frame's resolution and without metadata.

    ``<name>_heat.png``: 8-bit gray, 0..255 for 0..1. ``<name>_mask.png``: 8-bit, 0 or 255. ``<name>_overlay.jpg``:
    the frame beside its overlay. Nothing is written when one of them cannot be made.

    Args:
        folder: the output folder.
        name: where below the folder, without suffix, as :class:`monai_anomalyclip.data.InputCatalogue` gives it.
        image: (3, H, W) or (1, H, W), uint8 or float.
        anomaly_map: (1, H, W) in [0, 1].
        mask: (1, H, W) or (H, W), non-zero where anomalous.
        suffixes: which of the files, of :data:`FRAME_RESULTS`.
        caption: text for the overlay's margin.
        overwrite: replace existing results.
        deep: the map in 16 bits, 0..65535 for 0..1: five times the bytes.
        drawn: the overlay with its margin, where :func:`drawn_frame` has made it already.
        ceiling: map value that the last colour stands for.

    Returns:
        The paths of the files.

    Raises:
        FileExistsError: results exist and `overwrite` is False.
        ValueError: shapes differ, the map leaves [0, 1], or the name would leave the folder.
    """
    heat, marked = _checked(image, anomaly_map, mask, spatial_dims=2)
    if drawn is None and OVERLAY in suffixes:
        drawn, _ = drawn_frame(image, heat, marked, caption=caption, ceiling=ceiling)
    makers: dict[str, Callable[[], bytes]] = {
        "_heat.png": lambda: gray_png(whole_levels(heat[0], 65535 if deep else 255)),
        "_mask.png": lambda: gray_png(marked[0] * np.uint8(255)),
        OVERLAY: lambda: jpeg(drawn, _QUALITY),  # type: ignore[arg-type]
    }
    return _write_all(folder, name, {suffix: makers[suffix]() for suffix in suffixes}, overwrite)


def drawn_frame(
    image: Tensor,
    anomaly_map: Tensor | npt.NDArray[np.float32],
    mask: Tensor | npt.NDArray[np.uint8],
    aspect: float = 1.0,
    *,
    caption: str = "",
    ceiling: float = 1.0,
    beside: Tensor | None = None,
) -> tuple[Image.Image, tuple[int, int]]:
    """A frame beside its overlay, with its margin; arguments as for :func:`write_frame_result`.

    `aspect` says how much wider than high a pixel is; it is drawn with square ones. `beside` is another map (1, H, W)
    in [0, 1], whose overlay is one more panel.

    Returns:
        The picture, and width and height of the panels at its upper left.
    """
    shown = displayable(image).permute(1, 2, 0).expand(-1, -1, 3).contiguous().numpy()
    marked = np.asarray(mask)[0]
    drawn = with_square_pixels(shown, np.asarray(anomaly_map)[0], marked, aspect)
    other = None if beside is None else with_square_pixels(shown, beside[0].numpy(), marked, aspect)[1]
    return panels(*drawn, ceiling=ceiling, beside=other, caption=caption)


def write_volume_result(
    folder: str | os.PathLike[str],
    name: str,
    image: Tensor,
    anomaly_map: Tensor,
    mask: Tensor,
    *,
    view: SliceView,
    grid: NiftiGrid | None = None,
    max_slices: int = 12,
    caption: str = "",
    order: Sequence[int] | None = None,
    overwrite: bool = False,
    float_map: bool = False,
    ceiling: float = 1.0,
    beside: Tensor | None = None,
) -> list[Path]:
    """Write a volume's map, mask and contact sheet.

    ``<name>_map.nii.gz`` (uint16 with the slope 1/32768, which readers apply) and ``<name>_mask.nii.gz`` (uint8, 0 or
    1) lie on the input's grid; ``<name>_overlay.jpg`` is the contact sheet.

    Args:
        folder: the output folder.
        name: where below the folder, without suffix.
        image: (1, X, Y, Z) or (3, X, Y, Z).
        anomaly_map: (1, X, Y, Z) in [0, 1].
        mask: (1, X, Y, Z) or (X, Y, Z), non-zero where anomalous.
        view: how the volume is sliced.
        grid: where the NIfTI files lie; None writes the contact sheet alone.
        max_slices: greatest number of slices on the contact sheet.
        caption: text for its margin.
        order: as for :func:`~monai_anomalyclip.writers.overlays.contact_sheet`.
        overwrite: replace existing results.
        float_map: the map as float32, unrounded: twice the bytes.
        ceiling: map value that the last colour stands for.
        beside: another map (1, X, Y, Z) in [0, 1], drawn to the right of each slice.

    Returns:
        The paths of the files.

    Raises:
        FileExistsError: results exist and `overwrite` is False.
        ValueError: shapes differ, the map leaves [0, 1], or the name would leave the folder.
    """
    heat, marked = _checked(image, anomaly_map, mask, spatial_dims=3)
    tensors = (_plain(image), torch.from_numpy(heat), torch.from_numpy(marked))
    sheet = contact_sheet(*tensors, view, max_slices, caption, order, ceiling=ceiling, beside=beside)
    contents = {}
    if grid is not None:
        packed = (grid.to_bytes(heat[0], rounded=not float_map), grid.to_bytes(marked[0]))
        contents = dict(zip(NIFTI_RESULTS, packed, strict=True))
    return _write_all(folder, name, {**contents, OVERLAY: jpeg(sheet, _QUALITY)}, overwrite)


def result_paths(folder: str | os.PathLike[str], name: str, suffixes: Sequence[str]) -> list[Path]:
    """Where the results of an input go.

    Raises:
        ValueError: the name could lead out of the folder.
    """
    if not re.fullmatch(SAFE_NAME, name):
        raise ValueError(
            f"Result name {name!r} must be a relative path of letters, digits and . _ - whose parts do not start "
            "with a dot."
        )
    return [Path(folder, name + suffix) for suffix in suffixes]


def refuse_existing(paths: Sequence[Path]) -> None:
    """Raise when one of the files exists.

    Raises:
        FileExistsError: names the files and the way out.
    """
    if existing := [path.name for path in paths if path.exists()]:
        raise FileExistsError(
            f"{', '.join(existing)} exist already in the output folder: choose another folder, or set overwrite "
            "(--force; --overwrite True for a bundle)."
        )


def _checked(
    image: Tensor, anomaly_map: Tensor, mask: Tensor, spatial_dims: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
    """The map (1, *size) float32 and the mask (1, *size) of 0 and 1, after their shapes and range were looked at."""
    heat = _plain(anomaly_map).detach().cpu().float().numpy()
    flags = _plain(mask).detach().cpu()
    flags = flags if flags.dtype == torch.bool else flags != 0
    marked = flags.view(torch.uint8).numpy()  # no copy, however large
    marked = marked if marked.ndim == heat.ndim else marked[None]
    if image.ndim != 1 + spatial_dims or heat.shape != (1, *image.shape[1:]) or marked.shape != heat.shape:
        raise ValueError(
            f"Expected a map and a mask of the image's size {tuple(image.shape[1:])} with one channel, got "
            f"{tuple(anomaly_map.shape)} and {tuple(mask.shape)}."
        )
    check_map_range(heat)
    return heat, marked


def _plain(image: Tensor) -> Tensor:
    return image.as_tensor() if isinstance(image, MetaTensor) else image


def _write_all(folder: str | os.PathLike[str], name: str, contents: Mapping[str, bytes], overwrite: bool) -> list[Path]:
    paths = result_paths(folder, name, tuple(contents))
    if not overwrite:
        refuse_existing(paths)
    make_private_folder(paths[0].parent)
    for path, content in zip(paths, contents.values(), strict=True):
        write_atomically(path, content, durable=False)  # a run seals the files of an input all at once
    return paths


@contextmanager
def silenced() -> Iterator[None]:
    """Silence pydicom and highdicom, whose messages quote names and identifiers; also a decorator: ``@silenced()``."""
    logger = logging.getLogger("highdicom")
    level = logger.level
    with quiet_pydicom():  # and all warnings
        logger.setLevel(logging.CRITICAL + 1)
        try:
            yield
        finally:
            logger.setLevel(level)


_LARGEST_VALUE = 2**32 - 2  # bytes of one uncompressed element (DICOM PS3.5 section 7.1)


def check_size(n_bytes: int) -> None:
    """Refuse pixels that do not fit into one element.

    Raises:
        ValueError: more than 4 GiB.
    """
    if n_bytes > _LARGEST_VALUE:
        raise ValueError(f"A DICOM object holds at most 4 GiB of pixels, got {n_bytes:,} bytes: use another format.")


@silenced()
def save(dataset: Dataset, path: str | os.PathLike[str], overwrite: bool) -> Path:
    """Write an object as a DICOM file that its owner alone can read, and that is never seen half-written.

    Args:
        dataset: with file meta information.
        path: of the file; its folder must exist.
        overwrite: replace an existing file.

    Returns:
        The path.

    Raises:
        FileExistsError: the file exists and `overwrite` is False.
    """
    final = Path(path)
    if not overwrite:
        refuse_existing([final])
    with replaced_when_complete(final) as unfinished:
        handle = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "wb") as stream:
            dataset.save_as(stream, enforce_file_format=True)
    return final
