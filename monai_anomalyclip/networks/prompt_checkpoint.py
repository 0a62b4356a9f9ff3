# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Prompt checkpoints: three layouts, read and written.

- ``.safetensors``, ours: the learned tokens, the backbone's embeddings of the template's words (a fingerprint that
  works for every layout) and, as metadata, the settings and the backbone's name and SHA-256;
- ``.pt``, a bundle's ``model.pt``: the network's bare state dict, with the same record in the state dict's own
  metadata;
- ``.pth``, the authors' published layout ``{"prompt_learner": state_dict}``; its ``compound_prompt_projections`` are
  never used and dropped.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from monai_anomalyclip.atomic_file import replaced_when_complete

__all__ = [
    "RECORD_KEY",
    "STATE_PREFIX",
    "PromptCheckpoint",
    "convert_prompts",
    "prompts_digest",
    "read_prompts",
    "save_tensors",
    "write_prompts",
]

STATE_PREFIX = "prompts."
RECORD_KEY = "prompt_record"

_FORMAT = "monai_anomalyclip.prompts"
_START_OF_TEXT, _PAD = 49406, 0
_CONTEXT_LENGTH = 77


@dataclass(frozen=True)
class PromptCheckpoint:
    """Learned prompts and what they were tuned with.

    Attributes:
        context_normal: (words, length, W).
        context_abnormal: (words, length, W).
        deep_prompts: one (length, W) tensor per text block from the second on.
        token_ids: (2, T) ids of the tokenised templates, one row per prompt, zero-padded; None when unknown.
        token_rows: the backbone's embeddings of the distinct ids, {id: (W,)}.
        backbone: {"name", "sha256"}, empty when unknown (published layout).
        settings: keyword arguments of AnomalyCLIP that the prompts were tuned with, empty when unknown.
    """

    context_normal: Tensor
    context_abnormal: Tensor
    deep_prompts: tuple[Tensor, ...]
    token_ids: Tensor | None = None
    token_rows: Mapping[int, Tensor] = field(default_factory=dict)
    backbone: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def sha256(self) -> str:
        """Digest of the learned tensors (shapes and float32 values), whatever file they come from."""
        digest = hashlib.sha256()
        for tensor in (self.context_normal, self.context_abnormal, *self.deep_prompts):
            array = tensor.detach().to("cpu", torch.float32).contiguous().numpy()
            digest.update(f"{tuple(array.shape)}".encode())
            digest.update(array.tobytes())
        return digest.hexdigest()


