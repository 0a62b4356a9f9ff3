# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""A page that shows a volume and its map in three planes and in 3-D, drawn by NiiVue: nothing is fetched.

NiiVue is the one that the package ipyniivue carries. Source and map come from the preview that the report's viewer
shows, as NIfTI of 8 bits; where they lie, from the map's file.
"""

from __future__ import annotations

import base64
import functools
import io
import json
import re
from collections.abc import Sequence
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from PIL import Image

from monai_anomalyclip import RESEARCH_USE_ONLY
from monai_anomalyclip.atomic_file import write_atomically
from monai_anomalyclip.writers.html_report import Inline, own_page, read_part, style, template
from monai_anomalyclip.writers.output_folder import preview_path
from monai_anomalyclip.writers.viewer_data import MOST_SHOWN

__all__ = ["VIEWER_3D", "write_3d_pages"]

VIEWER_3D = "_3d.html"

_MOST_VOXELS = 2**24  # of the source: such a page opens in seconds
_CLASS = re.compile(r'"Creating new Niivue instance"\).{0,200}?\bnew ([\w$]+)\(', re.DOTALL)


def write_3d_pages(folder: Path, names: Sequence[str], most: int) -> list[Path]:
    """Write ``<name>_3d.html`` for the first inputs that have a preview of slices and a map in NIfTI.

    Args:
        folder: of results.
        names: of its inputs, the most suspicious first.
        most: number of pages.

    Returns:
        the pages.

    Raises:
        ModuleNotFoundError: ipyniivue is not installed.
        ValueError: it is a version whose script is built otherwise, or `most` is below 1.
        FileExistsError: a file of this name is not such a page.
    """
    if most < 1:
        raise ValueError(f"There can be 1 page in 3-D or more, not {most}.")
    script = _script()
    pages: list[Path] = []
    for name in names:
        preview, file = preview_path(folder, name), folder / f"{name}_map.nii.gz"
        if len(pages) == most or not (preview.is_file() and file.is_file()):
            continue
        shown = json.loads(preview.read_text(encoding="utf-8"))
        if shown.get("axes") is None:
            continue
        page = folder / f"{name}{VIEWER_3D}"
        if page.exists() and not own_page(page):
            raise FileExistsError(f"{page.name!r} in the output folder is not a page of this program: move it away.")
        text = template("viewer_3d.html.jinja").render(
            notice=RESEARCH_USE_ONLY,
            style=style("report", "viewer", "viewer_3d"),
            script=script,
            licence=metadata.distribution("ipyniivue").read_text("licenses/LICENSE"),
            name=name,
            data=json.dumps(_volumes(shown, nib.loadsave.load(file).affine)).replace("<", "\\u003c"),
            home="../" * name.count("/") + "report.html",
        )
        write_atomically(page, text.encode("utf-8", errors="replace"), durable=False)
        pages.append(page)
    return pages


def _volumes(shown: dict[str, Any], affine: npt.NDArray[np.float64]) -> dict[str, Any]:
    """Source and map of a preview as NIfTI, the threshold, and the highest place of the most suspicious slice."""
    step = -(-shown["count"] // MOST_SHOWN)
    even = [at for at, index in enumerate(shown["shown"]) if index % step == 0]
    side = int(np.sqrt(_MOST_VOXELS / len(even)))
    sources = _stack([shown["sources"][at] for at in even], side)
    maps = _stack([shown["maps"][at] for at in even], side)
    worst = min(range(len(even)), key=lambda at: shown["ranks"][even[at]])
    row, column = np.unravel_index(int(maps[worst].argmax()), maps[worst].shape)
    grid = affine @ _to_voxels(shown, step, maps.shape[1:])
    return {
        "source": _nifti(sources, affine @ _to_voxels(shown, step, sources.shape[1:])),
        "map": _nifti(maps, grid),
        "threshold": min(0.95, shown["threshold"]),
        "place": [round(float(one), 3) for one in (grid @ [column, row, worst, 1])[:3]],
    }


def _stack(pictures: Sequence[str], side: int) -> npt.NDArray[np.uint8]:
    """(D, H, W) gray of pictures that are data addresses, no side longer than `side`."""
    slices = []
    for picture in pictures:
        with Image.open(io.BytesIO(base64.b64decode(picture.partition(",")[2]))) as image:
            gray = image.convert("L")
        if (most := max(gray.size)) > side:
            gray = gray.resize([max(1, round(length * side / most)) for length in gray.size], Image.Resampling.BOX)
        slices.append(np.asarray(gray))
    return np.stack(slices)


def _to_voxels(shown: dict[str, Any], step: int, size: Sequence[int]) -> npt.NDArray[np.float64]:
    """(4, 4) matrix from (column, row, slice) of a smaller stack to voxels of the volume; see ``SliceView``."""
    axes = shown["axes"]
    along, down, across = axes["order"]
    matrix = np.zeros((4, 4))
    matrix[3, 3], matrix[along, 2] = 1, step
    for place, axis, length, whole, flipped in (
        (1, down, size[0], shown["size"][0], axes["flip_rows"]),
        (0, across, size[1], shown["size"][1], axes["flip_columns"]),
    ):
        scale = whole / length
        first = (scale - 1) / 2  # the middle of the first pixel
        matrix[axis, place] = -scale if flipped else scale
        matrix[axis, 3] = whole - 1 - first if flipped else first
    return matrix


def _nifti(slices: npt.NDArray[np.uint8], affine: npt.NDArray[np.float64]) -> str:
    image = nib.Nifti1Image(slices.transpose(2, 1, 0), affine)
    image.header.set_slope_inter(1 / 255, 0)
    image.header.set_xyzt_units("mm")
    stream = io.BytesIO()
    file = nib.fileholders.FileHolder(fileobj=stream)
    image.to_file_map({"header": file, "image": file})
    return base64.b64encode(stream.getvalue()).decode()


def _script() -> Inline:
    """NiiVue, as a module that ends with our own part."""
    package = find_spec("ipyniivue")  # its script alone is read: the package needs Jupyter's
    if package is None or not package.submodule_search_locations:
        raise ModuleNotFoundError("3-D pages need NiiVue: pip install ipyniivue, or this package with [viewer3d].")
    return _with_our_part(Path(package.submodule_search_locations[0]) / "static" / "widget.js")


@functools.cache
def _with_our_part(widget: Path) -> Inline:
    text = widget.read_text(encoding="utf-8")
    found = _CLASS.search(text)
    if found is None:
        raise ValueError("The installed ipyniivue is built otherwise than 2.4.4: pip install ipyniivue==2.4.4.")
    text = text.replace("</script", "<\\/script").replace("<!--", "<\\!--")
    return Inline.of(f"{text}\nconst Niivue = {found[1]};\n{read_part('viewer_3d.js')}")
