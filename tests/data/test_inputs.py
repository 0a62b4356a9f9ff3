# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
import tifffile
import torch
from PIL import Image

from monai_anomalyclip.data import InputCatalogue, InputPart, LoadInputd, ReadOptions, UnreadableInputError, load_input
from monai_anomalyclip.data.facts import facts_of
from monai_anomalyclip.inferers import AnomalySliceInferer
from monai_anomalyclip.transforms import ScaleIntensityForCLIP

PIXELS = np.zeros((4, 5, 3), np.uint8)


def make(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.lower().endswith((".nii", ".nii.gz")):
            nib.save(nib.Nifti1Image(np.ones((3, 4, 5), np.float32), np.eye(4)), path)
        elif name.lower().endswith((".png", ".jpg", ".tif")):
            Image.fromarray(PIXELS).save(path)
        else:
            path.write_text("text")


def names_of(root: Path, **options: Any) -> dict[str, str]:
    sources = InputCatalogue(root, **{"keep_names": True, **options}).sources
    return {source.paths[0].relative_to(root).as_posix(): name for name, source in sources.items()}


def uid_of(path: Path) -> str:
    return str(pydicom.dcmread(path, stop_before_pixels=True).SeriesInstanceUID)


def test_scan_is_sorted_recursive_and_counts_what_it_skips(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make(
        tmp_path,
        "b.png",
        "sub/deep/a.JPG",
        "sub/v.nii.gz",
        "README",
        "notes.txt",
        "x.json",
        ".hidden.png",
        ".git/a.png",
    )
    with caplog.at_level(logging.INFO):
        names = names_of(tmp_path)
    assert list(names.items()) == [("b.png", "b"), ("sub/v.nii.gz", "sub/v"), ("sub/deep/a.JPG", "sub/deep/a")]
    assert "3 inputs found; left out: 3 x not DICOM." in caplog.text
    assert str(tmp_path) not in caplog.text
    assert names_of(tmp_path) == names


def test_names_tell_nothing_unless_told_to(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make(tmp_path, "DOE_JOHN/doe.png", "DOE_JOHN/doe.nii.gz", "DOE_JOHN/doe.txt")
    with caplog.at_level(logging.DEBUG):
        catalogue = InputCatalogue(tmp_path)
    assert [name.partition("_")[0] for name in catalogue.sources] == ["volume", "frame"]
    shown = f"{list(catalogue.sources)} {catalogue.items()} {catalogue.left_out()} {caplog.text}"
    assert "doe" not in shown.lower()
    assert all(name.startswith("DOE_JOHN/doe_") for name in InputCatalogue(tmp_path, keep_names=True).sources)


def test_names_stay_when_the_tree_grows(tmp_path: Path) -> None:
    make(tmp_path, "b.png", "d.png", "v.nii")
    first = names_of(tmp_path, keep_names=False)
    make(tmp_path, "a.png", "c/c.png", "u.nii")
    (tmp_path / "d.png").unlink()
    second = names_of(tmp_path, keep_names=False)
    assert {file: second[file] for file in ("b.png", "v.nii")} == {file: first[file] for file in ("b.png", "v.nii")}
    assert len({*second.values(), first["d.png"]}) == 6


def test_names_are_safe_and_never_collide(tmp_path: Path) -> None:
    files = [
        "a.png", "a.jpg", "a.nii.gz", "A.tif", "ä b.png", "ö b.png", f"{'x' * 200}1.png", f"{'x' * 200}2.png",
        "1.2.840.55.1/s.png", "1.2.840.55.2/s.png", "con/nul.png", "=cmd.png", "肺.png",
        "only.png", "-rf.png",
    ]  # fmt: skip
    make(tmp_path, *files)
    names = names_of(tmp_path)
    assert len(names) == len(files)
    assert len({name.lower() for name in names.values()}) == len(files)
    assert names["only.png"] == "only"
    assert names["1.2.840.55.1/s.png"] == "1_2_840_55_1/s"
    for name in ("a.png", "a.jpg", "a.nii.gz", "A.tif"):
        assert re.fullmatch(r"[aA]_[0-9a-f]{16}", names[name])
    # A name depends on the file and its rivals, not on the order or number of other files.
    make(tmp_path, "0.png", "a0.png")
    assert {file: name for file, name in names_of(tmp_path).items() if file in names} == names


def test_several_paths(tmp_path: Path) -> None:
    make(tmp_path, "a/scan.nii", "b/scan.nii", "b/sub/scan.nii", "c.png")
    roots = [tmp_path / "a", tmp_path / "b" / "scan.nii", tmp_path / "b", tmp_path / "c.png", tmp_path / "c.png"]
    for keep_names in (False, True):
        catalogue = InputCatalogue(roots, keep_names=keep_names)
        found = [source.paths[0].relative_to(tmp_path).as_posix() for source in catalogue.sources.values()]
        assert found == [
            "a/scan.nii",
            "b/scan.nii",
            "b/sub/scan.nii",
            "c.png",
        ]  # each once, though two are called alike
        assert list(InputCatalogue(roots, keep_names=keep_names).sources) == list(catalogue.sources)


def test_single_file_and_kinds(tmp_path: Path) -> None:
    make(tmp_path, "f o.png", "v.nii.gz", "t.txt")
    (item,) = InputCatalogue(tmp_path / "f o.png", keep_names=True).items()
    assert (item["name"], item["part"], item["parts"]) == ("f_o", 0, 1)
    assert item["image"].source.paths == (tmp_path / "f o.png",)
    frame = LoadInputd()({"image": str(tmp_path / "f o.png")})["image"]
    assert frame.shape == (3, 4, 5)
    assert frame.meta["kind"] == "frame"
    assert frame.meta["read_s"] >= 0
    assert LoadInputd()(item)["image"].shape == (3, 4, 5)
    volume = load_input(tmp_path / "v.nii.gz")
    assert volume.shape == (1, 3, 4, 5)
    assert volume.meta["kind"] == "volume"
    with pytest.raises(UnreadableInputError, match=r"t\.txt': The file does not begin like a DICOM file"):
        InputCatalogue(tmp_path / "t.txt")
    with pytest.raises(UnreadableInputError, match="holds 2 inputs: give the file or the folder of one series"):
        load_input(tmp_path)
    assert LoadInputd(["image", "more"], allow_missing_keys=True)(item)["image"].shape == (3, 4, 5)


def test_options_reach_the_readers(tmp_path: Path) -> None:
    data = np.arange(3 * 4 * 5 * 2, dtype=np.float32).reshape(3, 4, 5, 2)
    nib.save(nib.Nifti1Image(data, np.eye(4)), tmp_path / "v.nii")
    for options in ({"time_point": 1, "preset": "ct-brain"}, ReadOptions(time_point=1, preset="ct-brain")):
        window = np.clip(data[..., 1] / 79, 0, 1)  # 0 to 79 Hounsfield units
        np.testing.assert_allclose(load_input(tmp_path / "v.nii", options)[0].numpy(), window, atol=1e-7)
        (item,) = InputCatalogue(tmp_path, options=options).items()
        np.testing.assert_allclose(load_input(item["image"])[0].numpy(), window, atol=1e-7)
    with pytest.raises(UnreadableInputError, match="time_point"):
        load_input(tmp_path / "v.nii")
    with pytest.raises(ValueError, match="There is no intensity preset 'ct'"):
        InputCatalogue(tmp_path, options={"preset": "ct"})


@pytest.mark.filterwarnings("ignore:The file holds one volume")
def test_a_time_point_is_for_the_files_that_have_several(tmp_path: Path) -> None:
    data = np.arange(3 * 4 * 5 * 2, dtype=np.float32).reshape(3, 4, 5, 2)
    nib.save(nib.Nifti1Image(data[..., 0], np.eye(4)), tmp_path / "flat.nii")
    options = {"time_point": 1, "preset": "ct-brain"}
    with pytest.raises(UnreadableInputError, match=r"'flat\.nii': it has no time point 1"):  # surely not what was meant
        load_input(tmp_path / "flat.nii", options)
    nib.save(nib.Nifti1Image(data, np.eye(4)), tmp_path / "v.nii")
    flat, several = (load_input(item["image"]) for item in InputCatalogue(tmp_path, options=options).items())
    np.testing.assert_allclose(flat[0].numpy(), np.clip(data[..., 0] / 79, 0, 1), atol=1e-7)
    assert flat.meta["notes"] == "The file holds one volume: the time point 1 is meant for others."
    np.testing.assert_allclose(several[0].numpy(), np.clip(data[..., 1] / 79, 0, 1), atol=1e-7)
    assert several.meta["notes"] == ""
    facts = [facts_of(name, source) for name, source in InputCatalogue(tmp_path, options=options).sources.items()]
    assert [(fact.problem, fact.notes) for fact in facts] == [("", (flat.meta["notes"],)), ("", ())]


def test_nothing_to_read(tmp_path: Path) -> None:
    with pytest.raises(UnreadableInputError, match="does not exist: give a file or a folder"):
        InputCatalogue(tmp_path / "absent")
    with pytest.raises(UnreadableInputError, match="left out: nothing"):
        InputCatalogue(tmp_path)
    assert InputCatalogue(tmp_path, empty=True).items() == []
    make(tmp_path, "README", "LICENSE")
    with pytest.raises(UnreadableInputError, match="left out: 2 x not DICOM"):
        InputCatalogue(tmp_path)


def test_frames_of_a_moving_picture_are_inputs_and_thumbnails_are_none(tmp_path: Path) -> None:
    frames = [Image.fromarray(np.full((4, 5), value, np.uint8)) for value in (10, 20, 30)]
    frames[0].save(tmp_path / "g.gif", save_all=True, append_images=frames[1:])
    with tifffile.TiffWriter(tmp_path / "t.tif") as writer:
        writer.write(np.zeros((2, 2), np.uint8), subfiletype=1, metadata=None)
        writer.write(np.full((4, 5), 200, np.uint8), metadata=None)
    catalogue = InputCatalogue(tmp_path, keep_names=True)
    assert list(catalogue.sources) == ["g_frame1", "g_frame2", "g_frame3", "t"]
    read = [round(255 * float(load_input(item["image"]).max())) for item in catalogue.items()]
    assert read == [10, 20, 30, 200]
    assert catalogue.left_out() == {"further picture of a file": 1}


def test_pages_of_a_tiff_are_frames(tmp_path: Path) -> None:
    pages = [Image.fromarray(np.full((4, 5), value, np.uint8)) for value in (10, 20, 30)]
    pages[0].save(tmp_path / "p.tiff", save_all=True, append_images=pages[1:])
    make(tmp_path, "p_page2.png")
    (tmp_path / "damaged.tif").write_bytes(b"II*\0")
    catalogue = InputCatalogue(tmp_path, keep_names=True)
    names = list(catalogue.sources)
    assert names[0] == "damaged"  # reading it says why it cannot be
    assert [re.sub("_[0-9a-f]{16}$", "", name) for name in names[1:]] == ["p_page1", "p_page2", "p_page3", "p_page2"]
    values = [255 * float(load_input(item["image"]).max()) for item in catalogue.items()[1:4]]
    assert values == pytest.approx([10, 20, 30])


def test_dicom_is_known_by_its_content_and_named_without_any_text(phantoms: ModuleType, tmp_path: Path) -> None:
    phantoms.make_series(tmp_path / "DOE", count=3)
    phantoms.make_series(tmp_path / "DOE", count=2, seed="b", modality="MR")
    phantoms.make_cine(tmp_path / "DOE")
    for index, path in enumerate(sorted((tmp_path / "DOE").iterdir())):
        path.rename(path.with_name(f"IM{index:04}" if index % 2 else f"{index}.jpg.dcm"))
    make(tmp_path, "DOE/a.png", "DOE/text.dcm")
    catalogue = InputCatalogue(tmp_path, keep_names=True)
    dicom = [name for name in catalogue.sources if "/" not in name]
    assert sorted(re.sub("_[0-9a-f]{16}$", "", name) for name in dicom) == ["ct", "mr", "us"]
    assert [name for name in catalogue.sources if "/" in name] == ["DOE/a"]
    assert catalogue.left_out() == {"damaged header": 1}  # named .dcm, and too short to be DICOM
    assert len(InputCatalogue(tmp_path).sources) == 4


def test_series_that_are_no_images_to_score_are_left_out_unless_asked_for(phantoms: ModuleType, tmp_path: Path) -> None:
    (image, *_) = phantoms.make_series(tmp_path, count=3)
    (localizer,) = phantoms.make_series(tmp_path, count=1, seed="loc", localizer=True)
    phantoms.make_object(tmp_path, "1.2.840.10008.5.1.4.1.1.88.33", "SR")
    make(tmp_path, "a.png")
    catalogue = InputCatalogue(tmp_path)
    assert sorted(source.kind for source in catalogue.sources.values()) == ["frame", "volume"]
    assert catalogue.left_out() == {"localizer series": 1, "structured report": 1}
    assert [series.excluded for series in catalogue.excluded] == ["localizer"]

    for uid, count in ((uid_of(localizer), 1), (uid_of(image), 3)):
        for series in (uid, [uid]):
            (source,) = InputCatalogue(tmp_path, series=series).sources.values()  # and not the picture
            assert len(source.paths) == count
    assert len(InputCatalogue(tmp_path, series=[uid_of(localizer), uid_of(image)]).sources) == 2
    with pytest.raises(ValueError, match=r"Series 1\.2\.3 is not among the 2 series of the input: .* --show-uids"):
        InputCatalogue(tmp_path, series=[uid_of(image), "1.2.3"])

    for path in tmp_path.iterdir():
        if path not in (localizer,):
            path.unlink()
    with pytest.raises(UnreadableInputError, match=r"left out: 1 x localizer series; --include REASON or --series UID"):
        InputCatalogue(tmp_path)


def test_folder_of_one_series_loads_as_a_volume(phantoms: ModuleType, tmp_path: Path) -> None:
    phantoms.make_series(tmp_path / "ct", count=5)
    assert load_input(tmp_path / "ct").shape == (1, 20, 16, 5)
    assert load_input(str(tmp_path / "ct"), {"preset": "ct-lung"}).meta["intensity"].count("ct-lung") >= 1


def test_long_cines_come_in_parts(phantoms: ModuleType, tmp_path: Path) -> None:
    path = phantoms.make_cine(tmp_path, count=70, size=(6, 8))
    items = InputCatalogue(tmp_path).items()
    assert [(item["image"].start, item["image"].stop, item["part"], item["parts"]) for item in items] == [
        (0, 64, 0, 2),
        (64, 70, 1, 2),
    ]
    assert len({item["name"] for item in items}) == 1
    assert all(isinstance(item["image"], InputPart) for item in items)
    stored = pydicom.dcmread(path).pixel_array
    np.testing.assert_allclose(load_input(path).permute(3, 2, 1, 0).numpy(), stored / 255, atol=1e-7)


def test_videos_of_much_memory_are_refused_with_a_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    av = pytest.importorskip("av", reason="PyAV is not installed")
    with av.open(str(tmp_path / "v.mkv"), "w") as film:
        stream = film.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 16, "bgr0"
        for index in range(70):
            film.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((16, 32, 3), index, np.uint8), "rgb24")))
        film.mux(stream.encode(None))
    needed = 70 * 16 * 32 * 3
    monkeypatch.setattr("monai_anomalyclip.data.video.MAX_BYTES", needed)
    shades = np.tile(np.arange(70) / 255, (3, 1))
    np.testing.assert_allclose(load_input(tmp_path / "v.mkv")[:, 0, 0].numpy(), shades, atol=1e-7)
    monkeypatch.setattr("monai_anomalyclip.data.video.MAX_BYTES", needed - 1)
    message = (
        rf"^Cannot read 'v\.mkv': 70 frames of 16 x 32 pixels take {needed:,} bytes, .* InputCatalogue\(path\)\.items"
    )
    with pytest.raises(UnreadableInputError, match=message):
        load_input(tmp_path / "v.mkv")
    with pytest.raises(UnreadableInputError, match="more than the allowed"):
        LoadInputd()({"image": str(tmp_path / "v.mkv")})
    assert [load_input(item["image"]).shape[-1] for item in InputCatalogue(tmp_path).items()] == [64, 6]


