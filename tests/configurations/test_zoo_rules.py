# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The MONAI model zoo's rules for a bundle (its ci/verify_bundle.py, as far as they need no network), on both."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomllib
import yaml
from monai.bundle import create_workflow, download_large_files, verify_metadata, verify_net_in_out

from monai_anomalyclip.bundles.zoo_archive import zip_bundle
from monai_anomalyclip.networks import AnomalyCLIP
from monai_anomalyclip.weights import PROMPTS, clip_in_bundle, clip_source

REPOSITORY = Path(__file__).parents[2]
BUNDLES = ["anomalyclip", "anomalyclip_demo"]
LARGEST = 25 << 20


@pytest.fixture(scope="module")
def excluded() -> dict[str, list[str]]:
    """The lists that docs/how_to/publish.md adds to the zoo's."""
    page = (REPOSITORY / "docs" / "how_to" / "publish.md").read_text()
    (additions,) = re.findall(r"^```text\n(exclude_.*?)^```", page, re.MULTILINE | re.DOTALL)
    lists: dict[str, list[str]] = {name: [] for name in re.findall(r"^(\w+) \+=", additions, re.MULTILINE)}
    exec(additions, {}, lists)
    return lists


@pytest.fixture(params=BUNDLES)
def bundle(request: pytest.FixtureRequest, copy_bundle: Callable[..., Path], tmp_path: Path) -> Path:
    """A bundle as it is shipped; the demonstration with prompts, as it would be handed in."""
    folder = copy_bundle(tmp_path, request.param)
    if request.param == "anomalyclip_demo":
        from monai_anomalyclip.demo import demo_network

        demo_network(deep_prompt_depth=4).save_prompts(folder / "models" / "model.pt")
    return folder


def test_files(bundle: Path, excluded: dict[str, list[str]]) -> None:
    assert {"LICENSE", "docs", "configs"} <= {path.name for path in bundle.iterdir()}
    assert (bundle / "configs" / "metadata.json").is_file()
    preferred = (bundle / "models" / "model.pt").is_file() and (bundle / "configs" / "inference.json").is_file()
    assert preferred != (bundle.name in excluded["exclude_verify_preferred_files_list"])
    for path in bundle.rglob("*"):
        assert path.is_dir() or path.stat().st_size < LARGEST
    assert (bundle / "large_files.yml").is_file() == (bundle.name in excluded["exclude_download_large_file_list"])


def test_version_and_metadata(bundle: Path, data_dir: Path) -> None:
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text())
    assert metadata["version"] in metadata["changelog"]
    (bundle / "eval").mkdir()
    shutil.copy(data_dir / "bundle_metadata_schema.json", bundle / "eval" / "schema.json")
    verify_metadata(meta_file=str(bundle / "configs/metadata.json"), filepath=str(bundle / "eval" / "schema.json"))


def test_network_and_properties(
    bundle: Path, excluded: dict[str, list[str]], data_dir: Path, tiny_config: dict[str, Any], tmp_path: Path
) -> None:
    """Where the zoo cannot build the network, a tiny CLIP takes its place."""
    files: dict[str, Any] = {
        "meta_file": str(bundle / "configs" / "metadata.json"),
        "config_file": str(bundle / "configs" / "inference.json"),
        "bundle_root": str(bundle),
    }
    if bundle.name in excluded["exclude_verify_shape_list"]:
        tiny = {"feature_layers": [12], "dpam_start": 5, "deep_prompt_depth": 5}
        backbone = {
            "model_name": tiny_config["clip"],
            "pretrained": str(data_dir / "tiny" / "clip_weights_fp16.safetensors"),
            "image_size": 84,
        }
        AnomalyCLIP(**backbone, **tiny).save_prompts(bundle / "models" / "model.pt")
        files |= {f"backbone#{key}": value for key, value in backbone.items()}
        files |= {f"network_def#{key}": value for key, value in tiny.items()}
        files["_meta_#network_data_format#inputs#image#spatial_shape"] = [84, 84]
    verify_net_in_out(net_id="network_def", device="cpu", **files)
    (tmp_path / "data").mkdir()
    workflow = create_workflow(
        workflow_type="inference",
        logging_file=str(bundle / "configs" / "logging.conf"),
        dataset_dir=str(REPOSITORY / "docs" / "images"),
        device="cpu",
        output_dir=str(tmp_path / "out"),
        **files,
    )
    assert workflow.check_properties() == []


