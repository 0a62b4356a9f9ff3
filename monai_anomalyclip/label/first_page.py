# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The first page of the MONAI Label server: where to go from here. MONAI Label's own loads scripts from the network."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse

from monai_anomalyclip import RESEARCH_USE_ONLY

__all__ = ["add_first_page", "first_page"]

_STYLE = (
    "body{max-width:46rem;margin:2rem auto;padding:0 1rem;font:16px/1.5 system-ui,sans-serif;color-scheme:light dark}"
    "code,td{font-size:.9rem}td{padding:.1rem .8rem .1rem 0;vertical-align:top}"
    "strong.notice{display:block;margin:1rem 0}"
)
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


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