def prompts_digest(path: str | os.PathLike[str]) -> str | None:
    """What tells prompts from others: their tensors, so that the same ones saved again are the same.

    Returns:
        64 hexadecimal digits, for a file of another kind those of its content; None where there is no file, as for
        methods that learn nothing.
    """
    if not Path(path).is_file():
        return None
    try:
        return read_prompts(Path(path)).sha256
    except ValueError:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def read_prompts(path: str | Path) -> PromptCheckpoint:
    """Read a prompt checkpoint of either layout; nothing in the file is executed.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when the file is not a prompt checkpoint.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"There are no prompts at '{path}': tune some (python -m monai.bundle run training --config_file "
            "<bundle>/configs/train.json --bundle_root <bundle>), or make a bundle with the authors' released ones and "
            "CLIP, which also works on a computer without a network: "
            "monai-anomalyclip weights bundle -o anomalyclip_ready"
        )
    try:
        checkpoint = _parse(path)
        learned = [checkpoint.context_normal, checkpoint.context_abnormal, *checkpoint.deep_prompts]
        if not all(isinstance(tensor, Tensor) and tensor.is_floating_point() for tensor in learned):
            raise TypeError("the prompts are not all floating-point tensors")
        return checkpoint
    except (KeyError, IndexError, AttributeError, TypeError, RuntimeError, ValueError) as error:
        if isinstance(error, ValueError) and str(path) in str(error):
            raise
        raise ValueError(f"'{path}' is a damaged prompt checkpoint: {type(error).__name__} {error}.") from error


def _parse(path: Path) -> PromptCheckpoint:
    if path.suffix == ".safetensors":
        return _read_own(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged, or a pickle that would run code: torch refuses it
        raise ValueError(
            f"'{path}' is not a prompt checkpoint that can be read safely (weights_only): {type(error).__name__}."
        ) from error
    if isinstance(content, Mapping) and isinstance(content.get("prompt_learner"), Mapping):
        return _from_published(content["prompt_learner"], path)
    beside: Mapping[str, Any] = {}
    if isinstance(content, Mapping) and isinstance(content.get("model"), Mapping):
        # A federated server averages tensors only, and keeps what else lay in the file that it began with.
        beside = content.get(RECORD_KEY, {})
        content = content["model"]
    if isinstance(content, Mapping) and f"{STATE_PREFIX}context_normal" in content:
        return _from_state_dict(content, beside)
    raise ValueError(
        f"'{path}' is not a prompt checkpoint: expected our .safetensors, a bundle's model.pt, or the published layout "
        "{'prompt_learner': state_dict}."
    )


def _from_state_dict(state: Mapping[str, Tensor], beside: Mapping[str, Any]) -> PromptCheckpoint:
    record = getattr(state, "_metadata", {}).get("", {}).get(RECORD_KEY, beside)
    normal = state[f"{STATE_PREFIX}context_normal"]
    count = sum(key.startswith(f"{STATE_PREFIX}deep_prompts.") for key in state)
    return PromptCheckpoint(
        normal,
        state.get(f"{STATE_PREFIX}context_abnormal", normal),
        tuple(state[f"{STATE_PREFIX}deep_prompts.{index}"] for index in range(count)),
        record.get("token_ids"),
        record.get("token_rows", {}),
        record.get("backbone", {}),
        record.get("settings", {}),
    )


def _read_own(path: Path) -> PromptCheckpoint:
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
    except Exception as error:
        raise ValueError(f"'{path}' cannot be read as safetensors: {error}") from error
    if metadata.get("format") != _FORMAT or "context_normal" not in tensors:
        raise ValueError(
            f"'{path}' is a safetensors file but not a prompt checkpoint (format '{metadata.get('format')}')."
        )
    deep = tuple(
        tensors[f"deep_prompts.{index}"] for index in range(sum(key.startswith("deep_prompts.") for key in tensors))
    )
    ids = tensors.get("token_ids")
    rows = {int(key): row for key, row in zip(tensors.get("row_ids", ()), tensors.get("token_rows", ()), strict=True)}
    return PromptCheckpoint(
        tensors["context_normal"],
        tensors.get("context_abnormal", tensors["context_normal"]),
        deep,
        ids,
        rows,
        json.loads(metadata.get("backbone", "{}")),
        json.loads(metadata.get("settings", "{}")),
    )


def _from_published(state: Mapping[str, Tensor], path: Path) -> PromptCheckpoint:
    missing = [key for key in ("ctx_pos", "ctx_neg") if key not in state]
    if missing:
        raise ValueError(f"'{path}' lacks {', '.join(missing)}: it is not a prompt checkpoint in the published layout.")
    if state["ctx_pos"].ndim != 4 or state["ctx_neg"].ndim != 4:
        raise ValueError(
            f"'{path}': ctx_pos has shape {tuple(state['ctx_pos'].shape)} instead of (1, words, length, width)."
        )
    count = sum(key.startswith("compound_prompts_text.") for key in state)
    try:
        deep = tuple(state[f"compound_prompts_text.{index}"].float() for index in range(count))
    except KeyError as error:
        raise ValueError(
            f"'{path}': the deep prompts are not numbered from 0 without a gap ({error} is missing)."
        ) from error
    ids, rows = None, {}
    if all(f"tokenized_prompts_{sign}" in state for sign in ("pos", "neg")):
        ids = torch.stack(
            [state[f"tokenized_prompts_{sign}"].flatten()[:_CONTEXT_LENGTH].long() for sign in ("pos", "neg")]
        )
        length = state["ctx_pos"].shape[2]
        for row, sign in zip(ids, ("pos", "neg"), strict=True):
            kept = torch.cat([row[:1], row[1 + length :]])
            embedded = [state.get(f"token_{part}_{sign}") for part in ("prefix", "suffix")]
            if any(part is None for part in embedded):
                continue
            table = torch.cat([part.flatten(0, 2) for part in embedded if part is not None]).float()
            rows.update(dict(zip(kept.tolist(), table, strict=False)))
    return PromptCheckpoint(state["ctx_pos"][0].float(), state["ctx_neg"][0].float(), deep, ids, rows)


def write_prompts(checkpoint: PromptCheckpoint, path: str | Path, *, overwrite: bool = False) -> None:
    """Write a prompt checkpoint in the layout that the suffix names (see the module's text).

    The file appears under its name only when it is complete.

    Raises:
        FileExistsError: when the file exists and ``overwrite`` is false.
        ValueError: for another suffix, or when the published layout cannot hold the prompts.
    """
    path = Path(path)
    if path.suffix not in (".safetensors", ".pt", ".pth"):
        raise ValueError(
            f"Prompts are written as .safetensors (ours), .pt (bundle) or .pth (published), not as '{path.name}'."
        )
    if path.exists() and not overwrite:
        raise FileExistsError(f"'{path}' exists; give another name or overwrite=True.")
    path.parent.mkdir(parents=True, exist_ok=True)
    with replaced_when_complete(path) as unfinished:
        if path.suffix == ".safetensors":
            _save_own(checkpoint, unfinished)
        elif path.suffix == ".pt":
            save_tensors(_to_state_dict(checkpoint), unfinished)
        else:
            save_tensors({"prompt_learner": _to_published(checkpoint)}, unfinished)


def save_tensors(content: object, path: Path) -> None:
    """``torch.save``, but the same bytes for the same content: given a path, torch keeps its name in the file."""
    with path.open("wb") as stream:
        torch.save(content, stream)


def _to_state_dict(checkpoint: PromptCheckpoint) -> OrderedDict[str, Tensor]:
    state: OrderedDict[str, Tensor] = OrderedDict()
    state[f"{STATE_PREFIX}context_normal"] = checkpoint.context_normal.detach().clone()
    if not checkpoint.settings.get("shared_context", False):
        state[f"{STATE_PREFIX}context_abnormal"] = checkpoint.context_abnormal.detach().clone()
    for index, deep in enumerate(checkpoint.deep_prompts):
        state[f"{STATE_PREFIX}deep_prompts.{index}"] = deep.detach().clone()
    record: dict[str, Any] = {"backbone": dict(checkpoint.backbone), "settings": dict(checkpoint.settings)}
    if checkpoint.token_ids is not None:
        record |= {"token_ids": checkpoint.token_ids, "token_rows": dict(checkpoint.token_rows)}
    state._metadata = {"": {RECORD_KEY: record}}  # type: ignore[attr-defined]  # where torch keeps a module's own metadata
    return state


def _save_own(checkpoint: PromptCheckpoint, path: Path) -> None:
    tensors = {"context_normal": checkpoint.context_normal, "context_abnormal": checkpoint.context_abnormal}
    tensors |= {f"deep_prompts.{index}": deep for index, deep in enumerate(checkpoint.deep_prompts)}
    if checkpoint.token_ids is not None:
        tensors["token_ids"] = checkpoint.token_ids
    if checkpoint.token_rows:
        tensors["row_ids"] = torch.tensor(list(checkpoint.token_rows))
        tensors["token_rows"] = torch.stack(list(checkpoint.token_rows.values()))
    metadata = {
        "format": _FORMAT,
        "backbone": json.dumps(dict(checkpoint.backbone)),
        "settings": json.dumps(dict(checkpoint.settings)),
    }
    save_file({key: value.detach().cpu().clone().contiguous() for key, value in tensors.items()}, path, metadata)


def _to_published(checkpoint: PromptCheckpoint) -> dict[str, Tensor]:
    ids, rows = checkpoint.token_ids, checkpoint.token_rows
    if len(checkpoint.context_normal) != 1 or len(checkpoint.context_abnormal) != 1:
        raise ValueError(
            "The published layout holds one normal and one abnormal prompt; these prompts have several words each."
        )
    if ids is None or not rows:
        raise ValueError(
            "The published layout needs the tokenised templates and their embeddings, which this checkpoint lacks."
        )
    length = checkpoint.context_normal.shape[1]
    state: dict[str, Tensor] = {}
    for sign, context, prompt in zip(
        ("pos", "neg"), (checkpoint.context_normal, checkpoint.context_abnormal), ids, strict=True
    ):
        full = torch.zeros(_CONTEXT_LENGTH, dtype=torch.long)
        full[: len(prompt)] = prompt
        suffix = torch.stack([rows[int(index)] for index in full[1 + length :]])
        state[f"ctx_{sign}"] = context.detach()[None].clone()
        state[f"token_prefix_{sign}"] = rows[_START_OF_TEXT].reshape(1, 1, 1, -1).clone()
        state[f"token_suffix_{sign}"] = suffix[None, None]
        state[f"tokenized_prompts_{sign}"] = full[None, None].int()
    state |= {
        f"compound_prompts_text.{index}": deep.detach().clone() for index, deep in enumerate(checkpoint.deep_prompts)
    }
    return state


def convert_prompts(source: str | Path, target: str | Path, *, overwrite: bool = False) -> PromptCheckpoint:
    """Convert between the layouts; the suffix of ``target`` decides."""
    checkpoint = read_prompts(source)
    write_prompts(checkpoint, target, overwrite=overwrite)
    return checkpoint
