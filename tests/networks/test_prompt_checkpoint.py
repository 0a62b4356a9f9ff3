# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from open_clip.model import CLIP
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from monai_anomalyclip.networks import (
    AnomalyCLIP,
    PromptCheckpoint,
    convert_prompts,
    prompt_checkpoint,
    read_prompts,
    write_prompts,
)

NetFactory = Callable[..., AnomalyCLIP]
SUFFIXES = (".safetensors", ".pt", ".pth")


class Bomb:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self.marker),)


def learned(checkpoint: PromptCheckpoint) -> list[Tensor]:
    return [checkpoint.context_normal, checkpoint.context_abnormal, *checkpoint.deep_prompts]


def assert_same_prompts(left: PromptCheckpoint, right: PromptCheckpoint) -> None:
    pairs = list(zip(learned(left), learned(right), strict=True))
    assert all(a.dtype == b.dtype and torch.equal(a, b) for a, b in pairs)
    assert left.token_ids is not None
    assert right.token_ids is not None
    assert torch.equal(left.token_ids, right.token_ids)


@pytest.fixture
def net(make_net: NetFactory) -> AnomalyCLIP:
    return make_net(torch.float32)


# --- the two published samples ---------------------------------------------------------------------------------------


def test_published_sample_with_unused_projections(published_prompts: Path) -> None:
    stored = torch.load(published_prompts, weights_only=True)["prompt_learner"]
    assert any(key.startswith("compound_prompt_projections") for key in stored)
    checkpoint = read_prompts(published_prompts)
    assert torch.equal(checkpoint.context_normal, stored["ctx_pos"][0])
    assert torch.equal(checkpoint.context_abnormal, stored["ctx_neg"][0])
    assert len(checkpoint.deep_prompts) == 4
    for index, deep in enumerate(checkpoint.deep_prompts):
        assert torch.equal(deep, stored[f"compound_prompts_text.{index}"])
    assert checkpoint.token_ids is not None
    assert checkpoint.token_ids[1, :18].tolist() == [49406, *[343] * 12, 13568, 14115, 269, 49407, 0]
    assert set(checkpoint.token_rows) == {49406, 13568, 14115, 269, 49407, 0}
    assert not checkpoint.backbone
    assert not checkpoint.settings


def test_published_token_rows_are_the_backbones(published_prompts: Path, tiny_weights: Path) -> None:
    table = load_file(tiny_weights)["token_embedding.weight"].float()
    for index, row in read_prompts(published_prompts).token_rows.items():
        assert torch.equal(row, table[index]), index


@pytest.mark.parametrize("lacking", ["prefix", "suffix"])
def test_published_layout_without_the_rows_of_one_sign(lacking: str, published_prompts: Path, tmp_path: Path) -> None:
    """The ids are known, and the rows of the other sign."""
    content = torch.load(published_prompts, weights_only=True)
    whole = read_prompts(published_prompts)
    del content["prompt_learner"][f"token_{lacking}_neg"]
    torch.save(content, tmp_path / "a.pth")
    found = read_prompts(tmp_path / "a.pth")
    assert found.token_ids is not None
    assert torch.equal(found.token_ids, whole.token_ids)  # type: ignore[arg-type]
    length = found.context_normal.shape[1]
    wanted = {int(found.token_ids[0, 0]), *found.token_ids[0, 1 + length :].tolist()}
    assert set(found.token_rows) == wanted < set(whole.token_rows)
    assert all(torch.equal(row, whole.token_rows[number]) for number, row in found.token_rows.items())


def test_published_sample_tuned_on_real_clip(real_data: Path, tmp_path: Path) -> None:
    """Real prompts with CUDA storages and without projections, on a CLIP with a full-width text tower."""
    path = real_data / "trained_prompts" / "crane_visa_epoch_5.pth"
    config: dict[str, Any] = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 28, "layers": 1, "width": 64, "patch_size": 14},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 768, "heads": 12, "layers": 9},
        "quick_gelu": True,
    }
    with pytest.warns(UserWarning, match="random weights"):
        net = AnomalyCLIP(config, None, image_size=28, feature_layers=(1,), dpam_start=1)
    with pytest.raises(ValueError, match="tuned with another CLIP: its embedding of token"):
        net.load_prompts(path)
    net.load_prompts(path, check_backbone=False)
    stored = torch.load(path, map_location="cpu", weights_only=True)["prompt_learner"]
    assert torch.equal(net.prompts.contexts[0], stored["ctx_pos"][0].float())
    assert torch.equal(net.prompts.contexts[1], stored["ctx_neg"][0].float())
    assert len(net.prompts.deep_prompts) == 8
    assert torch.equal(net.prompts.deep_prompts[7], stored["compound_prompts_text.7"].float())
    checkpoint = read_prompts(path)
    for index, row in checkpoint.token_rows.items():  # with the real embeddings it is accepted
        net.clip.token_embedding.weight[index] = row
    net.load_prompts(path)
    convert_prompts(path, tmp_path / "converted.safetensors")
    assert_same_prompts(read_prompts(tmp_path / "converted.safetensors"), checkpoint)


