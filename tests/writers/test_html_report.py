# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import shutil
import subprocess
from collections.abc import Mapping
from datetime import datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from monai_anomalyclip import RESEARCH_USE_ONLY
from monai_anomalyclip.data.slicing import SliceView
from monai_anomalyclip.demo.volumes import make_volume
from monai_anomalyclip.writers import html_report
from monai_anomalyclip.writers.finished import InputState
from monai_anomalyclip.writers.html_report import VIEWER, KeptFiles, ReportSource, write_html_report
from monai_anomalyclip.writers.overlays import jpeg
from monai_anomalyclip.writers.record import InputRecord, Model
from monai_anomalyclip.writers.slice_pictures import montage
from monai_anomalyclip.writers.tables import RunDocument, made_with, ranked_records

VOID = {"meta", "br", "img", "input"}
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Page(HTMLParser):
    """Elements with their attributes, and the text outside of the style; fails on tags that do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names))
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.text += " ".join(data.split()) + "\n" if data.strip() else ""

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


def picture(seed: int = 0, size: tuple[int, int] = (320, 240)) -> bytes:
    return jpeg(np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8))


def volume(name: str, score: float | None, **changed: Any) -> InputRecord:
    fields: dict[str, Any] = {
        "name": name,
        "source": "dicom",
        "kind": "volume",
        "modality": "CT",
        "plane": "axial",
        "frames": 4,
        "scores": [0.1, score, 0.2, 0.1],
        "anomaly_score": score,
        "most_suspicious": [{"index": 1, "score": score}],
        "geometry": {
            "verdict": "gantry tilt",
            "spacing": [0.5, 0.5],
            "spacing_source": "Pixel Spacing",
            "slice_spacing": 5.0,
            "missing_slices": 0,
            "tilt_degrees": 12.0,
        },
        "intensity": {"preset": "ct-brain", "low": 0.0, "high": 80.0, "reason": "It was requested."},
        "threshold": 0.5,
        "threshold_source": "default",
        "anomalous_fraction": 0.01,
        "timings": {"read_s": 10, "score_s": 55, "write_s": 1.667},
        "warnings": ["The gantry was tilted."],
        "outputs": [f"{name}/seg.dcm"],
    }
    return InputRecord(**{**fields, **changed})


def document(inputs: list[InputRecord], **changed: Any) -> RunDocument:
    fields: dict[str, Any] = {
        "model": {
            "backbone": "ViT-L-14-336-quickgelu",
            "backbone_sha256": "0f" * 32,
            "prompts_sha256": None,
            "words": {"normal": ["object"], "abnormal": ["damaged object"]},
            "settings": {"image_size": 518},
        },
        "settings": {"preset": "auto", "formats": ["seg", "png"]},
        "device": "cpu",
        "started": "2026-01-02T03:04:05+00:00",
        "skipped": {},
        "inputs": inputs,
    }
    fields |= changed
    model, settings = Model(**fields["model"]), fields["settings"]
    made = made_with(model, settings, fields["device"])
    started = datetime.fromisoformat(fields["started"])
    return RunDocument.of(fields["inputs"], made, fields["skipped"], started)


def keep(folder: Path, pictures: Mapping[str, bytes], previews: Mapping[str, str] | None = None) -> None:
    """Put pictures and previews where `write` looks for them."""
    (folder / ".report").mkdir(exist_ok=True)
    for name, content in pictures.items():
        kept(folder, name).picture.write_bytes(content)
        kept(folder, name).thumbnail.write_bytes(THUMBNAIL)
    for name, preview in (previews or {}).items():
        kept(folder, name).preview.write_text(preview)


def kept(folder: Path, name: str) -> KeptFiles:
    short = folder / ".report" / name.replace("/", "_")
    return KeptFiles(short.with_suffix(".jpg"), short.with_suffix(".small.jpg"), short.with_suffix(".json"))


def source_of(folder: Path, inputs: list[InputRecord]) -> ReportSource:
    """What a folder of results gives of these inputs."""
    states = {record.name: InputState(name=record.name, state="finished", record=record) for record in inputs}
    failed = [record.name for record in inputs if record.status == "failed"]
    ranked = [record.name for record in ranked_records(inputs)]
    return ReportSource(ranked, failed, lambda names: [states[name] for name in names], lambda name: kept(folder, name))


def write(
    folder: Path,
    inputs: list[InputRecord],
    montages: Mapping[str, bytes],
    previews: Mapping[str, str] | None = None,
    **changed: Any,
) -> tuple[str, Page]:
    path = folder / "report.html"
    keep(folder, montages, previews)
    write_html_report(document(inputs, **changed), source_of(folder, inputs), path)
    text = path.read_text(encoding="utf-8")
    return text, Page(text)


THUMBNAIL = jpeg(np.full((48, 64, 3), 90, np.uint8))
CINE = InputRecord(
    name="clip",
    source="video",
    kind="cine",
    frames=3,
    scores=[0.1, 0.4, 0.2],
    times=[0, 0.5, 2],
    anomaly_score=0.4,
    most_suspicious=[{"index": 1, "score": 0.4}],
    outputs=["clip_overlay.mp4", "clip_frames.csv"],
)
FAILED = InputRecord(name="002_broken", source="dicom", status="failed", reason="The pixel data are truncated.")


def test_page_tells_what_was_found(tmp_path: Path) -> None:
    inputs = [volume("003_low", 0.3), CINE, FAILED, volume("001_high", 0.9), volume("004_none", None)]
    text, page = write(tmp_path, inputs, {"001_high": picture()}, skipped={"localizer": 2, "not DICOM": 1})
    assert text.startswith('<!DOCTYPE html>\n<html lang="en">')
    # Sorted by score, in the table and below, and linked.
    links = [link["href"] for link in page.all("a")]
    assert [link for link in links if link.startswith("#input-")] == [
        *(f"#input-{number}" for number in (1, 2, 3, 4)),  # the table
        *("#input-2", "#input-1", "#input-3", "#input-2", "#input-4", "#input-3"),  # from one to its neighbours
    ]
    order = ["001_high", "clip", "003_low", "004_none"]
    assert re.findall(r'<th scope="row"><a href="#input-\d">(.*?)</a>', text) == order
    assert re.findall(r'<h3 id="name-\d"><span class="rank">\d</span> (.*?)</h3>', text) == order
    assert [link for link in links if not link.startswith("#")] == [
        "001_high/seg.dcm",
        "clip_overlay.mp4",
        "clip_frames.csv",
        "003_low/seg.dcm",
        "004_none/seg.dcm",
    ]
    for phrase in (
        RESEARCH_USE_ONLY,
        "Anomaly scores are not calibrated",
        "anomaly score, not calibrated",
        "2026-01-02 03:04 UTC, 3 min 20 s, 4 inputs scored, 1 failed, 3 files skipped",
        "ViT-L-14-336-quickgelu",
        "0f" * 32,
        "not tuned",
        "damaged object",
        "002_broken",
        "The pixel data are truncated.",
        "localizer",
        "CT volume, 4 axial slices",
        "video, 3 frames, 2.0 s",
        "gantry tilt, tilted by 12.0°",
        "ct-brain, black at 0, white at 80",
        "It was requested.",
        "map ≥ 0.5",
        "The gantry was tilted.",
        "Anomaly score over time, the most suspicious marked",
        "Anomaly scores of 4 slices, from 0.100 to 0.900, the highest at slice 1.",
        "seg, png",
    ):
        assert phrase in page.text, phrase
    assert text.count('<p class="warning"') == 3
    assert len(page.all("img")) == 1
    assert oct((tmp_path / "report.html").stat().st_mode & 0o777) == "0o600"


def test_page_is_sound_and_stands_alone(tmp_path: Path) -> None:
    inputs = [volume("a", 0.5), volume("b/c", 0.6), CINE, FAILED]
    text, page = write(tmp_path, inputs, {"a": picture(), "b/c": picture(), "clip": picture()}, skipped={"x": 1})
    names = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(names) == len(set(names))
    for _, attributes in page.elements:
        for reference in attributes.get("aria-labelledby", "").split():
            assert reference in names
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
    assert all(link["href"][1:] in names for link in page.all("a") if link["href"].startswith("#"))
    assert {tag for tag, _ in page.elements}.isdisjoint({"iframe", "object", "embed", "link", "form", "base"})
    assert not [script for script in page.all("script") if "src" in script]
    assert not re.search(r"https?:|//[a-z]|@import|url\((?!#)", text.replace("http-equiv", ""))
    for image in page.all("img"):
        assert image["src"].startswith("data:image/jpeg;base64,")
        assert image["alt"]
        decoded = Image.open(io.BytesIO(base64.b64decode(image["src"].partition(",")[2])))
        assert decoded.size == (int(image["width"]), int(image["height"]))
        assert "loading" not in image  # a page that is printed or photographed as a whole shows it, too
    plots = [attributes for tag, attributes in page.elements if tag == "svg" and attributes.get("role") == "img"]
    assert len(plots) == 4  # one is the legend
    (policy,) = [meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    style = text[text.index("<style>") + 7 : text.index("</style>")]
    code = text[text.rindex("<script>") + 8 : text.rindex("</script>")]
    digest, run = (base64.b64encode(hashlib.sha256(part.encode()).digest()).decode() for part in (style, code))
    assert policy.split("; ") == [
        "default-src 'none'",
        "img-src data: file: 'self'",
        f"style-src 'sha256-{digest}'",
        f"script-src 'sha256-{run}'",
        "base-uri 'none'",
        "form-action 'none'",
    ]


def test_any_text_is_shown_as_it_is(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script><img src=x onerror='a'>\"><b>&amp; {{ 7 * 7 }} \udc80"
    one = volume(
        "a",
        0.5,
        warnings=[evil],
        split=evil,
        modality=evil,
        threshold_source=evil,
        intensity={"preset": evil, "low": None, "high": None, "reason": evil},
        transfer_syntaxes=[evil],
        files_used=2,
        geometry={"verdict": evil, "spacing_source": evil},
    )
    failed = InputRecord(name="b", source="frame", status="failed", reason=evil)
    text, page = write(
        tmp_path,
        [one, failed],
        {"a": picture()},
        skipped={evil: 1},
        device=evil,
        settings={evil: evil, "list": [evil], "map": {"x": evil}},
    )
    assert [script.get("type") for script in page.all("script")] == ["application/json", None]
    assert "alert(1)</script>" not in text
    assert not page.all("b")
    assert len(page.all("img")) == 1
    shown = evil.replace("\udc80", "\\udc80")
    assert page.text.count(shown) >= 12
    assert "{{ 7 * 7 }}" in text


def test_run_without_results(tmp_path: Path) -> None:
    _, page = write(tmp_path, [], {})
    assert "No input was scored." in page.text
    assert "0 inputs scored" in page.text
    assert not page.all("article")
    assert "Skipped files" not in page.text
    _, page = write(tmp_path, [FAILED], {"unknown": b"never looked at"})
    assert "0 inputs scored, 1 failed" in page.text


def test_many_inputs_are_on_several_pages(tmp_path: Path) -> None:
    inputs = [volume(f"{index:03d}", 0.001 * index, study=f"{index // 7:08x}") for index in range(230)]
    _, page = write(tmp_path, inputs, dict.fromkeys((f"{index:03d}" for index in range(230)), picture()))
    pages = [tmp_path / "report.html", tmp_path / "report" / "page_2.html", tmp_path / "report" / "page_3.html"]
    shown = [Page(path.read_text(encoding="utf-8")) for path in pages]
    assert [len(each.all("article")) for each in shown] == [100, 100, 30]
    titles = [
        re.findall(r'<h3 id="name-\d+"><span class="rank">(\d+)</span> (.*?)</h3>', path.read_text()) for path in pages
    ]
    assert [title for part in titles for title in part] == [
        (str(place), f"{230 - place:03d}") for place in range(1, 231)
    ]
    for path, each in zip(pages, shown, strict=True):
        for link in each.all("a"):
            target, _, place = link["href"].partition("#")
            if not target.endswith("seg.dcm"):  # the files are not there
                assert f'id="{place}"' in (path.parent / target if target else path).read_text(), link
    (table,) = re.findall(r'id="rows">(.*?)</script>', pages[0].read_text())
    rows = json.loads(table)
    assert [row[1] for row in rows] == [f"{index:03d}" for index in range(229, -1, -1)]
    assert rows[0][12] == "#input-1"
    assert rows[100][12] == "report/page_2.html#input-101"
    assert all((tmp_path / row[13]).is_file() for row in rows)
    rest = pages[0].stat().st_size - sum(len(image["src"]) for image in page.all("img"))
    assert rest / 230 < 6_000  # bytes of text and plot per input
    # A shorter report leaves no page of the longer one behind.
    write(tmp_path, inputs[:150], {})
    assert [path.is_file() for path in pages] == [True, True, False]
    write(tmp_path, inputs[:20], {})
    assert not (tmp_path / "report").exists()


def test_large_pictures_are_shrunk_no_more_than_they_must_be(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(picture(size=(1500, 1200)))
    large = html_report._picture("a", tmp_path / "a")
    assert large is not None
    assert 60_000 < len(base64.b64decode(large.address.partition(",")[2])) <= 160_000
    assert large.width / large.height == pytest.approx(1200 / 1500, abs=0.01)
    Image.new("P", (50, 30)).save(tmp_path / "b", "PNG")
    small = html_report._picture("b", tmp_path / "b")
    assert small is not None
    assert small[1:] == (50, 30)
    assert html_report._picture("c", tmp_path / "c") is None


def test_previews_beyond_the_room_get_pages_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(html_report, "_PREVIEWS_BYTES", 250)
    monkeypatch.setattr("monai_anomalyclip.writers.record._DEMONSTRATION", "0f" * 32)
    inputs = [volume(f"sub/{index}", 1 - 0.1 * index) for index in range(4)]
    previews = {record.name: json.dumps({"name": record.name, "fill": "x" * 80}) for record in inputs}
    (tmp_path / "sub").mkdir()
    text, page = write(tmp_path, inputs, {}, previews)
    embedded = re.findall(r'class="preview">(.*?)</script>', text)
    assert [json.loads(preview)["name"] for preview in embedded] == ["sub/0", "sub/1"]
    viewers = [tmp_path / f"sub/{index}{VIEWER}" for index in range(4)]
    assert [path.is_file() for path in viewers] == [False, False, True, True]
    assert [link["href"] for link in page.all("a") if link.get("class") == "open"] == [
        "sub/2_viewer.html", "sub/3_viewer.html",
    ]  # fmt: skip
    alone = viewers[2].read_text()
    assert RESEARCH_USE_ONLY in alone
    assert "its scores on real scans are meaningless" in alone
    assert previews["sub/2"] in alone
    assert 'href="../report.html"' in alone
    # One that is embedded now needs no page any more; a file that somebody else called so stays.
    monkeypatch.setattr(html_report, "_PREVIEWS_BYTES", 2**20)
    viewers[0].write_text("mine")
    write(tmp_path, inputs, {}, previews)
    assert [path.is_file() for path in viewers] == [True, False, False, False]


@pytest.mark.parametrize("content", [b"", b"GIF89a\x01\x00", picture()[:500]])
def test_broken_pictures_are_named(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ValueError, match="The picture of 'a' is neither PNG nor JPEG"):
        write(tmp_path, [volume("a", 0.5)], {"a": content})
    assert [path.name for path in tmp_path.iterdir()] == [".report"]


PROBE = """<!DOCTYPE html><iframe id="f" style="width:{width}px;height:3000px;border:0" src="report.html"></iframe>
<pre id="out"></pre><script>
function measure() {{
  const page = document.getElementById("f").contentDocument, root = page.documentElement, images = [...page.images];
  images.forEach(image => image.loading = "eager");
  if (!images.every(image => image.complete)) return setTimeout(measure, 50);
  const texts = [...page.querySelectorAll("p, td, th, dd, dt, h1, h2, h3, li, figcaption")];
  const cut = texts.filter(e => e.getBoundingClientRect().right > root.clientWidth + 1).map(e => e.textContent);
  document.getElementById("out").textContent = JSON.stringify({{
    viewport: root.clientWidth, content: root.scrollWidth, cut,
    smallest: Math.min(...[...page.querySelectorAll(".plot text")].map(e => e.getBoundingClientRect().height)),
    images: images.map(image => image.naturalWidth),
    ground: getComputedStyle(page.body).backgroundColor, ink: getComputedStyle(page.body).color,
    columns: getComputedStyle(page.querySelector(".columns")).gridTemplateColumns,
    scores: [...page.querySelectorAll(".ranking td.score")].map(e => e.textContent),
    said: page.querySelector(".compared").textContent,
  }});
}}
document.getElementById("f").onload = measure;
</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
@pytest.mark.parametrize(("width", "dark"), [(1200, False), (390, False), (390, True)])
def test_in_a_browser(tmp_path: Path, width: int, dark: bool) -> None:
    """Nothing is wider than the screen, all pictures show, the policy blocks nothing of the page."""
    phantom = make_volume("head_ct", 1, size=96, slices=8)
    heat = torch.from_numpy(phantom.mask).float()[None]
    view = SliceView.native(phantom.image.shape)
    tiles = jpeg(montage(torch.from_numpy(phantom.image)[None], heat, heat, view))
    long_name = "sub-01_ses-03_acq-highresolution_run-02_desc-preproc_" + "x" * 60
    compared = {"method": "reference", "score": 0.9, "p_value": 0.125, "k": 7, "says": "Far from all seven."}
    inputs = [volume("001_ab12cd34", 0.9, compared=[compared]), volume(long_name, 0.3), CINE, FAILED]
    write(
        tmp_path,
        inputs,
        {"001_ab12cd34": tiles, long_name: jpeg(np.zeros((200, 900, 3), np.uint8))},
        skipped={"not DICOM": 3},
    )
    (tmp_path / "probe.html").write_text(PROBE.format(width=width))
    assert CHROMIUM is not None
    options = [
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        "--allow-file-access-from-files",
        "--virtual-time-budget=5000",
        "--enable-logging=stderr",
        "--window-size=1400,3200",
        f"--user-data-dir={tmp_path / 'profile'}",
        f"--blink-settings=preferredColorScheme={0 if dark else 1}",
        "--dump-dom",
    ]
    command = [CHROMIUM, *options, (tmp_path / "probe.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(re.search(r'<pre id="out">(.*?)</pre>', done.stdout)[1].replace("&lt;", "<"))  # type: ignore[index]
    assert found["viewport"] == width
    assert found["content"] == width
    assert found["cut"] == []
    assert found["said"] == "Distance to normals: Far from all seven."
    assert found["scores"][0].replace("&nbsp;", " ") == "0.900 p 0.12"  # as the page's script draws it
    assert found["images"] == [64, 64, Image.open(io.BytesIO(tiles)).width, 900]  # two of them are thumbnails
    assert found["smallest"] >= 10
    assert len(found["columns"].split()) == (2 if width > 860 else 1)
    ground, ink = (sum(map(int, re.findall(r"\d+", found[name])[:3])) / 3 for name in ("ground", "ink"))
    assert (ground < 40 and ink > 200) if dark else (ground > 230 and ink < 60)
    assert "Refused to" not in done.stderr
    assert "Content Security Policy" not in done.stderr
