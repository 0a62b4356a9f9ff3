# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import gc
import io
import struct
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from monai_anomalyclip.data import UnreadableInputError
from monai_anomalyclip.data.input_files import VIDEO_SUFFIXES
from monai_anomalyclip.data.video import VideoReader, one_open

av = pytest.importorskip("av")


def assert_shows(frames: np.ndarray, pictures: np.ndarray) -> None:
    """Each frame is its own picture, and none of the others."""
    assert frames.shape == pictures.shape
    assert frames.dtype == np.uint8
    for frame, picture in zip(frames, pictures, strict=True):
        assert np.abs(frame.astype(float) - picture).mean() < 3
        distances = np.abs(frame.astype(float) - pictures).mean(axis=(1, 2, 3))
        np.testing.assert_array_equal(pictures[distances.argmin()], picture)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one entry with each picture that a reader decodes."""
    seen: list[int] = []
    number = VideoReader._number

    def counting(self: VideoReader, picture: Any) -> int | None:
        seen.append(0)
        return number(self, picture)

    monkeypatch.setattr(VideoReader, "_number", counting)
    return seen


@pytest.mark.parametrize(
    ("name", "codec", "pixels", "size"),
    [
        ("v.mp4", "libx264", "yuv420p", (48, 64)),
        ("v.mp4", "libx264", "yuv444p", (37, 51)),
        ("v.mkv", "libx264", "yuv420p", (48, 64)),
        ("v.mp4", "mpeg4", "yuv420p", (37, 51)),
        ("v.avi", "mpeg4", "yuv420p", (48, 64)),
        ("v.avi", "libx264", "yuv420p", (48, 64)),
        ("v.avi", "mjpeg", "yuvj420p", (37, 51)),
        ("v.avi", "rawvideo", "bgr24", (37, 52)),
        ("v.webm", "libvpx", "yuv420p", (48, 64)),
        ("v.webm", "libvpx-vp9", "yuv420p", (48, 64)),
        ("v.mpg", "mpeg2video", "yuv420p", (48, 64)),
        ("v.mpeg", "mpeg1video", "yuv420p", (48, 64)),
        ("v.mov", "prores_ks", "yuv422p10le", (48, 64)),
        ("v.h264", "libx264", "yuv420p", (48, 64)),
    ],
)
def test_frames_in_display_order_however_they_are_read(
    make_video: Callable[..., Any], name: str, codec: str, pixels: str, size: tuple[int, int]
) -> None:
    options = {"bf": "2"} if codec in ("libx264", "mpeg4", "mpeg2video") else {}
    made = make_video(name, codec, size=size, pixels=pixels, gop=7, options=options)
    assert made.path.suffix in (*VIDEO_SUFFIXES, ".h264")
    with VideoReader(made.path) as reader:
        frames = reader.read(0, 24)
        assert_shows(frames, made.pictures)
        np.testing.assert_array_equal(np.concatenate([reader.read(i, min(i + 5, 24)) for i in range(0, 24, 5)]), frames)
        for i in (20, 3, 3, 4, 22, 0, 23, 11):
            np.testing.assert_array_equal(reader.read(i, i + 1)[0], frames[i])
        assert reader.read(5, 5).shape == (0, *size, 3)
    with VideoReader(made.path, stride=5) as reader:
        assert reader.n_frames == len(reader.times) == 5
        np.testing.assert_array_equal(reader.times, reader.index.times[::5])
        np.testing.assert_array_equal(reader.read(1, 5), frames[5::5])
        np.testing.assert_array_equal(reader.read(0, 2), frames[[0, 5]])


def test_reading_on_decodes_nothing_twice_and_jumps_seek(make_video: Callable[..., Any], decoded: list[int]) -> None:
    made = make_video("v.mp4", n=200, size=(16, 16), gop=20)
    with VideoReader(made.path) as reader:
        for i in range(0, 200, 10):
            reader.read(i, i + 10)
        assert len(decoded) == 200
        reader.read(45, 46)  # back: to the key frame 40
        assert len(decoded) <= 200 + 10
        before = len(decoded)
        reader.read(190, 191)  # far ahead: to the key frame 180
        assert len(decoded) <= before + 15
    with VideoReader(made.path, stride=90) as reader:
        decoded.clear()
        assert_shows(reader.read(0, 3), made.pictures[::90])
        assert len(decoded) <= 50


def test_open_groups_of_pictures(make_video: Callable[..., Any]) -> None:
    """Key frames that are shown after pictures which need the group before."""
    options = {"x264-params": "open-gop=1:keyint=8:min-keyint=8:bframes=3:scenecut=0:b-adapt=0"}
    made = make_video("v.mkv", n=40, options=options)
    with VideoReader(made.path) as reader:
        assert len(reader.index.keyframes) >= 4
        frames = reader.read(0, 40)
        assert_shows(frames, made.pictures)
        for i in reversed(range(40)):
            np.testing.assert_array_equal(reader.read(i, i + 1)[0], frames[i])


def test_seeks_that_land_too_late_start_from_the_beginning(
    make_video: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_video("v.mp4", n=30, gop=6)
    with VideoReader(made.path) as reader:
        frames = reader.read(0, 30)
        pts = reader.index.pts
        approach = VideoReader._approach

        def late(self: VideoReader, number: int) -> None:
            approach(self, number)
            if self._sought:
                self._container.seek(int(pts[24]), stream=self._stream)
                self._begin(self._next, sought=True)

        monkeypatch.setattr(VideoReader, "_approach", late)
        np.testing.assert_array_equal(reader.read(14, 16), frames[14:16])


def with_matrix(path: Path, a: int, b: int, c: int, d: int) -> Path:
    """Give the track of an MP4 a display matrix (ISO 14496-12, 8.3.2)."""
    content = bytearray(path.read_bytes())
    start = content.index(b"tkhd") + 44
    assert struct.unpack(">i", content[start : start + 4]) == (65536,)
    content[start : start + 36] = struct.pack(">9i", a * 65536, b * 65536, 0, c * 65536, d * 65536, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("matrix", "turned"),
    [
        ((1, 0, 0, 1), lambda pictures: pictures),
        ((0, 1, -1, 0), lambda pictures: pictures[:, ::-1].swapaxes(1, 2)),  # x right becomes down: clockwise
        ((-1, 0, 0, -1), lambda pictures: pictures[:, ::-1, ::-1]),
        ((0, -1, 1, 0), lambda pictures: pictures.swapaxes(1, 2)[:, ::-1]),
    ],
)
def test_rotation(make_video: Callable[..., Any], matrix: tuple[int, int, int, int], turned: Any) -> None:
    made = make_video("v.mp4", n=4)
    expected = turned(made.pictures)
    with VideoReader(with_matrix(made.path, *matrix)) as reader:
        assert (reader.index.height, reader.index.width) == expected.shape[1:3]
        assert_shows(reader.read(0, 4), expected)


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(("space", "red", "blue"), [(1, 0.2126, 0.0722), (6, 0.299, 0.114), (2, 0.299, 0.114)])
def test_colours_by_matrix_and_range(tmp_path: Path, space: int, red: float, blue: float, full: bool) -> None:
    """ITU-R BT.709 (1), BT.601 (6) and unspecified (2), by their own equations."""
    rng = np.random.default_rng(0)
    luma, cb, cr = (rng.integers(low, high, (8, 10)) for low, high in ((60, 190), (105, 150), (105, 150)))
    offset, span, chroma = (0, 255, 255) if full else (16, 219, 224)
    y, b, r = (luma - offset) / span, (cb - 128) / chroma, (cr - 128) / chroma
    rgb = {"red": y + 2 * (1 - red) * r, "blue": y + 2 * (1 - blue) * b}
    rgb["green"] = (y - red * rgb["red"] - blue * rgb["blue"]) / (1 - red - blue)
    expected = np.clip(np.stack([rgb["red"], rgb["green"], rgb["blue"]], axis=-1) * 255, 0, 255)
    with av.open(str(tmp_path / "c.mkv"), "w") as output:
        stream = output.add_stream("libx264", rate=25, options={"qp": "0"})  # lossless
        stream.height, stream.width, stream.pix_fmt = 8, 10, "yuv444p"
        stream.codec_context.colorspace, stream.codec_context.color_range = space, 2 if full else 1
        frame = av.VideoFrame.from_ndarray(np.stack([luma, cb, cr]).astype(np.uint8), "yuv444p")
        frame.colorspace, frame.color_range = space, 2 if full else 1
        output.mux(stream.encode(frame))
        output.mux(stream.encode())
    with VideoReader(tmp_path / "c.mkv") as reader:
        assert np.abs(reader.read(0, 1)[0] - expected).max() <= 1


def test_damage_names_the_frame(make_video: Callable[..., Any], capfd: pytest.CaptureFixture[str]) -> None:
    made = make_video("v.mp4", n=30, size=(96, 128), gop=10, options={"bf": "0"})
    with av.open(str(made.path)) as container:
        packet = [packet for packet in container.demux(video=0) if packet.size][17]
    content = bytearray(made.path.read_bytes())
    content[packet.pos + 8 : packet.pos + packet.size] = bytes(packet.size - 8)
    made.path.write_bytes(content)
    with VideoReader(made.path) as reader:
        assert reader.n_frames == 30
        assert_shows(reader.read(0, 17), made.pictures[:17])
        for start in (10, 17):
            with pytest.raises(UnreadableInputError) as caught:
                reader.read(start, 25)
            sentence = "the file is truncated or damaged: it breaks at frame 17, counted from 0."
            assert str(caught.value) == f"Cannot read 'v.mp4': {sentence}"
        assert_shows(reader.read(3, 9), made.pictures[3:9])
    with VideoReader(made.path, stride=20) as reader, pytest.raises(UnreadableInputError, match="at frame 17,"):
        reader.read(0, 2)  # the pictures after it are drawn on it
    assert capfd.readouterr() == ("", "")


def test_half_a_picture_is_damage(make_video: Callable[..., Any]) -> None:
    made = make_video("v.avi", "mjpeg", n=9, size=(96, 128), pixels="yuvj420p")
    with av.open(str(made.path)) as container:
        packet = [packet for packet in container.demux(video=0) if packet.size][4]
    content = bytearray(made.path.read_bytes())
    content[packet.pos + 8 + packet.size // 2 : packet.pos + packet.size] = bytes(packet.size // 2 - 8)
    made.path.write_bytes(content)
    with VideoReader(made.path) as reader:
        assert_shows(reader.read(0, 4), made.pictures[:4])
        with pytest.raises(UnreadableInputError, match="it breaks at frame 4,"):
            reader.read(4, 5)


def test_damage_after_the_frames_were_counted(make_video: Callable[..., Any]) -> None:
    """Where the frames have no time stamps of their own, none is taken for the one that is missing."""
    made = make_video("v.mp4", "mpeg4", n=12, options={"bf": "0"})
    with av.open(str(made.path)) as container:
        places = [(packet.pos, packet.size) for packet in container.demux(video=0)]
    with VideoReader(made.path) as reader:
        assert reader.index.pts is None
        content, (at, size) = bytearray(made.path.read_bytes()), places[5]
        content[at : at + size] = bytes(size)
        reader.close()
        made.path.write_bytes(content)
        assert_shows(reader.read(0, 5), made.pictures[:5])
        with pytest.raises(UnreadableInputError, match="it breaks at frame 5,"):
            reader.read(5, 12)


def test_pictures_that_lead_in_a_key_frame_are_passed_over(
    make_video: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some decoders give what they have before the key frame, with a time stamp of no frame, or without one."""
    made = make_video("v.mp4", n=30, gop=6)
    with VideoReader(made.path) as reader:
        frames = reader.read(0, 30)
        decode = VideoReader._decode

        def led_in(self: VideoReader) -> Iterator[Any]:
            assert self.index.pts is not None
            yield from (SimpleNamespace(pts=pts) for pts in (None, -7, int(self.index.pts[0])) if self._sought)
            yield from decode(self)

        monkeypatch.setattr(VideoReader, "_decode", led_in)
        monkeypatch.setattr(VideoReader, "_restart", lambda _: pytest.fail("began anew"))
        np.testing.assert_array_equal(reader.read(20, 22), frames[20:22])


