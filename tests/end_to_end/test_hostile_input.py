# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bounded_reading import BoundedReader
from damaged_files import KINDS, SEEDS, Damage, cut_outcomes, damaged
from fuzz import fault_of
from hostile_files import BOMBS, ODD_NAMES, make_bomb
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

SECONDS = 60  # of the processor; a fifth of it does
MEBIBYTE = 2**20
LARGER = {"many items": 1024}
"""By how many mebibytes memory may grow: three million items are looked at before a header is given up."""

DAMAGES = st.lists(
    st.builds(Damage, st.sampled_from(KINDS), st.floats(0, 1, exclude_max=True), st.integers(0, 2**32 - 1)),
    min_size=1,
    max_size=4,
)


@pytest.fixture(scope="module")
def reader() -> Iterator[BoundedReader]:
    with BoundedReader(SECONDS) as process:
        yield process


@settings(
    max_examples=500,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(seed=st.sampled_from(sorted(SEEDS)), damages=DAMAGES)
def test_damaged_files_end_in_one_sentence(
    reader: BoundedReader, tmp_path: Path, seed: str, damages: list[Damage]
) -> None:
    path = tmp_path / f"file{''.join(Path(seed).suffixes)}"
    path.write_bytes(damaged(seed, damages))
    assert fault_of(reader.read(path), 256) == ""


def test_undamaged_files_are_read(reader: BoundedReader, tmp_path: Path) -> None:
    for seed in SEEDS:
        path = tmp_path / seed
        path.write_bytes(damaged(seed, []))
        outcome = reader.read(path)
        assert (seed, outcome.fault, outcome.loaded) == (seed, "", 2 if seed == "pages.tif" else 1)


@pytest.mark.parametrize("suffix", [".dcm", ""])
@pytest.mark.parametrize("seed", [seed for seed in SEEDS if seed.endswith(".dcm")])
def test_files_cut_off_anywhere_are_damaged(tmp_path: Path, seed: str, suffix: str) -> None:
    counts = cut_outcomes(seed, 40, tmp_path, suffix)
    assert counts.total() == 40
    assert set(counts) <= {"damaged, series warned", "unreadable", "whole"}


def test_faults_are_seen(reader: BoundedReader, tmp_path: Path) -> None:
    """A hang, and memory that is not given, end the case and not the test."""
    path = tmp_path / "file.png"
    Image.new("L", (9000, 9000)).save(path)
    assert reader.read(path).grown > 200 * MEBIBYTE
    with BoundedReader(SECONDS, mebibytes=64) as poor:
        outcome = poor.read(path)
        assert outcome.fault or not outcome.loaded
    with BoundedReader(0.05) as hasty:
        assert "no end after" in hasty.read(path).fault


@pytest.mark.parametrize("name", BOMBS)
def test_bombs(reader: BoundedReader, tmp_path: Path, name: str) -> None:
    outcome = reader.read(make_bomb(name, tmp_path / "in").parent)
    assert fault_of(outcome, LARGER.get(name, 256)) == ""
    said = BOMBS[name][2]
    assert not said or any(said in sentence for sentence in outcome.sentences), outcome.sentences
    assert not said or outcome.loaded == 0
    assert outcome.seconds < SECONDS / 2


def test_run_over_all_of_them(predict_measured: Callable[..., Any], tmp_path: Path) -> None:
    """They fail one by one, in little memory, and what is good beside them is scored."""
    folder = tmp_path / "in"
    for name in BOMBS:
        make_bomb(name, folder)
    Image.fromarray(np.full((16, 20, 3), 200, np.uint8)).save(folder / "good.png")
    finished = predict_measured(folder, tmp_path / "out", "--keep-names")
    assert finished.status == 3, finished.said
    assert "Traceback" not in finished.said
    document = json.loads((tmp_path / "out" / "results.json").read_text())
    assert {record["name"]: record["status"] for record in document["inputs"]}["good"] == "ok"
    for record in document["inputs"]:
        assert record["status"] == "ok" or re.fullmatch(r"[^\n]{10,300}", record["reason"]), record
    assert finished.peak < 2500 * MEBIBYTE, f"{finished.peak // MEBIBYTE} MiB"


@pytest.mark.parametrize("keep_names", [True, False])
def test_odd_names(
    predict: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep_names: bool
) -> None:
    """Names are neither run nor shown nor followed, and results stay in their folder."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "$(touch planted) @output_dir %x" / "$__import__('os').mkdir('planted')"
    folder.mkdir(parents=True)
    picture = Image.fromarray(np.full((16, 20, 3), 200, np.uint8))
    names = [os.fsencode(name) if isinstance(name, str) else name for name in ODD_NAMES]
    for name in names:
        with open(os.fsencode(folder) + b"/" + name, "wb") as stream:
            picture.save(stream, "PNG")
    deep = folder / "/".join(["y" * 100] * 12)
    deep.mkdir(parents=True)
    picture.save(deep / "deep.png")
    hidden = [name for name in names if name.startswith(b".")]
    output = tmp_path / "$(touch planted) out"
    assert predict(folder, output, *(["--keep-names"] if keep_names else [])) == 0

    document = json.loads((output / "results.json").read_text())
    assert document["summary"]["ok"] == len(names) - len(hidden) + 1
    written = [path for path in output.rglob("*") if path.is_file()]
    assert len([path for path in written if path.name.endswith("_heat.png")]) == document["summary"]["ok"]
    for path in written:
        relative = path.relative_to(output).as_posix()
        assert re.fullmatch(r"[\w./-]+" if keep_names else r"[A-Za-z0-9._/-]+", relative), relative
        assert len(path.name) < 120
    assert "<img src=x" not in (output / "report.html").read_text()
    assert not list(tmp_path.rglob("planted"))
    assert {path.name for path in tmp_path.iterdir()} == {output.name, folder.parent.name}


def test_links_that_lead_out(predict: Callable[..., int], tmp_path: Path) -> None:
    folder, outside = tmp_path / "in", tmp_path / "outside"
    folder.mkdir()
    outside.mkdir()
    picture = Image.fromarray(np.full((16, 20, 3), 200, np.uint8))
    picture.save(folder / "own.png")
    picture.save(outside / "secret.png")
    (outside / "secret.dcm").write_bytes(damaged("explicit.dcm", []))
    (folder / "file.png").symlink_to(outside / "secret.png")
    (folder / "file.dcm").symlink_to(outside / "secret.dcm")
    (folder / "folder").symlink_to(outside)
    (folder / "circle").symlink_to(folder)
    (folder / "passwords").symlink_to("/etc/passwd")
    (folder / "zero").symlink_to("/dev/zero")
    (folder / "again.png").symlink_to(folder / "own.png")
    assert predict(folder, tmp_path / "out") == 0
    document = json.loads((tmp_path / "out" / "results.json").read_text())
    assert document["summary"]["ok"] == 1
    assert document["skipped"] == {"link out of the folder": 4}


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root may read everything")
def test_files_that_may_not_be_read(predict: Callable[..., int], tmp_path: Path) -> None:
    folder = tmp_path / "in"
    (folder / "closed").mkdir(parents=True)
    picture = Image.fromarray(np.full((16, 20, 3), 200, np.uint8))
    for name in ("own.png", "locked.png"):
        picture.save(folder / name)
    (folder / "locked.dcm").write_bytes(damaged("explicit.dcm", []))
    for path in (folder / "locked.png", folder / "locked.dcm", folder / "closed"):
        path.chmod(0)
    try:
        assert predict(folder, tmp_path / "out") == 3
        document = json.loads((tmp_path / "out" / "results.json").read_text())
        assert (document["summary"]["ok"], document["summary"]["failed"]) == (1, 1)
    finally:
        (folder / "closed").chmod(0o700)


def test_results_cannot_be_led_away(predict: Callable[..., int], tmp_path: Path) -> None:
    """A link in the place of a result is replaced or refused, never followed."""
    folder, output, precious = tmp_path / "in", tmp_path / "out", tmp_path / "precious"
    folder.mkdir()
    output.mkdir()
    Image.fromarray(np.full((16, 20, 3), 200, np.uint8)).save(folder / "own.png")
    assert predict(folder, output, "--keep-names") == 0
    precious.write_bytes(b"precious")
    for path in [path for path in output.rglob("*") if path.is_file()]:
        kept = path.read_bytes()
        path.unlink()
        path.symlink_to(precious)
        assert predict(folder, output, "--keep-names", "--force") in (0, 1)
        assert precious.read_bytes() == b"precious", path.name
        path.unlink()
        path.write_bytes(kept)
