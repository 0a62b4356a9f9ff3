# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""compose.yaml: what is opened, and that the commands are ours."""

from __future__ import annotations

from pathlib import Path

import yaml

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
    parsed = program_parser().parse_args(serve["command"])
    assert parsed.command == "serve"
    assert "healthcheck" in serve
