# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Trains the demonstration CLIP from scratch on synthetic phantoms, in two steps.

Run ``python -m tools.demo_backbone.training --output DIR``. First both towers learn together from pictures
and loose captions; then the picture tower is frozen and a new text tower learns the words literally (see
``captions.py``; the order is that of "LiT: Zero-Shot Transfer with Locked-image text Tuning", CVPR 2022).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from open_clip import CLIP, SimpleTokenizer
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from monai_anomalyclip.atomic_file import replaced_when_complete
from monai_anomalyclip.demo.phantoms import FAMILIES, Phantom, sample_phantom
from tools.demo_backbone.captions import caption, caption_pair, vocabulary
from tools.demo_backbone.losses import agreement_losses, vision_features

__all__ = ["BACKBONE_CONFIG", "export_backbone", "main", "train_backbone", "train_words"]

BACKBONE_CONFIG: dict[str, Any] = {
    "clip": {
        "embed_dim": 64,
        "vision_cfg": {"image_size": 112, "layers": 6, "width": 128, "patch_size": 8, "head_width": 32},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 4},
        "quick_gelu": True,
    },
    "image_size": 112,
    "feature_layers": [6],
    "dpam_start": 4,
}
PRETRAINING_SEED = 10_000_000  # far from the seeds of the demonstration data


def _scene(arguments: tuple[str, int, int]) -> tuple[Phantom, Phantom]:
    family, seed, size = arguments
    return sample_phantom(family, False, seed, size), sample_phantom(family, True, seed, size)


def make_pool(scenes: int, seed: int, size: int) -> list[Phantom]:
    """``scenes`` pictures of evenly spread families, each normal and anomalous: 2 * ``scenes`` phantoms."""
    jobs = [(FAMILIES[i % len(FAMILIES)], PRETRAINING_SEED + seed * 1_000_000 + i, size) for i in range(scenes)]
    with ProcessPoolExecutor(max_workers=os.cpu_count()) as workers:
        pairs = tqdm(workers.map(_scene, jobs, chunksize=50), total=scenes, desc="phantoms", mininterval=2)
        return [phantom for pair in pairs for phantom in pair]


def draw_phantoms(pool: list[Phantom], rng: np.random.Generator, scenes: int) -> list[int]:
    """Indices into the pool of ``scenes`` random scenes, each normal (even places) and anomalous (odd places)."""
    chosen = rng.choice(len(pool) // 2, scenes, replace=False)
    return [2 * int(scene) + twin for scene in chosen for twin in (0, 1)]


def to_tensors(phantoms: list[Phantom], mirrored: list[bool]) -> tuple[Tensor, Tensor]:
    """Pictures in CLIP space (B, 3, H, W) and the anomalous share of their patches (B, N)."""
    steps = [-1 if mirror else 1 for mirror in mirrored]
    images = np.stack([phantom.image[:, ::step] for phantom, step in zip(phantoms, steps, strict=True)])
    masks = np.stack([phantom.mask[:, ::step] for phantom, step in zip(phantoms, steps, strict=True)])
    image = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(v)[:, None, None] for v in (OPENAI_DATASET_MEAN, OPENAI_DATASET_STD))
    patch = int(BACKBONE_CONFIG["clip"]["vision_cfg"]["patch_size"])
    return (image - mean) / std, F.avg_pool2d(torch.from_numpy(masks).float()[:, None], patch).flatten(1)


def _speak(rng: np.random.Generator, phantoms: list[Phantom], literal: bool) -> dict[str, Any]:
    """Captions for pictures that come as normal and anomalous twins; both twins' pairs are about the same anomaly."""
    return {
        "phantoms": phantoms,
        "captions": [caption(rng, phantom, literal) for phantom in phantoms],
        "pairs": [caption_pair(rng, phantom, literal) for phantom in phantoms[1::2] for _ in (0, 1)],
    }


