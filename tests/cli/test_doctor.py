# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from monai_anomalyclip.cli import doctor as installation
from monai_anomalyclip.cli import main
from monai_anomalyclip.cli.doctor import Finding, installation_findings
from monai_anomalyclip.weights import default_weights_folder


@pytest.fixture(autouse=True)
def _no_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MONAI_ANOMALYCLIP_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setattr(installation, "_hub_file", lambda: None)


def findings(bundle: Path) -> dict[str, Finding]:
    return {finding.name: finding for finding in installation_findings(bundle)}


def test_missing_weights_are_named_with_the_command(tmp_path: Path) -> None:
    found = findings(tmp_path)
    for name in ("CLIP", "prompts"):
        assert found[name].state == "missing"
        assert found[name].remedy == "monai-anomalyclip weights bundle -o anomalyclip_ready"
    assert {name for name, finding in found.items() if finding.state == "missing"} == {"CLIP", "prompts"}
    assert f"torch {metadata.version('torch')}" in found["packages"].text
    assert "JPEG 2000" in found["DICOM decoders"].text
    assert not any(
        str(tmp_path) in finding.text or "/" in finding.text.replace("models/", "") for finding in found.values()
    )


def test_weights_that_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "model.pt").touch()
    monkeypatch.setattr(installation, "_hub_file", lambda: "somewhere")
    found = findings(tmp_path)
    assert found["CLIP"].state == found["prompts"].state == "ok"
    default_weights_folder().mkdir()
    (default_weights_folder() / "ViT-L-14-336px.pt").write_bytes(b"half")
    assert findings(tmp_path)["CLIP"].text == "the fetched file is damaged: remove it first"


def test_what_was_fetched_and_an_offline_bundle(
    publish: Callable[..., Any], clip_bytes: bytes, prompts_bytes: bytes, tmp_path: Path
) -> None:
    publish(clip_bytes, prompts_bytes)
    assert main(["weights", "bundle", "-o", str(tmp_path / "ready")]) == 0
    (found,) = (one for name, one in findings(tmp_path / "ready").items() if name in ("weights", "CLIP", "prompts"))
    assert (found.state, found.text) == ("ok", "CLIP and prompts, in a complete offline bundle")
    (tmp_path / "ready" / "configs" / "train.json").write_text("{}")
    found = findings(tmp_path / "ready")["weights"]
    assert (found.state, found.text.partition(":")[0]) == ("missing", "the bundle is damaged")
    assert "configs/train.json" in found.text
    assert main(["weights", "fetch"]) == 0
    found = findings(tmp_path)["CLIP"]
    assert (found.state, found.text) == ("ok", "ViT-tiny.pt, with the SHA-256 that OpenAI publishes")
    assert found.path == str(default_weights_folder() / "ViT-tiny.pt")


def test_the_demonstration_is_whole_when_its_prompts_are_tuned(
    tmp_path: Path, copy_bundle: Callable[..., Path]
) -> None:
    bundle = copy_bundle(tmp_path)
    found = findings(bundle)
    assert found["CLIP"].state == "ok"
    assert "synthetic images only" in found["CLIP"].text
    assert found["prompts"].state == "missing"
    assert "run training" in found["prompts"].remedy
    (bundle / "models" / "model.pt").touch()
    assert "missing" not in {finding.state for finding in findings(bundle).values()}


def test_bundle_of_ones_own_normals_needs_a_reference(tmp_path: Path, copy_bundle: Callable[..., Path]) -> None:
    found = findings(copy_bundle(tmp_path, "own_normals"))
    assert "CLIP" not in found
    assert found["normals"].state == "missing"
    assert found["normals"].remedy.startswith("monai-anomalyclip reference build ")


def test_a_shipped_bundle_is_named_as_predict_takes_it() -> None:
    assert findings(Path("anomalyclip_demo"))["CLIP"].state == "ok"
    assert findings(Path("nothing_of_that_name"))["prompts"].state == "missing"


