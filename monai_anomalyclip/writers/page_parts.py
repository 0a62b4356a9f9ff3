# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""What pages are put together from: templates, style and scripts, with the digests that their content policy names."""

from __future__ import annotations

import base64
import functools
import hashlib
from pathlib import Path
from typing import NamedTuple

import jinja2
from matplotlib import colormaps

__all__ = ["Inline", "script", "style", "template"]


class Inline(NamedTuple):
    """A text for a `style` or `script` element, and its digest for the page's content policy."""

    text: str
    digest: str

    @classmethod
    def of(cls, text: str) -> Inline:
        """With the SHA-256 that browsers compare."""
        return cls(text, base64.b64encode(hashlib.sha256(text.encode()).digest()).decode())


@functools.cache
def style(*names: str) -> Inline:
    """The style sheets of these names, one after the other."""
    return Inline.of("".join(_read(f"{name}.css") for name in names))


@functools.cache
def script(*names: str) -> Inline:
    """The scripts of these names, after the 256 colours of the map (matplotlib's inferno) as ``VIEWER_COLOURS``."""
    shades = (colormaps["inferno"](range(256))[:, :3] * 255).round().astype(int).ravel().tolist()
    colours = f"const VIEWER_COLOURS = [{','.join(map(str, shades))}];\n"
    return Inline.of(colours + "".join(_read(f"{name}.js") for name in names))


@functools.cache
def template(name: str, package: str = "monai_anomalyclip.writers") -> jinja2.Template:
    """A template in the folder of a package; what it shows is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(package, ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)


def _read(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")
