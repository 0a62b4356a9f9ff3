# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from monai_anomalyclip.demo.phantom_sets import make_clip
from monai_anomalyclip.writers.cine import CineWriter
from monai_anomalyclip.writers.overlays import overlay

av = pytest.importorskip("av", reason="PyAV is not installed")

SIZE = (113, 151)
TIMES = [0.25, 0.29, 0.37, 0.371, 1.0, 1.0 + 1001 / 30000, 7.5]  # at a variable rate, not from 0 on
COUNT = len(TIMES)


def film() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    frames, masks = make_clip(0, frames=COUNT, size=160)
    frames, masks = frames[:, : SIZE[0], : SIZE[1]], masks[:, : SIZE[0], : SIZE[1]].copy()
    masks[3] = False
    heat = np.where(masks, 0.8, 0.1).astype(np.float32)
    heat[3] = 0.49
    return frames, heat, masks, np.linspace(0.1, 0.7, COUNT, dtype=np.float32)


def write(folder: Path, parts: tuple[int, ...] = (COUNT,), **options: Any) -> list[Path]:
    writer = CineWriter(folder, "sub/clip", SIZE, TIMES, 25, **options)
    start = 0
    for count in parts:
        writer.add(*(values[start : start + count] for values in film()))
        start += count
    return writer.close()


def decoded(path: Path) -> tuple[list[float], np.ndarray]:
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    return [frame.time for frame in frames], np.stack([frame.to_ndarray(format="rgb24") for frame in frames])


def test_film_shows_each_overlay_at_its_time(tmp_path: Path) -> None:
    film_path, _ = write(tmp_path)
    assert film_path == tmp_path / "sub" / "clip_overlay.mp4"
    assert film_path.parent.stat().st_mode & 0o777 == 0o700
    times, pictures = decoded(film_path)
    np.testing.assert_allclose(times, TIMES, atol=0.5 / 90_000 + 1e-9)
    assert pictures.shape == (COUNT, 114, 152, 3)  # even sides
    frames, heat, masks, _ = film()
    for picture, frame, values, mask in zip(pictures, frames, heat, masks, strict=True):
        expected = overlay(frame, values, mask).astype(float)
        error = np.abs(picture[:113, :151] - expected)
        assert error[:80].mean() < 6  # yuv420p halves the resolution of colours, such as the outline's
        assert abs((picture[:80, :151] - expected[:80]).mean()) < 1.5  # with BT.601's colours it would be more
    repeated = np.abs(pictures[:, :80, 151].astype(float) - pictures[:, :80, 150])
    assert repeated.mean() < 3


def test_film_is_plain_h264_without_sound_or_metadata(tmp_path: Path) -> None:
    folder = tmp_path / "Doe^John"
    path = write(folder)[0]
    with av.open(str(path)) as container:
        assert set(container.metadata) <= {"major_brand", "minor_version", "compatible_brands"}
        (stream,) = container.streams
        assert (stream.type, stream.codec_context.name, stream.codec_context.pix_fmt) == ("video", "h264", "yuv420p")
        assert stream.metadata["handler_name"] == "VideoHandler"
        assert stream.metadata["language"] == "und"
        assert set(stream.metadata) <= {"handler_name", "language", "vendor_id"}
        assert stream.codec_context.colorspace == 1  # BT.709
        length = float((stream.duration or 0) * stream.time_base)
        assert length == pytest.approx(TIMES[-1] - TIMES[0] + 1 / 25, abs=1e-4)
    assert b"Doe" not in path.read_bytes()
    assert b"Lav" not in path.read_bytes()


@pytest.mark.parametrize("aspect", [Fraction(1), Fraction(4, 3)])
def test_pixels_keep_their_shape(aspect: Fraction, tmp_path: Path) -> None:
    with av.open(str(write(tmp_path, pixel_aspect=aspect)[0])) as container:
        assert (container.streams.video[0].sample_aspect_ratio or 1) == aspect


def test_banner_covers_nothing_but_the_lower_left_corner(tmp_path: Path) -> None:
    """A black film: whatever is bright is the banner."""
    black = np.zeros((1, 240, 320, 3), np.uint8)
    nothing = np.zeros((1, 240, 320), np.float32)
    with CineWriter(tmp_path, "black", (240, 320), [0], 10) as writer:
        writer.add(black, nothing, nothing, [0.0])
    bright = decoded(tmp_path / "black_overlay.mp4")[1][0].max(axis=-1) > 60
    rows, columns = np.nonzero(bright)
    assert len(rows) > 100
    assert rows.min() > 215
    assert 0 < columns.min() < 10
    assert columns.max() < 120
    with CineWriter(tmp_path, "white", (240, 320), [0], 10) as writer:
        writer.add(black + 255, nothing, nothing, [0.0])
    white = decoded(tmp_path / "white_overlay.mp4")[1][0]
    assert white[:200].min() > 245
    assert white[:, 160:].min() > 245
    assert white[225:, :20].mean() < 160  # dark ground behind the text


def test_table_has_a_row_per_frame(tmp_path: Path) -> None:
    table = write(tmp_path, threshold=0.49)[1]
    assert table == tmp_path / "sub" / "clip_frames.csv"
    with table.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == ["frame", "seconds", "anomaly_score", "map_max", "area_fraction", "flag"]
    assert [int(row["frame"]) for row in rows] == list(range(COUNT))
    _, heat, masks, scores = film()
    for name, expected in (
        ("seconds", TIMES),
        ("anomaly_score", scores),
        ("map_max", heat.max(axis=(1, 2))),
        ("area_fraction", masks.mean(axis=(1, 2))),
    ):
        np.testing.assert_allclose([float(row[name]) for row in rows], expected, rtol=1e-5, atol=1e-6)
    assert [row["flag"] for row in rows] == ["1"] * COUNT  # 0.49 counts at a threshold of 0.49
    rows = list(csv.DictReader(write(tmp_path / "b", threshold=0.5)[1].open()))
    assert [row["flag"] for row in rows] == ["1", "1", "1", "0", "1", "1", "1"]


