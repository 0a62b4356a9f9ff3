# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Fixtures that several test modules use: reference numbers, the tiny reference CLIP, real images, synthetic DICOM."""

from __future__ import annotations

import importlib.util
import ipaddress
import json
import logging
import os
import shlex
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import ModuleType
from typing import Any

if "PYTEST_XDIST_WORKER" in os.environ:  # workers, and the programs they start, are not to fight for the cores
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import monai
import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image

from monai_anomalyclip import Predictor
from monai_anomalyclip.bundles import shipped
from tests.chromium import browser
from tests.published_weights import clip_bytes, prompts_bytes, publish, server, shrink

__all__ = ["browser", "clip_bytes", "prompts_bytes", "publish", "server", "shrink"]  # fixtures

DATA = Path(__file__).parent / "fixtures"
REAL = Path(__file__).parents[2] / "shared" / "real"
PHANTOMS = Path(__file__).parent / "data" / "dicom" / "dicom_phantoms.py"


SLOW = (
    "app/test_serving",
    "archive/test_service",
    "archive/test_transfer",
    "benchmarks/",
    "bundles/test_errors_path_arguments",
    "cli/test_archive",
    "cli/test_doctor.py::test_command_survives",
    "cli/test_export",
    "cli/test_merge.py::test_parts",
    "cli/test_predict",
    "cli/test_program.py::test_quick_commands",
    "cli/test_reference.py",
    "configurations/",
    "demo/",
    "docs/",
    "end_to_end/",
    "experiments/baselines/test_method_overlays",
    "experiments/fullshot/",
    "experiments/reproduce/",
    "export/",
    "federated/",
    "networks/test_frozen_clip.py::test_compiled_encoder",
    "packaging/",
    "reference/test_cohort",
    "reference/test_comparison.py::test_false_positives",
    "reference/test_fusion",
    "reference/test_normal_reference.py::test_memory",
    "reference/test_real_images",
    "scale/",
    "writers/dicom/test_source_restoration.py::test_results_of_real_files",
    "writers/test_html_report.py::test_many",
    "writers/test_html_report_browser",
)
"""Tests that `make quick` leaves out, by the beginning of their place: those that start programs or tune networks."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is slow."""
    for item in items:
        place = f"{item.path.relative_to(Path(__file__).parent).as_posix()}::{item.name}"
        if place.startswith(SLOW):
            item.add_marker(pytest.mark.slow)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests measured: their ``record_property("figure", ...)``."""
    for report in terminalreporter.getreports("passed"):
        for name, figure in report.user_properties:
            if name == "figure":
                terminalreporter.write_line(figure)


@pytest.fixture(params=["cuda", "mps"])
def accelerator(request: pytest.FixtureRequest) -> str:
    """A device beside the CPU, NVIDIA's or Apple's; skips where there is none."""
    name: str = request.param
    if not (torch.cuda.is_available() if name == "cuda" else torch.backends.mps.is_available()):
        pytest.skip(f"no {name} device")
    return name


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    monai.utils.set_determinism(seed=0)
    yield
    monai.utils.set_determinism(seed=None)


@pytest.fixture(autouse=True)
def own_log() -> Iterator[None]:
    """A log that a test sets up, as MONAI does from a bundle's logging.conf, ends with it."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of the committed reference files."""
    return DATA


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real images that are never committed; skips where it is absent."""
    if not REAL.is_dir():
        pytest.skip("real images (../shared/real) are not on this machine")
    return REAL


@pytest.fixture(scope="session")
def tiny_config() -> dict[str, Any]:
    config: dict[str, Any] = json.loads((DATA / "tiny" / "config.json").read_text())
    return config


@pytest.fixture(scope="session")
def reference() -> dict[str, np.ndarray]:
    """Numbers recorded from the authors' implementation on the tiny CLIP (see tests/fixtures/README.md)."""
    with np.load(DATA / "tiny" / "reference.npz") as file:
        return {key: file[key] for key in file.files}


@pytest.fixture(scope="session")
def phantoms() -> ModuleType:
    """The builder of synthetic DICOM series; tests are no package that it could be imported from."""
    spec = importlib.util.spec_from_file_location(PHANTOMS.stem, PHANTOMS)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def copy_bundle() -> Callable[..., Path]:
    """``copy_bundle(folder, name="anomalyclip_demo")`` makes ``folder/name`` as the bundle is shipped.

    The repository's own bundles hold what their user has made there: prompts, thresholds, data, results of runs.
    """

    def copy(folder: Path, name: str = "anomalyclip_demo") -> Path:
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(Path(__file__).parents[1])
            shipped.copy_bundle(name, folder.absolute() / name)
        return folder / name

    return copy


@pytest.fixture(scope="session")
def untuned_bundle(copy_bundle: Callable[..., Path]) -> Callable[..., Path]:
    """``untuned_bundle(folder, **settings)``: a copy of the demonstration with prompts that nobody tuned."""

    def make(folder: Path, **settings: int) -> Path:
        import torch

        from monai_anomalyclip.demo import demo_network

        bundle = copy_bundle(folder)
        torch.manual_seed(0)
        demo_network(**{"deep_prompt_depth": 4, **settings}).save_prompts(bundle / "models" / "model.pt")
        return bundle

    return make


