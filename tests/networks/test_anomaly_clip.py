# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import contextlib
import copy
import hashlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from monai.networks.utils import copy_model_state
from open_clip.model import CLIP
from torch import Tensor, nn

from monai_anomalyclip.networks import AnomalyCLIP, PromptLearner, frozen_clip

NetFactory = Callable[..., AnomalyCLIP]
TextOracle = Callable[..., Tensor]


def relative_error(actual: Tensor, expected: np.ndarray | Tensor) -> float:
    target = torch.as_tensor(expected).double()
    assert actual.numel() == target.numel()
    return float((actual.detach().double().reshape(target.shape) - target).norm() / target.norm())


def clip_hash(clip: CLIP) -> str:
    return hashlib.sha256(b"".join(v.numpy().tobytes() for v in clip.state_dict().values())).hexdigest()


@pytest.fixture
def image(reference: dict[str, np.ndarray]) -> Tensor:
    return torch.from_numpy(reference["image"])


@pytest.fixture
def text_passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one entry with each pass through the text tower."""
    passes: list[int] = []
    forward = PromptLearner.forward

    def counted(self: PromptLearner, clip: CLIP) -> Tensor:
        passes.append(1)
        return forward(self, clip)

    monkeypatch.setattr(PromptLearner, "forward", counted)
    return passes


class Wrapper(nn.Module):
    """What DistributedDataParallel does to a state dict: a prefix."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module


# --- the recorded numbers, float32 -----------------------------------------------------------------------------------


@torch.no_grad()
def test_reference_features_logits_and_maps(
    reference_net: AnomalyCLIP, reference: dict[str, np.ndarray], image: Tensor
) -> None:
    global_features, patch_features = reference_net.encode_image(image)
    logits = reference_net.logits(global_features, patch_features)
    computed = {
        "image_features_raw": global_features,
        "text_features": reference_net.encode_prompts(),
        "image_logits": logits["image_logits"],
        "image_score": reference_net.predict(image)["anomaly_score"],
        "anomaly_map_raw": 4 * reference_net(image),  # the recorded map is the sum over the four layers
    }
    for index in range(4):
        computed[f"patch_features_raw_{index}"] = patch_features[index]
        probabilities = logits["patch_logits"][index].softmax(dim=1)
        computed[f"similarity_map_{index}"] = F.interpolate(probabilities, size=84, mode="bilinear")
    for key, value in computed.items():
        assert relative_error(value, reference[key]) < 1e-5, key


def test_reference_losses_and_gradients(
    reference_net: AnomalyCLIP, reference: dict[str, np.ndarray], image: Tensor, plain: ModuleType
) -> None:
    logits = reference_net(image, output="logits")
    maps = [F.interpolate(layer.softmax(dim=1), size=84, mode="bilinear") for layer in logits["patch_logits"]]
    labels, mask = torch.from_numpy(reference["labels"]), torch.from_numpy(reference["mask"]).float()
    losses = plain.losses(logits["image_logits"], maps, labels, mask, 4.0)
    for key, value in losses.items():
        assert relative_error(value, reference[key]) < 1e-5, key
    losses["loss_total"].backward()
    prompts = reference_net.prompts
    learned = {
        "grad_ctx_pos": prompts.context_normal,
        "grad_ctx_neg": prompts.get_parameter("context_abnormal"),
        **{f"grad_deep_{index}": deep for index, deep in enumerate(prompts.deep_prompts)},
    }
    for key, parameter in learned.items():
        assert parameter.grad is not None
        assert relative_error(parameter.grad, reference[key]) < 1e-5, key
    assert all(parameter.grad is None for parameter in reference_net.clip.parameters())


