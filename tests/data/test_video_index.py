# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import io
import struct
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from monai_anomalyclip.data import UnreadableInputError, load_input
from monai_anomalyclip.data.video_index import index_video, promised_size, scan_packets

av = pytest.importorskip("av")


def refusal(source: Any, **options: Any) -> str:
    with pytest.raises(UnreadableInputError) as caught:
        index_video(source, **options)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "codec", "by_packets"),
    [
        ("v.mp4", "libx264", True),
        ("v.MOV", "libx264", True),
        ("v.mkv", "libx264", True),
        ("v.m4v", "libx264", True),
        ("v.mp4", "libx265", True),
        ("v.webm", "libvpx-vp9", True),
        ("v.webm", "libvpx", False),
        ("v.avi", "mjpeg", True),
        ("v.avi", "libx264", False),
        ("v.mp4", "mpeg4", False),
        ("v.mpg", "mpeg2video", False),
        ("v.h264", "libx264", False),
        ("v.ts", "libx264", None),
        ("v.flv", "libx264", None),
        ("v.wmv", "wmv2", None),
    ],
)
def test_frames_of_containers_and_codecs(
    make_video: Callable[..., Any], capfd: pytest.CaptureFixture[str], name: str, codec: str, by_packets: bool | None
) -> None:
    options = {"x265-params": "log-level=none"} if codec == "libx265" else {}
    if codec == "mpeg2video":
        options["bf"] = "2"
    made = make_video(name, codec, n=30, pixels="yuvj420p" if codec == "mjpeg" else "yuv420p", options=options)
    capfd.readouterr()
    index = index_video(made.path)
    assert index.n_frames == 30
    assert index.times.dtype == np.float64
    start = {"v.mpg": 0.54, "v.flv": 0.08, "v.ts": index.times[0]}.get(name, 0)  # some streams do not begin at 0
    np.testing.assert_allclose(index.times, start + np.arange(30) / 25, atol=6e-4)  # Matroska rounds to milliseconds
    assert (index.width, index.height) == (64, 48)
    assert index.fps == Fraction(25)
    assert index.codec in codec.replace("libx265", "hevc").replace("libx264", "h264").replace("libvpx", "vp8vp9")
    assert by_packets is None or (index.pts is not None) == by_packets
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["v.mp4", "v.mkv"])
def test_varying_frame_rate_and_late_start(make_video: Callable[..., Any], name: str) -> None:
    pts = [500, 540, 600, 610, 900, 2000, 2040, 2041, 5000, 5100]
    index = index_video(make_video(name, n=10, pts=pts, options={"bf": "2"}).path)
    np.testing.assert_allclose(index.times, np.array(pts) / 1000, atol=1e-9)


@pytest.mark.parametrize("aspect", [None, Fraction(4, 3), Fraction(16, 15)])
def test_shape_of_pixels(make_video: Callable[..., Any], aspect: Fraction | None) -> None:
    for name in ("v.mp4", "v.mkv", "v.ts"):
        assert index_video(make_video(name, aspect=aspect).path).pixel_aspect == (aspect or 1)


def test_key_frames(make_video: Callable[..., Any]) -> None:
    index = index_video(make_video("v.mp4", n=30, gop=8).path)
    assert index.keyframes is not None
    np.testing.assert_array_equal(index.keyframes, [0, 8, 16, 24])


def test_a_recording_that_begins_between_two_key_frames(make_video: Callable[..., Any]) -> None:
    made = make_video("v.ts", n=30, size=(96, 128), gop=10, options={"bf": "0"})
    content = made.path.read_bytes()
    with av.open(str(made.path)) as container:
        second = [packet.pos for packet in container.demux(video=0)][3]
    made.path.write_bytes(content[: 3 * 188] + content[second - second % 188 :])  # keeps the tables at the start
    with av.open(str(made.path)) as container:
        shown = [frame.time for frame in container.decode(video=0)]
    assert len(shown) == 20  # from the next key frame on
    index = index_video(made.path)
    assert index.pts is None
    np.testing.assert_allclose(index.times, shown)


def test_files_in_memory_are_left_open(make_video: Callable[..., Any]) -> None:
    content = make_video("v.mp4").path.read_bytes()
    file = io.BytesIO(content)
    file.seek(100)
    assert index_video(file).n_frames == 24
    assert not file.closed
    assert refusal(io.BytesIO(content[:100])).startswith("Cannot read the video: it is no video, truncated or damaged")


