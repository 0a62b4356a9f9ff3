# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""compose.yaml: what is opened, and that the commands are ours."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from monai_anomalyclip.archive.dimse import Receiver, parse_peer
from monai_anomalyclip.archive.service import Health, serve_health
from monai_anomalyclip.archive.spool import Spool
from monai_anomalyclip.cli.program import program_parser

REPOSITORY = Path(__file__).parents[2]
COMPOSE = yaml.safe_load((REPOSITORY / "compose.yaml").read_text())


def test_services_are_reached_from_this_computer_alone() -> None:
    for name, service in COMPOSE["services"].items():
        assert all(str(port).startswith("127.0.0.1:") for port in service.get("ports", [])), name
        assert not service.get("privileged")
        assert "network_mode" not in service


def test_our_services_are_read_only_and_parse() -> None:
    assert set(COMPOSE["services"]) == {"orthanc", "serve", "label"}
    serve = COMPOSE["services"]["serve"]
    assert serve["read_only"] is True
    assert serve["cap_drop"] == ["ALL"]
    given = program_parser().parse_args(serve["command"])
    assert given.command == "serve"
    assert parse_peer(given.send_to, given.aet).host in COMPOSE["services"]
    assert f"{given.spool}" in {volume.split(":")[1] for volume in serve["volumes"]}


def test_archive_and_receiver_know_each_other() -> None:
    """By the names and titles with which each calls the other."""
    serve, archive = COMPOSE["services"]["serve"], COMPOSE["services"]["orthanc"]["environment"]
    given = program_parser().parse_args(serve["command"])
    ((title, host, port),) = json.loads(archive["ORTHANC__DICOM_MODALITIES"]).values()
    assert (title, port) == (given.aet, given.port)
    assert COMPOSE["services"][host] is serve
    assert given.accept == [archive["ORTHANC__DICOM_AET"]] == [parse_peer(given.send_to, given.aet).title]


def test_receiver_listens_as_it_is_told(tmp_path: Path) -> None:
    given = program_parser().parse_args(COMPOSE["services"]["serve"]["command"])
    spool = Spool(tmp_path / "spool")
    Receiver(spool, given.aet, 0, given.bind, given.accept, network=given.allow_network).close()
    with pytest.raises(ValueError, match="name who may send"):
        Receiver(spool, given.aet, 0, given.bind, (), network=given.allow_network)


@pytest.mark.parametrize(("problem", "status"), [("", 0), ("The archive cannot be reached.", 1)])
def test_health_check(problem: str, status: int) -> None:
    serve = COMPOSE["services"]["serve"]
    given = program_parser().parse_args(serve["command"])
    kind, program, *words = serve["healthcheck"]["test"]
    assert (kind, program) == ("CMD", "python")
    page = serve_health(0, lambda: Health(problem=problem))
    here = [word.replace(f":{given.health_port}/", f":{page.server_address[1]}/") for word in words]
    assert here != words
    try:
        asked = subprocess.run([sys.executable, *here], capture_output=True, timeout=60)
    finally:
        page.shutdown()
        page.server_close()
    assert asked.returncode == status