# --- the oracle, float64 ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "size"),
    [
        ({}, (84, 84)),
        ({"temperature": 0.01, "feature_layers": (12,)}, (56, 56)),
        ({"dpam_attention": "qq+kk+vv"}, (84, 84)),
        ({"dpam_attention": "qk+qq+kk+vv", "dpam_start": 8}, (56, 84)),
        ({"dpam_attention": "kk", "dpam_start": 7}, (28, 112)),
        ({"normal_words": ("healthy scan", "scan"), "abnormal_words": ("lesion",)}, (56, 84)),
        ({"shared_context": True, "prompt_length": 5}, (84, 84)),
    ],
    ids=str,
)
@torch.no_grad()
def test_maps_scores_and_logits_equal_the_oracle(
    make_net: NetFactory, plain: ModuleType, oracle_text: TextOracle, settings: dict[str, Any], size: tuple[int, int]
) -> None:
    net = make_net(**settings)
    image = torch.randn(2, 3, *size, dtype=torch.float64)
    temperature = settings.get("temperature", 0.07)
    rows, columns = size[0] // 14, size[1] // 14
    text = oracle_text(net, **{key: value for key, value in settings.items() if key.endswith("_words")})
    per_kind = [
        plain.vision(
            net.clip.state_dict(),
            image,
            taps=settings.get("feature_layers", (3, 6, 9, 12)),
            dpam_start=settings.get("dpam_start", 5),
            kind=kind,
        )
        for kind in settings.get("dpam_attention", "vv").split("+")
    ]
    layers = [
        torch.stack([plain.cosine_logits(features, text, temperature) for features in kinds]).mean(dim=0)
        for kinds in zip(*(tapped for _, tapped in per_kind), strict=True)
    ]
    maps = [plain.similarity_map(layer, rows, columns, 14) for layer in layers]
    image_logits = plain.cosine_logits(per_kind[0][0], text, temperature)

    logits = net(image, output="logits")
    assert relative_error(logits["image_logits"], image_logits) < 1e-10
    assert len(logits["patch_logits"]) == len(layers)
    for computed, expected in zip(logits["patch_logits"], layers, strict=True):
        assert computed.shape == (2, 2, rows, columns)
        assert relative_error(computed, expected[:, 1:].transpose(1, 2).reshape(2, 2, rows, columns)) < 1e-10
    prediction = net.predict(image)
    assert set(prediction) == {"anomaly_map", "anomaly_score", "anomaly_margin"}
    assert relative_error(prediction["anomaly_margin"], image_logits[:, 1] - image_logits[:, 0]) < 1e-10
    assert prediction["anomaly_map"].shape == (2, 1, *size)
    assert relative_error(prediction["anomaly_map"], plain.anomaly_map(maps) / len(maps)) < 1e-10
    assert relative_error(prediction["anomaly_score"], image_logits.softmax(-1)[:, 1]) < 1e-10
    assert torch.equal(net(image), prediction["anomaly_map"])


@torch.no_grad()
def test_an_image_does_not_depend_on_its_batch(make_net: NetFactory) -> None:
    net = make_net()
    images = torch.randn(4, 3, 84, 84, dtype=torch.float64)
    together = net(images)
    alone = torch.cat([net(image[None]) for image in images])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-12)
    assert (together >= 0).all()
    assert (together <= 1).all()


@torch.no_grad()
@pytest.mark.parametrize("attention", ["vv", "qk+vv"])
def test_cached_features_give_the_same_as_images(make_net: NetFactory, attention: str) -> None:
    net = make_net(dpam_attention=attention)
    image = torch.randn(2, 3, 84, 84, dtype=torch.float64)
    global_features, patch_features = net.encode_image(image)
    cached = {"global_features": global_features, "patch_features": torch.stack(patch_features, dim=1)}
    assert torch.equal(net(cached), net(image))
    for key, value in net(image, output="prediction").items():
        assert torch.equal(net(cached, output="prediction")[key], value)
    everything = net(cached, output="all")
    assert set(everything) == {"anomaly_map", "anomaly_score", "anomaly_margin", "image_logits", "patch_logits"}
    assert torch.equal(everything["anomaly_map"], net(cached))
    assert torch.equal(everything["patch_logits"][-1], net(cached, output="logits")["patch_logits"][-1])
    from_cache, from_image = net(cached, output="logits"), net(image, output="logits")
    assert torch.equal(from_cache["image_logits"], from_image["image_logits"])
    assert all(torch.equal(a, b) for a, b in zip(from_cache["patch_logits"], from_image["patch_logits"], strict=True))


def test_grid_of_the_patches(make_net: NetFactory) -> None:
    net = make_net()
    features = torch.randn(1, 1 + 6, 64, dtype=torch.float64)
    logits = net.logits(features[:, 0], [features], grid=(2, 3))
    assert logits["patch_logits"][0].shape == (1, 2, 2, 3)
    with pytest.raises(ValueError, match="6 patches do not form a square"):
        net.logits(features[:, 0], [features])
    with pytest.raises(ValueError, match="6 patches do not form a grid of 2 x 2"):
        net.logits(features[:, 0], [features], grid=(2, 2))