def test_torchscript_is_excluded(excluded: dict[str, list[str]]) -> None:
    assert sorted(excluded["exclude_verify_torchscript_list"]) == BUNDLES


def test_large_files_are_the_publishers(copy_bundle: Callable[..., Path], tmp_path: Path) -> None:
    entries = yaml.safe_load((copy_bundle(tmp_path, "anomalyclip") / "large_files.yml").read_text())["large_files"]
    clip, prompts = entries
    source = clip_source()
    assert clip == {
        "path": f"models/{source.name}",
        "url": source.url,
        "hash_val": source.sha256,
        "hash_type": "sha256",
    }
    assert prompts == {"path": "models/authors_prompts.pth", "url": PROMPTS["mvtec"].url}


def test_downloaded_by_monai_it_is_used(
    copy_bundle: Callable[..., Path],
    publish: Callable[..., Any],
    clip_bytes: bytes,
    prompts_bytes: bytes,
    tmp_path: Path,
) -> None:
    bundle = copy_bundle(tmp_path, "anomalyclip")
    assert clip_in_bundle(bundle) == "openai"
    publish(clip_bytes, prompts_bytes)
    source = clip_source()
    listed = {
        "path": f"models/{source.name}",
        "url": source.url,
        "hash_val": hashlib.sha256(clip_bytes).hexdigest(),
        "hash_type": "sha256",
    }
    (bundle / "large_files.yml").write_text(yaml.safe_dump({"large_files": [listed]}))
    download_large_files(bundle_path=str(bundle))
    assert Path(clip_in_bundle(bundle)).read_bytes() == clip_bytes


def test_archive_leaves_out_what_is_fetched(copy_bundle: Callable[..., Path], tmp_path: Path) -> None:
    bundle = copy_bundle(tmp_path, "anomalyclip")
    for name in ("model.pt", "ViT-L-14-336px.pt", "authors_prompts.pth"):
        (bundle / "models" / name).write_bytes(b"weights")
    names = zipfile.ZipFile(zip_bundle(bundle, tmp_path / "dist")).namelist()
    assert {name for name in names if "models/" in name} == {
        "anomalyclip/models/README.md",
        "anomalyclip/models/model.pt",
    }
    assert {"anomalyclip/large_files.yml", "anomalyclip/README.md"} <= set(names)


@pytest.mark.nightly
def test_pins_resolve(tmp_path: Path) -> None:
    """As the zoo's CI installs: exact pins of the metadata, and what this package needs beside them."""
    pins = set()
    for name in BUNDLES:
        metadata = json.loads((REPOSITORY / "bundles" / name / "configs" / "metadata.json").read_text())
        pins |= {f"{key}=={metadata[f'{word}_version']}" for key, word in
                 (("monai", "monai"), ("torch", "pytorch"), ("numpy", "numpy"))}  # fmt: skip
        own = {"monai_anomalyclip"}
        pins |= {f"{key}=={value}" for key, value in metadata["required_packages_version"].items() if key not in own}
    needed = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["dependencies"]
    (tmp_path / "pins.txt").write_text("\n".join([*sorted(pins), *needed]))
    pip = [sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--ignore-installed"]
    done = subprocess.run([*pip, "-r", tmp_path / "pins.txt"], capture_output=True, text=True, check=False)
    if "NewConnectionError" in done.stderr or "No matching distribution found for monai==" in done.stderr:
        pytest.skip("no package index can be reached")
    assert done.returncode == 0, done.stderr