def test_files_in_memory(make_video: Callable[..., Any]) -> None:
    made = make_video("v.mp4")
    file = io.BytesIO(made.path.read_bytes())
    with VideoReader(file) as reader:
        frames = reader.read(0, 24)
        assert_shows(frames, made.pictures)
        np.testing.assert_array_equal(reader.read(2, 4), frames[2:4])
    assert not file.closed
    reader.close()
    np.testing.assert_array_equal(reader.read(1, 2), frames[1:2])  # opens anew
    reader.close()


def test_wrong_requests(make_video: Callable[..., Any]) -> None:
    made = make_video("v.mp4")
    with pytest.raises(ValueError, match="stride of a video must be 1 or more, got 0"):
        VideoReader(made.path, stride=0)
    with VideoReader(made.path) as reader:
        for start, stop in ((-1, 2), (3, 2), (0, 25)):
            with pytest.raises(ValueError, match=f"Frames {start} to {stop} .* has 24"):
                reader.read(start, stop)
    made.path.unlink()
    with pytest.raises(UnreadableInputError, match=r"'v\.mp4': there is no such file"):
        reader.read(0, 1)


@pytest.fixture(params=[("m.mp4", "libx264"), ("m.mkv", "libx264"), ("m.avi", "mjpeg")])
def small_video(request: pytest.FixtureRequest, make_video: Callable[..., Any]) -> Path:
    name, codec = request.param
    return make_video(name, codec, n=5, size=(16, 16), pixels="yuvj420p").path