# --- what is learned, what is frozen ---------------------------------------------------------------------------------


def test_only_prompts_are_learned(make_net: NetFactory) -> None:
    net = make_net()
    learned = {name for name, parameter in net.named_parameters() if parameter.requires_grad}
    assert learned == {
        "prompts.context_normal",
        "prompts.context_abnormal",
        *(f"prompts.deep_prompts.{i}" for i in range(4)),
    }
    before = clip_hash(net.clip)
    optimizer = torch.optim.Adam([p for p in net.parameters() if p.requires_grad], lr=0.1)
    net.train()
    net(torch.randn(2, 3, 84, 84, dtype=torch.float64)).mean().backward()
    optimizer.step()
    assert all((p.grad is not None) == p.requires_grad for p in net.parameters())
    assert all(p.grad.abs().sum() > 0 for p in net.prompts.parameters() if p.grad is not None)
    assert clip_hash(net.clip) == before


def test_train_leaves_clip_in_eval(make_net: NetFactory) -> None:
    net = make_net()
    assert net.train() is net
    assert net.training
    assert net.prompts.training
    assert not any(module.training for module in net.clip.modules())
    Wrapper(net).train()
    assert not any(module.training for module in net.clip.modules())
    assert not net.eval().training


def test_state_dict_holds_prompts_only(make_net: NetFactory, tmp_path: Path) -> None:
    source, target = make_net(), make_net()
    state = source.state_dict()
    assert list(state) == [
        "prompts.context_normal",
        "prompts.context_abnormal",
        *(f"prompts.deep_prompts.{i}" for i in range(4)),
    ]
    torch.save(state, tmp_path / "model.pt")
    loaded = torch.load(tmp_path / "model.pt", weights_only=True)
    result = target.load_state_dict(loaded, strict=True)
    assert not result.missing_keys
    assert not result.unexpected_keys
    for key, value in target.state_dict().items():
        assert torch.equal(value, state[key]), key


def test_strict_loading_still_notices_missing_and_foreign_keys(make_net: NetFactory) -> None:
    net = make_net()
    state = net.state_dict()
    with pytest.raises(RuntimeError, match="context_normal"):
        net.load_state_dict({key: value for key, value in state.items() if "context_normal" not in key})
    with pytest.raises(RuntimeError, match="something"):
        net.load_state_dict({**state, "something": torch.zeros(1)})
    with pytest.raises(RuntimeError, match=r"deep_prompts\.0"):
        net.load_state_dict(make_net(deep_prompt_depth=1).state_dict())


def test_state_dict_cannot_change_the_frozen_clip(make_net: NetFactory) -> None:
    net = make_net()
    before = clip_hash(net.clip)
    state = net.state_dict()
    state["clip.logit_scale"] = net.clip.logit_scale.detach() + 1
    with contextlib.suppress(RuntimeError, ValueError):  # refusing it would do as well
        net.load_state_dict(state)
    unchanged = clip_hash(net.clip) == before
    with torch.no_grad():
        net.clip.logit_scale.copy_(state["clip.logit_scale"] - 1)  # shared with the other tests
    assert unchanged


def test_state_dict_of_another_backbone_is_refused(make_net: NetFactory, tmp_path: Path) -> None:
    net, other = make_net(), make_net()
    other.backbone_sha256 = "f" * 64
    before = {key: value.clone() for key, value in net.state_dict().items()}
    torch.save(other.state_dict(), tmp_path / "model.pt")
    for state in (other.state_dict(), torch.load(tmp_path / "model.pt", weights_only=True)):
        with pytest.raises(ValueError, match="tuned with the CLIP 'custom'"):
            net.load_state_dict(state)
    with pytest.raises(ValueError, match="tuned with the CLIP 'custom'"):
        Wrapper(net).load_state_dict(Wrapper(other).state_dict())
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_wrapped_state_dict_carries_the_prefix(make_net: NetFactory) -> None:
    source, target = make_net(), make_net()
    state = Wrapper(source).state_dict()
    assert list(state) == [f"module.{key}" for key in source.state_dict()]
    result = Wrapper(target).load_state_dict(state, strict=True)
    assert not result.missing_keys
    assert torch.equal(target.prompts.context_normal, source.prompts.context_normal)


