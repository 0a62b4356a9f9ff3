# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The server's pages: the first one, and OHIF as it comes with MONAI Label, fitted to this server.

MONAI Label's own first page loads scripts from the network. Its panel in OHIF (0.8.5) asks port 8000 whatever the
server's port is, takes samples at random, and makes colours from the letters of a label's name: ``anomaly`` is nearly
black. All of that is written in one script, as plain text.
"""

from __future__ import annotations

import json
import logging
import mimetypes
import re
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, HTMLResponse, Response

from monai_anomalyclip import RESEARCH_USE_ONLY
from monai_anomalyclip.transforms.annotation_answer import level_names

__all__ = ["COLOURS", "add_first_page", "first_page", "fit_ohif", "fitted"]

logger = logging.getLogger(__name__)

COLOURS = {"anomaly": "#ff4000", **dict(zip(level_names(), ("#ffe600", "#ff9500", "#ff2a00"), strict=True))}
"""Bright ones, which are seen on black lungs and on white brains; the levels go from yellow to red."""

# Fonts of Google, in the page and in a style sheet; the system's take their place.
_FROM_AFAR = re.compile(r"""<link\b[^>]*\bhref=["']https?:[^>]*>|@import url\(["']?https?:[^)]*\)[^;]*;""")
_ROWS = {"anomaly_score": "Anomaly score", "anomaly_slice": "Most suspicious slice (from 0)"}
_CHANGES = (
    ("'http://' + window.location.host.split(':')[0] + ':8000/'", "window.location.origin + '/'"),
    ("strategy: 'random',", "strategy: 'highest_score',"),
    (
        "const GenericAnatomyColors = [",
        f"const GenericAnatomyColors = {json.dumps([{'label': k, 'value': v} for k, v in COLOURS.items()])[:-1]}, ",
    ),
    ("Modality: 'Modality',", f"{json.dumps(_ROWS)[1:-1]}, Modality: 'Modality',"),
)


_STYLE = (
    "body{max-width:46rem;margin:2rem auto;padding:0 1rem;font:16px/1.5 system-ui,sans-serif;color-scheme:light dark}"
    "code,td{font-size:.9rem}td{padding:.1rem .8rem .1rem 0;vertical-align:top}"
    "strong.notice{display:block;margin:1rem 0}"
)
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


def fitted(script: str) -> str:
    """The panel's script with what is told above; a text that is not in it changes nothing, and is logged.

    Args:
        script: JavaScript.
    """
    for old, new in _CHANGES:
        if old not in script:
            logger.warning(f"OHIF's panel has not the text {old!r}: that part of it stays as it is.")
        script = script.replace(old, new)
    return script


def fit_ohif(application: FastAPI, folder: Path, checks: Sequence[Any] = ()) -> None:
    """Answer ``/ohif/`` before MONAI Label's own route does: the panel fitted, and a page that loads nothing from afar.

    Args:
        application: MONAI Label's.
        folder: where MONAI Label keeps OHIF's files.
        checks: FastAPI's dependencies, which look at a request first.
    """
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    changed: dict[str, str] = {}
    for name in (name for name in files if "/" not in name and name.endswith((".css", ".html", ".js"))):
        text = files[name].read_text(encoding="utf-8", errors="replace")
        if name.endswith(".js") and "class MonaiLabelPanel" in text:
            changed[name] = fitted(text)
        elif not name.endswith(".js") and _FROM_AFAR.search(text):
            changed[name] = _FROM_AFAR.sub("", text)

    def answer(path: str) -> Response:
        name = path if path in files else "index.html"  # OHIF finds its way from there by the address
        if name not in changed:
            return FileResponse(files[name])
        kind = mimetypes.guess_type(name)[0]
        return Response(changed[name], media_type=kind, headers={"Cache-Control": "no-cache"})

    application.router.add_api_route(
        "/ohif/{path:path}", answer, dependencies=list(checks), include_in_schema=False, response_model=None
    )
    application.router.routes.insert(0, application.router.routes.pop())


def first_page(address: str, archive: bool, routes: Iterable[tuple[str, str]]) -> str:
    """The page as HTML.

    Args:
        address: of the server, as its clients write it.
        archive: whether the studies come from a DICOMweb archive.
        routes: methods and paths that the server answers.
    """
    if archive:
        ohif = (
            '<a href="/ohif/">Open OHIF</a>, double-click a study, and press <em>MONAI Label</em>. In the panel on the '
            "right, press the arrow beside the server's address, then <em>Run</em>."
        )
    else:
        ohif = (
            "shows studies of a DICOMweb archive only, and this server has a folder of files: "
            "start it with the address of an archive (<code>--studies http://127.0.0.1:8042/dicom-web</code>)."
        )
    rows = "".join(f"<tr><td>{escape(method)}</td><td><code>{escape(path)}</code></td></tr>" for method, path in routes)
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Anomalies with MONAI Label</title><style>{_STYLE}</style></head><body>
<h1>Anomalies with MONAI Label</h1>
<strong class="notice">{escape(RESEARCH_USE_ONLY)}</strong>
<p>The server is running. It answers viewers, in which proposals are looked at and corrected:</p>
<dl>
<dt><strong>3D Slicer</strong></dt><dd>Install the extension <em>MONAILabel</em>, open its module, write
<code>{escape(address)}</code> as the server, and press the green arrow. <em>Next Sample</em> loads an image,
<em>Run</em> proposes, <em>Submit Label</em> sends the correction, <em>Train</em> tunes the prompts.</dd>
<dt><strong>OHIF</strong></dt><dd>{ohif} It shows proposals; corrections are made in 3D Slicer.</dd>
<dt><strong>Programs</strong></dt><dd><a href="/info/">What the server offers</a>, as JSON;
<a href="/openapi.json">all of its interface</a>.</dd>
</dl>
<h2>Interface</h2>
<table>{rows}</table>
</body></html>
"""


def add_first_page(application: FastAPI, archive: bool) -> None:
    """Put the page in the place of MONAI Label's own, which are blank without the network: ``/`` and ``/docs``.

    Args:
        application: MONAI Label's.
        archive: whether the studies come from a DICOMweb archive.
    """
    kept = [route for route in application.routes if getattr(route, "path", "") not in ("/", "/docs", "/redoc")]
    application.router.routes[:] = kept
    shown = [
        (", ".join(sorted(route.methods - {"HEAD"})), route.path)
        for route in kept
        if getattr(route, "methods", None) and getattr(route, "include_in_schema", False)
    ]

    def answer(request: Request) -> HTMLResponse:
        address = str(request.base_url).rstrip("/")
        text = first_page(address, archive, shown)
        return HTMLResponse(text, headers={"Content-Security-Policy": _POLICY, "Referrer-Policy": "no-referrer"})

    for path in ("/", "/docs"):
        application.router.add_api_route(path, answer, include_in_schema=False, response_model=None)
