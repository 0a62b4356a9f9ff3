# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Phantoms as a folder of PNG files with a MONAI datalist, and everything else that the demonstration needs."""

from __future__ import annotations

import importlib.util
import json
import os
from fractions import Fraction
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from monai_anomalyclip.atomic_file import replaced_when_complete
from monai_anomalyclip.demo.phantoms import INDUSTRIAL_FAMILIES, MEDICAL_FAMILIES, sample_phantom
from monai_anomalyclip.demo.volumes import make_volume, write_dicom_series, write_nifti

__all__ = ["make_clip", "prepare_demo_data", "write_datalist", "write_mp4"]


def make_clip(
    seed: int, *, frames: int = 24, size: int = 112, anomalous: bool = True
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """A clip of an endoscopy phantom seen through a window that circles over it.

    Returns:
        Frames (T, size, size, 3) uint8 and lesion masks (T, size, size) bool; the lesion may leave the picture.
    """
    phantom = sample_phantom("endoscopy", anomalous, seed, size + size // 4)
    room = size // 4
    turn = 2 * np.pi * np.arange(frames) / frames
    rows = np.rint(room / 2 * (1 + np.sin(turn))).astype(int)
    columns = np.rint(room / 2 * (1 + np.cos(turn))).astype(int)
    windows = [(slice(r, r + size), slice(c, c + size)) for r, c in zip(rows, columns, strict=True)]
    return np.stack([phantom.image[w] for w in windows]), np.stack([phantom.mask[w] for w in windows])


def write_mp4(path: str | os.PathLike[str], frames: NDArray[np.uint8], *, frames_per_second: int = 12) -> Path:
    """Writes frames (T, H, W, 3) uint8 as an MP4 file (H.264); H and W must be even.

    Raises:
        ImportError: PyAV is not installed.
        FileExistsError: ``path`` exists.
        ValueError: the frames have another shape or type.
    """
    try:
        import av
    except ImportError as error:
        raise ImportError("Writing an MP4 needs PyAV; install it with: pip install av") from error
    path = Path(path)
    if path.exists():
        raise FileExistsError(f"{path} exists; choose another name or remove it first.")
    if (
        frames.dtype != np.uint8
        or frames.ndim != 4
        or frames.shape[3] != 3
        or frames.shape[1] % 2
        or frames.shape[2] % 2
    ):
        raise ValueError(f"Frames must be (T, H, W, 3) uint8 with even H and W, got {frames.shape} {frames.dtype}.")
    path.parent.mkdir(parents=True, exist_ok=True)
    with replaced_when_complete(path) as unfinished, av.open(str(unfinished), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(frames_per_second))
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": "14"}
        for picture in frames:
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


# Seeds of the demonstration's pictures; the backbone was trained on others (below 2**32).
_FIRST_SEED = {
    "training": 2**32,
    "validation": 2**32 + 300_000,
    "testing": 2**32 + 600_000,
    "inference": 2**32 + 900_000,
}

# What inference shows: per family a kind of lesion that the tiny backbone finds well (its model card tells how well
# it does on all).
_SHOWN_KINDS = {"endoscopy": "polyp", "brain_mr": "dark tumour", "head_ct": "bleed", "chest_xray": "opacity"}


def _largest_lesion(family: str, kind: str, first: int, size: int, candidates: int = 5) -> int:
    """Seed of the largest of the first few lesions of a kind."""
    phantoms = ((seed, sample_phantom(family, True, seed, size)) for seed in count(first))
    of_kind = islice(((seed, phantom.mask.sum()) for seed, phantom in phantoms if phantom.kind == kind), candidates)
    return max(of_kind, key=lambda pair: pair[1])[0]


def _seed_of_volume(family: str, first: int) -> int:
    """The first seed that gives a volume with the lesion that is shown of its family."""
    return next(seed for seed in count(first) if make_volume(family, seed).kind == _SHOWN_KINDS[family])


def _write_text(path: Path, text: str) -> None:
    with replaced_when_complete(path) as unfinished:
        unfinished.write_text(text)


def _write_png(path: Path, picture: NDArray[np.uint8]) -> None:
    with replaced_when_complete(path) as unfinished:
        Image.fromarray(picture).save(unfinished, format="PNG")


def _write_phantom(image: Path, label: Path | None, family: str, seed: int, size: int) -> None:
    """Writes the picture and, when ``label`` is given, a lesion and its mask; what exists stays as it is."""
    if image.is_file() and (label is None or label.is_file()):
        return
    phantom = sample_phantom(family, label is not None, seed, size)
    for path, picture in ((image, phantom.image), (label, phantom.mask.astype(np.uint8) * 255)):
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            _write_png(path, picture)


def write_datalist(
    root: str | os.PathLike[str],
    *,
    training: int = 800,
    validation: int = 200,
    testing: int = 400,
    size: int = 112,
    seed: int = 0,
    progress: bool = True,
) -> Path:
    """Writes phantoms as PNG files and ``datalist.json`` beside them; the datalist is written last.

    A folder that is complete stays untouched and an interrupted one is completed.

    Args:
        root: folder, made when absent.
        training: pictures of the industrial families, spread evenly, every second one anomalous.
        validation: further pictures of the industrial families.
        testing: pictures of the medical families.
        size: pixels per side.
        seed: from 0 on; the same seed gives the same files.
        progress: whether to show a progress bar.

    Returns:
        ``root/datalist.json`` with lists ``training``, ``validation`` and ``testing`` of
        ``{"image", "label", "image_label", "class"}``, paths relative to ``root``; normal pictures have no ``label``.

    Raises:
        ValueError: the folder was made with other settings.
    """
    root = Path(root)
    counts = {"training": training, "validation": validation, "testing": testing}
    settings = {**counts, "size": size, "seed": seed}
    root.mkdir(parents=True, exist_ok=True)
    note, datalist = root / "phantoms.json", root / "datalist.json"
    if not note.is_file():
        _write_text(note, json.dumps(settings) + "\n")
    elif (made := json.loads(note.read_text())) != settings:
        raise ValueError(f"{root} holds phantoms made with {made}, not {settings}; choose another folder.")

    jobs: list[tuple[Path, Path | None, str, int, int]] = []
    content: dict[str, list[dict[str, Any]]] = {}
    for section, number_of_items in counts.items():
        families = MEDICAL_FAMILIES if section == "testing" else INDUSTRIAL_FAMILIES
        content[section] = []
        for number in range(number_of_items):
            family, turn = families[number % len(families)], number // len(families)
            name = f"{family}_{turn:04d}.png"
            item: dict[str, Any] = {"image": f"{section}/images/{name}", "image_label": turn % 2, "class": family}
            if turn % 2:
                item["label"] = f"{section}/masks/{name}"
            content[section].append(item)
            label = root / item["label"] if turn % 2 else None
            jobs.append((root / item["image"], label, family, _FIRST_SEED[section] + seed * 1_000_000 + number, size))
    for job in tqdm(jobs, desc="phantoms", disable=not progress):
        _write_phantom(*job)
    if not datalist.is_file():
        _write_text(datalist, json.dumps(content, indent=1) + "\n")
    return datalist


def prepare_demo_data(
    root: str | os.PathLike[str],
    *,
    training: int = 800,
    validation: int = 200,
    testing: int = 400,
    size: int = 112,
    seed: int = 0,
    progress: bool = True,
) -> Path:
    """Writes what the demonstration tunes, evaluates and looks at; a complete folder stays untouched.

    Besides :func:`write_datalist`, as input under ``inference``: ``frames`` (one normal picture and one with a lesion
    per medical family), ``volume.nii.gz`` (brain-MR-like, 1 x 1 x 4 mm), ``study`` (a DICOM series, head-CT-like) and,
    where PyAV is installed, ``clip.mp4`` (endoscopy-like); lesion masks under ``inference_truth``. The kinds of lesions
    there are chosen, not drawn: those that the demonstration's backbone finds well, large ones in frames and clip.

    Returns:
        ``root/datalist.json``.
    """
    root = Path(root)
    datalist = write_datalist(
        root, training=training, validation=validation, testing=testing, size=size, seed=seed, progress=progress
    )
    first = _FIRST_SEED["inference"] + seed * 1_000_000
    for family, kind in _SHOWN_KINDS.items():
        chosen = _largest_lesion(family, kind, first, size)
        for state in ("normal", "lesion"):
            name = f"{family}_{state}.png"
            truth = root / "inference_truth" / "frames" / name if state == "lesion" else None
            _write_phantom(root / "inference" / "frames" / name, truth, family, chosen, size)
    inputs, truth = root / "inference", root / "inference_truth"
    if not ((inputs / "volume.nii.gz").is_file() and (truth / "volume.nii.gz").is_file()):
        phantom = make_volume("brain_mr", _seed_of_volume("brain_mr", first))
        for path, array in ((inputs, phantom.image), (truth, phantom.mask.astype(np.uint8))):
            (path / "volume.nii.gz").unlink(missing_ok=True)
            write_nifti(path / "volume.nii.gz", array, phantom.affine)
    if not (inputs / "study").is_dir():
        (truth / "study.nii.gz").unlink(missing_ok=True)
        phantom = make_volume("head_ct", ct_seed := _seed_of_volume("head_ct", first))
        write_nifti(truth / "study.nii.gz", phantom.mask.astype(np.uint8), phantom.affine)
        write_dicom_series(inputs / "study", ct_seed)
    if not (inputs / "clip.mp4").is_file() and importlib.util.find_spec("av"):
        frames, _ = make_clip(_largest_lesion("endoscopy", "polyp", first, size + size // 4), size=size)
        write_mp4(inputs / "clip.mp4", frames)
    return datalist