def _total(parts: dict[str, Tensor]) -> Tensor:
    return parts["contrast"] + 2 * parts["state"] + 2 * parts["patch"]


def _follow(bar: tqdm[int], shown: dict[str, float], parts: dict[str, Tensor]) -> None:
    """Shows running means of the loss's parts."""
    for name, part in parts.items():
        value = float(part.detach())
        shown[name] = 0.95 * shown.get(name, value) + 0.05 * value
    bar.set_postfix({name: f"{value:.3f}" for name, value in shown.items()}, refresh=False)


def _see(model: CLIP, image: Tensor, kept: Tensor | None) -> tuple[Tensor, Tensor]:
    with torch.autocast("cpu", torch.bfloat16):
        whole, local = vision_features(model, image, BACKBONE_CONFIG["dpam_start"], kept)
    return F.normalize(whole.float(), dim=-1), F.normalize(local.float(), dim=-1)


def _zero_unused_rows(model: CLIP, tokenizer: SimpleTokenizer) -> None:
    used = torch.zeros(model.token_embedding.num_embeddings, dtype=torch.bool)
    used[tokenizer(vocabulary()).flatten()] = True
    used[0] = False  # padding
    with torch.no_grad():
        model.token_embedding.weight[~used] = 0


def export_backbone(model: CLIP, folder: Path) -> Path:
    """Writes ``demo_clip.safetensors`` (float16, open_clip names) and ``demo_clip.json`` into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    weights, config = folder / "demo_clip.safetensors", folder / "demo_clip.json"
    with replaced_when_complete(weights) as unfinished:
        save_file({k: v.half().contiguous() for k, v in model.state_dict().items()}, unfinished)
        unfinished.chmod(0o644)
    with replaced_when_complete(config) as unfinished:
        unfinished.write_text(json.dumps(BACKBONE_CONFIG, indent=2) + "\n")
    return weights


def train_backbone(
    output: Path,
    pool: list[Phantom],
    *,
    steps: int,
    scenes_per_step: int,
    learning_rate: float,
    seed: int,
    checkpoint_every: int = 100,
) -> CLIP:
    """First step: both towers together. An interrupted run in the same folder goes on from its last checkpoint.

    For the first four fifths of the steps the picture tower sees 40 % of the patches, any anomalous ones among them,
    which makes a step cheaper (as in "Scaling Language-Image Pre-training via Masking", CVPR 2023).
    """
    torch.manual_seed(seed)
    tokenizer = SimpleTokenizer()
    model = CLIP(**BACKBONE_CONFIG["clip"])
    _zero_unused_rows(model, tokenizer)
    rows = model.token_embedding.weight
    plain = [p for p in model.parameters() if p.ndim < 2 or p is rows]
    decayed = [p for p in model.parameters() if p.ndim >= 2 and p is not rows]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.05}, {"params": plain, "weight_decay": 0}],
        lr=learning_rate,
        betas=(0.9, 0.98),
    )
    warmup = max(1, min(150, steps // 10))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda i: min(1, (i + 1) / warmup) * (0.02 + 0.49 * (1 + math.cos(math.pi * min(1, i / steps))))
    )
    output.mkdir(parents=True, exist_ok=True)
    checkpoint, start = output / "checkpoint.pt", 0
    if checkpoint.is_file():
        saved = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(saved["model"])
        start = int(saved["step"])
        if start < steps:
            optimizer.load_state_dict(saved["optimizer"])
            schedule.load_state_dict(saved["schedule"])
    shown: dict[str, float] = {}
    bar = tqdm(range(start, steps), initial=start, total=steps, desc="both towers", mininterval=10)
    for step in bar:
        rng = np.random.default_rng([seed, step])
        torch.manual_seed(seed * 1_000_000 + step)  # so that a resumed run draws what an uninterrupted one draws
        phantoms = [pool[index] for index in draw_phantoms(pool, rng, scenes_per_step)]
        image, patches = to_tensors(phantoms, [bool(m) for m in rng.random(len(phantoms)) < 0.5])
        kept = None
        if step < 0.8 * steps:
            order = torch.rand_like(patches) + (patches > 0)
            kept = order.topk(int(0.4 * patches.shape[1]), dim=1).indices
            patches = patches.gather(1, kept)
        whole, local = _see(model, image, kept)
        parts = agreement_losses(
            whole, local, patches, model=model, tokenizer=tokenizer, **_speak(rng, phantoms, literal=False)
        )
        optimizer.zero_grad()
        torch.autograd.backward(_total(parts))
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        _follow(bar, shown, parts)
        if (step + 1) % checkpoint_every == 0 or step + 1 == steps:
            state = {
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "schedule": schedule.state_dict(),
            }
            with replaced_when_complete(checkpoint) as unfinished:
                torch.save({**state, "step": step + 1}, unfinished)
    return model


def train_words(model: CLIP, pool: list[Phantom], *, steps: int, scenes_per_step: int, seed: int) -> CLIP:
    """Second step: a new text tower learns literal captions for the frozen picture tower.

    Returns:
        A CLIP with the picture tower of ``model`` and the new text tower.
    """
    torch.manual_seed(seed)
    tokenizer = SimpleTokenizer()
    learner = CLIP(**BACKBONE_CONFIG["clip"])
    learner.visual.load_state_dict(model.visual.state_dict())
    learner.visual.requires_grad_(False)
    _zero_unused_rows(learner, tokenizer)
    features = []
    with torch.no_grad():
        for first in tqdm(range(0, len(pool), 50), desc="features", mininterval=2):
            image, patches = to_tensors(pool[first : first + 50], [False] * len(pool[first : first + 50]))
            features.append((*_see(learner, image, None), patches))
    whole, local, patches = (torch.cat(parts) for parts in zip(*features, strict=True))
    parameters = [p for name, p in learner.named_parameters() if p.requires_grad and name != "logit_scale"]
    optimizer = torch.optim.AdamW(parameters, lr=2e-3, betas=(0.9, 0.98), weight_decay=0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    shown: dict[str, float] = {}
    bar = tqdm(range(steps), desc="words", mininterval=10)
    for step in bar:
        rng = np.random.default_rng([seed, step, 1])
        index = draw_phantoms(pool, rng, scenes_per_step)
        spoken = _speak(rng, [pool[i] for i in index], literal=True)
        parts = agreement_losses(
            whole[index], local[index], patches[index], model=learner, tokenizer=tokenizer, **spoken
        )
        optimizer.zero_grad()
        torch.autograd.backward(_total(parts))
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        _follow(bar, shown, parts)
    return learner


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Train the demonstration backbone on synthetic phantoms.")
    parser.add_argument("--output", type=Path, required=True, help="folder for weights, settings and checkpoint")
    parser.add_argument("--steps", type=int, default=1600, help="steps of both towers")
    parser.add_argument("--word-steps", type=int, default=400, help="steps of the new text tower")
    parser.add_argument("--scenes", type=int, default=6000, help="pool of scenes, each normal and anomalous")
    parser.add_argument("--word-scenes", type=int, default=1000, help="how many of them the second step uses")
    parser.add_argument("--scenes-per-step", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    begin = time.monotonic()
    pool = make_pool(options.scenes, options.seed, BACKBONE_CONFIG["image_size"])
    model = train_backbone(
        options.output,
        pool,
        steps=options.steps,
        scenes_per_step=options.scenes_per_step,
        learning_rate=options.learning_rate,
        seed=options.seed,
    )
    model = train_words(
        model,
        pool[: 2 * options.word_scenes],
        steps=options.word_steps,
        scenes_per_step=options.scenes_per_step,
        seed=options.seed,
    )
    weights = export_backbone(model, options.output)
    print(f"Wrote {weights} after {(time.monotonic() - begin) / 60:.1f} minutes.")


if __name__ == "__main__":
    main()
