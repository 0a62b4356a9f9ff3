# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from monai_anomalyclip.data import UnreadableInputError, read_frame
from monai_anomalyclip.data.checksums import check_png

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 50, 3)).astype(np.uint8)


def test_png_with_a_changed_pixel_is_damaged_wherever_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(PIXELS).save(path)
    content = path.read_bytes()
    start, end = content.index(b"IDAT") + 4, content.index(b"IEND") - 8
    for place in (*range(start, end, 97), end - 5, end - 1):
        changed = bytearray(content)
        changed[place] ^= 4
        path.write_bytes(changed)
        with pytest.raises(UnreadableInputError, match="damaged"):
            read_frame(path)


def test_what_is_beside_the_picture_may_have_a_wrong_checksum(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, "PNG", dpi=(100, 100))
    content = bytearray(buffer.getvalue())
    content[content.index(b"pHYs") + 13] ^= 1
    check_png(io.BytesIO(content))
    with pytest.raises(UnreadableInputError, match="truncated"):
        check_png(io.BytesIO(content[:-20]))
    check_png(io.BytesIO(b"no PNG"))


@pytest.mark.parametrize("options", [{}, {"tile": (16, 16)}, {"rowsperstrip": 5, "predictor": True}])
def test_deflated_tiff_with_a_changed_pixel_is_damaged(options: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, PIXELS, photometric="rgb", compression="zlib", metadata=None, **options)
    np.testing.assert_array_equal(read_frame(path), PIXELS)
    content = path.read_bytes()
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        parts = list(zip(page.dataoffsets, page.databytecounts, strict=True))  # type: ignore[union-attr]
    for offset, count in parts[:: max(1, len(parts) // 4)]:
        for place in range(offset + 2, offset + count, max(1, count // 9)):
            changed = bytearray(content)
            changed[place] ^= 4
            path.write_bytes(changed)
            with pytest.raises(UnreadableInputError, match="damaged"):
                read_frame(path)
