# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image

from monai_anomalyclip.data.inputs import InputCatalogue
from monai_anomalyclip.data.sources import InputPart
from monai_anomalyclip.writers.findings import Findings, view_of
from monai_anomalyclip.writers.viewer_data import (
    MOST_SHOWN,
    PreviewFrames,
    film_preview,
    orientation_letters,
    preview,
    shown_frames,
)


def decoded(address: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))))


def smooth(shape: tuple[int, ...]) -> np.ndarray:
    """A map that differs along every axis, in [0, 1]."""
    grids = np.meshgrid(*(np.linspace(0, 1, side) for side in shape), indexing="ij")
    values = sum(weight * grid**2 for weight, grid in zip((0.5, 0.3, 0.2), grids, strict=False))
    return np.asarray(values, dtype=np.float32)


def made(name: str, path: Path, heat: np.ndarray, **scores: Any) -> dict[str, Any]:
    """The preview of a file with a map of its shape."""
    (source,) = InputCatalogue(path).sources.values()
    image = InputPart(source).load()
    maps = torch.from_numpy(heat)[None]
    view = view_of(source, image, "auto") if source.kind == "volume" else None
    slices = maps[:, None] if view is None else view.to_slices(maps)
    found = slices[:, 0].numpy()
    findings = Findings.of(found.max(axis=(1, 2)), found, found >= 0.5)
    content: dict[str, Any] = json.loads(preview(name, source, image, maps, findings, view, 0.5))
    return content


def test_slices_of_a_volume(tmp_path: Path) -> None:
    shape = (300, 200, 7)
    heat = smooth(shape)
    affine = np.array([[-0.5, 0, 0, 10], [0, 0.5, 0, 20], [0, 0, 4, -30], [0, 0, 0, 1.0]])
    volume = (np.indices(shape).sum(axis=0) % 200).astype(np.float32)
    nib.save(nib.Nifti1Image(volume, affine), tmp_path / "a.nii.gz")
    content = made("a", tmp_path / "a.nii.gz", heat)
    assert content["letters"] == ["R", "L", "A", "P"]
    assert content["positions"] == [-30.0 + 4 * index for index in range(7)]
    assert content["along"] == "towards S"
    assert content["size"] == [200, 300]
    assert content["canvas"] == [256, 384]  # small ones are drawn larger, with square pixels
    assert content["shown"] == list(range(7))
    assert content["ranks"] == [7, 6, 5, 4, 3, 2, 1]
    for index, address in enumerate(content["maps"]):
        cells = decoded(address)
        assert cells.shape == (85, 128)
        exact = heat[:, ::-1, index].T  # rows run towards posterior; columns towards left as they are stored
        rows, columns = ((np.arange(side) + 0.5) / side for side in cells.shape)
        expected = exact[np.ix_((rows * 200).astype(int), (columns * 300).astype(int))]
        assert np.abs(cells / 255 - expected).max() < 0.02
    assert decoded(content["sources"][0]).shape[:2] == (200, 300)


def test_a_picture_keeps_more_detail(tmp_path: Path) -> None:
    Image.fromarray(np.full((1500, 700, 3), (200, 100, 50), np.uint8)).save(tmp_path / "a.png")
    content = made("a", tmp_path / "a.png", np.zeros((1500, 700), np.float32))
    assert (content["unit"], content["count"], content["axes"], content["letters"]) == ("picture", 1, None, None)
    source = decoded(content["sources"][0])
    assert source.shape == (1024, 478, 3)
    assert np.abs(source.mean(axis=(0, 1)) - (200, 100, 50)).max() < 3
    assert content["canvas"] == [1024, 478]


def test_long_films_are_thinned_out_but_for_the_most_suspicious() -> None:
    count = 3 * MOST_SHOWN - 50
    scores = np.zeros(count)
    scores[[7, 100]] = 1, 0.9
    frames = PreviewFrames()
    findings = Findings(scores, scores, scores)
    shown = shown_frames(count, findings.order())
    assert {7, 100} <= set(shown)
    assert MOST_SHOWN * 0.9 < len(shown) <= MOST_SHOWN + 6
    assert shown_frames(MOST_SHOWN) == list(range(MOST_SHOWN))
    frames.add([5, 7, 9], np.zeros((3, 20, 30, 3), np.uint8), np.ones((3, 20, 30)))
    frames.keep([7, 5])
    content = json.loads(film_preview("f", frames, findings, 0.5, np.arange(count) / 25, (20, 30), 2.0))
    assert content["shown"] == [5, 7]
    assert content["times"] == [0.2, 0.28]
    assert content["ranks"][1] == 1
    assert content["canvas"] == [128, 384]  # pixels twice as wide as high


def test_texts_cannot_end_the_script_that_holds_them() -> None:
    frames = PreviewFrames()
    frames.add([0], np.zeros((1, 4, 4), np.uint8), np.zeros((1, 4, 4)))
    zero = np.zeros(1)
    text = film_preview("</script><b>", frames, Findings(zero, zero, zero), 0.5, [0.0], (4, 4))
    assert "<" not in text
    assert json.loads(text)["name"] == "</script><b>"


@pytest.mark.parametrize(
    ("orientation", "letters"),
    [
        ((1, 0, 0, 0, 1, 0), "R L A P"),  # axial, as usual
        ((-1, 0, 0, 0, 1, 0), "L R A P"),
        ((1, 0, 0, 0, 0, -1), "R L S I"),  # coronal
        ((0, 1, 0, 0, 0, -1), "A P S I"),  # sagittal
        ((0, 1, 0, 1, 0, 0), "A P R L"),
        ((0.8, 0.6, 0, -0.6, 0.8, 0), "RA LP AL PR"),  # turned by 37 degrees
        ((0.99, 0.14, 0, -0.14, 0.99, 0), "R L A P"),  # hardly turned
    ],
)
def test_letters_of_dicom(orientation: tuple[float, ...], letters: str) -> None:
    """DICOM's patient coordinates grow to the left, to posterior and to superior."""
    assert orientation_letters(orientation) == letters.split()
