# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
import torch
from PIL import Image
from pydicom import Dataset

from monai_anomalyclip.data import UnreadableInputError, sources
from monai_anomalyclip.data.dicom import (
    DicomSeries,
    FrameReference,
    Instance,
    StackGeometry,
    group_instances,
    scan_files,
)
from monai_anomalyclip.data.sources import (
    DicomSource,
    FrameSource,
    InputPart,
    NiftiSource,
    ReadOptions,
    VideoSource,
    frame_ranges,
)

RNG = np.random.default_rng(0)


def dicom_source(path: Path, **options: Any) -> DicomSource:
    (series,), _ = group_instances(scan_files([path]).instances)
    return DicomSource(series, ReadOptions(**options))


def cine_of(count: int, size: tuple[int, int] = (2, 2), **attributes: Any) -> DicomSource:
    """A cine that has a header only."""
    header = Dataset()
    header.SOPInstanceUID, header.NumberOfFrames = "1.2", count
    header.Rows, header.Columns = size
    for keyword, value in attributes.items():
        with pydicom.config.disable_value_validation():
            setattr(header, keyword, value)
    instance = Instance(Path("cine"), header, "1.2.840.10008.1.2.1")
    frames = tuple(FrameReference(instance, index) for index in range(count))
    return DicomSource(DicomSeries("cine", frames, StackGeometry(), colour=True), ReadOptions())


def test_pictures_and_their_pages(tmp_path: Path) -> None:
    pages = RNG.integers(0, 256, (3, 6, 8, 3), dtype=np.uint8)
    first, *others = (Image.fromarray(page) for page in pages)
    first.save(tmp_path / "p.tif", save_all=True, append_images=others)
    sources = [FrameSource(tmp_path / "p.tif", "sub/p.tif", page) for page in range(3)]
    for source, page in zip(sources, pages, strict=True):
        image = source.load()
        assert image.meta["kind"] == "frame"
        np.testing.assert_array_equal(image.permute(1, 2, 0).numpy(), page)
    assert len({source.key for source in sources}) == 3
    assert sources[0].key == FrameSource(Path("elsewhere"), "sub/p.tif").key  # where the folder lies does not count
    assert sources[0].parts() == [(0, None)]
    with pytest.raises(TypeError, match="no film"):
        sources[0].timing()


@pytest.mark.filterwarnings("ignore:In this file sform and qform differ")
def test_nifti_is_read_as_the_options_say(tmp_path: Path) -> None:
    volumes = RNG.random((4, 5, 6, 2)).astype(np.float32)
    image = nib.Nifti1Image(volumes, np.diag([1.0, 1, 4, 1]))
    image.set_sform(np.diag([1.0, 1, 4, 1]), 1)
    image.set_qform(np.array([[1.0, 0, 0, 50], [0, 1, 0, 0], [0, 0, 4, 0], [0, 0, 0, 1]]), 1)
    nib.save(image, tmp_path / "v.nii")

    def load(**options: Any) -> Any:
        return NiftiSource(tmp_path / "v.nii", "v.nii", ReadOptions(**options)).load()

    for form, x in (("sform", 0), ("qform", 50)):
        volume = load(nifti_form=form, time_point=1)
        np.testing.assert_array_equal(volume[0].numpy(), volumes[..., 1])
        assert float(volume.affine[0, 3]) == x
    with pytest.raises(UnreadableInputError, match="form"):
        load(time_point=1)
    with pytest.raises(UnreadableInputError, match="time_point"):
        load(nifti_form="sform")


def test_dicom_volume_passes_on_the_preset(phantoms: ModuleType, tmp_path: Path) -> None:
    phantoms.make_series(tmp_path, count=3)
    source = dicom_source(tmp_path, preset="ct-lung")
    image = source.load()
    assert (source.kind, source.label, source.modality, source.origin) == ("volume", "ct", "CT", "dicom")
    assert image.shape == (1, 20, 16, 3)
    assert '"ct-lung"' in image.meta["intensity"]
    assert source.parts() == [(0, None)]
    assert len(source.paths) == 3


