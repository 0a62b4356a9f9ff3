# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""OHIF as it comes with MONAI Label, fitted to this server: address, strategy, colours, scores, no outside fonts.

The panel of MONAI Label 0.8.5 asks port 8000 whatever the server's port is, takes samples at random, and makes colours
from the letters of a label's name: ``anomaly`` is nearly black. All of that is written in one script, as plain text.
"""

from __future__ import annotations

import json
import logging
import mimetypes
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.responses import FileResponse, Response

from monai_anomalyclip.transforms.annotation_answer import level_names

__all__ = ["COLOURS", "fit_ohif", "fitted"]

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
