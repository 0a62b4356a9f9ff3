# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""An archive by DICOMweb: search, fetch one series at a time, store, read back. Nothing that it says is logged."""

from __future__ import annotations

import functools
import hashlib
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, TypeVar

import pydicom
from pydicom.dataset import Dataset

from monai_anomalyclip.archive.results import Predecessor, Seal

__all__ = ["ArchiveError", "DicomWebArchive", "FoundSeries", "Tls", "quiet_logs"]

T = TypeVar("T")
_PAGE = 200
_ANY_SYNTAX = (("application/dicom", "*"),)
_STUDY_KEYS = frozenset(
    (
        "StudyDate", "StudyTime", "AccessionNumber", "ModalitiesInStudy", "ReferringPhysicianName", "PatientName",
        "PatientID", "StudyInstanceUID", "StudyID", "StudyDescription", "PatientBirthDate", "PatientSex",
    )
)  # fmt: skip
# Modalities of what holds no images to score.
_NO_IMAGES = frozenset(
    (
        "ANN", "AU", "ASMT", "CTPROTOCOL", "DOC", "ECG", "EPS", "FID", "HD", "IOL", "KO", "M3D", "OPM", "PLAN", "PR",
        "REG", "RESP", "RTDOSE", "RTIMAGE", "RTPLAN", "RTRECORD", "RTSEGANN", "RTSTRUCT", "RWV", "SEG", "SMR", "SR",
        "SRF", "STAIN", "TEXTUREMAP", "XAPROTOCOL",
    )
)  # fmt: skip

_TALKATIVE = ("dicomweb_client", "pydicom", "pynetdicom", "urllib3", "requests", "retrying")


class ArchiveError(OSError):
    """An archive cannot be reached, or refuses; the message quotes nothing of its answer."""


@dataclass(frozen=True)
class Tls:
    """How an archive is spoken with by https.

    Args:
        ca: certificates of the authorities to trust; None for the system's.
        certificate: of this client.
        key: of this client.
        token: file that holds a token for the header ``Authorization: Bearer``. Names and passwords come from
            ``~/.netrc``.
    """

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    token: Path | None = None


@dataclass(frozen=True)
class FoundSeries:
    """A series of an archive, by its UIDs."""

    study_uid: str
    series_uid: str