def test_parts_of_a_cine_are_the_cine(phantoms: ModuleType, tmp_path: Path) -> None:
    path = phantoms.make_cine(tmp_path, count=130, size=(8, 10))
    stored = pydicom.dcmread(path).pixel_array
    source = dicom_source(tmp_path)
    assert source.parts() == [(0, 64), (64, 128), (128, 130)]
    loaded = torch.cat([InputPart(source, *part).load().as_tensor() for part in source.parts()], dim=3)
    assert loaded.shape == (3, 10, 8, 130)
    np.testing.assert_allclose(255 * loaded.permute(3, 2, 1, 0).numpy(), stored, atol=1e-4)


@pytest.mark.parametrize(
    ("attributes", "times", "fps"),
    [
        ({"FrameTime": "40"}, [0, 0.04, 0.08], 25),
        ({"FrameTime": "33.3"}, [0, 0.0333, 0.0666], 1000 / 33.3),
        ({"FrameTimeVector": ["0", "100", "300"]}, [0, 0.1, 0.4], 5),
        ({"FrameTimeVector": ["100", "100", "300"], "FrameTime": "40"}, [0, 0.1, 0.4], 5),
        ({"CineRate": "10"}, [0, 0.1, 0.2], 10),
        ({"RecommendedDisplayFrameRate": "50"}, [0, 0.02, 0.04], 50),
        ({"FrameTime": "40", "CineRate": "10"}, [0, 0.04, 0.08], 25),
        ({}, [0, 0.04, 0.08], 25),
        # What is malformed, or could not be played, counts as absent.
        ({"FrameTimeVector": ["0", "100"], "CineRate": "10"}, [0, 0.1, 0.2], 10),
        ({"FrameTimeVector": "40", "CineRate": "10"}, [0, 0.1, 0.2], 10),
        ({"FrameTimeVector": ["0", "0", "40"], "CineRate": "10"}, [0, 0.1, 0.2], 10),
        ({"FrameTimeVector": ["0", "-10", "40"], "CineRate": "10"}, [0, 0.1, 0.2], 10),
        ({"FrameTime": "0", "CineRate": "10"}, [0, 0.1, 0.2], 10),
        ({"FrameTime": "-40"}, [0, 0.04, 0.08], 25),
        ({"FrameTime": "0.04"}, [0, 0.04, 0.08], 25),  # seconds, where milliseconds are due
        ({"FrameTime": "1e30"}, [0, 0.04, 0.08], 25),
        ({"CineRate": "0"}, [0, 0.04, 0.08], 25),
    ],
)
def test_times_of_a_cine(attributes: dict[str, Any], times: list[float], fps: float) -> None:
    found, rate = cine_of(3, **attributes).timing()
    np.testing.assert_allclose(found, times, rtol=0, atol=1e-9)
    assert rate == pytest.approx(fps)


def test_times_of_malformed_numbers_and_of_one_frame(phantoms: ModuleType, tmp_path: Path) -> None:
    path = phantoms.make_cine(tmp_path, count=3)
    content = path.read_bytes()
    assert content.count(b"\x18\x00\x63\x10DS\x02\x0040") == 1
    path.write_bytes(content.replace(b"\x18\x00\x63\x10DS\x02\x0040", b"\x18\x00\x63\x10DS\x02\x00x,"))
    assert dicom_source(tmp_path).timing() == ([0.0, 0.04, 0.08], 25.0)
    assert cine_of(1, FrameTimeVector="0", FrameTime="20").timing() == ([0.0], 50.0)


def test_state_of_a_series(phantoms: ModuleType, tmp_path: Path) -> None:
    paths = phantoms.make_series(tmp_path / "a", count=4)
    before = dicom_source(tmp_path / "a").state()
    (tmp_path / "a").rename(tmp_path / "b")
    for index, path in enumerate(sorted((tmp_path / "b").iterdir(), reverse=True)):
        path.rename(tmp_path / "b" / f"IM{index}")
    assert dicom_source(tmp_path / "b").state() == before  # neither names nor their order count
    (tmp_path / "b" / "IM0").unlink()
    assert dicom_source(tmp_path / "b").state() != before
    assert len(paths) == 4


