# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from monai.data import load_decathlon_datalist
from PIL import Image

from monai_anomalyclip.demo import phantom_sets as module
from monai_anomalyclip.demo.phantom_sets import make_clip, prepare_demo_data, write_datalist, write_mp4
from monai_anomalyclip.demo.phantoms import INDUSTRIAL_FAMILIES, MEDICAL_FAMILIES

SMALL = {"training": 12, "validation": 12, "testing": 8, "size": 48, "progress": False}


def snapshot(root: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path.relative_to(root)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def test_entries_exist_and_are_what_they_say(tmp_path: Path) -> None:
    path = write_datalist(tmp_path, **SMALL)
    assert path == tmp_path / "datalist.json"
    for section, families in (("training", INDUSTRIAL_FAMILIES), ("testing", MEDICAL_FAMILIES)):
        items = load_decathlon_datalist(str(path), data_list_key=section, base_dir=str(tmp_path))
        assert {item["class"] for item in items} == set(families)
        assert len(items) == SMALL[section]
        assert sum(item["image_label"] for item in items) == len(items) // 2
        for item in items:
            image = np.asarray(Image.open(item["image"]))
            assert image.shape == (48, 48, 3)
            assert image.dtype == np.uint8
            assert ("label" in item) == bool(item["image_label"])
            if "label" in item:
                mask = np.asarray(Image.open(item["label"]))
                assert mask.shape == (48, 48)
                assert set(np.unique(mask)) == {0, 255}


def test_sections_share_no_picture(tmp_path: Path) -> None:
    write_datalist(tmp_path, **SMALL)
    pictures = [path.read_bytes() for path in tmp_path.glob("*/images/*.png")]
    assert len(set(pictures)) == len(pictures) == 32


def test_second_call_does_nothing(tmp_path: Path) -> None:
    prepare_demo_data(tmp_path, **SMALL)
    before = snapshot(tmp_path)
    prepare_demo_data(tmp_path, **SMALL)
    assert snapshot(tmp_path) == before


def test_interrupted_folder_is_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = write_datalist(tmp_path / "whole", **SMALL).parent
    written = 0

    def dies(*arguments: object) -> None:
        nonlocal written
        written += 1
        if written > 9:
            raise KeyboardInterrupt
        save(*arguments)

    save = module._write_png
    monkeypatch.setattr(module, "_write_png", dies)
    with pytest.raises(KeyboardInterrupt):
        write_datalist(tmp_path / "part", **SMALL)
    assert not (tmp_path / "part" / "datalist.json").exists()
    monkeypatch.undo()
    part = write_datalist(tmp_path / "part", **SMALL).parent
    assert {name: data for name, (_, data) in snapshot(part).items()} == {
        name: data for name, (_, data) in snapshot(whole).items()
    }


def test_lost_picture_is_made_again(tmp_path: Path) -> None:
    write_datalist(tmp_path, **SMALL)
    before = snapshot(tmp_path)
    (tmp_path / "training" / "masks" / "metal_0001.png").unlink()
    write_datalist(tmp_path, **SMALL)
    assert {name: data for name, (_, data) in snapshot(tmp_path).items()} == {
        name: data for name, (_, data) in before.items()
    }


def test_other_settings_are_refused(tmp_path: Path) -> None:
    write_datalist(tmp_path, **SMALL)
    with pytest.raises(ValueError, match="choose another folder"):
        write_datalist(tmp_path, **{**SMALL, "size": 64})


def test_inference_inputs(tmp_path: Path) -> None:
    path = prepare_demo_data(tmp_path, **SMALL)
    assert json.loads(path.read_text()).keys() == {"training", "validation", "testing"}
    frames = sorted(p.name for p in (tmp_path / "inference" / "frames").iterdir())
    assert len(frames) == 8
    assert sum("normal" in name for name in frames) == 4
    truth = sorted(p.name for p in (tmp_path / "inference_truth" / "frames").iterdir())
    assert truth == [name for name in frames if "normal" not in name]
    volume = nib.load(tmp_path / "inference" / "volume.nii.gz")
    mask = nib.load(tmp_path / "inference_truth" / "volume.nii.gz")
    assert volume.shape == mask.shape
    assert np.array_equal(volume.affine, mask.affine)
    assert np.asarray(mask.dataobj).any()


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


def test_a_film_is_longer_than_what_the_encoder_holds_back(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    frames = np.random.default_rng(0).integers(0, 256, (90, 32, 32, 3), dtype=np.uint8)
    with av.open(str(write_mp4(tmp_path / "clip.mp4", frames))) as container:
        assert len(list(container.decode(video=0))) == 90


def test_wrong_frames(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="even H and W"):
        write_mp4(tmp_path / "clip.mp4", np.zeros((2, 33, 32, 3), dtype=np.uint8))


def test_missing_pyav_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ImportError, match="pip install av"):
        write_mp4(tmp_path / "clip.mp4", np.zeros((2, 32, 32, 3), dtype=np.uint8))
