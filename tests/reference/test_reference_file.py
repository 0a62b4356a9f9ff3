# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from monai_anomalyclip.reference import NormalReference, PatchEncoder
from monai_anomalyclip.reference.reference_file import read_reference, write_reference

Change = Callable[[dict[str, Tensor], dict[str, str]], Any]


@pytest.fixture
def file(small_encoder: PatchEncoder, pictures: Callable[..., list[Tensor]], tmp_path: Path) -> Path:
    """A reference of 100 images, of which 48 images' worth of patches are kept."""
    reference = NormalReference.build(pictures(100), encoder=small_encoder, capacity=48)
    reference.save(tmp_path / "my.reference")
    return tmp_path / "my.reference"


def test_what_is_read_is_what_was_written(file: Path, tmp_path: Path) -> None:
    read = read_reference(file)
    write_reference(read, tmp_path / "again.reference")
    tensors, others = load_file(file), load_file(tmp_path / "again.reference")
    assert all(torch.equal(tensors[name], others[name]) for name in (*tensors, *others))
    assert metadata_of(file) == metadata_of(tmp_path / "again.reference")
    assert len(read.facts) == 100
    assert len(read.whole) == 32
    assert [len(read.patches[index]) for index in read.whole] == [16] * 32
    assert sum(len(one) for one in read.patches) <= 48 * 16
    assert read.patches[0].dtype == torch.float16


def test_nothing_is_not_written(file: Path, tmp_path: Path) -> None:
    content = read_reference(file)
    content.facts.clear()
    with pytest.raises(ValueError, match="no normal image"):
        write_reference(content, tmp_path / "none.reference")
    assert not (tmp_path / "none.reference").exists()


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"reference build NORMALS -o my.reference"):
        read_reference(tmp_path / "my.reference")


@pytest.mark.parametrize("share", [0.0, 0.001, 0.01, 0.3, 0.9, 0.9999])
def test_truncated_files(file: Path, share: float) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=r"'my.reference' is no reference that can be used: .*; build it again"):
        read_reference(file)


@pytest.mark.parametrize(
    "content",
    [
        b"no reference at all, but long enough for a length",
        (2**62).to_bytes(8, "little") + b"{}",
        (4).to_bytes(8, "little") + b"[[[[" + b"x" * 50,
        (2**20).to_bytes(8, "little") + b"[" * 2**20,
        (2).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"[]",
        (20).to_bytes(8, "little") + b'{"a": 3, "b": "cdef"',
    ],
)
def test_files_of_something_else(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.reference").write_bytes(content)
    with pytest.raises(ValueError, match="is no reference that can be used"):
        read_reference(tmp_path / "x.reference")


def test_a_header_that_claims_terabytes_reserves_none(file: Path) -> None:
    raw = file.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    header["whole"]["shape"] = [2**40, 16, 14]
    header["whole_index"]["shape"] = [2**40]
    header["leave_one_out"]["shape"] = [2**40, 16]
    for name in ("digests", "groups", "sizes", "thumbnails"):
        header[name]["shape"][0] = 2**40
    header["brightness"]["shape"] = [2**40]
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + raw[8 + length :])
    with pytest.raises(ValueError, match="truncated or damaged"):
        read_reference(file)


def put(name: str, value: object) -> Change:
    return lambda tensors, _: tensors.__setitem__(name, value)  # type: ignore[arg-type]


def say(name: str, value: str) -> Change:
    return lambda _, metadata: metadata.__setitem__(name, value)


def spoil(name: str, value: float) -> Change:
    return lambda tensors, _: tensors[name].view(-1).__setitem__(0, value)


def grouped(scores: int, groups: int) -> Change:
    """Scores of whole volumes, and the digests of as many volumes."""
    return lambda tensors, _: tensors.update(
        group_scores=torch.ones(scores), scored_groups=torch.zeros(groups, 32, dtype=torch.uint8)
    )


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (spoil("whole", float("nan")), "NaN or infinite"),
        (spoil("thin", float("inf")), "NaN or infinite"),
        (spoil("brightness", float("nan")), "NaN or infinite"),
        (spoil("leave_one_out", float("nan")), "NaN or negative"),
        (spoil("leave_one_out", -1.0), "NaN or negative"),
        (grouped(5, 6), "do not fit each other"),
        (grouped(101, 101), "do not fit each other"),
        (lambda t, m: (grouped(2, 2)(t, m), spoil("group_scores", float("nan"))(t, m)), "NaN or negative"),
        (lambda t, m: (grouped(2, 2)(t, m), spoil("group_scores", -1.0)(t, m)), "NaN or negative"),
        (lambda t, _: t.update(whole=t["whole"][..., :0], thin=t["thin"][:, :0]), "its patches have 0 features"),
        (spoil("whole_index", 100), "images that are not there"),
        (spoil("whole_index", -1), "images that are not there"),
        (spoil("thin_index", 10**12), "images that are not there"),
        (lambda t, _: t["whole_index"].__setitem__(0, t["whole_index"][1]), "images that are not there"),
        (lambda t, _: t["digests"].__setitem__(0, t["digests"][1]), "an image twice"),
        (lambda t, _: t.pop("salt"), "missing or unknown"),
        (put("extra", torch.zeros(1)), "missing or unknown"),
        (lambda t, _: t.update(whole=t["whole"].float()), "another type"),
        (lambda t, _: t.update(whole=t["whole"][:, :9]), "9 patches and its encoder a grid of 4"),
        (lambda t, _: t.update(whole=t["whole"][0]), "odd shapes"),
        (lambda t, _: t.update(thin=t["thin"][:, :3]), "do not fit each other"),
        (lambda t, _: t.update(sizes=t["sizes"][:3]), "do not fit each other"),
        (lambda t, _: t.update(whole=t["whole"][:0], whole_index=t["whole_index"][:0]), "odd shapes"),
        (say("format", "monai_anomalyclip.prompts"), "something else"),
        (say("version", "2"), "version 2, this program reads 1"),
        (say("encoder", "{}"), "does not say how it was made"),
        (say("settings", "[]"), "does not say how it was made"),
        (say("settings", "[" * 5000), "does not say how it was made"),
        (say("settings", '{"preset": 3}'), "does not say how it was made"),
    ],
)
def test_hostile_files(file: Path, change: Change, reason: str) -> None:
    tensors = load_file(file)
    metadata = metadata_of(file)
    change(tensors, metadata)
    save_file({key: value.contiguous() for key, value in tensors.items()}, file, metadata)
    with pytest.raises(ValueError, match=f"'my.reference' is no reference that can be used: .*{reason}"):
        read_reference(file)


def metadata_of(file: Path) -> dict[str, str]:
    raw = file.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    metadata: dict[str, str] = json.loads(raw[8 : 8 + length])["__metadata__"]
    return metadata


def test_an_unharmed_copy_is_read(file: Path) -> None:
    """The tests above change one thing each: without a change the same way of writing is fine."""
    save_file(load_file(file), file, metadata_of(file))
    assert len(read_reference(file).facts) == 100


def test_more_than_the_memory_is_refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Memory:
        available = 1000

    monkeypatch.setattr("psutil.virtual_memory", Memory)
    with pytest.raises(ValueError, match=r"GiB of memory and 0\.0 GiB are free"):
        read_reference(file)