def test_text_form_tells_nothing(phantoms: ModuleType, tmp_path: Path) -> None:
    folder = tmp_path / "DOE_JOHN"
    phantoms.make_series(folder, count=2)
    sources = [FrameSource(folder / "doe.png", "doe.png"), dicom_source(folder)]
    for source in sources:
        assert "doe" not in repr(source).lower()
        assert "zebra" not in repr(source).lower()
        assert repr(source).endswith(f"({source.label}, {source.key})")


def make_video(path: Path, count: int) -> np.ndarray:
    av = pytest.importorskip("av", reason="PyAV is not installed")
    pictures = np.zeros((count, 16, 32, 3), np.uint8)
    for index, picture in enumerate(pictures):
        picture[:, :16] = 20 + 8 * index  # the left half tells the number
    with av.open(str(path), "w") as film:
        stream = film.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 16, "bgr0"
        for picture in pictures:
            film.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        film.mux(stream.encode(None))
    return pictures


def test_video_frames_with_a_stride(tmp_path: Path) -> None:
    pictures = make_video(tmp_path / "v.mkv", 8)[::3]
    source = VideoSource(tmp_path / "v.mkv", "v.mkv", ReadOptions(stride=3))
    assert source.parts() == [(0, 3)]
    times, fps = source.timing()
    np.testing.assert_allclose(times, [0, 0.3, 0.6], atol=1e-3)
    assert fps == pytest.approx(10 / 3)
    first, rest = source.load(0, 1), source.load(1, 3)
    loaded = torch.cat([first.as_tensor(), rest.as_tensor()], dim=3)
    np.testing.assert_array_equal(loaded.permute(3, 2, 1, 0).numpy(), pictures)
    assert (first.meta["kind"], first.meta["native_slices"]) == ("cine", 1)


def test_one_video_is_open_at_a_time(tmp_path: Path) -> None:
    """A worker of a data loader that meets the first parts alone does not end with all videos open."""
    sources = []
    for name in ("a.mkv", "b.mkv", "c.mkv"):
        pictures = make_video(tmp_path / name, 4)
        sources.append(VideoSource(tmp_path / name, name, ReadOptions()))
    for source in sources:
        source.load(0, 2)
        assert [other.reader._container is not None for other in sources] == [other is source for other in sources]
    loaded = sources[0].load(2, 4)  # goes on all the same
    np.testing.assert_array_equal(loaded.permute(3, 2, 1, 0).numpy(), pictures[2:])
    assert [source.reader._container for source in sources] == [None] * 3


def test_a_damaged_video_is_one_part_whose_reading_says_why(tmp_path: Path) -> None:
    (tmp_path / "v.mp4").write_bytes(b"no film")
    source = VideoSource(tmp_path / "v.mp4", "v.mp4", ReadOptions())
    assert source.parts() == [(0, None)]
    with pytest.raises(UnreadableInputError, match=r"v\.mp4"):
        source.load()


def test_options_that_cannot_be() -> None:
    for wrong, match in (
        ({"nifti_form": "both"}, "nifti_form must be 'refuse', 'sform' or 'qform', got 'both'"),
        ({"stride": 0}, "stride must lie in 1 to 100,000, got 0"),
        ({"stride": 10**23}, "stride must lie in 1 to 100,000, got 1000"),
        ({"preset": "ct-brian"}, "There is no intensity preset 'ct-brian': choose one of auto"),
    ):
        with pytest.raises(ValueError, match=match):
            ReadOptions(**wrong)


