# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The page in 3-D: what it holds, beside a script that stands for NiiVue; and NiiVue's own in headless Chromium."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import shutil
from collections.abc import Sequence
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image

from monai_anomalyclip.atomic_file import make_private_folder
from monai_anomalyclip.data.inputs import InputCatalogue
from monai_anomalyclip.data.sources import InputPart
from monai_anomalyclip.writers.findings import Findings, view_of
from monai_anomalyclip.writers.nifti import NiftiGrid
from monai_anomalyclip.writers.output_folder import preview_path
from monai_anomalyclip.writers.result_files import write_volume_result
from monai_anomalyclip.writers.viewer_3d import VIEWER_3D, write_3d_pages
from monai_anomalyclip.writers.viewer_data import preview
from tests.chromium import until

SHAPE = (50, 70, 9)  # to R, P and S, tilted by 10 degrees
TURN = np.array([[1, 0, 0], [0, np.cos(0.17), -np.sin(0.17)], [0, np.sin(0.17), np.cos(0.17)]])
AFFINE = np.eye(4)
AFFINE[:3, :3], AFFINE[:3, 3] = TURN @ np.diag([2.0, -1.5, 5.0]), (-40, 55, -20)
PLACE = (38, 20, 6)  # voxel of the lesion
_GL = ("--headless", "--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")


def results(folder: Path) -> Path:
    """A folder with the map and the preview of one volume."""
    i, j, k = np.indices(SHAPE)
    bump = np.exp(-(((i - PLACE[0]) / 5) ** 2) - ((j - PLACE[1]) / 5) ** 2 - ((k - PLACE[2]) / 1.5) ** 2)
    heat = (0.9 * bump).astype(np.float32)
    nib.save(
        nib.Nifti1Image((100 + 40 * np.sin(i / 9) + 500 * (bump > 0.5)).astype(np.float32), AFFINE), folder / "v.nii"
    )
    (source,) = InputCatalogue(folder / "v.nii").sources.values()
    image = InputPart(source).load()
    view = view_of(source, image, "auto")
    maps = torch.from_numpy(heat)[None]
    slices = view.to_slices(maps)[:, 0].numpy()
    findings = Findings.of(slices.max(axis=(1, 2)), slices, slices >= 0.5)
    write_volume_result(folder, "v", image, maps, maps >= 0.5, view=view, grid=NiftiGrid(AFFINE, SHAPE))
    shown = preview_path(folder, "v")
    make_private_folder(shown.parent)
    shown.write_text(preview("v", source, image, maps, findings, view, 0.5))
    return folder


@pytest.fixture
def niivue() -> None:
    if find_spec("ipyniivue") is None:
        pytest.skip("ipyniivue is not installed (the extra viewer3d)")


WIDGET = """class e${};let log=(x)=>x;/* <!-- </script><b> */
async render(){log("Creating new Niivue instance"),this.nv=new e$({a:1})}
"""


