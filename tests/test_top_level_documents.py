# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""What the documents beside the README must say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

import monai_anomalyclip

REPOSITORY = Path(__file__).parents[1]
DOCUMENTS = ("MODEL_CARD.md", "THIRD_PARTY.md", "SECURITY.md", "docs/weights.md")


def text(name: str) -> str:
    return " ".join((REPOSITORY / name).read_text(encoding="utf-8").replace(">", " ").split())


def test_citation_is_complete() -> None:
    """The keys that the Citation File Format 1.2.0 requires, with the types that it prescribes."""
    content = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text(encoding="utf-8"))
    assert content["cff-version"] == "1.2.0"
    assert content["type"] in ("software", "dataset")
    assert content["version"] == monai_anomalyclip.__version__
    for reference in (content, content["preferred-citation"]):
        assert isinstance(reference["title"], str)
        assert reference["authors"]
        assert all(set(author) <= {"name", "family-names", "given-names"} for author in reference["authors"])
    assert isinstance(content["message"], str)
    assert content["preferred-citation"]["type"] == "conference-paper"
    assert isinstance(content["preferred-citation"]["year"], int)
    assert content["license"] == "Apache-2.0"


@pytest.mark.parametrize("name", ["MODEL_CARD.md", "SECURITY.md", "docs/weights.md"])
def test_research_use_only(name: str) -> None:
    assert "Research use only" in text(name)


def test_model_card_cites_the_negative_result_and_claims_none() -> None:
    card = text("MODEL_CARD.md")
    assert "falls short of the precision required for clinical use" in card
    assert "2411.09310" in card
    assert "No result with pretrained CLIP weights has been measured in this project." in card


def test_notices_name_the_owners() -> None:
    for name in ("THIRD_PARTY.md", "monai_anomalyclip/weights/licences.md"):
        notices = text(name)
        assert "Copyright (c) 2021 OpenAI" in notices
        assert "Copyright (c) 2024 Qihang Zhou" in notices
        assert "Permission is hereby granted, free of charge" in notices
        assert 'THE SOFTWARE IS PROVIDED "AS IS"' in notices


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_somewhere(name: str) -> None:
    path = REPOSITORY / name
    for target in re.findall(r"\]\(([^)#]+)\)", path.read_text(encoding="utf-8")):
        assert target.startswith("https://") or (path.parent / target).exists(), target


def test_what_runs_by_a_mark_leaves_out_what_runs_at_night() -> None:
    """``-m`` on a command line takes the place of the one in pyproject.toml, which excludes the nightly tests."""
    marks = re.findall(r'pytest -m ("[^"]*"|\S+)', (REPOSITORY / "Makefile").read_text(encoding="utf-8"))
    assert marks
    assert all("not nightly" in mark for mark in marks if mark != "notebooks"), marks
