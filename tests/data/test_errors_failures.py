# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno
import os
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from monai.transforms import Compose, Lambdad
from PIL import Image

from monai_anomalyclip.data import FaultTolerantDataset, InputCatalogue, InputPart, LoadInputd, UnreadableInputError
from monai_anomalyclip.data.errors import failure_reason, may_pass
from monai_anomalyclip.data.sources import FrameSource


def fail(path: Any) -> None:
    raise RuntimeError(f"boom at\n {path} and /srv/JOHN_DOE/x.dat")


def bad_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "Doe  John 1970"
    folder.mkdir()
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(folder / "good.png")
    (folder / "cut.png").write_bytes((folder / "good.png").read_bytes()[:60])
    (folder / "text.nii.gz").write_text("text")
    return folder


def test_reasons_name_an_input_as_its_results_are_named(tmp_path: Path) -> None:
    folder = bad_folder(tmp_path)
    for keep_names in (False, True):
        data = InputCatalogue(folder, keep_names=keep_names).items()
        items = [item for item in FaultTolerantDataset(data, Compose([LoadInputd()])) if "error" in item]
        assert len(items) == 2
        for item, file in zip(items, ("cut.png", "text.nii.gz"), strict=True):
            shown = file if keep_names else item["name"]
            assert item["error"].startswith(f"Cannot read '{shown}': ")
            assert (file in item["error"]) == keep_names


def test_reasons_hold_the_root_cause_and_no_folders(tmp_path: Path) -> None:
    path = tmp_path / "Doe  John 1970" / "a.png"
    item = FaultTolerantDataset([{"image": str(path)}], Compose([Lambdad("image", fail)]))[0]
    assert item["error"] == "RuntimeError: boom at a.png and x.dat"
    assert item["name"] == "a.png"
    missing = FaultTolerantDataset([{"image": "a.png"}], Compose([Lambdad("label", fail)]))[0]
    assert missing["error"].startswith("KeyError")
    assert "label" in missing["error"]
    assert failure_reason(AssertionError(), {}) == "AssertionError"
    assert failure_reason(ValueError("ratio 3/4, size 1 / 2"), {}) == "ValueError: ratio 3/4, size 1 / 2"
    assert failure_reason(ValueError("see ./notes"), {"image": "a.png"}) == "ValueError: see ./notes"
    assert len(failure_reason(ValueError("x" * 999), {})) == 300


def test_no_folder_is_left_however_the_system_spells_it(tmp_path: Path) -> None:
    for name in ("O'Doe", 'the "Doe"', "Doe\\John", "Doe\u200bJohn", "Doe\n John", "Müller"):
        path = tmp_path / name / "a.png"
        item = {"image": InputPart(FrameSource(path, "a.png")), "name": "frame-1_00000000"}
        try:
            path.open()
        except OSError as error:
            reason = failure_reason(error, item)
            assert "Doe" not in reason
            assert "John" not in reason
            assert "Müller" not in reason
            assert "frame-1_00000000" in reason


@pytest.mark.parametrize(
    "name",
    [
        os.fsdecode(b"M\xfcller_Hans.png"),
        "DOE\u00a0JANE.nii.gz",
        "Doe\\Jim.png",
        "Doe\\Jim\\Bob.png",
        'It\'s "Doe".png',
        "DOE  JOHN.png",
        "Doe\nJohn.png",
        "O'Doe.png",
        " Doe.png",
    ],
)
@pytest.mark.parametrize("folder", ["scans", "John's", 'the "best"'])
def test_no_file_name_is_left_however_a_message_spells_it(tmp_path: Path, folder: str, name: str) -> None:
    path = tmp_path / folder / name
    item = {"image": InputPart(FrameSource(path, name)), "name": "frame-1_00000000"}
    tidied = " ".join(name.split())
    for shown in (name, repr(name), tidied, repr(tidied), str(path), repr(str(path)), repr(path)):
        reason = failure_reason(UnreadableInputError(f"Cannot read {shown}: bad."), item)
        assert re.search("doe|john|jane|jim|bob|hans|ller|\\.png|\\.nii|best", reason, re.IGNORECASE) is None, reason
        assert "frame-1_00000000" in reason
        assert reason.endswith(": bad.")


def test_unreadable_files_of_any_name_are_named_as_their_results(tmp_path: Path) -> None:
    for name in (b"M\xfcller_Hans.png", "DOE\u00a0JANE.nii.gz".encode(), b"Doe\\Jim.png", b"DOE  JOHN.png"):
        Path(os.fsdecode(bytes(tmp_path) + b"/" + name)).write_text("neither picture nor volume")
    items = list(FaultTolerantDataset(InputCatalogue(tmp_path).items(), Compose([LoadInputd()])))
    assert len(items) == 4
    for item in items:
        assert item["error"].startswith(f"Cannot read '{item['name']}': ")


def test_short_file_names_do_not_spoil_the_text(phantoms: ModuleType, tmp_path: Path) -> None:
    """Files of a series are often called 1, 2, 3: these are no words to replace wherever they occur."""
    for index, path in enumerate(phantoms.make_series(tmp_path, count=12)):
        path.rename(tmp_path / str(index))
    (item,) = InputCatalogue(tmp_path).items()
    text = "frame 1 of 12 has 512 x 512 pixels, not 256"
    assert failure_reason(ValueError(text), item) == f"ValueError: {text}"
    name = item["name"]
    assert failure_reason(ValueError(f"cannot open '{tmp_path}/7'"), item) == f"ValueError: cannot open '{name}'"
    assert failure_reason(ValueError(f"cannot open {tmp_path}/7"), item) == "ValueError: cannot open 7"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(errno.ENOSPC, "full"), True),
        (OSError(errno.ESTALE, "stale"), True),
        (OSError(errno.EIO, "ails"), True),
        (MemoryError(), True),
        (TimeoutError(), True),
        (ConnectionResetError(), True),
        (torch.OutOfMemoryError("CUDA"), True),
        (FileNotFoundError(errno.ENOENT, "gone"), False),
        (PermissionError(errno.EACCES, "closed"), False),
        (OSError("cannot identify image file"), False),
        (ValueError("not finite"), False),
        (UnreadableInputError("cut"), False),
    ],
)
def test_what_may_do_well_another_time(error: Exception, expected: bool) -> None:
    assert may_pass(error) is expected
    wrapped = RuntimeError("applying transform")
    wrapped.__cause__ = error
    assert may_pass(wrapped) is expected