def test_monai_copies_the_state(make_net: NetFactory) -> None:
    source, target = make_net(), make_net()
    _, changed, unchanged = copy_model_state(target, source)
    assert sorted(changed) == sorted(source.state_dict())
    assert not unchanged
    assert all(torch.equal(value, source.state_dict()[key]) for key, value in target.state_dict().items())


def test_deepcopy_shares_clip_but_not_prompts(make_net: NetFactory) -> None:
    net = make_net()
    image = torch.randn(1, 3, 84, 84, dtype=torch.float64)
    with torch.no_grad():
        expected = net(image)
        clone = copy.deepcopy(net)
        assert torch.equal(clone(image), expected)
    assert clone.clip is net.clip
    pairs = list(zip(clone.prompts.parameters(), net.prompts.parameters(), strict=True))
    assert len(pairs) == 6
    assert all(a is not b and a.data_ptr() != b.data_ptr() and a.requires_grad for a, b in pairs)
    with torch.no_grad():
        clone.prompts.context_abnormal.add_(1)
        assert torch.equal(net(image), expected)
        assert not torch.equal(clone(image), expected)
    clone.load_state_dict(net.state_dict())  # the hooks were copied too, and act on the clone
    with torch.no_grad():
        assert torch.equal(clone(image), expected)
    assert list(copy.deepcopy(Wrapper(net)).state_dict()) == list(Wrapper(net).state_dict())
    assert copy.deepcopy(Wrapper(net)).module.clip is net.clip


# --- prompts are encoded once per state ------------------------------------------------------------------------------


def test_prompts_are_encoded_once_per_state(make_net: NetFactory, text_passes: list[int]) -> None:
    net = make_net()
    image = torch.randn(1, 3, 56, 56, dtype=torch.float64)
    with torch.no_grad():
        first = net.encode_prompts().clone()
        net(image)
        net.predict(image)
    with torch.inference_mode():
        net(image)
    assert len(text_passes) == 1
    optimizer = torch.optim.SGD(net.prompts.parameters(), lr=0.1)
    net(image).sum().backward()  # recording gradients needs a pass of its own
    assert len(text_passes) == 2
    optimizer.step()
    with torch.no_grad():
        second = net.encode_prompts().clone()
        net(image)
    assert len(text_passes) == 3
    assert not torch.equal(first, second)
    net.load_state_dict(make_net().state_dict())
    with torch.no_grad():
        third = net.encode_prompts()
        net(image)
    assert len(text_passes) == 4
    assert not torch.equal(second, third)