def test_parts_make_no_difference_and_files_appear_at_the_end(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole")
    parts = write(tmp_path / "parts", (1, 0, 4, 2))
    assert whole[1].read_bytes() == parts[1].read_bytes()
    np.testing.assert_array_equal(decoded(whole[0])[1], decoded(parts[0])[1])

    writer = CineWriter(tmp_path, "late", SIZE, TIMES, 25)
    writer.add(*film())
    assert not list(tmp_path.glob("late*"))
    paths = writer.close()
    assert writer.close() == paths  # once more does nothing
    writer.abort()
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["late_frames.csv", "late_overlay.mp4"]
    assert {path.stat().st_mode & 0o777 for path in paths} == {0o600}
    with pytest.raises(ValueError, match="The film is closed"):
        writer.add(*film())


def test_aborted_films_leave_nothing_behind(tmp_path: Path) -> None:
    writer = CineWriter(tmp_path, "a", SIZE, TIMES, 25)
    writer.add(*film())
    writer.abort()
    with pytest.raises(ValueError, match="was aborted"):
        writer.close()
    writer = CineWriter(tmp_path, "b", SIZE, TIMES, 25)
    writer.add(*(values[:2] for values in film()))
    with pytest.raises(ValueError, match="Only 2 of 7 frames"):
        writer.close()

    def interrupted() -> None:
        with CineWriter(tmp_path, "c", SIZE, TIMES, 25) as writer:
            writer.add(*film())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not list(tmp_path.iterdir())


def test_a_film_that_cannot_be_opened_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: str, *_: object, **__: object) -> None:
        Path(path).write_bytes(b"half a header")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("av.open", full)
    with pytest.raises(OSError, match="No space left"):
        CineWriter(tmp_path, "a", SIZE, TIMES, 25)
    assert not list(tmp_path.iterdir())


def test_a_film_that_ends_early_is_kept_when_told(tmp_path: Path) -> None:
    writer = CineWriter(tmp_path, "a", SIZE, TIMES, 25)
    writer.add(*(values[:2] for values in film()))
    film_path, table = writer.close(short=True)
    assert decoded(film_path)[1].shape[0] == 2
    assert len(table.read_text().splitlines()) == 1 + 2
    empty = CineWriter(tmp_path, "b", SIZE, TIMES, 25)
    with pytest.raises(ValueError, match="Only 0 of 7 frames"):
        empty.close(short=True)


def test_existing_results_stay_unless_told(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "clip_frames.csv").write_text("mine")
    with pytest.raises(FileExistsError, match=r"clip_frames\.csv exist already"):
        write(tmp_path)
    assert (tmp_path / "sub" / "clip_frames.csv").read_text() == "mine"
    write(tmp_path, overwrite=True)
    assert (tmp_path / "sub" / "clip_frames.csv").read_text().startswith("frame,seconds")


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (9, 400), (200, 8)])
def test_sizes_too_small_for_the_banner(tmp_path: Path, size: tuple[int, int]) -> None:
    with CineWriter(tmp_path, "tiny", size, [0, 0.1], 10) as writer:
        writer.add(np.zeros((2, *size, 3), np.uint8), np.zeros((2, *size)), np.zeros((2, *size)), [0, 0])
    assert decoded(tmp_path / "tiny_overlay.mp4")[1].shape[1:3] == (size[0] + size[0] % 2, size[1] + size[1] % 2)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"times": [0.0, 0.1, 0.1]}, "must increase by 1/90000 s or more.* frame 1 is the last"),
        ({"times": [0.0, 0.2, 0.1]}, "must increase"),
        ({"times": [-0.1, 0.2]}, "0 s or later"),
        ({"times": [0.0, float("nan")]}, "0 s or later"),
        ({"times": [0.0, 1e300]}, "up to 1000000 s"),
        ({"times": []}, "needs the times"),
        ({"size": (0, 10)}, "positive size"),
        ({"fps": 0}, r"got \(113, 151\) and 0"),
        ({"fps": float("nan")}, "and nan"),
        ({"name": "../clip"}, "must be a relative path"),
    ],
)
def test_bad_films(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"folder": tmp_path, "name": "a", "size": SIZE, "times": TIMES, "fps": 25, **changed}
    with pytest.raises(ValueError, match=message):
        CineWriter(**arguments)
    assert not list(tmp_path.iterdir())


def test_bad_parts(tmp_path: Path) -> None:
    frames, heat, masks, scores = film()
    with CineWriter(tmp_path, "a", SIZE, TIMES, 25) as writer:
        for part in (
            (frames.astype(np.float32), heat, masks, scores),
            (frames[:, :, 1:], heat, masks, scores),
            (frames, heat[1:], masks, scores),
            (frames, heat, masks[..., None], scores),
            (frames, heat, masks, scores[1:]),
        ):
            with pytest.raises(ValueError, match="Expected uint8 frames"):
                writer.add(*part)
        with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
            writer.add(frames, heat * 2, masks, scores)
        writer.add(frames, heat, masks, scores)
        with pytest.raises(ValueError, match="times for 7 frames, but more"):
            writer.add(frames[:1], heat[:1], masks[:1], scores[:1])


def test_without_pyav_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ImportError, match=r"pip install av"):
        write(tmp_path)
    assert not list(tmp_path.iterdir())
