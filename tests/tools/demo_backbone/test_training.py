# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from open_clip import CLIP
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from safetensors.torch import load_file

from monai_anomalyclip.demo.phantoms import FAMILIES, Phantom, sample_phantom
from tools.demo_backbone import training as module


@pytest.fixture
def pool() -> list[Phantom]:
    return [sample_phantom(family, state, 0) for family in ("head_ct", "wood", "endoscopy") for state in (False, True)]


def test_pool_holds_twins_of_every_family() -> None:
    phantoms = module.make_pool(10, seed=0, size=32)
    assert [p.family for p in phantoms[::2]] == [p.family for p in phantoms[1::2]] == list(FAMILIES)
    assert not any(p.kind for p in phantoms[::2])
    assert all(p.kind for p in phantoms[1::2])


def test_drawn_phantoms_are_twins() -> None:
    pool = [sample_phantom("head_ct", state, seed) for seed in range(4) for state in (False, True)]
    index = module.draw_phantoms(pool, np.random.default_rng(0), 3)
    assert [i % 2 for i in index] == [0, 1] * 3
    assert len(set(index)) == 6
    assert [i // 2 for i in index[::2]] == [i // 2 for i in index[1::2]]


def test_patch_shares_follow_the_mask(pool: list[Phantom]) -> None:
    image, patches = module.to_tensors(pool, [False, True] * 3)
    assert image.shape == (6, 3, 112, 112)
    mask = pool[1].mask[:, ::-1]
    expected = mask.reshape(14, 8, 14, 8).mean(axis=(1, 3)).ravel()
    np.testing.assert_allclose(patches[1].numpy(), expected, atol=1e-6)
    white = (1 - torch.tensor(OPENAI_DATASET_MEAN)) / torch.tensor(OPENAI_DATASET_STD)
    shown = image[0, :, 10, 20] * torch.tensor(OPENAI_DATASET_STD) + torch.tensor(OPENAI_DATASET_MEAN)
    np.testing.assert_allclose(shown.numpy() * 255, pool[0].image[10, 20], atol=0.01)
    assert (image.amax(dim=(0, 2, 3)) <= white + 1e-5).all()


SMALL = {"scenes_per_step": 2, "seed": 3}


def test_interrupted_training_goes_on_to_the_same_weights(
    pool: list[Phantom], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {**SMALL, "steps": 3, "learning_rate": 1e-3, "checkpoint_every": 2}
    whole = module.train_backbone(tmp_path / "whole", pool, **settings)
    real, calls = module.draw_phantoms, 0

    def dies(*arguments: object) -> list[int]:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(module, "draw_phantoms", dies)
    with pytest.raises(KeyboardInterrupt):
        module.train_backbone(tmp_path / "part", pool, **settings)
    monkeypatch.undo()
    part = module.train_backbone(tmp_path / "part", pool, **settings)
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(part.state_dict()[name], value, rtol=1e-3, atol=1e-5)


def test_second_step_leaves_the_picture_tower_alone(pool: list[Phantom], tmp_path: Path) -> None:
    model = CLIP(**module.BACKBONE_CONFIG["clip"])
    learner = module.train_words(model, pool, steps=10, **SMALL)
    for name, value in learner.visual.state_dict().items():
        assert torch.equal(value, model.visual.state_dict()[name])
    rows = learner.token_embedding.weight.detach().abs().sum(dim=1) > 0
    assert rows.sum() < 400
    weights = module.export_backbone(learner, tmp_path)
    saved = load_file(weights)
    assert saved.keys() == learner.state_dict().keys()
    assert torch.equal(saved["visual.proj"], learner.visual.proj.half())
    assert json.loads((tmp_path / "demo_clip.json").read_text()) == module.BACKBONE_CONFIG
