# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Links from the documentation to other files of the repository: to a notebook's page, else to a copy in the site."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

REPOSITORY = Path(__file__).parents[2]
DOCS = REPOSITORY / "docs"
_LINK = re.compile(r"\]\((?!\w+:|#)([^)#\s]+)((?:#[^)\s]*)?)\)")


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files, **_: Any) -> str:
    """Redirect the links of a page that leave the folder of the documentation."""
    if page.file.abs_src_path is None:  # made by another hook
        return markdown
    folder = Path(page.file.abs_src_path).parent

    def redirected(match: re.Match[str]) -> str:
        target, anchor = Path(os.path.normpath(folder / match[1])), match[2]
        if target.is_relative_to(DOCS) or not target.is_relative_to(REPOSITORY) or not target.is_file():
            return match[0]  # the strict build says what is wrong with it
        if target.suffix == ".ipynb":
            place = f"tutorials/{target.stem}.md"
        else:
            # As text, which a browser shows, whatever the file is.
            place = f"repository/{target.relative_to(REPOSITORY)}.txt"
            if files.get_file_from_path(place) is None:
                files.append(File.generated(config, place, abs_src_path=str(target)))
        return f"]({os.path.relpath(DOCS / place, folder)}{anchor})"

    return _LINK.sub(redirected, markdown)
