# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Imports without garbage collection, and without what MONAI alone would want."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path

import pytest

from monai_anomalyclip.cli.program import lasting_imports


def import_what_is_not_there() -> None:
    with lasting_imports():
        assert not gc.isenabled()
        raise ImportError("no such module")


def test_collection_goes_on_afterwards_even_after_an_error() -> None:
    with pytest.raises(ImportError, match="no such module"):
        import_what_is_not_there()
    assert gc.isenabled()


def test_only_what_was_imported_is_kept_from_collection() -> None:
    program = """
import gc
from monai_anomalyclip.cli.program import lasting_imports
with lasting_imports():
    pass
print(gc.get_freeze_count())
with lasting_imports():
    import fractions
print(gc.get_freeze_count() > 1000)
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["0", "True"]


def printed(program: str, folder: Path) -> list[str]:
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return result.stdout.split("\n")[:-1]


def test_what_comes_later_is_imported_when_it_is_used(tmp_path: Path) -> None:
    """Of modules of Python itself: one of a package, one below another that comes later, some not there."""
    program = """
import pathlib, sys
from monai_anomalyclip.cli import program
pathlib.Path("monai.py").touch()
sys.path.insert(0, ".")
names = {"colorsys": ("rgb_to_hls", "rgb_to_hsv"), "xml.dom.minidom": (), "wsgiref": (), "wsgiref.util": (),
         "no_such_package.part": (), "xml.no_such_part": ()}
program._LATE = names
with program.lasting_imports():
    import monai
    import colorsys, wsgiref.util, xml.dom.minidom
    hsv, dom, lines = colorsys.rgb_to_hsv, xml.dom.minidom, wsgiref.util
    print([name for name in names if isinstance(sys.modules.get(name), program._LateModule)])
    from colorsys import rgb_to_hls
    print(rgb_to_hls.__module__, rgb_to_hls is colorsys.rgb_to_hls)
print([name for name in names if name in sys.modules], hasattr(xml.dom, "minidom"))
print(hsv(1, 0, 0), dom.parseString("<a/>").documentElement.tagName, lines.guess_scheme({}))
import xml.dom.minidom
print(type(xml.dom.minidom).__name__, dom.Document is xml.dom.minidom.Document)
"""
    assert printed(program, tmp_path) == [
        "['colorsys', 'xml.dom.minidom', 'wsgiref', 'wsgiref.util']",
        "colorsys True",
        "['colorsys'] False",
        "(0.0, 1.0, 1) a http",
        "module True",
    ]


def test_a_package_that_is_used_has_all_below_it(tmp_path: Path) -> None:
    """Also where a name of it was taken before, and where `from` takes a module below it."""
    (tmp_path / "whole").mkdir()
    (tmp_path / "monai.py").touch()
    (tmp_path / "whole" / "__init__.py").write_text("from whole.part import Part\nclass Own(Part): pass")
    (tmp_path / "whole" / "part.py").write_text("class Part: pass")
    (tmp_path / "whole" / "below.py").write_text("number = 7")
    program = """
import sys
from monai_anomalyclip.cli import program
sys.path.insert(0, ".")
program._LATE = {"whole": (), "whole.part": ("Part",)}
program._BY_NAME = ("whole.part",)
with program.lasting_imports():
    import monai
    from whole.part import Part
    print(isinstance(5, Part), "whole.below" in sys.modules)
    from whole import below, Own
    print(below.number, Own.__mro__[1].__module__, isinstance(Own(), Part), type(Part()).__name__)
import whole.part
print(whole.part.Part is Own.__mro__[1])
"""
    assert printed(program, tmp_path) == ["False False", "7 whole.part True Part", "True"]


def test_monai_has_all_of_what_comes_later(tmp_path: Path) -> None:
    program = """
import sys
import numpy as np
from monai_anomalyclip.cli.program import _LATE, lasting_imports
with lasting_imports():
    import monai
    import monai_anomalyclip.inference, monai_anomalyclip.demo.network
print([name for name in [*_LATE, "torch._dynamo", "torch.distributed.fsdp"] if name in sys.modules])
import torch
from monai.apps.pathology.transforms.post.array import Watershed, centroid, disk, find_contours, opening
from monai.apps.utils import BeautifulSoup, has_bs4
from monai.data import CSVDataset, ultrasound_confidence_map
from monai.metrics import embedding_collapse
from monai.metrics.utils import KDTree, has_scipy_kdtree
from monai.transforms import HistogramNormalize, KeepLargestConnectedComponent, RemoveSmallObjects
from monai.transforms.signal.array import iirnotch
from monai.utils import jupyter_utils
from monai.visualize import utils as pictures
wave = np.random.default_rng(0).normal(size=64)
near = KDTree([[0, 0], [3, 0]]).query([[2, 0]])
two = torch.zeros(1, 9, 9)
two[0, 1, 1], two[0, 3:6, 3:6] = 1, 1
print(KeepLargestConnectedComponent()(two).sum().item(), RemoveSmallObjects(4)(two).sum().item())
square = two[0].numpy()
print(opening(square, disk(1)).sum(), len(find_contours(square, 0.5)), centroid(square > 0))
print(int(Watershed()(torch.ones(1, 4, 4), torch.ones(1, 4, 4)).sum()), HistogramNormalize()(two).shape)
print(near[0].item(), near[1].item(), has_scipy_kdtree, jupyter_utils.has_matplotlib, has_bs4)
print(BeautifulSoup("<p>a", "html.parser").p.text)
print(embedding_collapse.has_sklearn, embedding_collapse.has_sklearn_linear)
print(embedding_collapse.sklearn_logistic(max_iter=9).max_iter)
print(embedding_collapse.sklearn_silhouette([[0], [0], [1], [1]], [0, 0, 1, 1]))
import pandas, scipy.signal
print(np.array_equal(ultrasound_confidence_map.hilbert(wave), scipy.signal.hilbert(wave)))
print(np.array_equal(iirnotch(60, 1, 500), scipy.signal.iirnotch(60, 1, 500)))
print(CSVDataset(pandas.DataFrame({"a": [5]}))[0])
import open_clip.timm_model
from ignite.handlers import checkpoint
zero, weights = checkpoint.ZeroRedundancyOptimizer, [torch.zeros(1, requires_grad=True)]
print(checkpoint.HAVE_ZERO, isinstance(torch.optim.SGD(weights), zero), "torch.distributed.optim" in sys.modules)
from torch.distributed.optim import ZeroRedundancyOptimizer
print(isinstance(ZeroRedundancyOptimizer.__new__(ZeroRedundancyOptimizer), zero))
supported = sys.modules["torchvision.ops.roi_align"].is_compile_supported
print(supported("meta"), supported("cpu") == torch._dynamo.is_dynamo_supported())
tower = open_clip.timm_model.TimmModel("test_convnext", 8, image_size=64, proj="mlp").eval()
print(tuple(tower(torch.zeros(1, 3, 64, 64)).shape), tower.image_size)
pictures.plt.switch_backend("agg")
print(isinstance(pictures.matshow3d(np.ones((4, 4, 4)))[0], pictures.plt.Figure))
"""
    assert printed(program, tmp_path) == [  # as where MONAI imports all itself
        "[]",
        "9.0 9.0",
        "5.0 1 [4. 4.]",
        "0 torch.Size([1, 9, 9])",
        "1.0 1 True True True",
        "a",
        "True True",
        "9",
        "1.0",
        "True",
        "True",
        "{'a': 5}",
        "True False False",
        "True",
        "False True",
        "(1, 8) (64, 64)",
        "True",
    ]
