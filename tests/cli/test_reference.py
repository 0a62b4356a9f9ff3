# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import timm
import torch
from PIL import Image

from monai_anomalyclip.cli import main
from monai_anomalyclip.reference import NormalReference

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """``run("build", ...)``: exit status, output and errors of `monai-anomalyclip reference build ...`."""

    def call(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main(["reference", *map(str, words)])
        shown = capsys.readouterr()
        return status, shown.out, shown.err

    return call


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Options that stand for an encoder: a small one of timm with seeded weights from a file."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "w.pth"
    torch.save(timm.create_model("resnet10t", pretrained=False).state_dict(), path)
    return ["--weights", str(path), "--device", "cpu"]


def save_pictures(folder: Path, count: int, seed: int = 0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    scene = np.random.default_rng(99).integers(0, 200, (5, 6, 3))
    generator = np.random.default_rng(seed)
    for number in range(count):
        coarse = (scene + generator.integers(0, 50, (5, 6, 3))).astype(np.uint8)
        picture = Image.fromarray(coarse).resize((48, 40), Image.Resampling.BILINEAR)
        picture.save(folder / f"QUIMBY_{seed}_{number:02d}.png")
    return folder


@pytest.fixture
def normals(tmp_path: Path) -> Path:
    return save_pictures(tmp_path / "normals", 6)


def test_build_show_add_and_rank(run: Run, normals: Path, weights: list[str], tmp_path: Path) -> None:
    file = tmp_path / "my.reference"
    status, out, err = run("build", normals, "-o", file, "--encoder", "timm:resnet10t", *weights)
    assert (status, err.count("left out")) == (0, 0)
    assert "Normal images: 6, k = 6: the smallest p-value is 0.14." in out
    assert "There are 6 normal images; 32 are recommended." in out
    assert not list(tmp_path.glob("*unfinished*"))

    status, out, _ = run("show", file)
    assert status == 0
    assert "timm:resnet10t" in out
    described = json.loads(run("show", file, "--json")[1])
    assert (described["images"], described["k"]) == (6, 6)

    odd = save_pictures(tmp_path / "more", 2, seed=1)
    noise = np.random.default_rng(5).integers(0, 256, (40, 48, 3), dtype=np.uint8)
    Image.fromarray(noise).save(odd / "QUIMBY_odd.png")
    Image.open(next(normals.iterdir())).save(odd / "known.png")
    status, out, _ = run("add", file, odd, *weights)
    assert status == 0
    assert "3 new images, 1 were there already." in out
    assert json.loads(run("show", file, "--json")[1])["k"] == 9

    status, out, _ = run("rank", file, *weights)
    rows = [line.split() for line in out.splitlines() if line[:1].isdigit()]
    assert len(rows) == 9
    assert [float(row[2]) for row in rows] == sorted((float(row[2]) for row in rows), reverse=True)

    status, out, _ = run("rank", file, normals, odd, "-o", tmp_path / "ranking", "--keep-names", *weights)
    assert status == 0
    assert "QUIMBY_odd" in next(line for line in out.splitlines() if line.startswith("1 "))
    assert len(list((tmp_path / "ranking").glob("*.png"))) == 10
    assert Image.open(next((tmp_path / "ranking").glob("01_*.png"))).width > 2 * 48


def test_names_of_files_are_not_shown(run: Run, normals: Path, weights: list[str], tmp_path: Path) -> None:
    (normals / "QUIMBY_damaged.png").write_text("no picture")
    file = tmp_path / "my.reference"
    shown = run("build", normals, "-o", file, "--encoder", "timm:resnet10t", *weights)
    assert shown[0] == 3  # what can be read is there, and what cannot is said
    assert "left out: " in shown[2]
    assert file.is_file()
    ranked = run("rank", file, normals, "-o", tmp_path / "ranking", *weights)
    assert "QUIMBY" not in "".join(shown[1:] + ranked[1:])
    assert not [path for path in (tmp_path / "ranking").iterdir() if "QUIMBY" in path.name]


def test_an_existing_file_is_not_replaced(run: Run, normals: Path, weights: list[str], tmp_path: Path) -> None:
    file = tmp_path / "my.reference"
    file.write_text("precious")
    status, _, err = run("build", normals, "-o", file, "--encoder", "timm:resnet10t", *weights)
    assert status == 1
    assert "exists" in err
    assert file.read_text() == "precious"
    assert run("build", normals, "-o", file, "--force", "--encoder", "timm:resnet10t", *weights)[0] == 0


def test_it_goes_on_where_it_was_stopped(
    run: Run, normals: Path, weights: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "my.reference"
    real = NormalReference.save

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("monai_anomalyclip.reference.normal_reference._FINISH_EVERY", 2)
    monkeypatch.setattr(NormalReference, "save", stopped)
    status, _, err = run("build", normals, "-o", file, "--encoder", "timm:resnet10t", *weights)
    assert status == 130
    assert "the same command does the rest" in err
    monkeypatch.setattr(NormalReference, "save", real)
    counted: list[int] = []
    monkeypatch.setattr(
        "monai_anomalyclip.reference.bank_growth._encoded",
        lambda *_: counted.append(1) or iter(()),
    )
    assert run("build", normals, "-o", file, "--encoder", "timm:resnet10t", *weights)[0] == 0
    assert counted == []  # nothing was encoded again
    assert json.loads(run("show", file, "--json")[1])["images"] == 6


def test_volumes_are_kept_apart(run: Run, weights: list[str], tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    for seed in range(3):
        volume = np.random.default_rng(seed).random((20, 24, 4), dtype=np.float32)
        nib.save(nib.Nifti1Image(volume, np.diag([1.0, 1, 4, 1])), tmp_path / "scans" / f"{seed}.nii.gz")
    file = tmp_path / "my.reference"
    out = run("build", tmp_path / "scans", "-o", file, "--encoder", "timm:resnet10t", *weights)[1]
    assert "Normal images: 12, k = 3" in out
    assert "12 images come from 3 patients or inputs" in out
    assert json.loads(run("show", file, "--json")[1])["preset"] == "percentile"
    assert run("rank", file, tmp_path / "scans", *weights)[0] == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["show", "absent.reference"], "There is no reference"),
        (["show", "damaged.reference"], "is no reference that can be used"),
        (["rank", "damaged.reference"], "is no reference that can be used"),
        (["build", "empty", "-o", "x.reference"], "Nothing to read"),
        (["build", "normals", "-o", "x.reference", "--encoder", "resnet"], "There is no encoder 'resnet'"),
        (["build", "normals", "-o", "x.reference", "--weights", "w.pth"], "There are no encoder weights"),
        (["build", "damaged", "-o", "x.reference"], "There is no normal image"),
    ],
)
def test_one_sentence(
    words: list[str], message: str, run: Run, normals: Path, tmp_path: Path, weights: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "a.png").write_text("no picture")
    (tmp_path / "damaged.reference").write_bytes(b"no reference at all")
    if words[0] == "build" and "--encoder" not in words and "--weights" not in words:
        words = [*words, "--encoder", "timm:resnet10t", *weights]
    status, _, err = run(*words)
    assert status == 1
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert message in line
    assert not (tmp_path / "x.reference").exists()


def test_pictures_need_the_images(run: Run, normals: Path, weights: list[str], tmp_path: Path) -> None:
    file = tmp_path / "my.reference"
    run("build", normals, "-o", file, "--encoder", "timm:resnet10t", *weights)
    assert "give NORMALS" in run("rank", file, "-o", tmp_path / "ranking", *weights)[2]
