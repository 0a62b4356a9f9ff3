# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""``monai-anomalyclip serve``: images by C-STORE in, results by C-STORE or STOW-RS out."""

from __future__ import annotations

import argparse
import re
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monai_anomalyclip import RESEARCH_USE_ONLY
from monai_anomalyclip.cli.options import add_model_options, run_options
from monai_anomalyclip.cli.plain_messages import plain_messages
from monai_anomalyclip.cli.program import lasting_imports

__all__ = ["add_command"]

_EXAMPLES = """examples:
  monai-anomalyclip serve --aet ANOMALY --port 11112 --send-to 127.0.0.1:4242:ORTHANC --spool spool
  monai-anomalyclip serve --aet ANOMALY --port 11112 --send-to http://127.0.0.1:8042/dicom-web --spool spool
"""


def add_command(commands: Any) -> None:
    """Add the command to the sub-parsers of the program."""
    parser = commands.add_parser(
        "serve",
        help="receive studies by C-STORE, score them, and send the results to an archive (extra: dimse)",
        description=(
            "A DICOM node: images of every transfer syntax are received into a spool folder, which survives a crash. "
            "When a study has been quiet for a while, and the archive has no more of it, it is scored, and "
            "segmentation (SEG) and report (SR) are sent. Later images make new results that supersede the old. "
            "Results, secondary captures and the like are taken and dropped, so that an archive that forwards all it "
            f"gets ends. Listens on loopback unless told otherwise. {RESEARCH_USE_ONLY}"
        ),
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--aet", required=True, type=_title, help="our AE title; calls of others are rejected")
    parser.add_argument("--port", type=int, default=11112, help="to listen at (default: 11112)")
    parser.add_argument(
        "--send-to", required=True, metavar="HOST:PORT:AE", help="archive that gets the results; or a DICOMweb URL"
    )
    parser.add_argument("--spool", type=Path, default=Path("spool"), metavar="DIR", help="folder of what was received")
    parser.add_argument("--bind", default="127.0.0.1", metavar="ADDRESS", help="to listen at (default: 127.0.0.1)")
    parser.add_argument("--allow-network", action="store_true", help="listen at an address that is not loopback")
    parser.add_argument(
        "--accept", type=_title, action="append", default=[], metavar="AET", help="who may send; several times"
    )
    parser.add_argument("--quiet", type=_seconds, default=60.0, metavar="S", help="without an image: complete (60)")
    parser.add_argument(
        "--patience", type=_seconds, default=1800.0, metavar="S", help="to wait for images the archive has (1800)"
    )
    parser.add_argument(
        "--keep", type=_seconds, default=86400.0, metavar="S", help="images of a study that is done are kept (86400)"
    )
    parser.add_argument("--no-count", action="store_true", help="do not ask the archive how many images a series has")
    parser.add_argument("--health-port", type=int, default=0, metavar="PORT", help="JSON on 127.0.0.1 (0: none)")
    parser.add_argument("--tls-cert", type=Path, metavar="FILE", help="certificate, for receiving and sending")
    parser.add_argument("--tls-key", type=Path, metavar="FILE", help="its key")
    parser.add_argument("--tls-ca", type=Path, metavar="FILE", help="authority that peers' certificates must be of")
    add_model_options(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from monai_anomalyclip.archive.dicomweb import quiet_logs

    quiet_logs()
    with plain_messages(arguments.verbose):
        with lasting_imports():
            from monai_anomalyclip.archive.dimse import Receiver
            from monai_anomalyclip.archive.results import ARCHIVE_IDS
            from monai_anomalyclip.archive.service import Health, Service, serve_health
            from monai_anomalyclip.archive.spool import Spool
            from monai_anomalyclip.engines.fault_tolerant_evaluator import stopped_by_signals
            from monai_anomalyclip.scale.warm_run import WarmRun

        tls = _tls(arguments)
        send, count = _archive(arguments, tls)
        spool = Spool(arguments.spool)
        run = WarmRun(run_options(arguments, ARCHIVE_IDS))
        service = Service(
            spool, run, send, None if arguments.no_count else count, arguments.quiet, arguments.patience, arguments.keep
        )
        receiver = Receiver(
            spool, arguments.aet, arguments.port, arguments.bind, arguments.accept, tls, arguments.allow_network
        )

        def health() -> Health:
            service.health.extra = {"received": receiver.received, "ignored": receiver.ignored}
            return service.health

        page = serve_health(arguments.health_port, health) if arguments.health_port else None
        print(f"{arguments.aet} listens at {arguments.bind}:{arguments.port}. {RESEARCH_USE_ONLY}", flush=True)
        try:
            with stopped_by_signals():
                service.forever(threading.Event())
        finally:
            receiver.close()
            if page is not None:
                page.shutdown()
    return 0


def _archive(arguments: argparse.Namespace, tls: Any) -> tuple[Any, Any]:
    if arguments.send_to.startswith(("http://", "https://")):
        from monai_anomalyclip.archive.dicomweb import ArchiveError, DicomWebArchive, FoundSeries, Tls

        web = DicomWebArchive(arguments.send_to, Tls(arguments.tls_ca, arguments.tls_cert, arguments.tls_key))

        def count(study_uid: str, series_uid: str) -> int | None:
            try:
                return len(web.instances(FoundSeries(study_uid, series_uid))) or None
            except ArchiveError:  # it may know no search; whether it can be reached is told when results are sent
                return None

        return web.store, count
    from monai_anomalyclip.archive.dimse import parse_peer

    peer = parse_peer(arguments.send_to, arguments.aet, tls)
    return peer.send, peer.count


def _tls(arguments: argparse.Namespace) -> Any:
    from monai_anomalyclip.archive.dimse import DimseTls

    given: Sequence[Path | None] = (arguments.tls_cert, arguments.tls_key, arguments.tls_ca)
    if not any(given):
        return None
    if not all(given):
        raise ValueError("TLS needs all of --tls-cert, --tls-key and --tls-ca.")
    return DimseTls(*(path for path in given if path is not None))


def _title(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_. -]{1,16}", text) or not text.strip():
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is no AE title: 1 to 16 letters and digits")
    return text.strip()


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1e9:
        raise argparse.ArgumentTypeError(f"{text[:20]!r} is no number of seconds")
    return value
