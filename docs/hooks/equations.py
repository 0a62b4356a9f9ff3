# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Equations of the documentation as MathML, which browsers show by themselves: no script, no network."""

from __future__ import annotations

import html
import re
from typing import Any

from latex2mathml.converter import convert

# What pymdownx.arithmatex makes of $...$ and $$...$$ when it is "generic".
_EQUATION = re.compile(r'<(span|div) class="arithmatex">(.*?)</\1>', re.DOTALL)


def on_page_content(html: str, **_: Any) -> str:
    """Replace the equations of a page."""
    return _EQUATION.sub(_mathml, html)


def _mathml(match: re.Match[str]) -> str:
    tag, text = match.groups()
    latex = html.unescape(text).strip()[2:-2]  # without \( \) or \[ \]
    display = "block" if tag == "div" else "inline"
    return f'<{tag} class="equation">{convert(latex, display=display)}</{tag}>'