@pytest.fixture
def widget(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The script of a distribution that is laid out as ipyniivue's; its package cannot be imported, nor need it be."""
    site = tmp_path_factory.mktemp("site")
    static, licences = site / "ipyniivue" / "static", site / "ipyniivue-2.4.4.dist-info" / "licenses"
    for folder in (static, licences):
        folder.mkdir(parents=True)
    (site / "ipyniivue" / "__init__.py").write_text("raise ImportError('needs Jupyter')\n")
    (licences.parent / "METADATA").write_text("Metadata-Version: 2.4\nName: ipyniivue\nVersion: 2.4.4\n")
    (licences / "LICENSE").write_text("BSD 2 & <no> warranty\n")
    (static / "widget.js").write_text(WIDGET)
    monkeypatch.syspath_prepend(site)
    return static / "widget.js"


class Page(HTMLParser):
    """The texts of a page's elements, as a browser's parser divides it."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.texts: list[tuple[str, dict[str, str | None], str]] = []
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.texts.append((tag, dict(attrs), ""))

    def handle_data(self, data: str) -> None:
        if self.texts:
            tag, attrs, text = self.texts[-1]
            self.texts[-1] = tag, attrs, text + data

    def handle_endtag(self, tag: str) -> None:
        self.texts.append(("", {}, ""))  # what follows belongs to no element that is looked at

    def all(self, tag: str) -> list[tuple[dict[str, str | None], str]]:
        return [(attrs, text) for found, attrs, text in self.texts if found == tag]

    @property
    def data(self) -> Any:
        return json.loads(self.all("script")[0][1])


def png(pixels: np.ndarray) -> str:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"


def kept(folder: Path, name: str, affine: np.ndarray = AFFINE, **content: Any) -> None:
    """A map's file, and a preview, by default of two slices of 4 x 4, of which the second is the most suspicious."""
    size = np.arange(16, dtype=np.uint8).reshape(4, 4)
    shown = {
        "count": 2, "shown": [0, 1], "ranks": [2, 1], "threshold": 0.5, "size": [4, 4], "sources": [png(size)] * 2,
        "maps": [png(size), png(size * 2)], "axes": {"order": [2, 1, 0], "flip_rows": False, "flip_columns": False},
    }  # fmt: skip
    for file in (preview_path(folder, name), folder / f"{name}_map.nii.gz"):
        file.parent.mkdir(parents=True, exist_ok=True)
    preview_path(folder, name).write_text(json.dumps(shown | content))
    nib.save(nib.Nifti1Image(np.zeros((1, 1, 1), np.float32), affine), folder / f"{name}_map.nii.gz")


def volume(encoded: str) -> Any:
    return nib.Nifti1Image.from_bytes(base64.b64decode(encoded))


def test_without_niivue_the_way_out_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("monai_anomalyclip.writers.viewer_3d.find_spec", lambda _: None)
    with pytest.raises(ModuleNotFoundError, match="pip install ipyniivue"):
        write_3d_pages(tmp_path, ["v"], 1)
    with pytest.raises(ValueError, match="1 page in 3-D or more, not 0"):
        write_3d_pages(tmp_path, ["v"], 0)


@pytest.mark.usefixtures("widget")
def test_volumes_lie_where_the_map_lies(tmp_path: Path) -> None:
    (page,) = write_3d_pages(results(tmp_path), ["absent", "v"], 10)
    assert page == tmp_path / f"v{VIEWER_3D}"
    data = Page(page).data
    heat, source = volume(data["map"]), volume(data["source"])
    truth = nib.load(tmp_path / "v_map.nii.gz")
    for shown in (heat, source):
        assert shown.get_data_dtype() == np.uint8
        middle = np.array(shown.shape) / 2 - 0.5
        assert np.allclose(shown.affine @ [*middle, 1], AFFINE @ [*np.array(SHAPE) / 2 - 0.5, 1], atol=1e-3)
    places = np.argwhere(heat.get_fdata() > 0.2)
    voxels = np.linalg.inv(truth.affine) @ heat.affine @ np.c_[places, np.ones(len(places))].T
    nearest = tuple(np.rint(voxels[:3]).astype(int))
    assert np.allclose(heat.get_fdata()[tuple(places.T)], truth.get_fdata()[nearest], atol=0.01)
    assert np.allclose(data["place"], (AFFINE @ [*PLACE, 1])[:3], atol=0.01)
    page.write_text("mine")
    with pytest.raises(FileExistsError, match="not a page of this program"):
        write_3d_pages(tmp_path, ["v"], 1)


@pytest.mark.usefixtures("widget")
@pytest.mark.parametrize(("order", "rows", "columns"), [([2, 1, 0], True, False), ([0, 2, 1], False, True)])
def test_every_voxel_is_where_it_was(tmp_path: Path, order: list[int], rows: bool, columns: bool) -> None:
    whole = np.random.default_rng(0).permutation(4 * 5 * 6).astype(np.uint8).reshape(4, 5, 6)
    slices = whole.transpose(order)[:, :: -1 if rows else 1, :: -1 if columns else 1]
    pictures = [png(np.ascontiguousarray(one)) for one in slices]
    axes = {"order": order, "flip_rows": rows, "flip_columns": columns}
    suspicious = int(slices[2].argmax())
    kept(
        tmp_path, "v", sources=pictures, maps=pictures, axes=axes, size=slices.shape[1:], count=len(slices),
        shown=list(range(len(slices))), ranks=[1 if at == 2 else at + 2 for at in range(len(slices))], threshold=0.99,
    )  # fmt: skip
    data = Page(write_3d_pages(tmp_path, ["v"], 1)[0]).data
    for key in ("source", "map"):
        shown = volume(data[key])
        assert shown.header.get_xyzt_units()[0] == "mm"
        places = np.argwhere(np.ones(shown.shape))
        voxels = np.rint((np.linalg.inv(AFFINE) @ shown.affine @ np.c_[places, np.ones(len(places))].T)[:3]).astype(int)
        np.testing.assert_allclose(shown.get_fdata()[tuple(places.T)] * 255, whole[tuple(voxels)], atol=1e-4)
    row, column = np.unravel_index(suspicious, slices.shape[1:])
    (place,) = np.argwhere(whole == slices[2, row, column])
    np.testing.assert_allclose(data["place"], (AFFINE @ [*place, 1])[:3], atol=1e-3)
    assert data["threshold"] == 0.95  # the slider's end


@pytest.mark.usefixtures("widget")
def test_a_long_stack_is_shown_evenly(tmp_path: Path) -> None:
    """Of 1000 slices every third, without those that the report shows between for their scores."""
    between = [100, 500]
    shown = sorted([*range(0, 1000, 3), *between])
    pictures = [png(np.full((2, 2), at % 251, np.uint8)) for at in shown]
    ranks = [{100: 1, 501: 2}.get(at, at + 3) for at in shown]
    kept(tmp_path, "v", sources=pictures, maps=pictures, size=[2, 2], count=1000, shown=shown, ranks=ranks)
    data = Page(write_3d_pages(tmp_path, ["v"], 1)[0]).data
    source = volume(data["source"])
    assert source.shape == (2, 2, 334)
    np.testing.assert_allclose(source.get_fdata()[0, 1] * 255, np.arange(0, 1000, 3) % 251, atol=1e-4)
    np.testing.assert_allclose(source.affine @ [0, 0, 333, 1], AFFINE @ [0, 0, 999, 1], atol=1e-3)
    np.testing.assert_allclose(data["place"], (AFFINE @ [0, 0, 501, 1])[:3], atol=1e-3)


@pytest.mark.usefixtures("widget")
def test_a_large_source_is_averaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("monai_anomalyclip.writers.viewer_3d._MOST_VOXELS", 2 * 8**2)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 8, 16), dtype=np.uint8)
    kept(tmp_path, "v", sources=[png(one) for one in pixels], size=[8, 16])
    source = volume(Page(write_3d_pages(tmp_path, ["v"], 1)[0]).data["source"])
    assert source.shape == (8, 4, 2)
    blocks = pixels.reshape(2, 4, 2, 8, 2).mean(axis=(2, 4))
    np.testing.assert_allclose(source.get_fdata() * 255, blocks.transpose(2, 1, 0), atol=1.01)  # rounded twice
    np.testing.assert_allclose(source.affine @ [0, 0, 0, 1], AFFINE @ [0.5, 0.5, 0, 1], atol=1e-3)  # of its four pixels