def test_real_folders(real_data: Path) -> None:
    assert len(InputCatalogue(real_data / "nifti").sources) == 11
    frames = InputCatalogue(real_data / "frames")
    assert {source.kind for source in frames.sources.values()} == {"frame"}
    assert len({source.paths for source in frames.sources.values()}) == 179


def test_real_series_as_simpleitk_finds_them(real_data: Path) -> None:
    folder = real_data / "dicom" / "dicom2nifti" / "generic" / "anatomical" / "001"
    (uid,) = sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
    files = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), uid)
    (source,) = InputCatalogue(folder).sources.values()
    assert [path.resolve() for path in source.paths] == [Path(file).resolve() for file in files]


def test_whatever_the_format_the_values_are_in_0_to_1(tmp_path: Path, phantoms: ModuleType) -> None:
    """And go into the inferer as they are, which refuses anything else; a preset given later is refused."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (20, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    Image.fromarray(pixels[..., 0].astype(np.uint16) * 257).save(tmp_path / "b.tiff")
    nib.save(nib.Nifti1Image(rng.normal(300, 90, (20, 16, 5)).astype(np.float32), np.eye(4)), tmp_path / "c.nii.gz")
    phantoms.make_series(tmp_path / "ct", count=5)
    phantoms.make_series(tmp_path / "es", photometric="RGB", modality="ES", count=1, positioned=False)
    inferer = AnomalySliceInferer(16, sigma=0)
    for name, done in (
        ("a.png", "none"),
        ("b.tiff", "none"),
        ("c.nii.gz", "percentile"),
        ("ct", "ct-"),
        ("es", "none"),
    ):
        image = load_input(tmp_path / name)
        assert (image.dtype, name) == (torch.float32, name)
        assert 0 <= float(image.min()) < float(image.max()) <= 1
        assert json.loads(image.meta["intensity"])["preset"].startswith(done)
        assert inferer(image[None], BrightNetwork())["anomaly_map"].shape[2:] == image.shape[1:]
        torch.testing.assert_close(ScaleIntensityForCLIP()(image), image, rtol=0, atol=0)
        if done != "none":
            with pytest.raises(ValueError, match="ct-bone can no longer be applied"):
                ScaleIntensityForCLIP(preset="ct-bone")(image)


class BrightNetwork:
    """Finds what is bright; stands in for a network."""

    def predict(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        bright = images.mean(dim=1, keepdim=True)
        return {"anomaly_map": bright, "anomaly_score": bright.flatten(1).amax(dim=1)}


def test_a_preset_that_cannot_be_obeyed_is_refused_with_a_sentence(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(np.random.default_rng(0).random((4, 5, 6), np.float32), np.eye(4)), tmp_path / "a.nii")
    with pytest.raises(UnreadableInputError, match="preset 'dicom' needs a usable window in the file"):
        load_input(tmp_path / "a.nii", {"preset": "dicom"})
    make(tmp_path, "a.png")
    with pytest.warns(UserWarning, match="preset ct-bone does not apply to pictures"):
        picture = load_input(tmp_path / "a.png", {"preset": "ct-bone"})
    assert "ct-bone does not apply" in json.loads(picture.meta["intensity"])["warnings"][0]


def test_folder_whose_name_is_a_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MONAI's command line makes numbers of such names."""
    make(tmp_path / "12345", "a.png")
    monkeypatch.chdir(tmp_path)
    assert len(InputCatalogue(12345).sources) == len(InputCatalogue([12345]).sources) == 1


@pytest.mark.parametrize("header", ["p.hdr", "v.mhd"])
def test_state_knows_the_voxels_beside_a_header(tmp_path: Path, header: str) -> None:
    if header == "p.hdr":
        nib.save(nib.Nifti1Pair(np.zeros((3, 4, 5), np.int16), np.eye(4)), tmp_path / header)
        voxels = tmp_path / "p.img"
    else:
        sitk.WriteImage(sitk.GetImageFromArray(np.zeros((3, 4, 5), np.int16)), str(tmp_path / header))
        voxels = tmp_path / "v.raw"
    (source,) = InputCatalogue(tmp_path).sources.values()
    before = source.state()
    voxels.write_bytes(b"\1" + voxels.read_bytes()[1:])
    assert source.state() != before