def test_fixed_prompts_are_not_looked_at(make_net: NetFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU each look would wait for everything before it."""
    net = make_net()
    looks: list[int] = []
    same = frozen_clip._same
    monkeypatch.setattr(frozen_clip, "_same", lambda *pair: looks.append(1) or same(*pair))
    image = torch.randn(1, 3, 56, 56, dtype=torch.float64)
    with torch.no_grad():
        expected = net(image)
        with net.fixed_prompts():
            looks.clear()
            with net.fixed_prompts():  # of one batch within a run
                assert torch.equal(net(image), expected)
            for _ in range(3):
                assert torch.equal(net(image), expected)
            assert looks == []
        before = net.encode_prompts()
        for parameter in net.prompts.parameters():
            parameter.add_(0.1)
        assert not torch.equal(net.encode_prompts(), before)
        with pytest.raises(ValueError, match="multiple"), net.fixed_prompts():
            net(image[..., :5])
    net.encode_prompts().sum().backward()  # also after a failure gradients are recorded again


def test_loading_prompts_encodes_again(make_net: NetFactory, tmp_path: Path, text_passes: list[int]) -> None:
    net, other = make_net(), make_net()
    other.save_prompts(tmp_path / "other.safetensors")
    with torch.no_grad():
        before = net.encode_prompts().clone()
        net.load_prompts(tmp_path / "other.safetensors")
        assert not torch.equal(net.encode_prompts(), before)
        assert torch.equal(net.encode_prompts(), other.encode_prompts())
    assert len(text_passes) == 3


@pytest.mark.parametrize("options", [{}, {"foreach": True}, {"fused": True}], ids=str)
def test_every_optimiser_step_is_noticed(make_net: NetFactory, options: dict[str, bool]) -> None:
    net = make_net()
    optimizer = torch.optim.Adam(net.prompts.parameters(), lr=0.1, **options)  # type: ignore[arg-type]
    with torch.no_grad():
        before = net.encode_prompts().clone()
    net.encode_prompts()[0].sum().backward()
    optimizer.step()
    with torch.no_grad():
        kept = net.encode_prompts()
    assert not torch.equal(kept, before)
    torch.testing.assert_close(kept, net.encode_prompts().detach(), rtol=0, atol=1e-12)


def test_change_behind_autograds_back_is_noticed(make_net: NetFactory) -> None:
    net = make_net()
    with torch.no_grad():
        before = net.encode_prompts().clone()
        net.prompts.context_normal.data.add_(1)
        assert not torch.equal(net.encode_prompts(), before)


def test_callers_cannot_spoil_the_kept_text(make_net: NetFactory) -> None:
    net = make_net()
    with torch.no_grad():
        expected = net.encode_prompts().clone()
        net.encode_prompts().zero_()
        assert torch.equal(net.encode_prompts(), expected)


def test_gradients_after_inference_mode(make_net: NetFactory) -> None:
    net = make_net()
    image = torch.randn(1, 3, 56, 56, dtype=torch.float64)
    with torch.inference_mode():
        net(image)
    with torch.no_grad():
        net(image)
    net(image).sum().backward()
    assert net.prompts.context_normal.grad is not None


# --- bfloat16 --------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_bfloat16_autocast_stays_near(reference_net: AnomalyCLIP, image: Tensor) -> None:
    clone = copy.deepcopy(reference_net)
    expected = reference_net.predict(image)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = clone.predict(image)
    for key, bound in (("anomaly_map", 2e-3), ("anomaly_score", 5e-3)):
        assert rounded[key].dtype == torch.float32
        assert 0 < (rounded[key] - expected[key]).abs().mean() < bound, key


@torch.no_grad()
def test_autocast_leaves_no_trace(reference_net: AnomalyCLIP, image: Tensor) -> None:
    clone = copy.deepcopy(reference_net)
    with torch.autocast("cpu", torch.bfloat16):
        clone(image)
    assert torch.equal(clone(image), reference_net(image))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(clone(image), copy.deepcopy(clone)(image))


def test_bfloat16_autocast_trains(reference_net: AnomalyCLIP, image: Tensor) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        reference_net(image).mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in reference_net.prompts.parameters())


# --- settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_size": 85}, "85 x 85 must be a positive multiple of the patch size 14"),
        ({"image_size": 0}, "0 x 0 must be a positive multiple"),
        ({"feature_layers": ()}, r"feature_layers=\(\) must be ascending numbers between 1 and 12"),
        ({"feature_layers": (0, 12)}, r"feature_layers=\(0, 12\)"),
        ({"feature_layers": (13,)}, r"feature_layers=\(13,\)"),
        ({"feature_layers": (6, 3)}, r"feature_layers=\(6, 3\)"),
        ({"feature_layers": (6, 6)}, r"feature_layers=\(6, 6\)"),
        ({"dpam_start": 0}, "dpam_start=0 must lie between 1 and 12"),
        ({"dpam_start": 13}, "dpam_start=13"),
        ({"dpam_attention": "v-v"}, "dpam_attention='v-v' is not known"),
        ({"temperature": 0.0}, r"temperature=0\.0 must be positive"),
        ({"temperature": float("nan")}, "temperature=nan must be positive"),
    ],
    ids=str,
)
def test_bad_settings_are_refused(make_net: NetFactory, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_net(**settings)


def test_unknown_output_is_refused(make_net: NetFactory) -> None:
    with pytest.raises(ValueError, match="output='mask' is not one of"):
        make_net()(torch.zeros(1, 3, 14, 14, dtype=torch.float64), output="mask")


def test_settings_rebuild_the_network(make_net: NetFactory) -> None:
    net = make_net(dpam_attention="kk", shared_context=True, normal_words=("scan",), abnormal_words=("lesion",))
    settings = {key: value for key, value in net.settings.items() if key != "model_name"}
    clone = make_net(**settings)
    clone.load_state_dict(net.state_dict())
    assert clone.settings == net.settings
    image = torch.randn(1, 3, 84, 84, dtype=torch.float64)
    with torch.no_grad():
        assert torch.equal(clone(image), net(image))


def test_first_arguments_are_positional_and_the_rest_by_keyword(tiny_config: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        AnomalyCLIP(tiny_config["clip"], None, 84)  # type: ignore[call-arg]