def test_the_page_around_the_script(tmp_path: Path, widget: Path) -> None:
    name = "site a/x & <i>"
    kept(tmp_path, name)
    (file,) = write_3d_pages(tmp_path, [name], 1)
    assert file == tmp_path / f"{name}{VIEWER_3D}"
    page = Page(file)
    (_, title), (_, licence) = page.all("title")[0], page.all("pre")[0]
    assert title == f"{name} in 3-D"
    assert licence == "BSD 2 & <no> warranty\n"
    assert ({"href": "../report.html"}, "Back to the report") in page.all("a")
    (kind, _), (module, script) = page.all("script")  # the script's own "</script" does not end it
    assert (kind["type"], module["type"]) == ("application/json", "module")
    assert script.startswith(WIDGET.replace("<!--", "<\\!--").replace("</script", "<\\/script"))
    assert "\nconst Niivue = e$;\n" in script
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = page.all("meta")[1][0]["content"]
    assert f"script-src 'sha256-{digest}'" in str(policy)
    assert "http" not in file.read_text().replace("http-equiv", "").partition("<script")[0]


@pytest.mark.usefixtures("widget")
def test_pages_of_the_first_volumes(tmp_path: Path) -> None:
    for name in ("picture", "first", "without_map", "second", "third"):
        kept(tmp_path, name, **({"axes": None} if name == "picture" else {}))
    (tmp_path / "without_map_map.nii.gz").unlink()
    names = ["picture", "absent", "without_map", "third", "first", "second"]

    def pages(most: int) -> Sequence[str]:
        return [page.name.removesuffix(VIEWER_3D) for page in write_3d_pages(tmp_path, names, most)]

    assert pages(2) == ["third", "first"]
    assert pages(9) == ["third", "first", "second"]  # its own pages are written anew
    assert sorted(path.name for path in tmp_path.glob(f"*{VIEWER_3D}")) == [
        f"{name}{VIEWER_3D}" for name in ("first", "second", "third")
    ]


