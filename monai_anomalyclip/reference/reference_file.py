# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""A reference on disk: one safetensors file, looked at before anything in it is believed."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from monai_anomalyclip.atomic_file import replaced_when_complete
from monai_anomalyclip.reference.encoders import MAX_GRID, EncoderIdentity
from monai_anomalyclip.reference.normal_facts import ALIKE, THUMBNAIL, NormalFacts

__all__ = ["ReferenceContent", "read_reference", "write_reference"]

_FORMAT, _VERSION = "monai_anomalyclip.reference", "1"
_MAX_HEADER = 2**20
_MAX_FEATURES = 2**16
_DTYPES = {
    "whole": "F16",
    "whole_index": "I64",
    "thin": "F16",
    "thin_index": "I64",
    "leave_one_out": "F32",
    "digests": "U8",
    "groups": "U8",
    "sizes": "I32",
    "brightness": "F32",
    "thumbnails": "U8",
    "salt": "U8",
    "scored_groups": "U8",
    "group_scores": "F32",
}
_OPTIONAL = {"leave_one_out", "scored_groups", "group_scores"}


@dataclass
class ReferenceContent:
    """All that is in a file.

    Attributes:
        encoder: whose features these are.
        settings: ``preset`` (of the intensities, "" unknown), ``alike``, ``seed``, ``capacity``, ``coreset``.
        salt: of the hashed patients.
        facts: of each normal image.
        patches: features that are kept of each normal image, (P or fewer, C) float16.
        whole: the images of which all P patches are kept, in order of rank.
        leave_one_out: (w, P) distances of their patches to other groups; None while a reference is being made.
        group_scores: the largest score of each group's images, also of those that are not kept whole; as far as found.
    """

    encoder: EncoderIdentity
    settings: dict[str, Any]
    salt: bytes
    facts: list[NormalFacts] = field(default_factory=list)
    patches: list[Tensor] = field(default_factory=list)
    whole: tuple[int, ...] = ()
    leave_one_out: Tensor | None = None
    group_scores: dict[bytes, float] = field(default_factory=dict)


def write_reference(content: ReferenceContent, path: str | Path) -> None:
    """Write a reference; the file appears under its name only when it is complete.

    Raises:
        ValueError: there is no normal image in it.
    """
    if not content.facts:
        raise ValueError("A reference of no normal image cannot be kept: give at least one.")
    thinned = [index for index in range(len(content.facts)) if index not in set(content.whole)]
    facts = content.facts
    tensors = {
        "whole": torch.stack([content.patches[index] for index in content.whole]),
        "whole_index": torch.tensor(content.whole),
        "thin": torch.cat([content.patches[0][:0], *(content.patches[index] for index in thinned)]),
        "thin_index": torch.repeat_interleave(
            torch.tensor(thinned, dtype=torch.int64), torch.tensor([len(content.patches[i]) for i in thinned]).long()
        ),
        "digests": _bytes([one.digest for one in facts]),
        "groups": _bytes([one.group for one in facts]),
        "sizes": torch.tensor([one.size for one in facts], dtype=torch.int32),
        "brightness": torch.tensor([one.brightness for one in facts], dtype=torch.float32),
        "thumbnails": torch.stack([one.thumbnail for one in facts]),
        "salt": _bytes([content.salt])[0],
    }
    if content.leave_one_out is not None:
        tensors["leave_one_out"] = content.leave_one_out.float()
    if content.group_scores:
        tensors["scored_groups"] = _bytes(list(content.group_scores))
        tensors["group_scores"] = torch.tensor(list(content.group_scores.values()), dtype=torch.float32)
    metadata = {
        "format": _FORMAT,
        "version": _VERSION,
        "encoder": content.encoder.to_json(),
        "settings": json.dumps(content.settings, sort_keys=True),
    }
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    with replaced_when_complete(target) as unfinished:
        save_file({key: tensor.cpu().contiguous() for key, tensor in tensors.items()}, unfinished, metadata)


