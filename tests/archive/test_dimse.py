# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Sender and receiver, each against pynetdicom's own other side, on loopback."""

from __future__ import annotations

import contextlib
import logging
import ssl
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import RLELossless
from pynetdicom import AE, evt
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind

from monai_anomalyclip.archive.dicomweb import ArchiveError
from monai_anomalyclip.archive.dimse import DimseTls, Peer, Receiver, parse_peer
from monai_anomalyclip.archive.spool import Spool
from tests.archive.scenes import free_port, identifiers


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[tuple[Receiver, int]]:
    port = free_port()
    made = Receiver(Spool(tmp_path / "spool"), "ANOMALY", port, accept=["SENDER"])
    yield made, port
    made.close()


def test_every_form_arrives_as_it_was_sent(
    receiver: tuple[Receiver, int], phantoms: ModuleType, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    made, port = receiver
    plain, packed = phantoms.make_series(tmp_path / "ct", count=2, size=(16, 20))
    image = pydicom.dcmread(packed)
    image.compress(RLELossless, generate_instance_uid=False)
    image.save_as(packed)
    report = tmp_path / "sr.dcm"
    made_report = pydicom.dcmread(plain)
    made_report.SOPClassUID = made_report.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.88.34"
    made_report.SOPInstanceUID = made_report.file_meta.MediaStorageSOPInstanceUID = "1.2.3.99"
    made_report.save_as(report)
    Peer("127.0.0.1", port, "ANOMALY", "SENDER").send([plain, packed, report])
    assert (made.received, made.ignored) == (2, 1)  # what is no image is taken, and dropped
    (study,) = made.spool.studies()
    kept = [pydicom.dcmread(path) for path in study.images.iterdir()]
    assert {str(one.file_meta.TransferSyntaxUID) for one in kept} == {
        str(pydicom.dcmread(path).file_meta.TransferSyntaxUID) for path in (plain, packed)
    }
    sent = {one.SOPInstanceUID: one for one in map(pydicom.dcmread, (plain, packed))}
    for one in kept:
        assert one.PixelData == sent[one.SOPInstanceUID].PixelData
    assert [text for text in identifiers(tmp_path) if text in caplog.text] == []


@pytest.mark.parametrize(("called", "calling"), [("OTHER", "SENDER"), ("ANOMALY", "STRANGER")])
def test_titles_are_checked(receiver: tuple[Receiver, int], called: str, calling: str) -> None:
    entity = AE(ae_title=calling)
    entity.add_requested_context("1.2.840.10008.1.1")
    assert entity.associate("127.0.0.1", receiver[1], ae_title=called).is_rejected
    peer = Peer("127.0.0.1", receiver[1], called, calling)
    assert peer.count("1.2", "1.3") is None
    with pytest.raises(ArchiveError, match="rejected the association"):
        peer.send([_header()])


def test_tls_both_ways(
    phantoms: ModuleType, tmp_path: Path, certificates: Callable[[str], tuple[Path, Path, Path]]
) -> None:
    """Nobody without a certificate of the authority sends, and nothing is sent to one without."""
    (file,) = phantoms.make_series(tmp_path / "ct", count=1, size=(16, 20))
    ca, cert, key = certificates("authority")
    other_ca, other_cert, other_key = certificates("another")
    port = free_port()
    made = Receiver(Spool(tmp_path / "spool"), "ANOMALY", port, tls=DimseTls(cert, key, ca))
    try:
        for tls in (None, DimseTls(other_cert, other_key, ca), DimseTls(cert, key, other_ca)):
            with pytest.raises(ArchiveError):
                Peer("127.0.0.1", port, "ANOMALY", "SENDER", tls).send([file])
        assert made.received == 0
        Peer("127.0.0.1", port, "ANOMALY", "SENDER", DimseTls(cert, key, ca)).send([file])
        assert made.received == 1
        # Another program, with a context of its own.
        context = ssl.create_default_context(cafile=str(ca))
        context.load_cert_chain(cert, key)
        entity = AE(ae_title="X")
        entity.add_requested_context("1.2.840.10008.1.1")
        echoing = entity.associate("127.0.0.1", port, ae_title="ANOMALY", tls_args=(context, "127.0.0.1"))
        assert echoing.is_established
        echoing.release()
    finally:
        made.close()


def test_a_full_disk_is_told_to_the_sender(
    receiver: tuple[Receiver, int], phantoms: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: bytes) -> bool:
        raise OSError("full")

    monkeypatch.setattr(receiver[0].spool, "put", full)
    (file,) = phantoms.make_series(tmp_path / "ct", count=1, size=(16, 20))
    with pytest.raises(ArchiveError, match=r"refused a result \(status 0xA700\)"):
        Peer("127.0.0.1", receiver[1], "ANOMALY", "SENDER").send([file])
    assert "disk is full" in receiver[0].last_problem


def test_the_network_is_for_those_who_ask_for_it(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    with pytest.raises(ValueError, match="is not loopback"):
        Receiver(spool, "A", free_port(), host="0.0.0.0")
    with pytest.raises(ValueError, match="name who may send"):
        Receiver(spool, "A", free_port(), host="0.0.0.0", network=True)


def test_an_object_that_cannot_be_read_is_told_to_the_sender(
    receiver: tuple[Receiver, int], phantoms: ModuleType, tmp_path: Path
) -> None:
    (file,) = phantoms.make_series(tmp_path / "ct", count=1, size=(16, 20))
    image = pydicom.dcmread(file)
    del image.StudyInstanceUID
    image.save_as(file)
    with pytest.raises(ArchiveError, match=r"refused a result \(status 0xC000\)"):
        Peer("127.0.0.1", receiver[1], "ANOMALY", "SENDER").send([file])
    assert receiver[0].last_problem == "An object could not be read (ValueError)."
    assert list(receiver[0].spool.studies()) == []


def test_without_pynetdicom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynetdicom", None)
    with pytest.raises(RuntimeError, match="pip install pynetdicom"):
        Receiver(Spool(tmp_path), "A", free_port())


@contextlib.contextmanager
def archive(kinds: list[str], *handlers: Any) -> Iterator[Peer]:
    """An archive that takes some kinds of objects."""
    entity = AE(ae_title="PACS")
    for kind in kinds:
        entity.add_supported_context(kind)
    port = free_port()
    server = entity.start_server(("127.0.0.1", port), block=False, evt_handlers=list(handlers))
    yield Peer("127.0.0.1", port, "PACS", "US")
    server.shutdown()


def test_an_archive_that_does_not_take_a_kind_gets_nothing(phantoms: ModuleType, tmp_path: Path) -> None:
    """It is told which kind, before the first object is sent; not that the archive cannot be reached."""
    (mr,) = phantoms.make_series(tmp_path / "mr", count=1, size=(16, 20), modality="MR")
    (ct,) = phantoms.make_series(tmp_path / "ct", count=1, size=(16, 20))
    stored: list[str] = []

    def store(event: Any) -> int:
        stored.append(event.request.AffectedSOPClassUID)
        return 0

    of_mr = str(pydicom.dcmread(mr).SOPClassUID)
    for kinds, names in (
        ([of_mr], "CT Image Storage"),
        (["1.2.840.10008.1.1"], "MR Image Storage, CT Image Storage"),
    ):
        with archive(kinds, (evt.EVT_C_STORE, store)) as peer:
            with pytest.raises(ArchiveError, match=f"The archive does not take {names} in the form"):
                peer.send([mr, ct])
            assert peer.count("1.2", "1.3") is None
            assert stored == []
            peer.send([])
    with archive([of_mr], (evt.EVT_C_STORE, store)) as peer:
        peer.send([mr])
    assert stored == [of_mr]


@pytest.mark.parametrize("taken", [0, 1])
def test_an_archive_that_hangs_up(taken: int, phantoms: ModuleType, tmp_path: Path) -> None:
    files = phantoms.make_series(tmp_path / "ct", count=2, size=(16, 20))
    stored: list[str] = []

    def store(event: Any) -> int:
        if len(stored) == taken:
            event.assoc.abort()
        stored.append(event.request.AffectedSOPInstanceUID)
        return 0

    with (
        archive([str(pydicom.dcmread(files[0]).SOPClassUID)], (evt.EVT_C_STORE, store)) as peer,
        pytest.raises(ArchiveError, match="ended the association before it had answered"),
    ):
        peer.send(files)
    assert len(stored) == taken + 1


@pytest.mark.parametrize(("number", "expected"), [("7", 7), ("many", None), (None, None), ("none", None)])
def test_how_many_images_an_archive_has(number: str | None, expected: int | None) -> None:
    asked: list[Dataset] = []

    def find(event: Any) -> Iterator[tuple[int, Dataset | None]]:
        asked.append(event.identifier)
        found = Dataset()
        if number is not None:
            found.add(pydicom.DataElement(0x00201209, "IS", number, validation_mode=0, already_converted=True))
        if number != "none":
            yield 0xFF00, found

    with archive([StudyRootQueryRetrieveInformationModelFind], (evt.EVT_C_FIND, find)) as peer:
        assert peer.count("1.2", "1.3") == expected
    assert (asked[0].QueryRetrieveLevel, asked[0].SeriesInstanceUID) == ("SERIES", "1.3")


def test_peers() -> None:
    assert parse_peer("archive.example:104:PACS 1", "US") == Peer("archive.example", 104, "PACS 1", "US")
    assert parse_peer("[::1]:104:PACS", "US").host == "::1"
    for text in ("archive", "archive:104", "archive:0:A", "archive:99999:A", "a:1:ABCDEFGHIJKLMNOPQ", ""):
        with pytest.raises(ValueError, match="is not HOST:PORT:AE"):
            parse_peer(text, "US")
    for host, why in (("127.0.0.1", r"\."), ("archive..example", r" \(UnicodeError\)\.")):
        with pytest.raises(ArchiveError, match=f"cannot be reached{why}$"):
            Peer(host, free_port(), "A", "B").send([_header()])


def _header() -> Path:
    """Some DICOM file: what it holds does not matter where nobody listens."""
    from pydicom.data import get_testdata_file

    return Path(str(get_testdata_file("CT_small.dcm")))
