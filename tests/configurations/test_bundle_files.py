# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""What MONAI, the model zoo and MONAI Label expect of a bundle's files, checked without running it."""

from __future__ import annotations

import json
import pydoc
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import tomllib
from packaging.requirements import Requirement

REPOSITORY = Path(__file__).parents[2]

BUNDLES = sorted(path.parent.parent for path in (REPOSITORY / "bundles").glob("*/configs/metadata.json"))
CONFIGS = ["train", "inference", "evaluate", "calibrate", "multi_gpu_train", "multi_gpu_evaluate"]
TUNED = ["anomalyclip", "anomalyclip_demo"]  # the others learn no prompts, on one process


def read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def strings(node: Any, key: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(node, dict):
        for name, value in node.items():
            yield from strings(value, name)
    elif isinstance(node, list):
        for value in node:
            yield from strings(value, key)
    elif isinstance(node, str):
        yield key, node


@pytest.fixture(params=BUNDLES, ids=lambda path: path.name)
def bundle(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


def configs_of(bundle: Path) -> list[str]:
    return [name for name in CONFIGS if bundle.name in TUNED or not name.startswith("multi_gpu")]


def test_there_are_three_bundles() -> None:
    assert [bundle.name for bundle in BUNDLES] == [*TUNED, "own_normals"]


def test_all_files_are_there(bundle: Path) -> None:
    names = ["LICENSE", "docs/README.md", "docs/data_license.txt", "configs/metadata.json", "configs/logging.conf"]
    assert [
        name
        for name in [*names, *(f"configs/{config}.json" for config in configs_of(bundle))]
        if not (bundle / name).is_file()
    ] == []
    assert not (bundle / "scripts").exists()
    assert (bundle / "models").is_dir()


def test_metadata_follows_the_schema(bundle: Path, data_dir: Path) -> None:
    metadata = read(bundle / "configs" / "metadata.json")
    jsonschema.validate(metadata, read(data_dir / "bundle_metadata_schema.json"))
    assert metadata["version"] in metadata["changelog"]
    assert next(iter(metadata["network_data_format"]["inputs"])) == "image"
    assert next(iter(metadata["network_data_format"]["outputs"])) == "pred"
    assert "Research use only" in metadata["intended_use"]


def test_name_leads_monai_label_to_segmentation(bundle: Path) -> None:
    assert not re.search("detection|classification|deepedit|deepgrow", bundle.name)


def test_targets_are_dotted_paths_that_exist(bundle: Path) -> None:
    for config in configs_of(bundle):
        targets = [value for key, value in strings(read(bundle / "configs" / f"{config}.json")) if key == "_target_"]
        assert targets or config.startswith("multi_gpu")
        for target in targets:
            assert "." in target
            assert pydoc.locate(target) is not None, target


def test_strings_have_no_sign_that_monai_would_rewrite(bundle: Path) -> None:
    texts = [read(bundle / "configs" / f"{config}.json") for config in configs_of(bundle)]
    for _, value in strings(texts):
        text = re.sub(r"[@%][\w#]+", "", value)  # references
        assert "#" not in text, value


def test_ids_of_the_workflows(bundle: Path) -> None:
    train, inference = read(bundle / "configs" / "train.json"), read(bundle / "configs" / "inference.json")
    assert {"bundle_root", "dataset_dir", "output_dir", "device", "network_def", "network", "run", "training"} <= set(
        train
    )
    assert train["training"] == "%run"
    assert all(isinstance(handler, dict) for handler in train["train"].get("handlers", []))
    assert {"network_def", "inferer", "preprocessing", "postprocessing", "dataset", "evaluator", "run"} <= set(
        inference
    )
    assert "threshold" in inference["displayable_configs"]


def test_postprocessing_ends_as_monai_label_needs_it(bundle: Path) -> None:
    steps = read(bundle / "configs" / "inference.json")["postprocessing"]["transforms"]
    names = [step["_target_"].rpartition(".")[2] for step in steps]
    assert names[-1] == "SqueezeDimd"
    assert names.index("ThresholdAnomalyMapd") < names.index("SqueezeDimd")
    assert steps[-1]["keys"] == "pred"


def test_real_bundle_ships_without_prompts(copy_bundle: Callable[..., Path], tmp_path: Path) -> None:
    assert [path.name for path in (copy_bundle(tmp_path, "anomalyclip") / "models").iterdir()] == ["README.md"]


def test_overlays_only_change_what_exists() -> None:
    train = read(REPOSITORY / "bundles" / "anomalyclip" / "configs" / "train.json")
    for overlay in (REPOSITORY / "configs").glob("*.json"):
        for key in read(overlay):
            node: Any = train
            for part in key.split("#"):
                assert part in node, f"{overlay.name}: {key}"
                node = node[part]


@pytest.mark.parametrize("bundle", [*TUNED, "own_normals"])
def test_versions_that_metadata_name_are_admitted_by_the_package(bundle: str) -> None:
    """The model zoo installs what the metadata name, and this package beside it."""
    metadata = read(REPOSITORY / "bundles" / bundle / "configs" / "metadata.json")
    named = {
        "monai": metadata["monai_version"],
        "torch": metadata["pytorch_version"],
        "numpy": metadata["numpy_version"],
    }
    named |= {name.replace("_", "-").lower(): one for name, one in metadata["required_packages_version"].items()}
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["dependencies"]
    needed = {one.name.replace("_", "-").lower(): one.specifier for one in map(Requirement, project)}
    wrong = {name: version for name, version in named.items() if name in needed and version not in needed[name]}
    assert wrong == {}
