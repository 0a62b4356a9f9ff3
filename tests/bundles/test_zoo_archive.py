# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import contextlib
import io
import json
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from monai_anomalyclip.bundles.zoo_archive import zip_bundle
from monai_anomalyclip.demo import demo_network

DEMO = Path(__file__).parents[2] / "bundles" / "anomalyclip_demo"


@pytest.fixture(scope="module")
def bundle(untuned_bundle: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demonstration bundle with prompts that were not tuned, and with what use adds."""
    folder = untuned_bundle(tmp_path_factory.mktemp("bundles"))
    for name in ("runs", "data"):
        (folder / name).mkdir()
        (folder / name / "more").touch()
    return folder


def test_archive_is_laid_out_as_the_model_zoo_has_it(bundle: Path, tmp_path: Path) -> None:
    archive = zip_bundle(bundle, tmp_path / "dist")
    assert archive == tmp_path / "dist" / "anomalyclip_demo_v0.1.0.zip"
    names = set(zipfile.ZipFile(archive).namelist())
    wanted = ("configs/metadata.json", "configs/inference.json", "models/model.pt", "docs/README.md", "LICENSE")
    assert {f"anomalyclip_demo/{name}" for name in wanted} <= names
    assert not [name for name in names if "runs" in name or "data/" in name or Path(name).name.startswith(".")]


def test_monai_loads_from_the_archive(bundle: Path, tmp_path: Path) -> None:
    """Unpacked by MONAI's own `download`, from the archive as the zoo would hand it out; then `load`."""
    from monai.bundle import download, load

    archive = zip_bundle(bundle, tmp_path)
    with contextlib.redirect_stdout(io.StringIO()):
        place = tmp_path / "bundles"
        download("anomalyclip_demo", bundle_dir=str(place), url=archive.as_uri(), progress=False)
        network = load("anomalyclip_demo", bundle_dir=str(place), device="cpu")
    reference = demo_network(deep_prompt_depth=4)
    reference.load_prompts(bundle / "models" / "model.pt")
    torch.testing.assert_close(network.encode_prompts(), reference.encode_prompts(), rtol=0, atol=0)


def test_same_files_give_the_same_bytes(bundle: Path, tmp_path: Path) -> None:
    first = zip_bundle(bundle, tmp_path / "a").read_bytes()
    (bundle / "LICENSE").touch()
    assert zip_bundle(bundle, tmp_path / "b").read_bytes() == first


def test_nothing_is_overwritten_unasked(bundle: Path, tmp_path: Path) -> None:
    archive = zip_bundle(bundle, tmp_path)
    archive.write_bytes(b"mine")
    with pytest.raises(FileExistsError, match="--overwrite"):
        zip_bundle(bundle, tmp_path)
    assert archive.read_bytes() == b"mine"
    zip_bundle(bundle, tmp_path, overwrite=True)
    assert zipfile.is_zipfile(archive)


@pytest.mark.parametrize("version", ["0.1", "0.1.0rc1", "../0.1.0"])
def test_a_version_that_the_zoo_does_not_take(version: str, tmp_path: Path) -> None:
    for name, content in (("configs/metadata.json", json.dumps({"version": version})), ("models/model.pt", "")):
        (tmp_path / "odd" / name).parent.mkdir(parents=True)
        (tmp_path / "odd" / name).write_text(content)
    with pytest.raises(ValueError, match=re.escape(f"'odd' has the version {version!r}: the model zoo takes three")):
        zip_bundle(tmp_path / "odd", tmp_path / "dist")
    assert not (tmp_path / "dist").exists()


def test_command_says_what_a_bundle_lacks(tmp_path: Path) -> None:
    shutil.copytree(DEMO / "configs", tmp_path / "bare" / "configs")
    command = [sys.executable, "-m", "monai_anomalyclip.bundles.zoo_archive", tmp_path / "bare", "-o", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "error: 'bare' has no models/model.pt: a bundle is packed with tuned prompts.\n"
    assert not list(tmp_path.glob("*.zip"))