# --- round trips -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("second", SUFFIXES)
@pytest.mark.parametrize("first", SUFFIXES)
def test_round_trips_are_exact(net: AnomalyCLIP, make_net: NetFactory, tmp_path: Path, first: str, second: str) -> None:
    net.save_prompts(tmp_path / f"first{first}")
    returned = convert_prompts(tmp_path / f"first{first}", tmp_path / f"second{second}")
    original, converted = net.checkpoint(), read_prompts(tmp_path / f"second{second}")
    assert_same_prompts(converted, original)
    assert_same_prompts(returned, original)
    published = ".pth" in (first, second)  # that layout has no room for them
    identity = {"name": "custom", "sha256": net.backbone_sha256}
    assert converted.backbone == ({} if published else identity)
    assert converted.settings == ({} if published else net.settings)
    for index, row in converted.token_rows.items():
        assert torch.equal(row, net.clip.token_embedding.weight[index])
    assert {49406, 49407, 14115, 13568, 269, 0} <= set(converted.token_rows)
    other = make_net(torch.float32)
    other.load_prompts(tmp_path / f"second{second}")
    assert all(torch.equal(a, b) for a, b in zip(other.prompts.parameters(), net.prompts.parameters(), strict=True))


def test_published_layout_is_the_authors(net: AnomalyCLIP, published_prompts: Path, tmp_path: Path) -> None:
    """Reading the authors' file and writing it again gives the same keys, shapes and values, but the projections."""
    convert_prompts(published_prompts, tmp_path / "ours.pth")
    theirs = torch.load(published_prompts, weights_only=True)["prompt_learner"]
    for path in (tmp_path / "ours.pth", tmp_path / "saved.pth"):
        if not path.exists():
            net.load_prompts(published_prompts)
            net.save_prompts(path)
        ours = torch.load(path, weights_only=True)
        assert list(ours) == ["prompt_learner"]
        used = {key: value for key, value in theirs.items() if not key.startswith("compound_prompt_projections")}
        assert set(ours["prompt_learner"]) == set(used)
        for key, value in used.items():
            assert ours["prompt_learner"][key].dtype == value.dtype, key
            assert torch.equal(ours["prompt_learner"][key], value), key


def test_bundle_layout_is_the_bare_state_dict(net: AnomalyCLIP, tmp_path: Path) -> None:
    net.save_prompts(tmp_path / "model.pt")
    loaded = torch.load(tmp_path / "model.pt", weights_only=True)
    state = net.state_dict()
    assert list(loaded) == list(state)
    assert all(torch.equal(loaded[key], state[key]) for key in state)
    assert not net.load_state_dict(loaded, strict=True).missing_keys
    torch.save({"model": state, "optimizer": {}, "epoch": 3}, tmp_path / "checkpoint.pt")  # a MONAI checkpoint
    saved_by_hand = read_prompts(tmp_path / "checkpoint.pt")
    assert all(torch.equal(a, b) for a, b in zip(learned(saved_by_hand), learned(net.checkpoint()), strict=True))
    assert saved_by_hand.backbone["sha256"] == net.backbone_sha256
    assert saved_by_hand.settings == net.settings


def test_own_layout_is_plain_safetensors(net: AnomalyCLIP, tmp_path: Path) -> None:
    net.save_prompts(tmp_path / "prompts.safetensors")
    with safe_open(tmp_path / "prompts.safetensors", "pt") as file:
        metadata = file.metadata()
        keys = set(file.keys())
    assert metadata["format"] == "monai_anomalyclip.prompts"
    assert net.backbone_sha256 in metadata["backbone"]
    assert '"feature_layers": [3, 6, 9, 12]' in metadata["settings"]
    assert {"context_normal", "context_abnormal", *(f"deep_prompts.{i}" for i in range(4))} <= keys
    assert (tmp_path / "prompts.safetensors").stat().st_size < 100_000


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    "settings",
    [
        {"shared_context": True},
        {"prompt_length": 0, "deep_prompt_length": 0},
        {"deep_prompt_depth": 1},
        {"normal_words": ("healthy scan",), "abnormal_words": ("bleeding",)},
    ],
    ids=str,
)
@pytest.mark.filterwarnings("error")
def test_other_settings_round_trip(make_net: NetFactory, tmp_path: Path, suffix: str, settings: dict[str, Any]) -> None:
    source, target = make_net(torch.float32, **settings), make_net(torch.float32, **settings)
    source.save_prompts(tmp_path / f"prompts{suffix}")
    target.load_prompts(tmp_path / f"prompts{suffix}")
    pairs = list(zip(target.prompts.parameters(), source.prompts.parameters(), strict=True))
    assert pairs
    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.filterwarnings("error")
