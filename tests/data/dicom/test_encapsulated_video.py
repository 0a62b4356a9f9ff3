# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import builtins
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pydicom
import pytest
import torch
from pydicom.encaps import encapsulate
from pydicom.uid import MPEGTransferSyntaxes

from monai_anomalyclip.data import sources as source_module
from monai_anomalyclip.data.dicom import DicomSeries, encapsulated_video, group_instances, scan_files
from monai_anomalyclip.data.dicom.encapsulated_video import EncapsulatedVideo, is_video
from monai_anomalyclip.data.dicom.reader import load_series
from monai_anomalyclip.data.errors import UnreadableInputError
from monai_anomalyclip.data.sources import DicomSource, ReadOptions

av = pytest.importorskip("av")

MPEG2, H264, HEVC = "1.2.840.10008.1.2.4.100", "1.2.840.10008.1.2.4.102", "1.2.840.10008.1.2.4.107"
COUNT, ROWS, COLUMNS = 12, 48, 64
Write = Callable[..., DicomSeries]


def pictures() -> np.ndarray:
    """(12, 48, 64, 3): smooth colours that a codec hardly changes, brighter in every frame."""
    row, column = np.meshgrid(np.linspace(0, 80, ROWS), np.linspace(0, 80, COLUMNS), indexing="ij")
    frames = [np.stack([row + 10 * time, column + 10 * time, 0 * row + 5 * time], axis=-1) for time in range(COUNT)]
    return np.round(frames).astype(np.uint8)


def encoded(container: str, codec: str, rate: int = 25) -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as output:
        stream = output.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = COLUMNS, ROWS, "yuv420p", 4_000_000
        for picture in pictures():
            output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        output.mux(stream.encode())
    return buffer.getvalue()


@pytest.fixture
def write(tmp_path: Path, phantoms: ModuleType) -> Write:
    def write(stream: bytes, syntax: str = H264, fragments: int = 1, **attributes: object) -> DicomSeries:
        path = phantoms.make_cine(
            tmp_path, modality="ES", sop_class="1.2.840.10008.5.1.4.1.1.77.1.1.1", photometric="RGB", seed="v"
        )
        dataset = pydicom.dcmread(path)
        dataset.PhotometricInterpretation = "YBR_PARTIAL_420"
        dataset.NumberOfFrames, dataset.Rows, dataset.Columns = COUNT, ROWS, COLUMNS
        for keyword, value in attributes.items():
            setattr(dataset, keyword, value)
        dataset.PixelData = encapsulate([stream], fragments_per_frame=fragments, has_bot=False)
        dataset["PixelData"].VR = "OB"
        dataset["PixelData"].is_undefined_length = True
        dataset.file_meta.TransferSyntaxUID = syntax
        dataset.save_as(path)
        (series,) = group_instances(scan_files([path]).instances)[0]
        return series

    return write


@pytest.mark.parametrize(
    ("container", "codec", "syntax"),
    [
        ("h264", "libx264", H264),
        ("mp4", "libx264", H264),
        ("mpegts", "libx264", f"{H264}.1"),
        ("mpeg2video", "mpeg2video", MPEG2),
        ("mpeg", "mpeg2video", MPEG2),
        ("mpegts", "mpeg2video", MPEG2),
        ("hevc", "libx265", HEVC),
    ],
)
def test_codecs_and_containers(write: Write, container: str, codec: str, syntax: str) -> None:
    if codec not in av.codecs_available:
        pytest.skip(f"this PyAV has no encoder {codec}")
    series = write(encoded(container, codec), syntax, fragments=3)
    assert series.kind == "cine"
    assert is_video(series.frames[0].instance)
    image = load_series(series)
    assert (image.shape, image.dtype) == ((3, COLUMNS, ROWS, COUNT), torch.uint8)
    difference = image.permute(3, 2, 1, 0).numpy().astype(int) - pictures()
    assert np.abs(difference).mean() < 2
    assert np.abs(difference.mean(axis=(1, 2, 3))).max() < 2  # no frame is out of its place: they differ by 8


def test_parts(write: Write) -> None:
    series = write(encoded("h264", "libx264"))
    image = load_series(series)
    parts = [load_series(series, start=start, stop=min(start + 5, COUNT)) for start in (0, 5, 10)]
    torch.testing.assert_close(torch.cat([part.as_tensor() for part in parts], dim=-1), image.as_tensor())
    first = next(EncapsulatedVideo(series.frames[0].instance).read(7, 8))
    np.testing.assert_array_equal(first, image[..., 7].permute(2, 1, 0))


