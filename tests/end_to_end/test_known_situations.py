# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Situations from public bug trackers in which an earlier version erred, one test each, with the right value.

Two more have their tests where they belong: a tuning that is run again when all is done keeps the identity of its
prompts (``tests/cli/test_predict_again.py``), and folders of digits on MONAI's command line
(``tests/bundles/test_errors_path_arguments.py``).
"""

from __future__ import annotations

import csv
import gzip
import json
import unicodedata
import zipfile
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import av
import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from PIL import Image
from pydicom import Dataset

from monai_anomalyclip.cli import main
from monai_anomalyclip.data import InputCatalogue, load_input
from monai_anomalyclip.data.sources import InputPart

Predict = Callable[..., int]


def picture(spot: bool = True, seed: int = 1) -> np.ndarray:
    """(72, 96, 3) of gray noise, with a red spot."""
    pixels = np.random.default_rng(seed).normal(110, 6, (72, 96, 3)).clip(0, 255).astype(np.uint8)
    if spot:
        pixels[10:30, 20:40] = (240, 50, 40)
    return pixels


def nifti(voxels: np.ndarray) -> nib.Nifti1Image:
    image = nib.Nifti1Image(voxels, np.diag([1, 1, 4, 1.0]))
    image.set_sform(image.affine, 1)
    image.set_qform(image.affine, 1)
    return image


def scores_of(out: Path) -> dict[str, list[float]]:
    """Scores of each input's slices."""
    found: dict[str, list[float]] = {}
    with (out / "scores.csv").open(newline="") as table:
        for row in csv.DictReader(table):
            found.setdefault(row["name"], []).append(float(row["anomaly_score"]))
    return found


def inspected(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, dict[str, Any]]:
    capsys.readouterr()
    status = main(["inspect", "--json", *map(str, arguments)])
    return status, json.loads(capsys.readouterr().out)


def film(path: Path, codec: str = "libx264", kind: str | None = None, aspect: Fraction | None = None) -> None:
    with av.open(str(path), "w", format=kind) as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        for number in range(8):
            frame = av.VideoFrame.from_ndarray(picture(number > 3)[:64], format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def test_anamorphic_film(predict: Predict, tmp_path: Path) -> None:
    film(tmp_path / "film.mp4", aspect=Fraction(4, 3))
    assert predict(tmp_path / "film.mp4", tmp_path / "out") == 0
    with av.open(str(next((tmp_path / "out").glob("*_overlay.mp4")))) as container:
        stream = container.streams.video[0]
        assert Fraction(stream.width, stream.height) * stream.sample_aspect_ratio == 2


def test_equal_size_edit(predict: Predict, tmp_path: Path) -> None:
    voxels = np.random.default_rng(1).normal(300, 10, (64, 64, 40)).astype(np.float32)
    voxels[20:30, 20:30, 15:20] = 800
    nib.save(nifti(voxels), tmp_path / "v.nii")
    size = (tmp_path / "v.nii").stat().st_size
    assert predict(tmp_path / "v.nii", tmp_path / "out") == 0
    before = scores_of(tmp_path / "out")
    voxels[8:, :, 1:] = 0
    nib.save(nifti(voxels), tmp_path / "v.nii")
    assert (tmp_path / "v.nii").stat().st_size == size
    assert predict(tmp_path / "v.nii", tmp_path / "out") == 3  # refused, for the results are those of another input
    assert predict(tmp_path / "v.nii", tmp_path / "out", "--force") == 0
    assert scores_of(tmp_path / "out") != before


@pytest.mark.parametrize("name", ["clip.gif", "clip.png", "clip.webp"])
def test_lesion_in_a_later_frame(name: str, tmp_path: Path) -> None:
    frames = [Image.fromarray(picture(number == 3, number)) for number in range(5)]
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], duration=100, lossless=True)
    shown = [np.asarray(load_input(InputPart(source))) for source in InputCatalogue(tmp_path).sources.values()]
    assert len(shown) == 5
    red = [float((frame[0, 12:28, 22:38] - frame[1, 12:28, 22:38]).mean()) for frame in shown]
    assert [value > 0.5 for value in red] == [False, False, False, True, False]