def test_short_text_tower_round_trips(small_config: dict[str, Any], tmp_path: Path) -> None:
    """A tower of fewer than 77 tokens still writes the published layout, and knows it again."""
    small_config["text_cfg"]["context_length"] = 24
    torch.save(CLIP(**small_config).state_dict(), tmp_path / "clip.pt")
    net = AnomalyCLIP(
        small_config, tmp_path / "clip.pt", image_size=28, feature_layers=(2,), dpam_start=1, deep_prompt_depth=2
    )
    for suffix in SUFFIXES:
        net.save_prompts(tmp_path / f"prompts{suffix}")
        net.load_prompts(tmp_path / f"prompts{suffix}")


def test_several_words_have_no_published_form(make_net: NetFactory, tmp_path: Path) -> None:
    net = make_net(torch.float32, normal_words=("object", "scan"))
    for suffix in (".safetensors", ".pt"):
        net.save_prompts(tmp_path / f"prompts{suffix}")
        assert_same_prompts(read_prompts(tmp_path / f"prompts{suffix}"), net.checkpoint())
        net.load_prompts(tmp_path / f"prompts{suffix}")
    with pytest.raises(ValueError, match="one normal and one abnormal prompt"):
        net.save_prompts(tmp_path / "prompts.pth")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["prompts.pt", "prompts.safetensors"]