def test_a_second_film_is_told_of(tmp_path: Path) -> None:
    """Such as that of a second camera."""
    import av

    def written(*sizes: tuple[int, int]) -> Path:
        path = tmp_path / f"{len(sizes)}.mkv"
        with av.open(str(path), "w") as container:
            streams = [container.add_stream("mpeg4", rate=10) for _ in sizes]
            for stream, size in zip(streams, sizes, strict=True):
                stream.width, stream.height = size
            for stream in streams:
                frame = av.VideoFrame.from_ndarray(np.zeros((stream.height, stream.width, 3), np.uint8))
                container.mux([*stream.encode(frame), *stream.encode()])
        return path

    assert index_video(written((32, 32))).note == ""
    path = written((32, 32), (64, 48))
    assert index_video(path).others == 1
    assert "holds 2 films" in load_input(path).meta["notes"]


def test_titles_in_any_encoding(make_video: Callable[..., Any]) -> None:
    made = make_video("v.mkv", title="Koloskopie xx")
    content = made.path.read_bytes()
    assert b"Koloskopie xx" in content
    made.path.write_bytes(content.replace(b"Koloskopie xx", "Koloskopie \xe4\xf6".encode("latin-1")))
    assert index_video(made.path).n_frames == 24


def test_what_is_no_video(tmp_path: Path, make_video: Callable[..., Any]) -> None:
    (tmp_path / "text.mp4").write_text("I am a text")
    (tmp_path / "empty.mp4").touch()
    other = make_video("other.ts").path
    (tmp_path / "list.mp4").write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{other}\n#EXT-X-ENDLIST\n")
    (tmp_path / "concat.mp4").write_text("ffconcat version 1.0\nfile other.ts\n")
    for name in ("text.mp4", "empty.mp4", "list.mp4", "concat.mp4"):
        assert refusal(tmp_path / name).startswith(f"Cannot read '{name}': it is no video, truncated or damaged")
    assert refusal(tmp_path / "absent.mp4") == "Cannot read 'absent.mp4': there is no such file."
    assert "Is a directory" in refusal(tmp_path)
    with av.open(str(tmp_path / "sound.mkv"), "w") as output:
        stream = output.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), layout="mono")
        frame.rate = 8000
        output.mux(stream.encode(frame))
        output.mux(stream.encode())
    assert refusal(tmp_path / "sound.mkv") == "Cannot read 'sound.mkv': it holds no video."


