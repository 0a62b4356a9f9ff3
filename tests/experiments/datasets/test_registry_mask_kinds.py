# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Masks of every kind that the data sets hold come out as what was drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from monai_anomalyclip.data import LoadInputd, LoadMaskd, load_datalist
from monai_anomalyclip.data.datasets import make_datalist, write_datalist

TRUTH = np.zeros((40, 48), np.uint8)
TRUTH[8:24, 8:32] = 1
TRUTH[28:36, 40:48] = 1


def palette(values: np.ndarray, colours: list[int]) -> Image.Image:
    picture = Image.fromarray(values, mode="P")
    picture.putpalette(colours)
    return picture


def coloured() -> np.ndarray:
    mask = np.zeros((*TRUTH.shape, 3), np.uint8)
    mask[8:24, 8:32] = (0, 0, 128)
    mask[28:36, 40:48] = (0, 200, 0)
    return mask


KINDS = {
    "zero_one.png": Image.fromarray(TRUTH),
    "zero_255.png": Image.fromarray(TRUTH * 255),
    "classes.png": Image.fromarray(TRUTH * np.arange(1, 49, dtype=np.uint8) % 7 + TRUTH),
    "bits.png": Image.fromarray(TRUTH.astype(bool)),
    "palette.png": palette(TRUTH, [0, 0, 0, 128, 0, 0]),
    "rgb.png": Image.fromarray(np.repeat(TRUTH[..., None] * 255, 3, axis=2).astype(np.uint8)),
    "coloured.png": Image.fromarray(coloured()),
    "rgba.png": Image.fromarray(np.dstack([np.full((*TRUTH.shape, 3), 255, np.uint8), TRUTH * 255])),
    "deep.png": Image.fromarray(TRUTH.astype(np.uint16) * 2),
    "gray.gif": Image.fromarray(TRUTH * 255),
    "zero_one.gif": Image.fromarray(TRUTH),
    "palette.gif": palette(TRUTH, [0, 0, 0, 0, 90, 200]),
    "transparent.gif": palette(TRUTH, [255, 255, 255, 0, 90, 200]),
    "gray.bmp": Image.fromarray(TRUTH * 255),
    "gray.tif": Image.fromarray(TRUTH * 255),
}


def load(tmp_path: Path) -> np.ndarray:
    Image.fromarray(np.full((*TRUTH.shape, 3), 90, np.uint8)).save(tmp_path / "image.png")
    (tmp_path / "images").mkdir()
    (tmp_path / "image.png").rename(tmp_path / "images/image.png")
    listing = make_datalist("folder", tmp_path)
    (item,) = load_datalist(write_datalist(listing, tmp_path / "d.json"), "testing")
    assert item["image_label"] == 1
    return LoadMaskd()(LoadInputd("image")(item))["label"][0].numpy()


@pytest.mark.parametrize("name", KINDS)
def test_mask_kind(tmp_path: Path, name: str) -> None:
    (tmp_path / "masks").mkdir()
    options = {"transparency": 0} if name.startswith("transparent") else {}
    KINDS[name].save(tmp_path / "masks" / f"image{Path(name).suffix}", **options)
    np.testing.assert_array_equal(load(tmp_path), TRUTH)


def test_jpeg(tmp_path: Path) -> None:
    (tmp_path / "masks").mkdir()
    Image.fromarray(TRUTH * 255).save(tmp_path / "masks/image.jpg", quality=75)
    assert (load(tmp_path) != TRUTH).mean() < 0.01


def test_three_samples_tagged_as_gray(tmp_path: Path) -> None:
    """As CVC-ClinicDB stores its masks."""
    (tmp_path / "masks").mkdir()
    mask = np.repeat(TRUTH[..., None] * 255, 3, axis=2).astype(np.uint8)
    tifffile.imwrite(tmp_path / "masks/image.tif", mask, photometric="minisblack", planarconfig="contig", metadata=None)
    np.testing.assert_array_equal(load(tmp_path), TRUTH)