# --- hostile and damaged files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["bomb.pth", "bomb.pt", "bomb.safetensors", "bomb"])
def test_pickle_bomb_is_refused(net: AnomalyCLIP, tmp_path: Path, name: str) -> None:
    marker = tmp_path / "exploded"
    before = net.prompts.context_normal.detach().clone()
    for legacy in (False, True):
        bomb = {"prompt_learner": {"ctx_pos": Bomb(marker)}}
        torch.save(bomb, tmp_path / name, _use_new_zipfile_serialization=not legacy)
        with pytest.raises(ValueError, match=name):
            net.load_prompts(tmp_path / name)
        with pytest.raises(ValueError, match=name):
            convert_prompts(tmp_path / name, tmp_path / "out.safetensors")
        assert not marker.exists()
    with (tmp_path / name).open("rb") as file:
        torch.load(file, weights_only=False)  # it would have gone off
    assert marker.exists()
    assert torch.equal(net.prompts.context_normal, before)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_truncated_and_empty_files(net: AnomalyCLIP, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"prompts{suffix}"
    net.save_prompts(path)
    content = path.read_bytes()
    for kept in (0, 5, len(content) // 2, len(content) - 3):
        path.write_bytes(content[:kept])
        with pytest.raises(ValueError, match="prompts"):
            net.load_prompts(path)


def test_missing_file(net: AnomalyCLIP, tmp_path: Path) -> None:
    for name in ("absent.pth", "absent.safetensors", ""):
        with pytest.raises(FileNotFoundError, match="no prompt"):
            net.load_prompts(tmp_path / name)


def test_files_that_are_something_else(net: AnomalyCLIP, tiny_weights: Path, data_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not a prompt checkpoint"):
        net.load_prompts(tiny_weights)
    with pytest.raises(ValueError, match="not a prompt checkpoint"):
        net.load_prompts(data_dir / "tiny" / "reference.npz")
    for number, content in enumerate(([1, 2], {"state_dict": {}}, torch.zeros(2), {})):
        torch.save(content, tmp_path / f"{number}.pth")
        with pytest.raises(ValueError, match="not a prompt checkpoint"):
            net.load_prompts(tmp_path / f"{number}.pth")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("ctx_neg", "absent"),
        ("ctx_pos", None),
        ("ctx_pos", torch.zeros(12, 64)),
        ("ctx_neg", torch.zeros(1, 12, 64)),
        ("compound_prompts_text.1", "absent"),
        ("compound_prompts_text.1", "no tensor"),
        ("tokenized_prompts_pos", "no tensor"),
        ("token_suffix_pos", torch.zeros(1, 1, 64, 32)),
    ],
)
def test_damaged_published_files(
    net: AnomalyCLIP, published_prompts: Path, tmp_path: Path, key: str, value: Any
) -> None:
    content = torch.load(published_prompts, weights_only=True)
    content["prompt_learner"][key] = value
    if isinstance(value, str) and value == "absent":
        del content["prompt_learner"][key]
    torch.save(content, tmp_path / "damaged.pth")
    with pytest.raises(ValueError, match=r"damaged\.pth"):
        net.load_prompts(tmp_path / "damaged.pth")


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_damaged_own_files(net: AnomalyCLIP, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"damaged{suffix}"
    net.save_prompts(tmp_path / f"whole{suffix}")
    if suffix == ".pt":
        content = torch.load(tmp_path / "whole.pt", weights_only=True)
        variants: list[Any] = [
            {key: value for key, value in content.items() if key != "prompts.deep_prompts.1"},
            {**content, "prompts.context_normal": 3},
            {**content, "prompts.deep_prompts.0": "x"},
        ]
        for variant in variants:
            torch.save(variant, path)
            with pytest.raises(ValueError, match=r"damaged\.pt"):
                net.load_prompts(path)
        return
    with safe_open(tmp_path / "whole.safetensors", "pt") as file:
        metadata = file.metadata()
    tensors = load_file(tmp_path / "whole.safetensors")
    for absent in ("deep_prompts.1", "row_ids", "context_normal"):
        save_file({key: value for key, value in tensors.items() if key != absent}, path, metadata)
        with pytest.raises(ValueError, match=r"damaged\.safetensors"):
            net.load_prompts(path)
    save_file(tensors, path, {**metadata, "settings": "{"})
    with pytest.raises(ValueError, match=r"damaged\.safetensors"):
        net.load_prompts(path)
    save_file(tensors, path, {**metadata, "format": "another"})
    with pytest.raises(ValueError, match="format 'another'"):
        net.load_prompts(path)


# --- writing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_existing_files_are_kept_unless_told(
    net: AnomalyCLIP, make_net: NetFactory, tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / "new" / "folder" / f"prompts{suffix}"
    net.save_prompts(path)
    content = path.read_bytes()
    other = make_net(torch.float32)
    with pytest.raises(FileExistsError, match="overwrite=True"):
        other.save_prompts(path)
    with pytest.raises(FileExistsError, match="overwrite=True"):
        convert_prompts(path, path)
    assert path.read_bytes() == content
    other.save_prompts(path, overwrite=True)
    assert_same_prompts(read_prompts(path), other.checkpoint())
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("existing", [False, True])
def test_nothing_half_written(
    net: AnomalyCLIP, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, existing: bool
) -> None:
    path = tmp_path / f"prompts{suffix}"
    if existing:
        net.save_prompts(path)
    content = path.read_bytes() if existing else None

    def fails_midway(_: Any, target: Any, *__: Any) -> None:
        target.write(b"half a file") if hasattr(target, "write") else Path(target).write_bytes(b"half a file")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(prompt_checkpoint, "save_file", fails_midway)
    monkeypatch.setattr(torch, "save", fails_midway)
    with pytest.raises(OSError, match="No space left"):
        net.save_prompts(path, overwrite=True)
    assert [entry.name for entry in tmp_path.iterdir()] == ([path.name] if existing else [])
    if existing:
        assert path.read_bytes() == content


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_file_appears_by_renaming(
    net: AnomalyCLIP, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    path = tmp_path / f"prompts{suffix}"
    net.save_prompts(path)
    content = path.read_bytes()

    def refuse(source: Any, target: Any) -> None:
        assert Path(target) == path
        assert Path(source).parent == path.parent  # the same file system: the rename is atomic
        raise PermissionError("locked")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(PermissionError, match="locked"):
        net.save_prompts(path, overwrite=True)
    assert path.read_bytes() == content
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("name", ["prompts.bin", "prompts", "prompts.safetensors.zip"])
def test_other_suffixes_are_refused(net: AnomalyCLIP, tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=f"not as '{name}'"):
        net.save_prompts(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_published_layout_needs_the_token_rows(tmp_path: Path) -> None:
    bare = PromptCheckpoint(torch.zeros(1, 2, 8), torch.zeros(1, 2, 8), ())
    with pytest.raises(ValueError, match="tokenised templates"):
        write_prompts(bare, tmp_path / "prompts.pth")
    write_prompts(bare, tmp_path / "prompts.safetensors")
    assert read_prompts(tmp_path / "prompts.safetensors").token_ids is None
