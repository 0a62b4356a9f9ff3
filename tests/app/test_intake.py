# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import stat
import zipfile
from collections import namedtuple
from pathlib import Path

import pytest

from monai_anomalyclip.app import intake
from monai_anomalyclip.app.intake import Intake, RefusedUploadError, safe_path


def intake_of(folder: Path, most_bytes: int = 10_000, most_files: int = 10) -> Intake:
    return Intake.resumed(folder / "in", most_bytes, most_files)


def send(taken: Intake, name: str, content: bytes = b"x") -> None:
    with taken.open(name) as stream:
        taken.write(stream, content)


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../a", "a/../b", "/etc/passwd", "a//b", "a/./b", "C:/a", "..\\a", "a\\..\\b", "a\0b", "a\nb",
     "a/" * 30 + "b", "x" * 300, "a\x7f"],
)  # fmt: skip
def test_names_that_lead_out_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(RefusedUploadError, match="name"):
        send(intake_of(tmp_path), name)
    assert sorted(tmp_path.rglob("*")) == [tmp_path / "in"]


@pytest.mark.parametrize("name", ["a.dcm", "sub/ünï 日本/a b.dcm", "<img src=x onerror=alert(1)>.png", "a\\b.png"])
def test_other_names_are_kept(name: str, tmp_path: Path) -> None:
    send(intake_of(tmp_path), name)
    path = tmp_path / "in" / name.replace("\\", "/")
    assert path.read_bytes() == b"x"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert safe_path(name).as_posix() == name.replace("\\", "/")


def test_sizes_and_numbers_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = intake_of(tmp_path, 100, 3)
    send(taken, "a", b"x" * 60)
    with pytest.raises(RefusedUploadError, match=r"More than .* GiB"):
        send(taken, "b", b"x" * 60)
    taken = Intake.resumed(tmp_path / "in", 1000, 3)
    assert taken.files == 2
    send(taken, "c")
    with pytest.raises(RefusedUploadError, match="More than 3 files"):
        send(taken, "d")
    taken = intake_of(tmp_path, 1000, 30)
    with pytest.raises(RefusedUploadError, match="one name"):
        send(taken, "a")
    with pytest.raises(RefusedUploadError, match="one name"):
        send(taken, "a/b")
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(intake.shutil, "disk_usage", lambda path: usage(100))
    with pytest.raises(RefusedUploadError, match="nearly full"):
        send(taken, "e")


def pack(path: Path, **files: bytes) -> Path:
    path.parent.mkdir(exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def test_archives_are_replaced_by_what_is_in_them(tmp_path: Path) -> None:
    pack(tmp_path / "in" / "a.zip", **{"sub/one.dcm": b"1", "two.dcm": b"22", "__MACOSX/x": b"", "sub/": b""})
    taken = intake_of(tmp_path)
    taken.unpack()
    files = {path.relative_to(tmp_path / "in").as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert files == {"a.zip.files/sub/one.dcm", "a.zip.files/two.dcm"}
    assert (taken.files, taken.received) == (2, 3)


@pytest.mark.parametrize("name", ["../../out", "/out", "a/../../../out", "..\\out"])
def test_archives_cannot_write_elsewhere(name: str, tmp_path: Path) -> None:
    pack(tmp_path / "in" / "a.zip", **{name: b"x"})
    with pytest.raises(RefusedUploadError):
        intake_of(tmp_path).unpack()
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["a.zip"]


def test_bombs_links_and_encrypted_archives_are_refused(tmp_path: Path) -> None:
    pack(tmp_path / "in" / "bomb.zip", zeros=bytes(50_000))
    assert (tmp_path / "in" / "bomb.zip").stat().st_size < 1000
    with pytest.raises(RefusedUploadError, match="GiB"):
        intake_of(tmp_path).unpack()
    os.remove(tmp_path / "in" / "bomb.zip")
    with zipfile.ZipFile(tmp_path / "in" / "link.zip", "w") as archive:
        link = zipfile.ZipInfo("link")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(RefusedUploadError, match="link"):
        intake_of(tmp_path).unpack()
    os.remove(tmp_path / "in" / "link.zip")
    path = pack(tmp_path / "in" / "locked.zip", a=b"x")
    content = bytearray(path.read_bytes())
    content[6] |= 1  # the flag in the file's header, and below in the directory's
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(RefusedUploadError, match="encrypted"):
        intake_of(tmp_path).unpack()


def test_a_damaged_archive_is_one_sentence(tmp_path: Path) -> None:
    path = pack(tmp_path / "in" / "a.zip", a=os.urandom(3000))
    content = bytearray(path.read_bytes())
    content[100:200] = bytes(100)
    path.write_bytes(content)
    with pytest.raises(RefusedUploadError, match="cannot be unpacked"):
        intake_of(tmp_path).unpack()