def test_fewer_frames_than_the_header_says(write: Write) -> None:
    series = write(encoded("h264", "libx264"), NumberOfFrames=20)
    image = load_series(series)
    assert image.shape[-1] == COUNT
    assert "fewer frames" in image.meta["notes"]
    with pytest.raises(UnreadableInputError, match="fewer frames"):
        load_series(series, start=15)


@pytest.mark.parametrize("attributes", [{"Rows": 32}, {"Columns": 640}])
def test_other_sizes_are_refused(write: Write, attributes: dict[str, int]) -> None:
    with pytest.raises(UnreadableInputError, match="its frames are 48 x 64, but the header says"):
        load_series(write(encoded("h264", "libx264"), **attributes))


def test_playlists_are_never_opened(write: Write, tmp_path: Path) -> None:
    (tmp_path / "secret.mp4").write_bytes(encoded("mp4", "libx264"))
    playlists = [
        f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile://{tmp_path}/secret.mp4\n#EXT-X-ENDLIST\n",
        f"ffconcat version 1.0\nfile {tmp_path}/secret.mp4\n",
    ]
    for playlist in playlists:
        with pytest.raises(UnreadableInputError, match="unknown container"):
            load_series(write(playlist.encode().ljust(600)))


def test_damage_is_one_clear_error(write: Write) -> None:
    stream = encoded("mp4", "libx264")
    for damaged in (stream[: len(stream) // 2], stream[:40] + bytes(len(stream) - 40), b"\0\0\0\1" + bytes(500)):
        with pytest.raises(UnreadableInputError) as caught:
            load_series(write(damaged))
        assert "CANARY" not in str(caught.value)
        assert "v.dcm" not in str(caught.value)


def test_bounds(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    series = write(encoded("h264", "libx264"))
    with pytest.raises(UnreadableInputError, match="takes 110,592 bytes"):
        load_series(series, max_bytes=110_591)
    monkeypatch.setattr(encapsulated_video, "MAX_VIDEO_BYTES", 100)
    with pytest.raises(UnreadableInputError, match="more than the allowed 100 bytes"):
        load_series(series)


def test_without_pyav(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    series = write(encoded("h264", "libx264"))
    plain = builtins.__import__

    def without(name: str, *args: object, **kwargs: object) -> object:
        if name == "av":
            raise ImportError(name)
        return plain(name, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UnreadableInputError, match=r"pip install av"):
        load_series(series)


def test_a_stream_without_a_picture(write: Write) -> None:
    """A transport stream that ends behind its tables."""
    series = write(encoded("mpegts", "libx264")[:700])
    with pytest.raises(UnreadableInputError, match=r"the video.*: it holds no frame"):
        EncapsulatedVideo(series.frames[0].instance).count()


def test_every_video_syntax_has_a_codec(write: Write) -> None:
    """Held against pydicom's list."""
    instance = write(encoded("h264", "libx264")).frames[0].instance
    assert all(is_video(replace(instance, transfer_syntax=str(syntax))) for syntax in MPEGTransferSyntaxes)


def test_unknown_video_syntax(write: Write) -> None:
    series = write(encoded("h264", "libx264"), "1.2.840.10008.1.2.4.102")
    instance = series.frames[0].instance
    assert not is_video(type(instance)(instance.path, instance.header, "1.2.840.10008.1.2.4.90"))


@pytest.mark.parametrize(("container", "codec", "syntax"), [("h264", "libx264", H264), ("mp4", "libx264", H264)])
@pytest.mark.parametrize(("stated", "note"), [(30, "fewer"), (7, "more"), (1, "more"), (COUNT, "")])
def test_headers_of_the_wrong_number_lose_no_frame(
    write: Write, monkeypatch: pytest.MonkeyPatch, container: str, codec: str, syntax: str, stated: int, note: str
) -> None:
    """What the stream holds counts, in parts of five frames; it is joined once to count and once to decode."""
    monkeypatch.setattr(source_module, "_MAX_PART", 5)
    joined = []
    join = EncapsulatedVideo._join
    monkeypatch.setattr(EncapsulatedVideo, "_join", lambda video: joined.append(video) or join(video))
    source = DicomSource(write(encoded(container, codec), syntax, NumberOfFrames=stated), ReadOptions())
    parts = source.parts()
    assert (parts, source.kind) == ([(0, 5), (5, 10), (10, 12)], "cine")
    images = [source.load(*part) for part in parts]
    assert len(joined) == 2
    frames = torch.cat([image.as_tensor() for image in images], dim=-1).permute(3, 2, 1, 0).numpy()
    assert np.abs(frames.mean(axis=(1, 2, 3)) - pictures().mean(axis=(1, 2, 3))).max() < 2
    expected = f"The video holds {note} frames than its header says." if note else ""
    assert [image.meta["notes"] for image in images] == [expected] * 3
    assert source.series.notes == ((expected,) if note else ())
    assert len(source.timing()[0]) == len(source.series.frames) == COUNT
    assert source.load(0, 5).shape[-1] == 5  # again from the start
    assert torch.equal(source.load(10, 12).as_tensor(), images[2].as_tensor())


def test_parts_in_any_order_are_those_of_the_whole(write: Write) -> None:
    video = EncapsulatedVideo(write(encoded("h264", "libx264")).frames[0].instance)
    whole = list(video.read(0, 99))
    assert len(whole) == video.count() == COUNT
    for start, stop in ((3, 5), (5, 6), (8, 12), (0, 2), (11, 12)):
        np.testing.assert_array_equal(list(video.read(start, stop)), whole[start:stop])
    assert list(video.read(12, 13)) == []


def test_times_when_the_header_lists_too_many(write: Write) -> None:
    steps = [0, *range(100, 2000, 100)]
    series = write(encoded("h264", "libx264"), NumberOfFrames=20, FrameTimeVector=[str(step) for step in steps])
    times, _ = DicomSource(series, ReadOptions()).timing()
    np.testing.assert_allclose(times, np.cumsum(steps[:COUNT]) / 1000)


def test_more_frames_than_the_header_says_are_noted_without_a_source(write: Write) -> None:
    series = write(encoded("h264", "libx264"), NumberOfFrames=7)
    image = load_series(series)
    assert image.shape[-1] == 7
    assert image.meta["notes"] == "The video holds more frames than its header says."
    assert load_series(series, start=2, stop=6).meta["notes"] == ""


def test_a_damaged_video_is_one_part_whose_reading_says_why(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    damaged = DicomSource(write(b"\0\0\0\1" + bytes(500)), ReadOptions())
    assert damaged.parts() == [(0, None)]
    assert len(damaged.timing()[0]) == COUNT
    with pytest.raises(UnreadableInputError, match="Cannot read the video of a DICOM series"):
        damaged.load()
    monkeypatch.setattr(encapsulated_video, "MAX_FRAMES", COUNT - 1)
    with pytest.raises(UnreadableInputError, match="more than the allowed 11 frames"):
        DicomSource(write(encoded("mp4", "libx264")), ReadOptions()).load()


def test_a_lost_transport_packet_costs_no_other_frame(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = encoded("mpegts", "libx264")
    packets = [stream[start : start + 188] for start in range(0, len(stream), 188)]
    video = [number for number, packet in enumerate(packets) if int.from_bytes(packet[1:3], "big") & 0x1FFF == 256]
    begun = [number for number in video if packets[number][1] & 0x40]  # with each a frame begins
    lost = next(number for number in video if number > begun[COUNT // 2] and number not in begun)
    damaged = write(b"".join(packets[:lost] + packets[lost + 1 :]), f"{H264}.1")
    assert DicomSource(damaged, ReadOptions()).parts() == [(0, COUNT)]
    image = DicomSource(damaged, ReadOptions()).load().permute(3, 2, 1, 0).numpy()
    away = np.abs(image.mean(axis=(1, 2, 3)) - pictures().mean(axis=(1, 2, 3)))
    assert len(image) == COUNT
    assert away[: COUNT // 4].max() < 2  # long before the gap nothing changes
    monkeypatch.setattr(encapsulated_video, "MAX_FRAMES", COUNT - 1)
    with pytest.raises(UnreadableInputError, match="more than the allowed 11 frames"):
        DicomSource(damaged, ReadOptions()).load()


def test_one_video_is_open_at_a_time(write: Write) -> None:
    """A worker of a data loader that meets the first parts alone does not end with all streams in memory."""
    series = write(encoded("h264", "libx264"))
    sources = [DicomSource(series, ReadOptions()) for _ in range(3)]
    for source in sources:
        source.load(0, 5)
        opened = [other._video is not None and other._video._frames is not None for other in sources]
        assert opened == [other is source for other in sources]
    image = sources[0].load(5, COUNT)
    assert torch.equal(image.as_tensor(), load_series(series, start=5).as_tensor())
    assert all(source._video is not None and source._video._frames is None for source in sources)
