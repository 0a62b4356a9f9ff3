# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Weights of a CLIP in every form that people have them: read without running anything, named as open_clip names them.

- OpenAI's TorchScript archive (``ViT-L-14-336px.pt``), float16;
- open_clip's safetensors (``open_clip_model.safetensors``) or its state dict (``.pt``, ``.bin``), also below
  "state_dict" and with the prefix "module." of its own training;
- that of Hugging Face's ``transformers`` (``model.safetensors``, ``pytorch_model.bin`` of ``CLIPModel``), in which
  query, key and value are apart and projections transposed.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file
from torch import Tensor

__all__ = ["ClipWeights", "clip_file", "read_clip_weights", "tensors_digest"]

Layout = Literal["OpenAI", "open_clip", "transformers"]

# Entries that OpenAI's TorchScript archives carry beside the weights; their presence identifies OpenAI's own files.
_OPENAI_ONLY_KEYS = ("input_resolution", "context_length", "vocab_size")

# First values of the start-of-text row of OpenAI's ViT-L/14@336px token embedding: they tell its weights in any
# container.
_OPENAI_L14_336_START_OF_TEXT = (
    0.0012364,
    0.0032305,
    0.0002843,
    -0.0021594,
    -0.0008996,
    0.0027797,
    0.0013475,
    -0.0023221,
)
_START_OF_TEXT = 49406

# As huggingface_hub downloads them, open_clip's before transformers'.
_FILES = ("open_clip_model.safetensors", "model.safetensors", "open_clip_pytorch_model.bin", "pytorch_model.bin")

_TOWERS = {"text_model.": "", "vision_model.": "visual."}
_PLAIN = {
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "vision_model.embeddings.class_embedding": "visual.class_embedding",
    "vision_model.embeddings.patch_embedding.weight": "visual.conv1.weight",
    "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
    "logit_scale": "logit_scale",
}
_NORMS = {
    "text_model.final_layer_norm": "ln_final",
    "vision_model.pre_layrnorm": "visual.ln_pre",  # spelt so there
    "vision_model.post_layernorm": "visual.ln_post",
}
_TRANSPOSED = {"text_projection.weight": "text_projection", "visual_projection.weight": "visual.proj"}
_IN_BLOCK = {
    "self_attn.out_proj": "attn.out_proj",
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}


@dataclass(frozen=True)
class ClipWeights:
    """What a file of weights holds.

    Attributes:
        tensors: by open_clip's names.
        layout: which form the file has.
        from_openai: whether they are recognisably OpenAI's: in its own archive, or with the embedding of start-of-text
            that ViT-L/14@336px has.
    """

    tensors: dict[str, Tensor]
    layout: Layout
    from_openai: bool


def clip_file(path: str | Path) -> Path:
    """The file itself, or the file of weights in a folder as ``huggingface_hub`` downloads it."""
    path = Path(path)
    return next((path / name for name in _FILES if (path / name).is_file()), path)


def read_clip_weights(path: str | Path) -> ClipWeights:
    """Read the weights of a CLIP; nothing in the file is run.

    Args:
        path: the file.

    Raises:
        ValueError: it cannot be read, or holds no state dict.

    Example:
        >>> read_clip_weights("clip-vit-large-patch14-336/model.safetensors").layout
        'transformers'
    """
    path = Path(path)
    weights = _state_dict(path)
    layout: Layout = "OpenAI" if all(key in weights for key in _OPENAI_ONLY_KEYS) else "open_clip"
    for key in _OPENAI_ONLY_KEYS:
        weights.pop(key, None)
    if "vision_model.embeddings.class_embedding" in weights:
        layout = "transformers"
        try:
            weights = _from_transformers(weights)
        except (KeyError, RuntimeError, AttributeError) as error:
            raise ValueError(f"The CLIP weights '{path}' lack a part of transformers' CLIPModel: {error}") from error
    return ClipWeights(weights, layout, layout == "OpenAI" or _is_openai_l14_336(weights))


def tensors_digest(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 of weights (names, shapes and float32 values), independent of the format that they came in."""
    digest = hashlib.sha256()
    for key, value in sorted(weights.items()):
        array: Any = value.detach().to("cpu", torch.float32).contiguous().numpy()
        digest.update(f"{key}{tuple(array.shape)}".encode())
        digest.update(memoryview(array).cast("B") if array.ndim else array.tobytes())
    return digest.hexdigest()


def _state_dict(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            weights: Any = load_file(path)
        elif _is_torchscript(path):
            weights = torch.jit.load(str(path), map_location="cpu").state_dict()  # type: ignore[no-untyped-call]
        else:
            weights = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # each reader has its own errors for a damaged or hostile file
        raise ValueError(
            f"The CLIP weights '{path}' cannot be read as safetensors, plain state dict or TorchScript archive: "
            f"{str(error).splitlines()[0] if str(error) else type(error).__name__}"
        ) from error
    if isinstance(weights, Mapping) and isinstance(weights.get("state_dict"), Mapping):
        weights = weights["state_dict"]
    if not isinstance(weights, Mapping) or not weights:
        raise ValueError(f"The CLIP weights '{path}' hold no state dict but a {type(weights).__name__}.")
    return {str(key).removeprefix("module."): value for key, value in weights.items()}


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(entry.endswith("/constants.pkl") for entry in archive.namelist())


def _from_transformers(theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same weights by open_clip's names; names that it does not know stay as they are, to be refused by name."""
    ours: dict[str, Tensor] = {}
    rest = {key for key in theirs if not key.endswith("embeddings.position_ids")}  # counts, which old files hold

    def take(key: str) -> Tensor:
        rest.discard(key)
        return theirs[key]

    for key, name in _PLAIN.items():
        ours[name] = take(key)
    for key, name in _TRANSPOSED.items():
        ours[name] = take(key).t().contiguous()
    for key, name in _NORMS.items():
        for part in ("weight", "bias"):
            ours[f"{name}.{part}"] = take(f"{key}.{part}")
    for tower, prefix in _TOWERS.items():
        place = f"{tower}encoder.layers."
        for number in {key.removeprefix(place).partition(".")[0] for key in theirs if key.startswith(place)}:
            old, new = f"{place}{number}.", f"{prefix}transformer.resblocks.{number}."
            for part in ("weight", "bias"):
                kinds = [take(f"{old}self_attn.{kind}_proj.{part}") for kind in "qkv"]
                ours[f"{new}attn.in_proj_{part}"] = torch.cat(kinds)
                for key, name in _IN_BLOCK.items():
                    ours[f"{new}{name}.{part}"] = take(f"{old}{key}.{part}")
    return ours | {key: theirs[key] for key in rest}


def _is_openai_l14_336(weights: Mapping[str, Tensor]) -> bool:
    table = weights.get("token_embedding.weight")
    if (
        table is None
        or table.ndim != 2
        or table.shape[0] <= _START_OF_TEXT
        or table.shape[1] < len(_OPENAI_L14_336_START_OF_TEXT)
    ):
        return False
    row = table[_START_OF_TEXT, : len(_OPENAI_L14_336_START_OF_TEXT)].float()
    return torch.allclose(row, torch.tensor(_OPENAI_L14_336_START_OF_TEXT), atol=1e-4)
