# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Make the pictures of pages that the documentation shows (`make screenshots`), on the demonstration's phantoms.

Needs Chromium and Playwright; the prompts are those that `make demo` tuned. Pictures of OHIF also need MONAI Label's
environment (`make label-env`) and Orthanc, and stay as they are without.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from monai_anomalyclip import predict
from monai_anomalyclip.app.serving import Server
from monai_anomalyclip.demo.archive import PLUGIN
from tools import ohif

REPOSITORY = Path(__file__).parents[1]
BUNDLE = REPOSITORY / "bundles" / "anomalyclip_demo"
_OPTIONS = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")


def main(arguments: Sequence[str] | None = None) -> int:
    """Make them."""
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=REPOSITORY / "docs" / "images", help="folder of pictures")
    parser.add_argument("--inputs", type=Path, default=BUNDLE / "data" / "inference", help="images to show")
    parser.add_argument("--prompts", type=Path, default=BUNDLE / "models" / "model.pt", help="tuned prompts")
    given = parser.parse_args(arguments)
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        parser.error("Chromium is not installed (apt-get install chromium)")
    given.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=list(_OPTIONS))
        page = browser.new_page(viewport={"width": 1180, "height": 900}, bypass_csp=True)
        page.emulate_media(reduced_motion="reduce")
        predict(given.inputs, Path(name) / "results", BUNDLE, prompts=given.prompts)
        _report(page, Path(name) / "results" / "report.html", given.output)
        words = ["--bundle", str(BUNDLE), "--prompts", str(given.prompts)]
        with Server(Path(name) / "app", words) as server:
            _app(page, server.address, given.inputs, given.output)
        browser.close()
        if (REPOSITORY / ".venv-label").is_dir() and shutil.which("Orthanc") and PLUGIN.is_file():
            with ohif.label_demo(Path(name) / "label") as address:
                browser = driver.chromium.launch(executable_path=program, args=list(ohif.CHROMIUM))
                _ohif(browser.new_page(viewport={"width": 1500, "height": 700}), address, given.output)
                browser.close()
    return 0


def _ohif(page: Any, address: str, output: Path) -> None:
    ohif.studies(page, address)
    for study, model, name in (
        (("CT",), "anomaly", "ohif_anomaly"),
        (("CT", "Lung"), "anomaly", "ohif_lung"),
        (("MR",), "anomaly_levels", "ohif_levels"),
    ):
        ohif.open_study(page, address, ohif.study_uid(address, *study))
        ohif.propose(page, model)
        page.wait_for_timeout(6000)  # until what the panel says of it has gone
        _save(page, output / f"{name}.png")


def _report(page: Any, report: Path, output: Path) -> None:
    page.goto(report.as_uri())
    _save(page, output / "report.png")
    article = page.locator("article", has_text="volume").first
    article.locator("button.open").click()
    article.locator(".place[data-shown]").wait_for()
    article.locator("[data-control='side by side']").check()
    article.evaluate("article => article.scrollIntoView()")
    _save(page, output / "report_viewer.png")


def _app(page: Any, address: str, inputs: Path, output: Path) -> None:
    page.goto(address)
    page.fill("#path", str(inputs.absolute()))
    page.click("#named button")
    page.wait_for_function("document.getElementById('state').innerText.startsWith('done')", timeout=600_000)
    page.fill("#path", "")
    page.locator("#inputs button").first.click()
    page.wait_for_selector("#viewer[data-shown]")
    page.eval_on_selector("#input", "section => section.scrollIntoView()")
    _save(page, output / "app_review.png")
    page.evaluate("scrollTo(0, 0)")
    _save(page, output / "app.png")


def _save(page: Any, path: Path) -> None:
    """In full colour: a palette would turn the map's few coloured pixels gray."""
    page.wait_for_timeout(300)
    page.screenshot(path=path)
    with Image.open(path) as picture:
        picture.convert("RGB").save(path, optimize=True)


if __name__ == "__main__":
    sys.exit(main())
