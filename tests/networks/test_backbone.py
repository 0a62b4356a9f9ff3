# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from open_clip.model import CLIP
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from monai_anomalyclip.networks import AnomalyCLIP, Backbone, build_backbone, describe_clip
from monai_anomalyclip.networks import backbone as backbone_module

Weights = dict[str, Tensor]


@pytest.fixture
def weights(small_config: dict[str, Any]) -> Weights:
    """Weights of the small CLIP that float16 holds exactly, as OpenAI's files are float16."""
    return {key: value.half().float() for key, value in CLIP(**small_config).state_dict().items()}


@pytest.fixture
def weights_file(weights: Weights, tmp_path: Path) -> Path:
    save_file(weights, tmp_path / "clip.safetensors")
    return tmp_path / "clip.safetensors"


@pytest.fixture
def downloads(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What would have been fetched; nothing is."""
    asked: list[dict[str, Any]] = []

    def refuse(config: dict[str, Any], *_: Any, **__: Any) -> str:
        asked.append(config)
        raise OSError("no network in tests")

    monkeypatch.setattr(backbone_module, "download_pretrained", refuse)
    return asked


@pytest.fixture
def small_named_models(monkeypatch: pytest.MonkeyPatch, small_config: dict[str, Any]) -> None:
    """The names and tags of open_clip, but small towers behind two of the names."""
    plain = {key: value for key, value in small_config.items() if key != "quick_gelu"}
    for name in ("ViT-L-14-336", "ViT-B-32"):
        monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, name, plain)
        monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, f"{name}-quickgelu", small_config)


def write_torchscript(weights: Weights, path: Path) -> None:
    """An archive such as OpenAI publishes: a scripted module with float16 weights and three more buffers."""

    class Tree(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x

    root = Tree()
    for key, value in weights.items():
        *parents, name = key.split(".")
        module: nn.Module = root
        for parent in parents:
            if parent not in dict(module.named_children()):
                module.add_module(parent, Tree())
            module = module.get_submodule(parent)
        module.register_parameter(name, nn.Parameter(value.half(), requires_grad=False))
    for name, number in (("input_resolution", 28), ("context_length", 77), ("vocab_size", 49408)):
        root.register_buffer(name, torch.tensor(number))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing is deprecated, but OpenAI's files are such archives
        torch.jit.trace(root, torch.zeros(1)).save(str(path))


class Bomb:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self.marker),)


# --- every container of the same weights -----------------------------------------------------------------------------


def test_every_container_gives_the_same_backbone(
    small_config: dict[str, Any], weights: Weights, tmp_path: Path
) -> None:
    save_file(weights, tmp_path / "single.safetensors")
    save_file({key: value.half() for key, value in weights.items()}, tmp_path / "half.safetensors")
    torch.save(weights, tmp_path / "state.pt")
    torch.save({"state_dict": weights, "epoch": 3}, tmp_path / "nested.pt")
    wrapped = {"epoch": 3, "state_dict": {f"module.{key}": value for key, value in weights.items()}}
    torch.save(wrapped, tmp_path / "wrapped.pt")
    write_torchscript(weights, tmp_path / "archive.pt")
    prints = set()
    for name in ("single.safetensors", "half.safetensors", "state.pt", "nested.pt", "wrapped.pt", "archive.pt"):
        built = build_backbone(small_config, str(tmp_path / name))
        prints.add(built.sha256)
        assert built.name == "custom"
        assert set(built.clip.state_dict()) == set(weights)
        for key, value in built.clip.state_dict().items():
            assert value.dtype == torch.float32
            assert torch.equal(value, weights[key]), (name, key)
        assert not built.clip.training
        assert not any(parameter.requires_grad for parameter in built.clip.parameters())
    assert len(prints) == 1
    (fingerprint,) = prints
    assert len(fingerprint) == 64


def test_fingerprint_sees_every_weight(small_config: dict[str, Any], weights: Weights, tmp_path: Path) -> None:
    prints = set()
    for number, key in enumerate([None, "logit_scale", "token_embedding.weight", "visual.proj"]):
        changed = {name: value.clone() for name, value in weights.items()}
        if key:
            changed[key].view(-1)[-1] += 1
        save_file(changed, tmp_path / f"{number}.safetensors")
        prints.add(build_backbone(small_config, tmp_path / f"{number}.safetensors").sha256)
    assert len(prints) == 4


def test_loading_does_not_warn_and_random_weights_warn_once(small_config: dict[str, Any], weights_file: Path) -> None:
    settings: dict[str, Any] = {
        "image_size": 28,
        "feature_layers": (2,),
        "dpam_start": 1,
        "deep_prompt_depth": 2,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        AnomalyCLIP(small_config, weights_file, **settings)
    with pytest.warns(UserWarning, match=r"random weights \(pretrained=None\)") as caught:
        AnomalyCLIP(small_config, None, **settings)
    assert len(caught) == 1
    assert caught[0].filename == __file__  # it points at the caller


# --- architectures ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("RN50", "ResNet"),
        ("ViT-B-16-SigLIP", "timm trunk 'vit_base_patch16_siglip_224'"),
        ("convnext_base", "timm trunk 'convnext_base'"),
        ("roberta-ViT-B-32", "Hugging Face model 'roberta-base'"),
        ("coca_ViT-B-32", "text tower is not CLIP's own"),
    ],
)
def test_towers_that_cannot_be_driven_are_refused_at_once(
    name: str, reason: str, downloads: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backbone_module, "CLIP", None)  # it is not even built
    with pytest.raises(ValueError, match="AnomalyCLIP cannot drive") as error:
        build_backbone(name, "openai")
    assert reason in str(error.value)
    assert "ViT-L-14-336-quickgelu" in str(error.value)
    assert not downloads


@pytest.mark.parametrize(
    ("tower", "change", "reason"),
    [
        ("vision_cfg", {"pool_type": "avg"}, "class token"),
        ("vision_cfg", {"attentional_pool": True}, "class token"),
        ("vision_cfg", {"image_size": [28, 56]}, "not square"),
        ("vision_cfg", {"patch_size": [14, 7]}, "not square"),
        ("vision_cfg", {"block_type": "custom"}, "blocks"),
        ("text_cfg", {"no_causal_mask": True}, "not causal"),
        ("text_cfg", {"pool_type": "last"}, "end-of-text"),
        ("text_cfg", {"proj_bias": True}, "end-of-text"),
        ("text_cfg", {"vocab_size": 1000}, "vocabulary has 1000 tokens"),
        ("vision_cfg", {"layers": [1, 1, 1, 1]}, "ResNet"),
        ("vision_cfg", {"timm_model_name": "vit_tiny"}, "timm trunk 'vit_tiny'"),
        ("text_cfg", {"hf_model_name": "roberta-base"}, "roberta-base"),
    ],
    ids=str,
)
def test_config_that_cannot_be_driven(
    small_config: dict[str, Any], tower: str, change: dict[str, Any], reason: str
) -> None:
    small_config[tower].update(change)
    with pytest.raises(ValueError, match="AnomalyCLIP cannot drive 'custom'") as error:
        build_backbone(small_config, None)
    assert reason in str(error.value)


@pytest.mark.parametrize("name", ["ViT-L-14-337", "hf-hub:laion/CLIP-ViT-B-32-laion2B-s34B-b79K", "local-dir:/nowhere"])
def test_unknown_names_are_refused_without_the_network(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("open_clip.factory._get_hf_config", None)
    with pytest.raises(ValueError, match=f"'{name}' is not one of open_clip's built-in models"):
        build_backbone(name, None)


def test_config_without_a_tower(small_config: dict[str, Any]) -> None:
    del small_config["text_cfg"]
    with pytest.raises(ValueError, match=r"lacks \['text_cfg'\]"):
        build_backbone(small_config, None)


@pytest.mark.filterwarnings("ignore:.*random weights")
def test_misspelt_config_keys_are_named(small_config: dict[str, Any]) -> None:
    misspelt = {"quickgelu" if key == "quick_gelu" else key: value for key, value in small_config.items()}
    with pytest.raises(ValueError, match="quickgelu"):  # silently plain GELU otherwise
        build_backbone(misspelt, None)
    small_config["vision_cfg"]["widht"] = 64
    with pytest.raises(ValueError, match="widht"):
        build_backbone(small_config, None)


def test_the_callers_config_is_left_alone(small_config: dict[str, Any], weights_file: Path) -> None:
    before = repr(small_config)
    build_backbone(small_config, weights_file)
    assert repr(small_config) == before


# --- QuickGELU -------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("small_named_models")
def test_openai_tag_with_plain_gelu_is_refused_before_the_download(downloads: list[dict[str, Any]]) -> None:
    with pytest.raises(ValueError, match="QuickGELU") as error:
        build_backbone("ViT-L-14-336", "openai")
    assert "model_name='ViT-L-14-336-quickgelu'" in str(error.value)
    assert not downloads


@pytest.mark.usefixtures("small_named_models")
def test_openai_tag_with_quickgelu_is_loaded(
    monkeypatch: pytest.MonkeyPatch, weights_file: Path, weights: Weights
) -> None:
    asked = []

    def fetched(config: dict[str, Any]) -> str:
        asked.append(config)
        return str(weights_file)

    monkeypatch.setattr(backbone_module, "download_pretrained", fetched)
    built = build_backbone("ViT-L-14-336-quickgelu", "openai")
    assert built.name == "ViT-L-14-336-quickgelu"
    assert torch.equal(built.clip.state_dict()["visual.proj"], weights["visual.proj"])
    assert len(asked) == 1


@pytest.mark.usefixtures("small_named_models")
def test_laion_tag_goes_with_plain_gelu(
    monkeypatch: pytest.MonkeyPatch, weights_file: Path, downloads: list[dict[str, Any]]
) -> None:
    with pytest.raises(ValueError, match="'laion2b_s34b_b79k' were trained with GELU") as error:
        build_backbone("ViT-B-32-quickgelu", "laion2b_s34b_b79k")
    assert "model_name='ViT-B-32'" in str(error.value)
    assert not downloads
    monkeypatch.setattr(backbone_module, "download_pretrained", lambda config: str(weights_file))
    assert isinstance(build_backbone("ViT-B-32", "laion2b_s34b_b79k"), Backbone)


def test_tag_with_another_normalisation_is_refused(
    small_config: dict[str, Any], downloads: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = {key: value for key, value in small_config.items() if key != "quick_gelu"}
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "ViT-L-14", plain)
    with pytest.raises(ValueError, match="another image normalisation"):
        build_backbone("ViT-L-14", "laion2b_s32b_b82k")
    assert not downloads


def test_openai_archive_with_plain_gelu_is_refused(
    small_config: dict[str, Any], weights: Weights, tmp_path: Path
) -> None:
    write_torchscript(weights, tmp_path / "archive.pt")
    small_config["quick_gelu"] = False
    with pytest.raises(ValueError, match="trained with QuickGELU but 'custom' computes GELU") as error:
        build_backbone(small_config, tmp_path / "archive.pt")
    assert "set quick_gelu to true" in str(error.value)


def test_openai_weights_are_known_in_any_container(tmp_path: Path, real_data: Path) -> None:
    """The real start-of-text row of ViT-L/14@336px, from real prompts, gives its weights away."""
    config: dict[str, Any] = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 28, "layers": 1, "width": 64, "patch_size": 14},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 768, "heads": 12, "layers": 1},
    }
    stored = torch.load(
        real_data / "trained_prompts" / "crane_visa_epoch_5.pth", map_location="cpu", weights_only=True
    )["prompt_learner"]
    state = CLIP(**config).state_dict()
    state["token_embedding.weight"][49406] = stored["token_prefix_pos"].flatten().float()
    save_file(state, tmp_path / "clip.safetensors")
    with pytest.raises(ValueError, match="QuickGELU"):
        build_backbone(config, tmp_path / "clip.safetensors")
    build_backbone({**config, "quick_gelu": True}, tmp_path / "clip.safetensors")


# --- files that are missing, wrong or hostile ------------------------------------------------------------------------


@pytest.mark.usefixtures("small_named_models")
def test_tag_that_cannot_be_fetched(downloads: list[dict[str, Any]]) -> None:
    with pytest.raises(FileNotFoundError, match="'openai' of 'ViT-L-14-336-quickgelu'") as error:
        build_backbone("ViT-L-14-336-quickgelu", "openai")
    assert "could not be fetched" in str(error.value)
    assert "give its path as `pretrained`" in str(error.value)
    assert len(downloads) == 1


@pytest.mark.usefixtures("small_named_models")
def test_neither_file_nor_tag(small_config: dict[str, Any], tmp_path: Path, downloads: list[dict[str, Any]]) -> None:
    with pytest.raises(FileNotFoundError, match=r"'opanai' are neither a file nor .* \(tags: openai\)"):
        build_backbone("ViT-L-14-336-quickgelu", "opanai")
    with pytest.raises(FileNotFoundError, match="are neither a file"):
        build_backbone(small_config, "openai")  # a config dictionary has no tags
    with pytest.raises(FileNotFoundError, match="are neither a file"):
        build_backbone(small_config, tmp_path / "absent.pt")
    with pytest.raises(FileNotFoundError, match="are neither a file"):
        build_backbone(small_config, tmp_path)
    assert not downloads


def test_weights_of_another_architecture(small_config: dict[str, Any], weights_file: Path) -> None:
    small_config["embed_dim"] = 32
    with pytest.raises(ValueError, match=r"do not fit 'custom': .*visual.proj"):
        build_backbone(small_config, weights_file)


@pytest.mark.parametrize(
    ("key", "shape", "said"),
    [
        ("logit_scale", None, "logit_scale has no tensor in place of the shape \\(\\), and 1 tensors differ"),
        ("visual.proj", (3, 4), "visual.proj has the shape \\(3, 4\\) in place of the shape \\(64, 16\\), and 1"),
        ("aaa", (2,), "aaa has the shape \\(2,\\) in place of no tensor, and 1"),
    ],
)
def test_a_look_into_weights_that_do_not_fit(
    small_config: dict[str, Any], weights: Weights, tmp_path: Path, key: str, shape: tuple[int, ...] | None, said: str
) -> None:
    changed = {name: value for name, value in weights.items() if name != key or shape is not None}
    changed |= {} if shape is None else {key: torch.zeros(shape)}
    save_file(changed, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=f"'w.safetensors' does not fit 'custom': {said}"):
        describe_clip(tmp_path / "w.safetensors", small_config)


def test_missing_and_foreign_weights(small_config: dict[str, Any], weights: Weights, tmp_path: Path) -> None:
    save_file({key: value for key, value in weights.items() if key != "visual.proj"}, tmp_path / "less.safetensors")
    with pytest.raises(ValueError, match=r"do not fit 'custom': .*visual.proj"):
        build_backbone(small_config, tmp_path / "less.safetensors")
    save_file({**weights, "extra": torch.zeros(1)}, tmp_path / "more.safetensors")
    with pytest.raises(ValueError, match=r"do not fit 'custom': .*extra"):
        build_backbone(small_config, tmp_path / "more.safetensors")


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_files_that_hold_no_weights(
    small_config: dict[str, Any], weights: Weights, tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"clip{suffix}"
    for content in (b"", b"no weights here"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="cannot be read"):
            build_backbone(small_config, path)
    save_file(weights, path) if suffix == ".safetensors" else torch.save(weights, path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match="cannot be read"):
        build_backbone(small_config, path)


@pytest.mark.parametrize("content", [[1, 2], {}, {"state_dict": 3}, torch.zeros(3)], ids=str)
def test_files_that_hold_something_else(small_config: dict[str, Any], tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "clip.pt")
    with pytest.raises(ValueError, match=r"hold no state dict|do not fit"):
        build_backbone(small_config, tmp_path / "clip.pt")


@pytest.mark.parametrize("name", ["clip.pt", "clip.bin", "clip.safetensors"])
def test_pickle_bomb_is_refused(small_config: dict[str, Any], tmp_path: Path, name: str) -> None:
    marker = tmp_path / "exploded"
    for legacy in (False, True):
        torch.save({"state_dict": Bomb(marker)}, tmp_path / name, _use_new_zipfile_serialization=not legacy)
        with pytest.raises(ValueError, match="cannot be read"):
            build_backbone(small_config, tmp_path / name)
        assert not marker.exists()
    with (tmp_path / name).open("rb") as file:
        torch.load(file, weights_only=False)  # it would have gone off
    assert marker.exists()


def test_reference_weights_load_exactly(tiny_backbones: dict[torch.dtype, Backbone], tiny_weights: Path) -> None:
    built = tiny_backbones[torch.float32]
    for key, value in load_file(tiny_weights).items():
        assert torch.equal(built.clip.state_dict()[key], value.float()), key


# --- the table of backbones in docs/weights.md -----------------------------------------------------------------------

DRIVEN = [
    ("ViT-L-14-336-quickgelu", "openai"),
    ("ViT-B-16-quickgelu", "openai"),
    ("ViT-B-32-quickgelu", "openai"),
    ("ViT-L-14-quickgelu", "openai"),
    ("ViT-B-16", "laion2b_s34b_b88k"),
    ("ViT-B-16-quickgelu", "metaclip_400m"),
    ("ViT-L-14-quickgelu", "metaclip_fullcc"),
    ("ViT-B-16-quickgelu", "dfn2b"),
    ("ViT-L-14-quickgelu", "dfn2b"),
    ("ViT-H-14-378-quickgelu", "dfn5b"),
]
REFUSED = [
    ("ViT-L-14", "laion2b_s32b_b82k", "another image normalisation"),
    ("ViT-B-16-SigLIP2", "webli", "its vision tower is the timm trunk"),
    ("hf-hub:microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224", None, "hub names are not supported"),
]


def small(config: dict[str, Any]) -> dict[str, Any]:
    """The same architecture with two thin blocks per tower, at two patches a side."""
    thin = copy.deepcopy(config)
    thin["embed_dim"] = 16
    thin["vision_cfg"] |= {
        "layers": 2,
        "width": 64,
        "head_width": 32,
        "image_size": 2 * config["vision_cfg"]["patch_size"],
    }
    thin["text_cfg"] |= {"layers": 2, "width": 16, "heads": 1}
    return thin


@pytest.mark.parametrize(("name", "tag"), DRIVEN)
def test_backbones_of_the_table_are_driven(
    name: str, tag: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data_dir: Path
) -> None:
    config = small(open_clip.get_model_config(name))
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, name, config)
    save_file(CLIP(**config).state_dict(), tmp_path / "clip.safetensors")
    monkeypatch.setattr(backbone_module, "download_pretrained", lambda _: str(tmp_path / "clip.safetensors"))
    side = 3 * config["vision_cfg"]["patch_size"]
    network = AnomalyCLIP(name, tag, image_size=side, feature_layers=(2,), dpam_start=1, deep_prompt_depth=2)
    found = network(torch.randn(1, 3, side, side))
    assert found.shape == (1, 1, side, side)
    assert bool(((found > 0) & (found < 1)).all())
    table = (data_dir.parents[1] / "docs" / "weights.md").read_text()
    assert f"`{name}`" in table
    assert f"`{tag}`" in table


@pytest.mark.parametrize(("name", "tag", "reason"), REFUSED)
def test_backbones_of_the_table_that_are_refused(
    name: str, tag: str | None, reason: str, monkeypatch: pytest.MonkeyPatch, data_dir: Path
) -> None:
    if name == "ViT-L-14":
        monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, name, small(open_clip.get_model_config(name)))
    with pytest.raises(ValueError, match=reason):
        build_backbone(name, tag)
    assert f"`{name}`" in (data_dir.parents[1] / "docs" / "weights.md").read_text()