class DicomWebArchive:
    """A DICOMweb service.

    Args:
        url: its address, such as ``https://archive.example/dicom-web``.
        tls: see :class:`Tls`.
        timeout: seconds that it may be silent.

    Raises:
        RuntimeError: dicomweb-client is missing.
        ValueError: the address is none.

    Example:
        >>> archive = DicomWebArchive("http://127.0.0.1:8042/dicom-web")
        >>> list(archive.search({"Modality": "CT"}))
    """

    def __init__(self, url: str, tls: Tls | None = None, timeout: float = 60) -> None:
        try:
            import requests
            from dicomweb_client.web import DICOMwebClient
        except ModuleNotFoundError as error:
            raise RuntimeError("DICOMweb needs dicomweb-client: pip install dicomweb-client.") from error
        quiet_logs()
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"{url[:60]!r} is no address of DICOMweb: it begins with http:// or https://.")
        if "@" in url.partition("://")[2].partition("/")[0]:
            raise ValueError("The address of an archive must not hold a password: put it into ~/.netrc.")
        tls = tls or Tls()
        session = requests.Session()
        if tls.ca is not None:
            # Not `session.verify`: REQUESTS_CA_BUNDLE of the environment would take its place.
            session.request = functools.partial(session.request, verify=str(tls.ca))  # type: ignore[method-assign]
        if tls.certificate is not None:
            session.cert = (str(tls.certificate), str(tls.key or tls.certificate))
        headers = {}
        if tls.token is not None:
            session.trust_env = False  # ~/.netrc would take the header's place
            headers["Authorization"] = f"Bearer {tls.token.read_text(encoding='utf-8').strip()}"
        self._client = DICOMwebClient(
            url.rstrip("/"), session=session, headers=headers, timeout=timeout, permissive_uid=True
        )
        self._client.set_http_retry_params(max_attempts=3)

    def search(self, query: Mapping[str, str]) -> Iterator[FoundSeries]:
        """Series that may hold images to score.

        Args:
            query: values by keyword, as QIDO has them (``StudyDate``: ``20260101-``); those of studies and of series.
        """
        of_studies = {key: value for key, value in query.items() if key in _STUDY_KEYS}
        of_series = {key: value for key, value in query.items() if key not in _STUDY_KEYS}
        studies = self._pages(
            lambda offset: self._client.search_for_studies(
                search_filters=of_studies, fields=["StudyInstanceUID"], limit=_PAGE, offset=offset
            ),
            "StudyInstanceUID",
        )
        for study in studies:
            uid = _text(study, "StudyInstanceUID")
            found = self._pages(
                lambda offset, uid=uid: self._client.search_for_series(  # type: ignore[misc]
                    uid, search_filters=of_series, limit=_PAGE, offset=offset
                ),
                "SeriesInstanceUID",
            )
            for series in found:
                if _text(series, "Modality") not in _NO_IMAGES:
                    yield FoundSeries(uid, _text(series, "SeriesInstanceUID"))

    def instances(self, series: FoundSeries) -> list[str]:
        """SOP Instance UIDs of a series."""
        found = self._pages(
            lambda offset: self._client.search_for_instances(
                series.study_uid, series.series_uid, fields=["SOPInstanceUID"], limit=_PAGE, offset=offset
            ),
            "SOPInstanceUID",
        )
        return [_text(instance, "SOPInstanceUID") for instance in found]

    def fetch(self, series: FoundSeries, folder: Path) -> int:
        """Write the files of a series, as the archive holds them, into a folder; returns how many."""

        def write() -> int:
            count = 0
            for instance in self._client.iter_series(series.study_uid, series.series_uid, media_types=_ANY_SYNTAX):
                name = hashlib.sha256(str(instance.get("SOPInstanceUID", count)).encode()).hexdigest()[:32]
                instance.save_as(folder / f"{name}.dcm", enforce_file_format=True)
                count += 1
            return count

        return self._ask(write)

    def holds(self, study_uid: str, seal: Seal) -> bool:
        """Whether the results that a seal stands for are there."""
        found = self._ask(
            lambda: self._client.search_for_instances(study_uid, search_filters={"SOPInstanceUID": seal.instance_uid})
        )
        return any(_text(one, "SOPInstanceUID") == seal.instance_uid for one in found)

    def predecessors(self, series: FoundSeries, seal: Seal) -> list[Predecessor]:
        """Our reports of a series that the archive holds, but for that of the seal."""
        found = []
        reports = self._ask(lambda: self._client.search_for_series(series.study_uid, search_filters={"Modality": "SR"}))
        for report in reports:
            uid = _text(report, "SeriesInstanceUID")
            metadata = self._ask(lambda uid=uid: self._client.retrieve_series_metadata(series.study_uid, uid))  # type: ignore[misc]
            for one in metadata:
                header = Dataset.from_json(one)
                if header.get("SOPInstanceUID") == seal.instance_uid or not is_ours(header):
                    continue
                if series.series_uid in evidence_of(header):
                    found.append(
                        Predecessor(series.study_uid, uid, str(header.SOPClassUID), str(header.SOPInstanceUID))
                    )
        return found

    def store(self, files: Sequence[Path]) -> None:
        """Store files one after the other, and read each back.

        Raises:
            ArchiveError: one was refused, or comes back as something else.
        """
        for path in files:
            sent = pydicom.dcmread(path)
            answer = self._ask(lambda sent=sent: self._client.store_instances([sent], sent.StudyInstanceUID))  # type: ignore[misc]
            if answer.get("FailedSOPSequence"):
                reason = answer.FailedSOPSequence[0].get("FailureReason", 0)
                raise ArchiveError(f"The archive refused a result (failure reason 0x{int(reason):04X}).")
            uids = (sent.StudyInstanceUID, sent.SeriesInstanceUID, sent.SOPInstanceUID)
            back = self._ask(
                lambda uids=uids: self._client.retrieve_instance(*uids, media_types=_ANY_SYNTAX)  # type: ignore[misc]
            )
            if not _same(sent, back):
                raise ArchiveError("A result that was stored comes back from the archive as something else.")

    def _pages(self, page: Callable[[int], list[dict[str, Any]]], key: str) -> Iterator[dict[str, Any]]:
        """All answers to a search; an archive that knows no pages answers the same again, which ends it."""
        seen: set[str] = set()
        while True:
            offset = len(seen)
            found = self._ask(lambda offset=offset: page(offset))  # type: ignore[misc]
            new = [one for one in found if (uid := _text(one, key)) and uid not in seen]
            seen |= {_text(one, key) for one in new}
            yield from new
            if not new or len(found) < _PAGE:
                return

    def _ask(self, question: Callable[[], T]) -> T:
        import requests

        try:
            return question()
        except requests.HTTPError as error:
            answer = error.response
            status = "an error" if answer is None else f"{answer.status_code} ({_phrase(answer.status_code)})"
            problem = f"The archive answered {status}"
            if answer is not None and answer.status_code in (401, 403):
                problem += ": put name and password into ~/.netrc, or give --token-file"
        except Exception as error:  # messages hold the address, and with it UIDs, or quote an odd answer
            answered = isinstance(error, requests.JSONDecodeError) or not isinstance(error, requests.RequestException)
            problem = "The archive's answer cannot be read" if answered else "The archive cannot be reached"
            problem += f" ({type(error).__name__})"
        raise ArchiveError(f"{problem}.")


