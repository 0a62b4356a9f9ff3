# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import io
import logging
import re
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from monai_anomalyclip.archive.dicomweb import ArchiveError, DicomWebArchive, FoundSeries, Tls, quiet_logs
from monai_anomalyclip.archive.results import Seal
from tests.archive.web_archive import WebArchive, served


def test_no_level_lets_them_speak() -> None:
    said = io.StringIO()
    handler = logging.StreamHandler(said)
    loud = logging.getLogger("pynetdicom.acse")
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        quiet_logs()
        loud.setLevel(logging.DEBUG)  # afterwards, by whoever looks for a fault
        loud.addHandler(handler)
        for name in (
            "dicomweb_client",
            "dicomweb_client.web",
            "pynetdicom",
            "pynetdicom.acse",
            "urllib3.connectionpool",
        ):
            logger = logging.getLogger(name)
            logger.warning("CANARY^NAME")
            logger.error("CANARY^NAME")
            logger.debug("CANARY^NAME")
        logging.getLogger("monai_anomalyclip.archive").debug("of our own")
    finally:
        loud.removeHandler(handler)
        loud.setLevel(logging.CRITICAL + 1)
        root.removeHandler(handler)
        root.setLevel(level)
    assert said.getvalue() == "of our own\n"


def test_odd_values_are_not_quoted() -> None:
    """pydicom warns of a value that breaks the rules when it is read, and quotes it."""
    image = Dataset()
    image[0x0020000D] = pydicom.DataElement(0x0020000D, "UI", "CANARY.01", validation_mode=0)
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file = io.BytesIO()
    image.save_as(file)

    def said(quiet: bool) -> list[str]:
        file.seek(0)
        header = pydicom.dcmread(file, force=True)
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            if quiet:
                quiet_logs()
            assert header.StudyInstanceUID == "CANARY.01"
        return [str(one.message) for one in seen]

    (message,) = said(quiet=False)
    assert "CANARY" in message
    assert said(quiet=True) == []


@pytest.fixture
def web(phantoms: ModuleType, tmp_path: Path) -> WebArchive:
    return WebArchive(phantoms.make_series(tmp_path / "ct", count=3, size=(16, 20)))


def named(archive: WebArchive) -> FoundSeries:
    one = archive.objects()[0]
    return FoundSeries(str(one.StudyInstanceUID), str(one.SeriesInstanceUID))


def test_a_refusal_and_a_change_on_the_way_are_told(web: WebArchive, phantoms: ModuleType, tmp_path: Path) -> None:
    (result,) = phantoms.make_series(tmp_path / "result", count=1, size=(16, 20), seed="result")
    with served(web) as url:
        archive = DicomWebArchive(url)
        web.refusal = 0xA700
        with pytest.raises(ArchiveError, match=r"refused a result \(failure reason 0xA700\)"):
            archive.store([result])
        assert len(web.files) == 3
        web.refusal = 0
        archive.store([result])
        assert len(web.files) == 4

        def lose(one: Dataset) -> None:
            del one.RescaleSlope

        def blacken(one: Dataset) -> None:
            one.PixelData = bytes(len(one.PixelData))

        def rename(one: Dataset) -> None:
            one.FrameOfReferenceUID = "1.2.3"

        for change in (lose, blacken, rename):
            web.alter = change
            with pytest.raises(ArchiveError, match="comes back from the archive as something else"):
                archive.store([result])
        web.alter = lambda one: setattr(one, "InstitutionName", "another")  # texts are the archive's own affair
        archive.store([result])


def test_an_answer_that_is_no_answer(web: WebArchive, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the client makes of it is not quoted."""
    monkeypatch.setattr(web, "answer", lambda *_: ("application/dicom+json", b"CANARY^NAME"))
    with served(web) as url, pytest.raises(ArchiveError) as raised:
        list(DicomWebArchive(url).search({}))
    assert str(raised.value) == "The archive's answer cannot be read (JSONDecodeError)."


@pytest.mark.parametrize(("status", "said"), [(403, "403 (Forbidden): put name and"), (599, "599 (unknown status).")])
def test_an_answer_of_trouble(web: WebArchive, status: int, said: str) -> None:
    web.status = lambda method, path: status
    with served(web) as url, pytest.raises(ArchiveError, match=re.escape(said)) as raised:
        DicomWebArchive(url).instances(named(web))
    assert "CANARY" not in str(raised.value)


def test_reports_of_others_are_no_predecessors(web: WebArchive, phantoms: ModuleType, tmp_path: Path) -> None:
    series = named(web)
    study = {"StudyInstanceUID": series.study_uid, "CurrentRequestedProcedureEvidenceSequence": [evidence(series)]}
    ours = "monai_anomalyclip 1"
    for number, (maker, evidence_of) in enumerate([(ours, series), ("another", series), (ours, None), (ours, series)]):
        path = phantoms.make_object(tmp_path / "sr", "1.2.840.10008.5.1.4.1.1.88.34", "SR", seed=str(number), **study)
        report = pydicom.dcmread(path)
        report.ManufacturerModelName = maker
        report.SOPInstanceUID = report.file_meta.MediaStorageSOPInstanceUID = f"1.2.{number}"
        if evidence_of is None:
            del report.CurrentRequestedProcedureEvidenceSequence
        report.save_as(path)
        web.add(path.read_bytes())
    with served(web) as url:
        found = DicomWebArchive(url).predecessors(series, Seal("key", "1.1", "1.2.3"))
    assert [one.instance_uid for one in found] == ["1.2.0"]


def evidence(series: FoundSeries) -> Dataset:
    one, study = Dataset(), Dataset()
    one.SeriesInstanceUID = series.series_uid
    study.ReferencedSeriesSequence = [one]
    return study


def test_certificates_and_a_token(
    tmp_path: Path, certificates: Callable[[str], tuple[Path, Path, Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The token takes the place of ~/.netrc, --ca that of the environment, and both sides show a certificate."""
    ca, cert, key = certificates("authority")
    token, netrc = tmp_path / "token", tmp_path / "netrc"
    token.write_text("secret\n")
    netrc.write_text("machine 127.0.0.1 login me password mine\n")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificates("of the system")[0]))
    web = WebArchive()
    with served(web) as url:
        list(DicomWebArchive(url).search({}))
        list(DicomWebArchive(url, Tls(token=token)).search({}))
    basic, bearer = (headers["Authorization"] for _, _, headers in web.asked)
    assert (basic.partition(" ")[0], bearer) == ("Basic", "Bearer secret")
    for tls in (Tls(ca, cert, key), Tls(ca, cert, key, token)):
        web = WebArchive()
        with served(web, certificate=(ca, cert, key)) as url:
            assert list(DicomWebArchive(url, tls).search({})) == []
        assert len(web.asked) == 1
    whole = tmp_path / "whole.pem"
    whole.write_bytes(cert.read_bytes() + key.read_bytes())
    with served(WebArchive(), certificate=(ca, cert, key)) as url:
        assert list(DicomWebArchive(url, Tls(ca, whole)).search({})) == []
        for tls in (Tls(ca), Tls(certificates("another")[0], whole)):
            archive = DicomWebArchive(url, tls)
            archive._client.set_http_retry_params(retry=False)  # which takes six seconds
            with pytest.raises(ArchiveError, match=r"cannot be reached \((SSLError|ConnectionError)\)"):
                list(archive.search({}))


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dicomweb_client.web", None)
    with pytest.raises(RuntimeError, match="pip install dicomweb-client"):
        DicomWebArchive("http://127.0.0.1:9")