def test_package_that_is_absent_or_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = ["torch>=2.10", "absent_package>=3", "pydicom>=99; python_version > '3'", "av>=99; extra == 'video'"]
    monkeypatch.setattr("importlib.metadata.requires", lambda _: wanted)
    found = list(installation_findings(tmp_path))
    lacking = {finding.text: finding.remedy for finding in found if finding.name == "packages" and finding.remedy}
    assert lacking == {
        "absent_package is not installed": "pip install 'absent_package>=3'",
        f"pydicom is {metadata.version('pydicom')}, not >=99": "pip install 'pydicom>=99'",
    }
    (video,) = (finding for finding in found if finding.name == "extra video")
    assert video.state == "optional"
    assert video.remedy == "pip install 'av>=99'"
    assert video.text.endswith("not >=99: no MP4 and AVI in, films out")


def test_extras_are_the_projects() -> None:
    extras = set(metadata.metadata("monai_anomalyclip").get_all("Provides-Extra") or ())
    assert set(installation._EXTRAS) <= extras


def test_decoder_that_is_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Decoder:
        def __init__(self, syntax: str) -> None:
            self.is_available = not syntax.endswith(".80")

    monkeypatch.setattr("pydicom.pixels.get_decoder", Decoder)
    found = findings(tmp_path)["DICOM decoders"]
    assert (found.state, found.text) == ("missing", "none for JPEG-LS")
    assert found.remedy.startswith("pip install ")


@pytest.mark.parametrize("absent", ["pydicom", "huggingface_hub", "av", "torch", "torchvision"])
def test_command_survives_what_cannot_be_imported(absent: str, tmp_path: Path) -> None:
    script = (
        "import sys\n"
        f"sys.modules[{absent!r}] = None\n"  # which makes its import fail
        "from monai_anomalyclip.cli import main\n"
        "sys.exit(main(['doctor', '--bundle', sys.argv[1]]))\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "cannot be imported" in done.stdout
    assert "missing: the commands above provide it." in done.stdout


def test_torchvision_for_another_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What torchvision for CUDA does beside torch for the CPU: versions fit, an operator is not there."""
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(
        "import torch\ntorch._C._dispatch_has_kernel_for_dispatch_key('torchvision::nothing', 'Meta')\n"
    )
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(tmp_path))
    found = findings(tmp_path)["torchvision"]
    assert found.state == "missing"
    assert found.text.startswith("cannot be imported (RuntimeError)")
    assert found.remedy == "pip install --force-reinstall torch torchvision"


def test_gpu_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Card:
        name = "Card 1"
        total_memory = 8 << 30

    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda _: Card)
    assert findings(tmp_path)["accelerator"] == Finding("accelerator", "ok", "Card 1, 8 GiB")


def test_apples_gpu_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: True)
    assert findings(tmp_path)["accelerator"] == Finding("accelerator", "ok", "Apple GPU")


def test_requirements_of_the_distribution_are_read() -> None:
    names = {item.name for item in installation._requirements()}
    assert {"torch", "monai", "pydicom"} <= names
    assert "av" not in names
    assert {item.name for item in installation._requirements("video")} == {"av"}
    assert all(isinstance(item, Requirement) for item in installation._requirements("export"))


def run(findings: list[Finding], monkeypatch: pytest.MonkeyPatch, *options: str) -> int:
    from monai_anomalyclip.cli import main

    def given(_: Any) -> Iterator[Finding]:
        return iter(findings)

    monkeypatch.setattr(installation, "installation_findings", given)
    return main(["doctor", *options])


def test_command_shows_remedies_and_paths_when_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [Finding("a", "ok", "fine", path="/home/quimby"), Finding("b", "optional", "not there", "pip install b")]
    assert run(rows, monkeypatch) == 0
    shown = capsys.readouterr().out
    assert "ok        a: fine\noptional  b: not there\n            pip install b\n" in shown
    assert "Everything that `predict` needs is there." in shown
    assert "quimby" not in shown
    assert run([*rows, Finding("c", "missing", "none", "mend c")], monkeypatch, "--show-paths") == 1
    shown = capsys.readouterr().out
    assert "at /home/quimby" in shown
    assert "MISSING   c: none\n            mend c\n" in shown
    assert "1 missing: the commands above provide it." in shown
