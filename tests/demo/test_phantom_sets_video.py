# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from monai_anomalyclip.demo.phantom_sets import make_clip, write_mp4


def test_pyav_decodes_every_frame(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    frames, masks = make_clip(7, frames=10, size=96)
    assert frames.shape == (10, 96, 96, 3)
    assert masks.shape == (10, 96, 96)
    assert masks.any()
    path = write_mp4(tmp_path / "clip.mp4", frames, frames_per_second=8)
    with av.open(str(path)) as container:
        assert float(container.streams.video[0].average_rate) == 8
        decoded = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    assert decoded.shape == frames.shape
    assert np.abs(decoded.astype(int) - frames).mean() < 6  # lossy, but the same picture
    assert [p.name for p in tmp_path.iterdir()] == ["clip.mp4"]
    with pytest.raises(FileExistsError, match="exists"):
        write_mp4(path, frames)


def test_lesion_moves_with_the_camera() -> None:
    frames, masks = make_clip(7, frames=8, size=96)
    normal, _ = make_clip(7, frames=8, size=96, anomalous=False)
    change = np.abs(frames.astype(int) - normal).max(axis=3)
    assert not change[~masks].any()
    assert change[masks].any()
    centres = [np.argwhere(mask).mean(axis=0) for mask in masks if mask.any()]
    assert np.ptp(np.stack(centres), axis=0).max() > 5


def test_wrong_frames(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="even H and W"):
        write_mp4(tmp_path / "clip.mp4", np.zeros((2, 33, 32, 3), dtype=np.uint8))


def test_missing_pyav_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ImportError, match="pip install av"):
        write_mp4(tmp_path / "clip.mp4", np.zeros((2, 32, 32, 3), dtype=np.uint8))