def environment() -> dict[str, str]:
    """The environment in which `python`, `torchrun` and `monai-anomalyclip` are those of this interpreter."""
    folder = str(Path(sys.executable).parent)
    return {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}", "CUDA_VISIBLE_DEVICES": ""}


@pytest.fixture(scope="session")
def warm_python() -> Iterator[subprocess.Popen[str]]:
    """An interpreter that has imported what is slow; see `tests/warm_python.py`."""
    script = str(Path(__file__).with_name("warm_python.py"))
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, script], env=environment(), text=True, **pipes) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


@pytest.fixture(scope="session")
def run_command(
    warm_python: subprocess.Popen[str], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """``run_command(line, folder, check=True)`` runs a documented command line.

    Those of Python run in the warm interpreter, all others in bash.
    """
    outputs = [tmp_path_factory.mktemp("commands") / name for name in ("output", "errors")]

    def run(line: str, folder: Path, *, check: bool = True) -> subprocess.CompletedProcess[str]:
        words = shlex.split(line)
        if words[0] == "monai-anomalyclip":
            words = ["python", "-m", "monai_anomalyclip", *words[1:]]
        if (
            words[0] in ("python", sys.executable)
            and words[1] == "-m"
            and not set(words) & {"&", "&&", ";", "|", ">"}
            and "$" not in line
        ):
            done = run_warm(words[2], words[2:], folder)
        else:
            done = subprocess.run(["bash", "-c", line], cwd=folder, env=environment(), capture_output=True, text=True)
        assert done.returncode == 0 or not check, f"{line}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done

    def run_warm(module: str, arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
        assert warm_python.stdin is not None
        assert warm_python.stdout is not None
        request = {
            "module": module,
            "arguments": arguments,
            "folder": str(folder),
            "environment": environment(),
            "outputs": [str(path) for path in outputs],
        }
        warm_python.stdin.write(json.dumps(request) + "\n")
        warm_python.stdin.flush()
        status = warm_python.stdout.readline()
        assert status, f"{arguments} killed its interpreter"
        return subprocess.CompletedProcess(
            arguments, int(status), *(path.read_text(errors="replace") for path in outputs)
        )

    return run


@pytest.fixture
def picture() -> Callable[..., None]:
    """Writes a tiny picture or mask."""

    def draw(path: Path, mask: bool = False, size: tuple[int, int] = (16, 12)) -> None:
        """Write a tiny picture of the kind that the name tells; as a mask, with a bright square in the middle."""
        path.parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(zlib.crc32(path.name.encode()))
        pixels = rng.integers(0, 256, (size[1], size[0]), dtype=np.uint8)
        if mask:
            pixels = np.zeros_like(pixels)
            pixels[size[1] // 4 : size[1] // 2, size[0] // 4 : size[0] // 2] = 255
        Image.fromarray(pixels).convert("L" if mask else "RGB").save(path)

    return draw


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Path, Path]]:
    """``certificates(name)`` makes an authority of that name: its certificate, and one with key for 127.0.0.1."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    def make(name: str) -> tuple[Path, Path, Path]:
        folder = tmp_path_factory.mktemp(name)
        now = datetime.now(timezone.utc)
        issuer = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        authority, own = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))

        def write(file: str, subject: x509.Name, key: Any, extension: x509.ExtensionType) -> Path:
            made = (
                x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
                .not_valid_before(now - timedelta(days=1))
                .not_valid_after(now + timedelta(days=1))
                .add_extension(extension, critical=True)
                .sign(authority, hashes.SHA256())
            )
            (folder / file).write_bytes(made.public_bytes(serialization.Encoding.PEM))
            return folder / file

        ca = write("ca.pem", issuer, authority, x509.BasicConstraints(ca=True, path_length=None))
        host = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        cert = write("cert.pem", x509.Name([]), own, host)
        form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        (folder / "key.pem").write_bytes(own.private_bytes(*form))
        return ca, cert, folder / "key.pem"

    return make


@pytest.fixture(scope="session")
def face_bundle(tmp_path_factory: pytest.TempPathFactory, untuned_bundle: Callable[..., Path]) -> Path:
    """The demonstration's, with prompts that were never tuned."""
    return untuned_bundle(tmp_path_factory.mktemp("bundle") / "bundle")


@pytest.fixture(scope="session")
def predictor(face_bundle: Path) -> Predictor:
    return Predictor(face_bundle, device="cpu", precision="float32")


@pytest.fixture(scope="session")
def noise_picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("picture") / "frame.png"
    pixels = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((180, 120)).save(path)
    return path


@pytest.fixture(scope="session")
def ct_study(tmp_path_factory: pytest.TempPathFactory, phantoms: ModuleType) -> Path:
    folder = tmp_path_factory.mktemp("study")
    phantoms.make_series(folder, count=4)
    return folder


@pytest.fixture(scope="session")
def nifti_volume(tmp_path_factory: pytest.TempPathFactory) -> Path:
    values = np.random.default_rng(1).normal(100, 20, (24, 30, 3)).astype(np.float32)
    affine = np.diag([-2.0, 1.5, 4.0, 1.0])
    affine[:3, 3] = 10, -20, 30
    path = tmp_path_factory.mktemp("volume") / "volume.nii.gz"
    nib.save(nib.Nifti1Image(values, affine), path)  # type: ignore[attr-defined]
    return path
