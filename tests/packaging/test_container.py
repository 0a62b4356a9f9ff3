# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Dockerfile and .dockerignore; nightly, the image itself: built without a registry of images, and run
with its files read-only and without a network. ``pytest -n 0 -m nightly tests/packaging``
"""

from __future__ import annotations

import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from monai_anomalyclip import predict
from monai_anomalyclip.demo.phantom_sets import prepare_demo_data

REPOSITORY = Path(__file__).parents[2]
CONTEXT = ("pyproject.toml", "setup.py", "README.md", "LICENSE", "monai_anomalyclip", "bundles", "configs")


def test_lint() -> None:
    program = Path(sys.executable).with_name("hadolint")
    found = subprocess.run([program, REPOSITORY / "Dockerfile"], capture_output=True, text=True)
    assert found.returncode == 0, found.stdout


def test_context_is_what_the_dockerfile_takes() -> None:
    """Nothing that lies in a clone in use, such as studies or results, may get into an image."""
    lines = (REPOSITORY / ".dockerignore").read_text().splitlines()
    assert "*" in lines
    admitted = {line[1:] for line in lines if line.startswith("!")}
    assert admitted == {*CONTEXT, "requirements", "wheelhouse", "anomalyclip_ready"}
    dockerfile = (REPOSITORY / "Dockerfile").read_text()
    assert all(f"/context/{name}" in dockerfile for name in CONTEXT)


def run(*words: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, **options)
    assert done.returncode == 0, f"{shlex.join(map(str, words))}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done


@pytest.fixture(scope="module")
def workplace() -> Iterator[Path]:
    """A folder for some GB, which are gone afterwards."""
    missing = [name for name in ("buildah", "debootstrap", "unshare") if shutil.which(name) is None]
    if missing or os.getuid() != 0:
        pytest.skip(
            f"an image is built as root, with buildah and debootstrap (missing: {', '.join(missing) or 'root'})"
        )
    with tempfile.TemporaryDirectory() as folder:
        if shutil.disk_usage(folder).free < 30 * 2**30:
            pytest.skip("30 GB of disk are needed to build an image")
        yield Path(folder)


@pytest.fixture(scope="module")
def buildah(workplace: Path) -> Callable[..., str]:
    def call(*words: str | Path) -> str:
        place = ("--storage-driver", "vfs", "--root", workplace / "storage", "--runroot", workplace / "runs")
        return run("buildah", *place, *words).stdout.strip()

    return call


@pytest.fixture(scope="module")
def base(workplace: Path, buildah: Callable[..., str]) -> str:
    """Debian with Python, from packages alone."""
    root, suite = workplace / "debian", platform.freedesktop_os_release()["VERSION_CODENAME"]
    run("debootstrap", "--variant=minbase", "--include=python3,python3-venv,ca-certificates", suite, root)
    if os.readlink(root / "usr" / "bin" / "python3") != f"python{sys.version_info[0]}.{sys.version_info[1]}":
        pytest.skip("wheels of this Python do not fit the one of this Debian")
    shutil.rmtree(root / "var" / "lib" / "apt" / "lists")
    container = buildah("from", "scratch")
    buildah("copy", "-q", container, root, "/")
    buildah("commit", "-q", "--rm", container, "localhost/debian")
    shutil.rmtree(root)
    return "localhost/debian"


@pytest.fixture(scope="module")
def wheelhouse(workplace: Path) -> Path:
    """All wheels; PyTorch for the CPU where this machine has both of its packages, for they must be of one kind."""
    folder, local = workplace / "context" / "wheelhouse", workplace / "local"
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "-q")
    for name in ("torch", "torchvision"):
        subprocess.run([*pip, "download", "--no-deps", "--no-index", name, "-d", str(local)], capture_output=True)
    wheels = sorted(wheel.name.split("-")[:2] for wheel in local.glob("*+cpu-*"))
    if [name for name, _ in wheels] == ["torch", "torchvision"]:
        (workplace / "constraint.txt").write_text("".join(f"{name}=={version}\n" for name, version in wheels))
    shutil.rmtree(local, ignore_errors=True)
    constraint = ("-c", workplace / "constraint.txt") if (workplace / "constraint.txt").is_file() else ()
    run(*pip, "wheel", "--wheel-dir", folder, *constraint, f"{REPOSITORY}[dimse,video]", "setuptools>=77")
    return folder


@pytest.fixture(scope="module")
def image(workplace: Path, buildah: Callable[..., str], base: str, wheelhouse: Path) -> str:
    context = wheelhouse.parent
    for name in (*CONTEXT, "requirements"):
        source = REPOSITORY / name
        shutil.copytree(source, context / name) if source.is_dir() else shutil.copy(source, context)
    for name in ("Dockerfile", ".dockerignore"):
        shutil.copy(REPOSITORY / name, context)
    buildah(
        "build", "--isolation", "chroot", "--pull-never", "--target", "predict",
        "--build-arg", f"BASE={base}", "--build-arg", "PIP_ARGUMENTS=--no-index --find-links /context/wheelhouse",
        "-t", "localhost/anomalyclip", context,
    )  # fmt: skip
    shutil.rmtree(wheelhouse)
    return "localhost/anomalyclip"


LAUNCH = """
set -eu
mount --make-rprivate /
mount --bind "$ROOT" "$ROOT"
mount --bind "$IN" "$ROOT/mnt"; mount -o remount,bind,ro "$ROOT/mnt"
mount --bind "$BUNDLE" "$ROOT/srv"; mount -o remount,bind,ro "$ROOT/srv"
mount --bind "$OUT" "$ROOT/media"
mount -t tmpfs tmpfs "$ROOT/tmp"
mount -t proc proc "$ROOT/proc"
mount -o remount,bind,ro "$ROOT"
cd "$ROOT"
CHROOT=$(command -v chroot)
exec env -i $ENVIRONMENT "$CHROOT" --userspec="$USERS" "$ROOT" /bin/sh -c 'cd "$0"; exec "$@"' "$PLACE" "$@"
"""


@pytest.mark.nightly
def test_predict_in_the_image(
    image: str, buildah: Callable[..., str], workplace: Path, untuned_bundle: Callable[..., Path],
    record_property: Callable[[str, object], None],
) -> None:  # fmt: skip
    bundle = untuned_bundle(workplace / "bundles")
    prepare_demo_data(workplace / "data", training=0, validation=0, testing=0, progress=False)
    inputs, results = workplace / "data" / "inference", workplace / "results"
    results.mkdir()
    os.chown(results, 1000, 1000)
    workplace.chmod(0o755)
    config = json.loads(buildah("inspect", "--type", "image", image))["OCIv1"]["config"]
    container = buildah("from", "--pull-never", image)
    root = Path(buildah("mount", container))
    size = sum(path.lstat().st_blocks for path in root.rglob("*")) * 512
    record_property("figure", f"The image holds {size / 1e9:.2f} GB.")
    assert config["User"] == "1000"
    assert config["Entrypoint"] == ["monai-anomalyclip"]
    given = {
        "ROOT": str(root), "IN": str(inputs), "BUNDLE": str(bundle), "OUT": str(results), "USERS": "1000:1000",
        "PLACE": config["WorkingDir"], "ENVIRONMENT": " ".join(config["Env"]), "PATH": os.environ["PATH"],
    }  # fmt: skip

    def launched(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["unshare", "--mount", "--net", "--pid", "--fork", "/bin/sh", "-c", LAUNCH, "sh", *words],
            env=given, capture_output=True, text=True,
        )  # fmt: skip

    refused = launched("/bin/sh", "-c", "touch /opt/anomalyclip/x || touch /srv/x || touch /home/x")
    assert refused.returncode != 0
    assert "Read-only file system" in refused.stderr
    alone = launched("python", "-c", "import socket; socket.create_connection(('127.0.0.1', 9), 1)")
    assert "Network is unreachable" in alone.stderr or "refused" in alone.stderr or "unreachable" in alone.stderr
    done = launched(*config["Entrypoint"], "predict", "/mnt", "-o", "/media/out", "--bundle", "/srv")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    inside = json.loads((results / "out" / "results.json").read_text())["inputs"]
    outside = predict(inputs, workplace / "outside", bundle, device="cpu").inputs
    assert len(inside) == len(outside) > 5
    np.testing.assert_allclose(
        sorted(entry["anomaly_score"] for entry in inside),  # in the order of names that each run makes up
        sorted(entry.anomaly_score for entry in outside),
        atol=1e-5,
    )
    assert (results / "out" / "report.html").stat().st_uid == 1000