def test_large_pictures_are_refused_before_they_are_decoded(
    make_video: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_video("v.mp4")
    assert index_video(made.path, max_pixels=48 * 64).n_frames == 24
    monkeypatch.setattr("monai_anomalyclip.data.video_index._first_picture", None)
    message = "Cannot read 'v.mp4': its pictures of 64 x 48 pixels are larger than the allowed 3,071."
    assert refusal(made.path, max_pixels=48 * 64 - 1) == message


def test_many_frames_are_refused(make_video: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("monai_anomalyclip.data.video_index.MAX_FRAMES", 23)
    for name in ("v.mp4", "v.h264"):
        assert "more than the allowed 23 frames" in refusal(make_video(name).path)


def test_without_pyav(make_video: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_video("v.mp4")
    monkeypatch.setitem(sys.modules, "av", None)
    assert refusal(made.path).endswith("videos need the package PyAV: pip install av.")


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8, 0.95])
@pytest.mark.parametrize("name", ["v.mp4", "v.mkv", "v.avi", "v.h264"])
def test_truncated_files_name_the_frame(make_video: Callable[..., Any], name: str, share: float) -> None:
    codec = "mjpeg" if name == "v.avi" else "libx264"
    pixels = "yuvj420p" if name == "v.avi" else "yuv420p"
    movflags = {"movflags": "faststart"} if name == "v.mp4" else {}
    made = make_video(name, codec, n=30, size=(96, 128), pixels=pixels, container=movflags, options={"bf": "0"})
    with av.open(str(made.path)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    content = made.path.read_bytes()
    cut = int(len(content) * share)
    whole = sum(position + size + (8 if name == "v.avi" else 0) <= cut for position, size in packets)
    assert 0 < whole < 30
    made.path.write_bytes(content[:cut])
    message = refusal(made.path)
    assert message.startswith(f"Cannot read '{name}': the file is truncated or damaged: it breaks at frame ")
    assert int(message.split("frame ")[1].split(",")[0]) in (whole, whole - 1)  # of a bare stream the last is in doubt


def test_a_change_of_size_names_the_frame(make_video: Callable[..., Any]) -> None:
    small, large = make_video("a.h264", n=9), make_video("b.h264", n=9, size=(64, 80))
    small.path.write_bytes(small.path.read_bytes() + large.path.read_bytes())
    assert "it breaks at frame 9, counted from 0" in refusal(small.path)


def promised(content: bytes) -> int:
    return promised_size(io.BytesIO(content), len(content))


@pytest.mark.parametrize(
    ("name", "container"), [("v.mp4", {}), ("v.mp4", {"movflags": "faststart"}), ("v.mkv", {}), ("v.webm", {})]
)
def test_whole_files_promise_what_they_hold(
    make_video: Callable[..., Any], name: str, container: dict[str, str]
) -> None:
    made = make_video(name, "libvpx" if name == "v.webm" else "libx264", container=container)
    content = made.path.read_bytes()
    end = promised(content)
    if name != "v.mp4" or container:
        assert end == len(content)  # the media data come last
    else:
        assert end == content.index(b"moov") - 4  # the table comes after them
    assert promised(content[:-1]) == end


def test_what_promises_nothing(make_video: Callable[..., Any]) -> None:
    assert promised(b"") == 0
    assert promised(make_video("v.avi", "mjpeg", pixels="yuvj420p").path.read_bytes()) == 0
    header = b"\x1a\x45\xdf\xa3"  # of EBML: without a length, with an impossible one, followed by no segment
    segment = b"\x18\x53\x80\x67\x85"
    assert promised(header + b"\x80" + segment) == 10 + 5
    assert promised(header) == promised(header + bytes(9) + segment) == promised((header + b"\x80") * 3) == 0
    live = make_video("v.mkv", container={"live": "1"}).path.read_bytes()
    assert promised(live) == 0


def box(kind: bytes, length: int) -> bytes:
    return struct.pack(">I", length) + kind


def test_boxes() -> None:
    start = box(b"ftyp", 8)
    assert promised(start + box(b"mdat", 1) + struct.pack(">Q", 2**40) + bytes(9)) == 8 + 2**40
    assert promised(start + box(b"mdat", 0) + bytes(50)) == 8 + 8 + 50  # up to the end
    assert promised(start + box(b"mdat", 20) + bytes(12) + box(b"what", 2**31) + bytes(9)) == 28
    assert promised(start + box(b"mdat", 4) + bytes(50)) == 0  # nonsense
    assert promised(start * 100_000) == 0


def packet(pts: int | None, *, size: int = 9, key: bool = False, discard: bool = False) -> Any:
    return SimpleNamespace(pts=pts, size=size, is_keyframe=key, is_corrupt=False, is_discard=discard)


FIRST, END = packet(10, key=True), packet(None, size=0)


@pytest.mark.parametrize(
    ("packets", "shown"),
    [
        ([FIRST, packet(30), packet(20), END], [10, 20, 30]),
        ([FIRST, packet(20, discard=True), packet(30), END], [10, 30]),
        ([FIRST, packet(5), packet(20), END], None),  # shown before the first key frame
        ([FIRST, packet(20), packet(20), END], None),  # two at one time
        ([FIRST, END, packet(20), END], None),  # an empty one within
        ([packet(10, key=True, discard=True), END], None),  # nothing is shown
    ],
)
def test_packets_that_tell_the_frames(packets: list[Any], shown: list[int] | None) -> None:
    found = scan_packets(SimpleNamespace(demux=lambda _: iter(packets)), None)
    assert (None if found is None else found[0].tolist()) == shown


def test_a_frame_that_cannot_be_decoded_is_named(make_video: Callable[..., Any]) -> None:
    made = make_video("v.mp4", "mpeg4", n=12, options={"bf": "0"})
    with av.open(str(made.path)) as container:
        places = [(packet.pos, packet.size) for packet in container.demux(video=0)]
    content, (at, size) = bytearray(made.path.read_bytes()), places[5]
    content[at : at + size] = bytes(size)
    made.path.write_bytes(content)
    assert "it breaks at frame 5, counted from 0" in refusal(made.path)


def test_want_of_memory_is_no_damage(make_video: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr("monai_anomalyclip.data.video_index._first_picture", full)
    assert refusal(make_video("v.mp4").path) == "Cannot read 'v.mp4': there is not enough memory for it."