@pytest.mark.parametrize("size", [(10, 10), (480, 640), (1080, 1920), (4000, 6000)])
def test_parts_cover_all_frames_once_and_fit_into_memory(size: tuple[int, int]) -> None:
    parts = frame_ranges(200, *size)
    assert [frame for start, stop in parts for frame in range(start, stop or 0)] == list(range(200))
    largest = max((stop or 0) - start for start, stop in parts)
    assert largest <= 64
    assert largest == 1 or largest * size[0] * size[1] * 3 * 4 <= 2**28


def test_state_tells_whether_the_files_are_the_same(tmp_path: Path) -> None:
    affine = np.eye(4)
    nib.save(nib.Nifti1Image(np.zeros((40, 40, 40), np.float32), affine), tmp_path / "v.nii")
    other = np.zeros((40, 40, 40), np.float32)
    other[8:32, 8:32, 8:32] = 1  # of the same size: only the middle differs
    nib.save(nib.Nifti1Image(other, affine), tmp_path / "w.nii")
    assert (tmp_path / "v.nii").stat().st_size == (tmp_path / "w.nii").stat().st_size
    source = NiftiSource(tmp_path / "v.nii", "v.nii", ReadOptions())
    before = source.state()
    os.utime(tmp_path / "v.nii", (0, 0))  # copied anew
    assert source.state() == before
    (tmp_path / "w.nii").rename(tmp_path / "v.nii")
    assert source.state() != before
    os.truncate(tmp_path / "v.nii", 1000)
    assert source.state() != before
    (tmp_path / "v.nii").unlink()
    assert source.state() != before


def test_state_tells_a_single_byte_anywhere_and_at_any_time(tmp_path: Path) -> None:
    content = bytearray(2**20)
    path = tmp_path / "v.nii"
    path.write_bytes(content)
    source = NiftiSource(path, "v.nii", ReadOptions())
    states = {source.state()}
    for place in (0, 5000, 2**19 + 12345, 2**20 - 1):
        content[place] ^= 1
        path.write_bytes(content)
        os.utime(path, (0, 0))
        states.add(source.state())
    assert len(states) == 5
    assert all(len(state) == 64 for state in states)


def test_a_file_of_many_inputs_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("monai_anomalyclip.data.sources._SETTLED", -1.0)
    (tmp_path / "p.tiff").write_bytes(b"pages")
    reads: list[Path] = []
    read = sources.sha256_of
    monkeypatch.setattr(sources, "sha256_of", lambda path: reads.append(path) or read(path))
    pages = [FrameSource(tmp_path / "p.tiff", "p.tiff", page) for page in range(3)]
    assert len({page.state() for page in pages}) == 1
    assert len({page.key for page in pages}) == 3
    assert len(reads) == 1


@pytest.mark.parametrize(
    ("tags", "aspect"),
    [
        ({}, Fraction(1)),
        ({"PixelAspectRatio": [1, 1]}, Fraction(1)),
        ({"PixelAspectRatio": [3, 4]}, Fraction(4, 3)),  # height, width
        ({"PixelAspectRatio": [2, 1]}, Fraction(1, 2)),
        ({"PixelAspectRatio": [0, 1]}, Fraction(1)),
        ({"PixelAspectRatio": [1, 1000000]}, Fraction(1)),
        ({"PixelAspectRatio": [2, 1], "PixelSpacing": [0.3, 0.3]}, Fraction(1)),  # the spacing is measured
        ({"ImagerPixelSpacing": [0.2, 0.3]}, Fraction(3, 2)),
        ({"ImagerPixelSpacing": [0.2, 0.201]}, Fraction(1)),
    ],
)
@pytest.mark.parametrize("count", [1, 3])
def test_shape_of_the_pixels_of_a_cine(
    count: int, tags: dict[str, list[float]], aspect: Fraction, phantoms: ModuleType, tmp_path: Path
) -> None:
    def edit(header: Any) -> None:
        for keyword, value in tags.items():
            setattr(header, keyword, value)

    phantoms.make_cine(tmp_path, count=count, edit=edit)
    source = dicom_source(next(tmp_path.glob("*.dcm")))
    source.parts()
    assert source.pixel_aspect() == aspect
