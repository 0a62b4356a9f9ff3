# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import base64
import hashlib
import json
import re

import jinja2
import pytest
from matplotlib import colormaps

from monai_anomalyclip.writers.html_report import script, style, template


def test_digests_are_those_that_browsers_compare() -> None:
    for part in (style("report"), style("report", "viewer"), script("viewer", "report")):
        assert base64.b64decode(part.digest) == hashlib.sha256(part.text.encode()).digest()
    assert style("report", "viewer").text.startswith(style("report").text)


def test_scripts_know_the_colours_of_the_map() -> None:
    found = re.match(r"const VIEWER_COLOURS = (\[.*?\]);\n", script("viewer").text)
    assert found
    colours = json.loads(found[1])
    assert len(colours) == 3 * 256
    for value in (0, 100, 255):
        assert colours[3 * value : 3 * value + 3] == [round(255 * part) for part in colormaps["inferno"](value)[:3]]


def test_templates_escape_and_are_strict() -> None:
    page = template("viewer.html.jinja")
    with pytest.raises(jinja2.UndefinedError):
        page.render()
    given = {"notice": "n", "style": style("report"), "script": script("viewer"), "preview": "{}", "home": "r"}
    shown = page.render(name="<b>", caution="", **given)
    assert "<title>&lt;b&gt;</title>" in shown
    assert shown.count("<strong>") == 1
    assert "<strong>a &amp; b</strong>" in page.render(name="<b>", caution="a & b", **given)