def test_another_niivue_is_refused(tmp_path: Path, widget: Path) -> None:
    kept(tmp_path, "v")
    widget.write_text("export default {}")
    with pytest.raises(ValueError, match=r"built otherwise than 2\.4\.4: pip install ipyniivue==2\.4\.4"):
        write_3d_pages(tmp_path, ["v"], 1)
    assert not list(tmp_path.glob(f"*{VIEWER_3D}"))


@pytest.mark.usefixtures("niivue")
def test_the_page_in_a_browser(tmp_path: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("no Chromium on this machine (apt-get install chromium)")
    (page_file,) = write_3d_pages(results(tmp_path), ["v"], 1)
    said: list[str] = []

    def listen(page: Any) -> None:
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
        page.on("request", lambda request: None if request.url[:5] in ("file:", "data:") else said.append(request.url))

    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=list(_GL))
        page = browser.new_page(viewport={"width": 900, "height": 800})
        listen(page)
        page.goto(page_file.as_uri())
        until(
            page,
            "'shown' in document.body.dataset || document.getElementById('said').innerText.includes('cannot')",
            seconds=120,
        )
        x, y, z = (AFFINE @ [*PLACE, 1])[:3]
        assert page.inner_text("#said") == f"R {x:.1f}, A {y:.1f}, S {z:.1f} mm · map 0.90"
        page.wait_for_timeout(500)
        for value, seen in ((0.3, True), (0.95, False), (0.3, True)):
            page.eval_on_selector(
                "[data-control=threshold]",
                "(input, value) => { input.value = value; input.dispatchEvent(new Event('input')); }",
                value,
            )
            page.wait_for_timeout(500)
            assert bool(marked(page, tmp_path).sum() > 200) is seen, value
        page.select_option("[data-control=view]", "0")
        page.wait_for_timeout(500)
        found = marked(page, tmp_path)
        middle = np.nonzero(found)[1].mean() / found.shape[1]
        assert middle < 0.45  # the patient's right, where the lesion lies, is on the left
        browser.close()
    assert said == []


def marked(page: Any, folder: Path) -> np.ndarray:
    """Pixels of the picture that have the map's colour."""
    page.locator("#volume").screenshot(path=folder / "shot.png")
    pixels = np.asarray(Image.open(folder / "shot.png").convert("RGB")).astype(int)[8:-8, 8:-8]  # without corners
    return pixels[..., 0] - pixels[..., 2] > 60
