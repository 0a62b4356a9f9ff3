# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""A headless Chromium for tests of pages, driven by Playwright; tests that ask for it skip where one is missing."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

_OPTIONS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip


def until(page: Any, expression: str, seconds: float = 300) -> None:
    """Wait until an expression is true on a page: Playwright's own way needs what strict content policies forbid."""
    end = time.monotonic() + seconds
    while not page.evaluate(expression):
        assert time.monotonic() < end, f"{expression} did not come true; {page.inner_text('body')[:2000]}"
        page.wait_for_timeout(30)


def patient(opening: Callable[..., Any]) -> Callable[..., Any]:
    """What opens pages, so that they wait longer than Playwright's half minute: the machine may have other work."""

    def opened(**settings: Any) -> Any:
        place = opening(**settings)
        place.set_default_timeout(300_000)
        return place

    return opened


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Of a module, not of the session: Playwright's event loop would be in the way of tests that run one."""
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.skip("no Chromium on this machine (apt-get install chromium)")
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=program, args=list(_OPTIONS))
        opened.new_page, opened.new_context = patient(opened.new_page), patient(opened.new_context)
        yield opened
        opened.close()