def _phrase(status: int) -> str:
    """What an HTTP status means; not in the archive's own words, which may be any."""
    return HTTPStatus(status).phrase if status in set(HTTPStatus) else "unknown status"


def is_ours(header: Dataset) -> bool:
    """Whether an object was made by this program."""
    return str(header.get("ManufacturerModelName", "")).startswith("monai_anomalyclip")


def evidence_of(header: Dataset) -> set[str]:
    """Series Instance UIDs that a report refers to."""
    return {
        str(series.get("SeriesInstanceUID", ""))
        for study in header.get("CurrentRequestedProcedureEvidenceSequence", [])
        for series in study.get("ReferencedSeriesSequence", [])
    }


def _same(sent: Dataset, back: Dataset) -> bool:
    """Whether all that was sent comes back; archives may add attributes and change the form of texts."""
    binary = ("OB", "OW", "UN", "OF", "OD")
    for element in sent:
        other = back.get(element.tag)
        if other is None:
            return False
        if element.VR in binary and element.value != other.value:
            return False
        if element.VR == "UI" and element.value != other.value:
            return False
    return True


def _text(answer: Mapping[str, Any], keyword: str) -> str:
    from pydicom.datadict import tag_for_keyword

    values = answer.get(f"{tag_for_keyword(keyword):08X}", {}).get("Value") or [""]
    return str(values[0])


class _Nothing(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return False


def quiet_logs() -> None:
    """Silence the libraries that talk with archives, at any level, whatever the program's own log is set to.

    Their loggers are switched off rather than set to a level: children of theirs that were set to DEBUG would still
    speak, and warnings and errors quote what an archive answers, which may hold names. Their warnings are ignored, too:
    pydicom's quote a UID or a code that is not as it should be, in whichever thread it is read.
    """
    warnings.filterwarnings("ignore", module=rf"({'|'.join(_TALKATIVE)})\b")
    names = [name for name in logging.root.manager.loggerDict if name.partition(".")[0] in _TALKATIVE]
    for name in {*names, *_TALKATIVE}:
        logger = logging.getLogger(name)
        logger.setLevel(logging.CRITICAL + 1)
        logger.propagate = False
        if not any(isinstance(each, _Nothing) for each in logger.filters):
            logger.addFilter(_Nothing())
