# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Images in, results out, by DIMSE (pynetdicom)."""

from __future__ import annotations

import re
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import UID

from monai_anomalyclip.archive.dicomweb import ArchiveError, quiet_logs
from monai_anomalyclip.archive.spool import Spool

__all__ = ["DimseTls", "Peer", "Receiver", "parse_peer"]

_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_OUT_OF_RESOURCES, _CANNOT_UNDERSTAND = 0xA700, 0xC000


@dataclass(frozen=True)
class DimseTls:
    """Certificates for both directions; a peer must have one of the authority.

    Args:
        certificate: of this program.
        key: of it.
        ca: the authority.
    """

    certificate: Path
    key: Path
    ca: Path

    def context(self, server: bool) -> ssl.SSLContext:
        """For the receiver, or for sending."""
        purpose = ssl.Purpose.CLIENT_AUTH if server else ssl.Purpose.SERVER_AUTH
        context = ssl.create_default_context(purpose, cafile=str(self.ca))
        context.load_cert_chain(str(self.certificate), str(self.key))
        context.verify_mode = ssl.CERT_REQUIRED
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        return context


@dataclass(frozen=True)
class Peer:
    """Another application entity.

    Args:
        host: its address.
        port: its port.
        title: its AE title.
        ours: the title that we call ourselves.
        tls: None for plain DIMSE.
    """

    host: str
    port: int
    title: str
    ours: str
    tls: DimseTls | None = None

    def send(self, files: Sequence[Path]) -> None:
        """C-STORE files, one after the other.

        Raises:
            ArchiveError: it cannot be reached, or refuses one.
        """
        if not files:
            return
        headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in files]
        kinds = dict.fromkeys((str(one.SOPClassUID), str(one.file_meta.TransferSyntaxUID)) for one in headers)
        association = self._associate([(kind, [syntax]) for kind, syntax in kinds])
        try:
            for path in files:
                sent = association.is_established and association.send_c_store(pydicom.dcmread(path))
                code = sent.get("Status") if sent else None
                if code is None:
                    raise ArchiveError("The archive ended the association before it had answered.")
                if code != 0 and code >> 12 != 0xB:
                    raise ArchiveError(f"The archive refused a result (status 0x{code:04X}).")
        finally:
            association.release() if association.is_established else None

    def count(self, study_uid: str, series_uid: str) -> int | None:
        """How many images of a series it has, by C-FIND; None when it does not tell."""
        from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind as Find

        try:
            association = self._associate([(str(Find), None)])
        except ArchiveError:
            return None
        query = Dataset()
        query.QueryRetrieveLevel = "SERIES"
        query.StudyInstanceUID, query.SeriesInstanceUID = study_uid, series_uid
        query.NumberOfSeriesRelatedInstances = None
        try:
            for _, found in association.send_c_find(query, Find):
                if found is not None and found.get("NumberOfSeriesRelatedInstances") is not None:
                    return int(found.NumberOfSeriesRelatedInstances)
        except Exception:  # an odd answer is none
            return None
        finally:
            association.release() if association.is_established else None
        return None

    def _associate(self, contexts: Sequence[tuple[str, list[str] | None]]) -> Any:
        quiet_logs()
        from pynetdicom import AE

        entity = AE(ae_title=self.ours)
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 60
        entity.connection_timeout = 20
        for kind, syntaxes in contexts:
            entity.add_requested_context(kind, syntaxes) if syntaxes else entity.add_requested_context(kind)
        tls = None if self.tls is None else (self.tls.context(server=False), self.host)
        try:
            association = entity.associate(self.host, self.port, ae_title=self.title, tls_args=tls)
        except (OSError, RuntimeError, ValueError) as error:
            raise ArchiveError(f"The archive cannot be reached ({type(error).__name__}).") from None
        if association.is_rejected:
            raise ArchiveError("The archive rejected the association: it must know this program's AE title.")
        if association.rejected_contexts:
            kinds = dict.fromkeys(UID(context.abstract_syntax).name for context in association.rejected_contexts)
            association.release() if association.is_established else None
            raise ArchiveError(f"The archive does not take {', '.join(kinds)} in the form in which it would be sent.")
        if not association.is_established:
            raise ArchiveError("The archive cannot be reached.")
        return association


def parse_peer(text: str, ours: str, tls: DimseTls | None = None) -> Peer:
    """Read ``HOST:PORT:AE``.

    Raises:
        ValueError: it is not of that form.
    """
    match = re.fullmatch(r"([^:\s]+|\[[0-9a-fA-F:]+\]):(\d{1,5}):([\x20-\x7e]{1,16})", text)
    if match is None or not 0 < int(match[2]) < 65536:
        raise ValueError(f"{text[:60]!r} is not HOST:PORT:AE, such as 127.0.0.1:4242:ORTHANC.")
    return Peer(match[1].strip("[]"), int(match[2]), match[3].strip(), ours, tls)


class Receiver:
    """A C-STORE and C-ECHO server that puts every image into a spool.

    All storage classes and transfer syntaxes are taken, so that nothing is transcoded on the way; what is no image to
    score is answered with success and dropped.

    Args:
        spool: where images go.
        title: our AE title; calls of others are rejected.
        port: to listen at.
        host: address to listen at.
        accept: AE titles that may call; none: all, on loopback alone.
        tls: None for plain DIMSE.
        network: listen at an address that is not loopback.

    Raises:
        ValueError: the address is not loopback, and that was not asked for, or nobody is named who may call.
        RuntimeError: pynetdicom is missing.
        OSError: the port cannot be had.
    """

    def __init__(
        self,
        spool: Spool,
        title: str,
        port: int,
        host: str = "127.0.0.1",
        accept: Sequence[str] = (),
        tls: DimseTls | None = None,
        network: bool = False,
    ) -> None:
        try:
            from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts, evt
        except ModuleNotFoundError as error:
            raise RuntimeError("DIMSE needs pynetdicom: pip install pynetdicom.") from error
        if host not in _LOOPBACK:
            if not network:
                raise ValueError(f"{host!r} is not loopback: others could send images. --allow-network allows it.")
            if not accept:
                raise ValueError("On a network name who may send: --accept AET.")
        quiet_logs()
        self.spool = spool
        self.received = self.ignored = 0
        self.last_problem = ""
        self._entity = AE(ae_title=title)
        self._entity.require_called_aet = True
        self._entity.require_calling_aet = list(accept)
        self._entity.maximum_pdu_size = 0
        self._entity.network_timeout = 300
        for context in AllStoragePresentationContexts:
            self._entity.add_supported_context(str(context.abstract_syntax), ALL_TRANSFER_SYNTAXES)
        self._entity.add_supported_context("1.2.840.10008.1.1")  # verification
        self._server = self._entity.start_server(
            (host, port),
            block=False,
            ssl_context=None if tls is None else tls.context(server=True),
            evt_handlers=[(evt.EVT_C_STORE, self._store)],
        )

    def close(self) -> None:
        """Stop listening; an image that is being received is not kept."""
        self._entity.shutdown()

    def _store(self, event: Any) -> int:
        try:
            kept = self.spool.put(event.encoded_dataset())
        except OSError:
            self.last_problem = "An image could not be kept: the disk is full or failing."
            return _OUT_OF_RESOURCES
        except Exception as error:  # whatever an odd object makes pydicom raise
            self.last_problem = f"An object could not be read ({type(error).__name__})."
            return _CANNOT_UNDERSTAND
        if kept:
            self.received += 1
        else:
            self.ignored += 1
        return 0