@pytest.mark.parametrize("length", [0, 100, 700, 900, 1000, 1200])
def test_slice_cut_off_inside_its_header(
    length: int, phantoms: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    *_, last = phantoms.make_series(tmp_path, count=8)
    assert last.stat().st_size > 1200
    last.write_bytes(last.read_bytes()[:length])
    status, listed = inspected(capsys, tmp_path, "--show-paths")
    assert status == 3
    assert [(file["path"], file["damaged"]) for file in listed["files_left_out"]] == [(str(last), True)]
    (series,) = listed["inputs"]
    assert series["frames"] == 7
    assert "Damaged files lie beside those of this series (1): slices may be missing." in series["notes"]


def test_nifti_by_its_content_not_its_suffix(tmp_path: Path) -> None:
    voxels = np.random.default_rng(1).normal(300, 10, (20, 18, 8)).astype(np.int16)
    raw = nifti(voxels).to_bytes()
    contents = {"a.nii": raw, "b.nii": gzip.compress(raw), "c.nii.gz": raw, "d.nii.gz": gzip.compress(raw)}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    first, *others = (np.asarray(load_input(tmp_path / name)) for name in contents)
    assert all(np.array_equal(other, first) for other in others)


def test_results_inside_the_input(predict: Predict, tmp_path: Path) -> None:
    study = tmp_path / "study"
    study.mkdir()
    for seed in range(2):
        Image.fromarray(picture(seed=seed)).save(study / f"{seed}.png")
    assert predict(study, study / "results_a") == 0
    assert predict(study, study / "results_b", "--threshold", "0.4") == 0
    first, second = (scores_of(study / f"results_{name}") for name in "ab")
    assert len(first) == 2
    assert first == second


@pytest.mark.parametrize("shift", [2, 4])
def test_colours_of_few_bits_in_16(shift: int, tmp_path: Path) -> None:
    """10-bit values that reach beyond 255 have the white of 12 bits, as gray ones have."""
    eight = picture()
    deep = eight.astype(np.uint16) << shift
    tifffile.imwrite(tmp_path / "deep.tif", deep, photometric="rgb")
    tifffile.imwrite(tmp_path / "planes.tif", np.moveaxis(deep, 2, 0), photometric="rgb", planarconfig="separate")
    for name in ("deep.tif", "planes.tif"):
        shown = np.asarray(load_input(tmp_path / name)).transpose(1, 2, 0)
        assert np.abs(shown - deep / 4095).max() <= 0.5 / 255 + 1e-6


def test_head_ct_for_bone(phantoms: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def edit(header: Dataset, _: int) -> None:
        header.BodyPartExamined, header.ConvolutionKernel = "HEAD", "H60s"
        header.SeriesDescription, header.ProtocolName = "DentalCT 0.75 H60s", "DentalCT"
        header.WindowCenter, header.WindowWidth = [400, 700], [2000, 4000]

    phantoms.make_series(tmp_path, count=4, edit=edit)
    (series,) = inspected(capsys, tmp_path)[1]["inputs"]
    assert series["preset"] in ("dicom", "ct-bone")


def test_thumbnail_and_mask_pages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pixels = picture()
    for name, page, kind in (("thumbnail", pixels[::4, ::4], 1), ("mask", pixels[..., 0] > 200, 4)):
        with tifffile.TiffWriter(tmp_path / f"{name}.tif") as tiff:
            tiff.write(pixels, photometric="rgb")
            tiff.write(page, photometric="rgb" if kind == 1 else "minisblack", subfiletype=kind)
    status, listed = inspected(capsys, tmp_path)
    assert status == 0
    assert [fact["size"] for fact in listed["inputs"]] == ["72 x 96"] * 2


def test_two_levels_of_padding(phantoms: ModuleType, tmp_path: Path) -> None:
    row, column = np.mgrid[:80, :80]
    stored = np.where((row - 40) ** 2 + (column - 40) ** 2 < 38**2, 4, 0)
    tissue = (row - 40) ** 2 + (column - 40) ** 2 < 30**2
    stored = np.where(tissue, 2020 + 60 * np.cos(column / 5), stored)

    def edit(header: Dataset, _: int) -> None:
        header.PixelData = np.rint(stored).astype((header.PixelRepresentation and "<i2") or "<u2").tobytes()
        header.WindowCenter, header.WindowWidth = 200, 1600

    options = {"modality": "MR", "size": (80, 80), "count": 6, "slope": 9.5, "intercept": -19500, "signed": False}
    phantoms.make_series(tmp_path, edit=edit, **options)
    shown = np.asarray(load_input(tmp_path))[0, ..., 0].T
    assert np.ptp(shown[tissue]) > 0.5
    assert shown[~tissue].max() < 0.05


def test_one_picture_for_the_command_and_the_label_app(phantoms: ModuleType, tmp_path: Path) -> None:
    pytest.importorskip("monai_anomalyclip.label.reading")
    from monai_anomalyclip.label.reading import read_image

    def edit(header: Dataset, _: int) -> None:
        header.WindowCenter, header.WindowWidth = 0, 30

    phantoms.make_series(tmp_path / "x-ray", count=1, modality="DX", positioned=False, edit=edit)
    phantoms.make_series(tmp_path / "gap", offsets=[0, 2, 4, 6, 10, 12, 14, 16], count=8)
    for name in ("x-ray", "gap"):
        (source,) = InputCatalogue(tmp_path / name).sources.values()
        scored, labelled = load_input(InputPart(source)), read_image(tmp_path / name)
        shown = np.asarray(scored).T if name == "x-ray" else np.asarray(scored)  # the app has columns first
        np.testing.assert_array_equal(np.asarray(labelled).squeeze(), shown.squeeze())
        if name == "gap":
            np.testing.assert_allclose(np.asarray(labelled.affine), np.asarray(scored.affine))


def test_names_of_another_unicode_form_pair(tmp_path: Path) -> None:
    for folder in ("normal", "polyp", "masks"):
        (tmp_path / folder).mkdir()
    mask = np.zeros((72, 96), np.uint8)
    mask[10:20, 10:20] = 255
    for number in range(3):
        Image.fromarray(picture(seed=number)).save(tmp_path / "normal" / f"n {number}.PNG")
        name = f"Pölyp é {number}.png"
        Image.fromarray(picture(seed=9 + number)).save(tmp_path / "polyp" / unicodedata.normalize("NFD", name))
        Image.fromarray(mask).save(tmp_path / "masks" / unicodedata.normalize("NFC", name))
    assert main(["datalist", "folder", str(tmp_path), "-o", str(tmp_path / "list.json")]) == 0
    entries = json.loads((tmp_path / "list.json").read_text())["testing"]
    assert sorted(bool(entry.get("label")) for entry in entries) == [False] * 3 + [True] * 3


def test_background_of_zero_within_z_scores(tmp_path: Path) -> None:
    column, row, _ = np.mgrid[:72, :80, :12]
    values = 300 + 80 * np.cos(column / 6) * np.sin(row / 7) + np.random.default_rng(3).normal(0, 12, column.shape)
    inside = ((column - 36) / 28) ** 2 + ((row - 40) / 33) ** 2 < 1
    scored = (values - values[inside].mean()) / values[inside].std()
    shown = []
    for name, background in (("zero", 0.0), ("minimum", scored[inside].min())):
        nib.save(nifti(np.where(inside, scored, background).astype(np.float32)), tmp_path / f"{name}.nii")
        shown.append(np.asarray(load_input(tmp_path / f"{name}.nii"))[0])
        assert shown[-1][~inside].max() <= 0.05
    assert np.abs(shown[0] - shown[1])[inside].max() <= 0.02


def test_files_as_people_have_them(phantoms: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    voxels = np.random.default_rng(1).normal(300, 10, (20, 18, 8)).astype(np.int16)
    raw = nifti(voxels).to_bytes()
    volume = sitk.GetImageFromArray(voxels.transpose(2, 1, 0))
    (tmp_path / "two_members.nii.gz").write_bytes(gzip.compress(raw[:2000]) + gzip.compress(raw[2000:]))
    (tmp_path / "UPPER.NII.GZ").write_bytes(gzip.compress(raw))
    nib.save(nib.Nifti1Pair(voxels, np.eye(4)), tmp_path / "pair.hdr")
    nib.save(nib.MGHImage(voxels.astype(np.float32), np.eye(4)), tmp_path / "freesurfer.mgz")
    for name in ("slicer.nrrd", "itk.mha"):
        sitk.WriteImage(volume, str(tmp_path / name))
    still = Image.fromarray(picture())
    for name, kind in (("a.webp", "WEBP"), ("b.jfif", "JPEG"), ("c.jp2", "JPEG2000"), ("d.jpg", "MPO")):
        still.save(tmp_path / name, kind, **({"save_all": True, "append_images": [still]} if kind == "MPO" else {}))
    still.convert("CMYK").save(tmp_path / "e.jpg")
    tifffile.imwrite(tmp_path / "f.tif", picture(), bigtiff=True, photometric="rgb")
    film(tmp_path / "capture.wmv", "wmv2", "asf")
    film(tmp_path / "capture.ts", kind="mpegts")
    film(tmp_path / "capture.flv", "flv1", "flv")
    count = len(list(tmp_path.iterdir())) - 1  # the voxels of the pair are no input of their own
    (file,) = phantoms.make_series(tmp_path / "zipped", count=1)
    with zipfile.ZipFile(tmp_path / "study.zip", "w") as archive:
        archive.write(file, "1.dcm")
    file.unlink()
    status, listed = inspected(capsys, tmp_path)
    assert len(listed["inputs"]) == count
    assert not [fact["problem"] for fact in listed["inputs"] if fact["problem"]]
    assert listed["left_out"]["ZIP archive, not read"] == 1
    assert status == 3  # images were left out