@settings(max_examples=60, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    flips=st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 255)), min_size=1, max_size=4),
    keep=st.one_of(st.just(2**20), st.integers(0, 2**13)),
)
def test_mutated_videos_are_read_or_refused(small_video: Path, flips: list[tuple[int, int]], keep: int) -> None:
    content = bytearray(small_video.read_bytes())
    for position, value in flips:
        content[position % len(content)] = value
    path = small_video.with_name(f"mutated{small_video.suffix}")
    path.write_bytes(content[:keep])
    message = ""
    frames = np.zeros(0, np.uint8)
    try:
        with VideoReader(path) as reader:
            frames = reader.read(0, min(reader.n_frames, 5))
    except UnreadableInputError as error:
        message = str(error)
    assert frames.size <= 5 * 3 * 2**16  # no small file turns into large pictures
    assert not message or message.startswith(f"Cannot read '{path.name}': ")
    assert str(path.parent) not in message


class Film:
    """Counts how often it was closed."""

    def __init__(self) -> None:
        self.closed = 0

    def close(self) -> None:
        self.closed += 1


def use(film: Film, *, last: bool = False) -> None:
    with one_open(film, last=last):
        pass


def test_another_one_closes_the_former() -> None:
    first, second = Film(), Film()
    use(first)
    use(first)
    assert first.closed == 0
    with one_open(second, last=False):
        assert first.closed == 1  # before the second one takes memory, too
    use(first)
    assert (first.closed, second.closed) == (1, 1)


def test_the_last_part_and_errors_close() -> None:
    film = Film()
    use(film, last=True)
    assert film.closed == 1
    with pytest.raises(ValueError, match="damaged"), one_open(film, last=False):
        raise ValueError("damaged")
    assert film.closed == 2
    use(Film())
    assert film.closed == 2  # it was not kept


def test_what_is_in_use_is_left_alone() -> None:
    """Two threads read two films at once, and a film is read while another one goes on."""
    outer, inner = Film(), Film()
    use(outer)
    with one_open(outer, last=False):
        use(inner)
        assert (outer.closed, inner.closed) == (0, 0)
    assert (outer.closed, inner.closed) == (0, 1)


def test_nothing_is_kept_alive() -> None:
    film = Film()
    use(film)
    gone = weakref.ref(film)
    del film
    gc.collect()
    assert gone() is None
    use(Film())
