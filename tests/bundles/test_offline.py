# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from monai_anomalyclip.atomic_file import sha256_of
from monai_anomalyclip.bundles.offline import make_offline_bundle, verify_offline_bundle
from monai_anomalyclip.networks import read_prompts
from monai_anomalyclip.weights import PROMPTS, default_weights_folder, fetch_clip, fetch_prompts


@pytest.fixture
def ready(publish: Callable[..., Any], clip_bytes: bytes, prompts_bytes: bytes, tmp_path: Path) -> tuple[Path, str]:
    """A bundle to carry, and the digest that was shown when it was made."""
    publish(clip_bytes, prompts_bytes)
    folder = default_weights_folder()
    clip = fetch_clip(folder, say=len)
    prompts = fetch_prompts(folder, PROMPTS["mvtec"], read=read_prompts, say=len)
    return tmp_path / "ready", make_offline_bundle(tmp_path / "ready", clip, prompts, origin="the authors'")


def test_bundle_is_complete_and_verified(ready: tuple[Path, str], prompts_bytes: bytes, data_dir: Path) -> None:
    folder, digest = ready
    found = verify_offline_bundle(folder)
    assert found.problems == ()
    assert found.digest == digest == sha256_of(folder / "SHA256SUMS")
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert {"README.md", "LICENSE", "docs/licences.md", "models/ViT-tiny.pt", "configs/inference.json"} <= files
    assert found.files == len(files) - 1  # all but the list itself
    carried, released = read_prompts(folder / "models" / "model.pt"), read_prompts(data_dir / "tiny/prompt_learner.pth")
    torch.testing.assert_close(carried.context_abnormal, released.context_abnormal, rtol=0, atol=0)
    assert "weights verify" in (folder / "README.md").read_text()
    assert "Research use only" in (folder / "README.md").read_text()
    for name in ("train", "inference"):
        assert "'/models/ViT-tiny.pt'" in (folder / "configs" / f"{name}.json").read_text()
        assert '"openai"' not in (folder / "configs" / f"{name}.json").read_text()


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="needs sha256sum")
def test_list_is_one_that_sha256sum_reads(ready: tuple[Path, str]) -> None:
    done = subprocess.run(["sha256sum", "-c", "--strict", "SHA256SUMS"], cwd=ready[0], capture_output=True, check=False)
    assert done.returncode == 0


def test_what_use_adds_is_no_problem(ready: tuple[Path, str]) -> None:
    folder, _ = ready
    (folder / "runs").mkdir()
    (folder / "runs" / "scores.csv").write_text("name\n")
    (folder / "models" / "model.thresholds.json").write_text("{}")
    assert verify_offline_bundle(folder).problems == ()


def replace_clip_and_list(folder: Path) -> None:
    """As someone would who can write on the medium: the list fits what he put there."""
    clip, sums = folder / "models" / "ViT-tiny.pt", folder / "SHA256SUMS"
    before = sha256_of(clip)
    clip.write_bytes(b"another CLIP")
    sums.write_text(sums.read_text().replace(before, sha256_of(clip)))


def link_outside(folder: Path) -> None:
    shutil.copy(folder / "configs" / "train.json", folder.parent / "train.json")
    (folder / "configs" / "train.json").unlink()
    (folder / "configs" / "train.json").symlink_to(folder.parent / "train.json")


def list_without_prompts(folder: Path) -> None:
    sums = folder / "SHA256SUMS"
    sums.write_text("".join(line for line in sums.read_text().splitlines(True) if "models/model." not in line))


def list_outside(folder: Path) -> None:
    with (folder / "SHA256SUMS").open("a") as file:
        file.write(f"{'0' * 64}  ../../secret\n")


@pytest.mark.parametrize(
    ("harm", "problem"),
    [
        (lambda it: (it / "LICENSE").unlink(), "LICENSE is missing."),
        (
            lambda it: (it / "docs/README.md").write_text("x"),
            "docs/README.md is not as it was when the folder was made.",
        ),
        (lambda it: (it / "models/ViT-tiny.pt").write_bytes(b"half"), "models/ViT-tiny.pt is not as it was"),
        (lambda it: (it / "configs/more.json").write_text("{}"), "configs/more.json was added."),
        (replace_clip_and_list, "models/ViT-tiny.pt does not have the SHA-256 that OpenAI publishes"),
        (link_outside, "configs/train.json is missing."),
        (list_outside, "of SHA256SUMS is damaged."),
        (list_without_prompts, "models/model.pt is not in the list."),
    ],
    ids=["absent", "changed", "truncated", "added", "list fits", "link", "list leads outside", "list lacks prompts"],
)
def test_harm_is_found(harm: Callable[[Path], Any], problem: str, ready: tuple[Path, str]) -> None:
    folder, _ = ready
    harm(folder)
    assert any(problem in text for text in verify_offline_bundle(folder).problems)


def test_other_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="was not made by `monai-anomalyclip weights bundle`"):
        verify_offline_bundle(tmp_path)


def test_nothing_is_overwritten_and_nothing_half_made(tmp_path: Path, data_dir: Path) -> None:
    (tmp_path / "clip.pt").write_bytes(b"CLIP")
    (tmp_path / "there").mkdir()
    with pytest.raises(FileExistsError, match="exists: name a folder that does not"):
        make_offline_bundle(tmp_path / "there", tmp_path / "clip.pt", tmp_path / "absent.pth", origin="")
    with pytest.raises(FileNotFoundError):
        make_offline_bundle(tmp_path / "new", tmp_path / "clip.pt", tmp_path / "absent.pth", origin="")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.pt", "there"]