def read_reference(path: str | Path) -> ReferenceContent:
    """Read what :func:`write_reference` wrote; sizes are checked before anything is read into memory.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is something else, truncated, damaged, or does not fit into the memory.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(
            f"There is no reference '{path}': make one with monai-anomalyclip reference build NORMALS -o {file.name}"
        )
    try:
        return _checked_content(file)
    except _Damaged as problem:
        raise ValueError(f"'{file.name}' is no reference that can be used: {problem}; build it again.") from problem


class _Damaged(Exception):
    """What is wrong, as a phrase."""


def _checked_content(file: Path) -> ReferenceContent:
    shapes, metadata = _header(file)
    try:
        encoder, settings = EncoderIdentity.from_json(metadata["encoder"]), json.loads(metadata["settings"])
        _check_settings(settings)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise _Damaged("it does not say how it was made") from error
    _check_shapes(shapes, encoder)
    free, needed = psutil.virtual_memory().available, 2 * file.stat().st_size
    if needed > free:
        raise _Damaged(f"it needs {needed / 2**30:.1f} GiB of memory and {free / 2**30:.1f} GiB are free")
    try:
        with safe_open(file, "pt") as opened:
            tensors = {name: opened.get_tensor(name) for name in shapes}
    except Exception as error:  # safetensors' own class of error is not public
        raise _Damaged("it is truncated or damaged") from error
    _check_values(tensors)
    return _content(tensors, encoder, settings)


def _header(file: Path) -> tuple[dict[str, list[int]], dict[str, str]]:
    """Shapes of the tensors and the metadata, from the header alone."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if size < 8 or not 0 < length <= min(_MAX_HEADER, size - 8):
            raise _Damaged("it is no safetensors file, or is truncated")
        text = stream.read(length)
    try:
        header = json.loads(text)
        metadata = header.pop("__metadata__", {})
        shapes = {str(name): [int(side) for side in entry["shape"]] for name, entry in header.items()}
        dtypes = {str(name): entry["dtype"] for name, entry in header.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _Damaged("its header is damaged") from error
    if not isinstance(metadata, dict) or metadata.get("format") != _FORMAT:
        raise _Damaged("it is a safetensors file of something else")
    if metadata.get("version") != _VERSION:
        raise _Damaged(f"it has version {str(metadata.get('version'))[:20]}, this program reads {_VERSION}")
    if set(_DTYPES) - _OPTIONAL - set(shapes) or set(shapes) - set(_DTYPES):
        raise _Damaged("parts of it are missing or unknown")
    if any(dtypes[name] != _DTYPES[name] for name in shapes) or any(min(s, default=1) < 0 for s in shapes.values()):
        raise _Damaged("parts of it are of another type")
    return shapes, metadata


def _check_settings(settings: Any) -> None:
    if not (
        isinstance(settings["preset"], str)
        and isinstance(settings.get("modality", ""), str)
        and set(settings["alike"]) <= set(ALIKE)
        and isinstance(settings["seed"], int)
        and isinstance(settings["capacity"], int)
        and settings["capacity"] >= 1
        and isinstance(settings["coreset"], bool)
    ):
        raise ValueError(settings)


def _check_shapes(shapes: dict[str, list[int]], encoder: EncoderIdentity) -> None:
    whole, thin = shapes["whole"], shapes["thin"]
    count = shapes["digests"][0] if shapes["digests"] else 0
    if len(whole) != 3 or len(thin) != 2 or count < 1 or whole[0] < 1:
        raise _Damaged("its parts have odd shapes")
    kept, patches, features = whole
    grid = encoder.settings.get("grid")
    if patches != (grid * grid if isinstance(grid, int) else 0) or not 1 <= patches <= MAX_GRID**2:
        raise _Damaged(f"its images have {patches} patches and its encoder a grid of {str(grid)[:20]}")
    if not 1 <= features <= _MAX_FEATURES:
        raise _Damaged(f"its patches have {features} features")
    wanted = {
        "whole_index": [kept],
        "thin": [thin[0], features],
        "thin_index": [thin[0]],
        "leave_one_out": [kept, patches],
        "digests": [count, 32],
        "groups": [count, 32],
        "sizes": [count, 2],
        "brightness": [count],
        "thumbnails": [count, THUMBNAIL**2],
        "salt": [32],
    }
    scored = shapes.get("group_scores", [])
    if scored and (len(scored) != 1 or shapes.get("scored_groups") != [scored[0], 32] or scored[0] > count):
        raise _Damaged("its parts do not fit each other")
    if kept > count or any(shapes[name] != shape for name, shape in wanted.items() if name in shapes):
        raise _Damaged("its parts do not fit each other")


def _check_values(tensors: dict[str, Tensor]) -> None:
    for name in ("whole", "thin", "brightness"):
        if not bool(tensors[name].isfinite().all()):
            raise _Damaged("it holds NaN or infinite values")
    for name in ("group_scores", "leave_one_out"):
        if name in tensors and not bool((tensors[name] >= 0).all()):
            raise _Damaged("it holds NaN or negative distances")
    count = len(tensors["digests"])
    whole, thin = tensors["whole_index"], tensors["thin_index"]
    inside = [bool(((index >= 0) & (index < count)).all()) for index in (whole, thin)]
    if not all(inside) or len(set(whole.tolist())) != len(whole) or bool(torch.isin(thin, whole).any()):
        raise _Damaged("its patches belong to images that are not there")
    if len({bytes(row.tolist()) for row in tensors["digests"]}) != count:
        raise _Damaged("it holds an image twice")


def _content(tensors: dict[str, Tensor], encoder: EncoderIdentity, settings: dict[str, Any]) -> ReferenceContent:
    facts = [
        NormalFacts(bytes(digest), bytes(group), (size[0], size[1]), brightness, thumbnail)
        for digest, group, size, brightness, thumbnail in zip(
            tensors["digests"].tolist(),
            tensors["groups"].tolist(),
            tensors["sizes"].tolist(),
            tensors["brightness"].tolist(),
            tensors["thumbnails"],
            strict=True,
        )
    ]
    empty = tensors["whole"][0, :0]
    patches = [empty] * len(facts)
    for position, index in enumerate(tensors["whole_index"].tolist()):
        patches[index] = tensors["whole"][position]
    owners = tensors["thin_index"]
    for index in set(owners.tolist()):
        patches[index] = tensors["thin"][owners == index]
    return ReferenceContent(
        encoder,
        settings,
        bytes(tensors["salt"].tolist()),
        facts,
        patches,
        tuple(tensors["whole_index"].tolist()),
        tensors.get("leave_one_out"),
        dict(
            zip(
                (bytes(row) for row in tensors["scored_groups"].tolist()),
                tensors["group_scores"].tolist(),
                strict=True,
            )
        )
        if "group_scores" in tensors
        else {},
    )


def _bytes(rows: list[bytes]) -> Tensor:
    return torch.tensor([list(row) for row in rows], dtype=torch.uint8)
