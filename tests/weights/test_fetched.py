# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from monai_anomalyclip.atomic_file import git_blob_id
from monai_anomalyclip.networks import build_backbone, read_prompts
from monai_anomalyclip.weights import (
    PROMPTS,
    clip_source,
    default_weights_folder,
    fetch_clip,
    fetch_prompts,
    fetched_clip,
)

Publish = Callable[..., Any]
SOURCE = PROMPTS["mvtec"]


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def silent(_: str) -> None:
    """Take a line."""


def test_what_is_right_is_fetched_once(
    publish: Publish, tmp_path: Path, clip_bytes: bytes, prompts_bytes: bytes
) -> None:
    server, said = publish(clip_bytes, prompts_bytes), []
    clip = fetch_clip(tmp_path, say=said.append)
    prompts = fetch_prompts(tmp_path, SOURCE, read=read_prompts, say=said.append)
    assert clip.read_bytes() == clip_bytes
    assert prompts.read_bytes() == prompts_bytes
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([clip.name, prompts.name, "blob_ids.json"])
    assert len(server.requests) == 3
    assert any(git_blob_id(prompts) in line for line in said)
    assert fetch_clip(tmp_path, say=silent) == clip
    assert fetch_prompts(tmp_path, SOURCE, read=read_prompts, say=silent) == prompts
    assert len(server.requests) == 3  # what is there is checked without asking


def test_wrong_clip_is_not_kept(publish: Publish, tmp_path: Path, clip_bytes: bytes, prompts_bytes: bytes) -> None:
    publish(clip_bytes, prompts_bytes, sha256="0" * 64)
    with pytest.raises(ValueError, match=f"its SHA-256 is [0-9a-f]{{64}} instead of {'0' * 64}"):
        fetch_clip(tmp_path, say=silent)
    assert list(tmp_path.iterdir()) == []


def test_other_prompts_than_listed_are_not_kept(publish: Publish, tmp_path: Path, prompts_bytes: bytes) -> None:
    publish(b"", prompts_bytes, blob="1" * 40)
    with pytest.raises(ValueError, match=f"its git blob id is [0-9a-f]{{40}} instead of {'1' * 40}"):
        fetch_prompts(tmp_path, SOURCE, read=read_prompts, say=silent)
    assert list(tmp_path.iterdir()) == []


def test_blob_id_that_is_given_counts(publish: Publish, tmp_path: Path, prompts_bytes: bytes) -> None:
    server = publish(b"", prompts_bytes)
    with pytest.raises(ValueError, match=f"instead of {'2' * 40}"):
        fetch_prompts(tmp_path, SOURCE, blob_id="2" * 40, read=read_prompts, say=silent)
    assert not any("/git/trees/" in path for path, _ in server.requests)


def test_pickle_that_would_run_code_is_refused_even_where_the_repository_lists_it(
    publish: Publish, tmp_path: Path
) -> None:
    sign = tmp_path / "exploded"
    publish(b"", pickle.dumps({"prompt_learner": Bomb(sign)}))
    with pytest.raises(ValueError, match="does not hold prompts and nothing else"):
        fetch_prompts(tmp_path / "weights", SOURCE, read=read_prompts, say=silent)
    assert not sign.exists()
    assert list((tmp_path / "weights").iterdir()) == []


def test_prompts_that_are_too_large_are_refused(
    publish: Publish, tmp_path: Path, prompts_bytes: bytes, shrink: Callable[[int], None]
) -> None:
    publish(b"", prompts_bytes)
    shrink(100)
    with pytest.raises(ValueError, match="more than the 100"):
        fetch_prompts(tmp_path, PROMPTS["mvtec"], read=read_prompts, say=silent)


def test_file_that_was_put_there_is_checked(publish: Publish, tmp_path: Path, clip_bytes: bytes) -> None:
    server = publish(clip_bytes, b"")
    (tmp_path / "ViT-tiny.pt").write_bytes(clip_bytes)
    assert fetch_clip(tmp_path, say=silent).is_file()
    (tmp_path / "ViT-tiny.pt").write_bytes(clip_bytes[:-1])
    with pytest.raises(ValueError, match=r"ViT-tiny\.pt in the folder of the weights is .* Remove it"):
        fetch_clip(tmp_path, say=silent)
    assert (tmp_path / "ViT-tiny.pt").stat().st_size == len(clip_bytes) - 1  # it is not ours to remove
    assert server.requests == []


def test_damaged_record_is_named(publish: Publish, tmp_path: Path, prompts_bytes: bytes) -> None:
    publish(b"", prompts_bytes)
    (tmp_path / "blob_ids.json").write_text("{")
    with pytest.raises(ValueError, match=r"blob_ids\.json .* damaged: remove it"):
        fetch_prompts(tmp_path, SOURCE, read=read_prompts, say=silent)


def test_default_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("MONAI_ANOMALYCLIP_WEIGHTS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_weights_folder() == tmp_path / "monai_anomalyclip"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_weights_folder() == Path.home() / ".cache" / "monai_anomalyclip"
    monkeypatch.setenv("MONAI_ANOMALYCLIP_WEIGHTS", str(tmp_path / "own"))
    assert default_weights_folder() == tmp_path / "own"


def test_fetched_clip_is_found_by_its_address(publish: Publish, clip_bytes: bytes) -> None:
    publish(clip_bytes, b"")
    url = clip_source().url
    assert fetched_clip(url) is None
    assert fetched_clip("") is None
    assert fetched_clip("https://host/somewhere/clip.pt") is None
    clip = fetch_clip(default_weights_folder(), say=silent)
    assert fetched_clip(url) == clip
    clip.write_bytes(b"damaged")
    with pytest.raises(ValueError, match="is not the right file"):
        fetched_clip(url)


def test_backbone_takes_what_was_fetched(
    publish: Publish, clip_bytes: bytes, tiny_config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tag "openai" needs no network once `weights fetch` has run."""

    def no_network(*_: object) -> str:
        raise AssertionError("open_clip was asked to fetch")

    publish(clip_bytes, b"")
    fetch_clip(default_weights_folder(), say=silent)
    entry = {"url": clip_source().url, "quick_gelu": True}
    monkeypatch.setattr("monai_anomalyclip.networks.backbone.get_pretrained_cfg", lambda *_: entry)
    monkeypatch.setattr("monai_anomalyclip.networks.backbone.download_pretrained", no_network)
    monkeypatch.setattr("open_clip.get_model_config", lambda _: tiny_config["clip"])
    fetched = build_backbone("ViT-L-14-336-quickgelu", "openai")
    assert fetched.sha256 == build_backbone(tiny_config["clip"], default_weights_folder() / "ViT-tiny.pt").sha256
