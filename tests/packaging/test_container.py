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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from monai_anomalyclip import predict
from monai_anomalyclip.demo.phantom_sets import prepare_demo_data

REPOSITORY = Path(__file__).parents[2]
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "-q")
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
def constraint(workplace: Path) -> list[str | Path]:
    """PyTorch for the CPU where this machine has both of its packages, for they must be of one kind."""
    local, file = workplace / "local", workplace / "constraint.txt"
    for name in ("torch", "torchvision"):
        subprocess.run([*PIP, "download", "--no-deps", "--no-index", name, "-d", str(local)], capture_output=True)
    wheels = sorted(wheel.name.split("-")[:2] for wheel in local.glob("*+cpu-*"))
    shutil.rmtree(local, ignore_errors=True)
    if [name for name, _ in wheels] != ["torch", "torchvision"]:
        return []
    file.write_text("".join(f"{name}=={version}\n" for name, version in wheels))
    return ["-c", file]


@pytest.fixture(scope="module")
def image_of(
    workplace: Path, buildah: Callable[..., str], base: str, constraint: list[str | Path]
) -> Callable[..., str]:
    """Builds a target from what `pip wheel` makes of some requirements, without any index of packages."""

    def build(target: str, *requirements: Sequence[str | Path]) -> str:
        context = workplace / "context"
        for words in requirements:
            run(*PIP, "wheel", "--wheel-dir", context / "wheelhouse", *words, *constraint)
        for name in (*CONTEXT, "requirements"):
            source = REPOSITORY / name
            shutil.copytree(source, context / name) if source.is_dir() else shutil.copy(source, context)
        for name in ("Dockerfile", ".dockerignore"):
            shutil.copy(REPOSITORY / name, context)
        buildah(
            "build", "--isolation", "chroot", "--pull-never", "--target", target,
            "--build-arg", f"BASE={base}", "--build-arg", "PIP_ARGUMENTS=--no-index --find-links /context/wheelhouse",
            "-t", f"localhost/{target}", context,
        )  # fmt: skip
        shutil.rmtree(context)
        return f"localhost/{target}"

    return build


@contextmanager
def unpacked(buildah: Callable[..., str], image: str) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The files of an image and its settings; afterwards both are removed, for the disk."""
    config = json.loads(buildah("inspect", "--type", "image", image))["OCIv1"]["config"]
    container = buildah("from", "--pull-never", image)
    yield Path(buildah("mount", container)), config
    buildah("rm", container)
    buildah("rmi", image)


def size_of(root: Path) -> str:
    size = sum(path.lstat().st_blocks for path in root.rglob("*")) * 512
    return f"The image holds {size / 1e9:.2f} GB."


LAUNCH = """
set -eu
mount --make-rprivate /
mount --bind "$ROOT" "$ROOT"
mount --bind "$IN" "$ROOT/mnt"; mount -o remount,bind,ro "$ROOT/mnt"
mount --bind "$BUNDLE" "$ROOT$BUNDLE_AT"; mount -o remount,bind,ro "$ROOT$BUNDLE_AT"
mount --bind "$OUT" "$ROOT$OUT_AT"
mount -t tmpfs tmpfs "$ROOT/tmp"
mount -t proc proc "$ROOT/proc"
mount -o remount,bind,ro "$ROOT"
test -z "${LOOPBACK:-}" || python3 -c "$LOOPBACK"
cd "$ROOT"
CHROOT=$(command -v chroot)
exec env -i $ENVIRONMENT "$CHROOT" --userspec="$USERS" "$ROOT" /bin/sh -c 'cd "$0"; exec "$@"' "$PLACE" "$@"
"""


# An interface of a network namespace is down until somebody lifts it (SIOCSIFFLAGS, IFF_UP and IFF_RUNNING).
LOOPBACK = "import fcntl, socket, struct; fcntl.ioctl(socket.socket(), 0x8914, struct.pack('16sh14x', b'lo', 0x41))"


def launch(given: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["unshare", "--mount", "--net", "--pid", "--fork", "/bin/sh", "-c", LAUNCH, "sh", *words],
        env={"PATH": os.environ["PATH"], "USERS": "1000:1000", **given}, capture_output=True, text=True,
    )  # fmt: skip


@pytest.mark.nightly
def test_predict_in_the_image(
    image_of: Callable[..., str], buildah: Callable[..., str], workplace: Path, untuned_bundle: Callable[..., Path],
    record_property: Callable[[str, object], None],
) -> None:  # fmt: skip
    bundle = untuned_bundle(workplace / "bundles")
    prepare_demo_data(workplace / "data", training=0, validation=0, testing=0, progress=False)
    inputs, results = workplace / "data" / "inference", workplace / "results"
    results.mkdir()
    os.chown(results, 1000, 1000)
    workplace.chmod(0o755)
    image = image_of("predict", [f"{REPOSITORY}[dimse,video]", "setuptools>=77"])
    with unpacked(buildah, image) as (root, config):
        record_property("figure", size_of(root))
        assert config["User"] == "1000"
        assert config["Entrypoint"] == ["monai-anomalyclip"]
        given = {
            "ROOT": str(root), "IN": str(inputs), "BUNDLE": str(bundle), "BUNDLE_AT": "/srv", "OUT": str(results),
            "OUT_AT": "/media", "PLACE": config["WorkingDir"], "ENVIRONMENT": " ".join(config["Env"]),
        }  # fmt: skip
        refused = launch(given, "/bin/sh", "-c", "touch /opt/anomalyclip/x || touch /srv/x || touch /home/x")
        assert refused.returncode != 0
        assert "Read-only file system" in refused.stderr
        alone = launch(given, "python", "-c", "import socket; socket.create_connection(('127.0.0.1', 9), 1)")
        assert "refused" in alone.stderr or "unreachable" in alone.stderr
        done = launch(given, *config["Entrypoint"], "predict", "/mnt", "-o", "/media/out", "--bundle", "/srv")
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


ASK = """
import subprocess, sys, time, urllib.request
server = subprocess.Popen(sys.argv[1:], stdout=sys.stderr)
for _ in range(180):
    time.sleep(1)
    try:
        answer = urllib.request.urlopen("http://127.0.0.1:8000/info/", timeout=60).read().decode()
    except OSError:
        if server.poll() is None:
            continue
        break
    print(answer)
    break
server.terminate()
"""


@pytest.mark.nightly
def test_label_server_in_the_image(
    image_of: Callable[..., str], buildah: Callable[..., str], workplace: Path, untuned_bundle: Callable[..., Path],
    record_property: Callable[[str, object], None],
) -> None:  # fmt: skip
    """It starts by the image's own command, as an ordinary user, and says what it offers."""
    bundle, data = untuned_bundle(workplace / "label_bundles"), workplace / "label_data"
    (data / "studies").mkdir(parents=True)
    for folder in (data, data / "studies"):
        os.chown(folder, 1000, 1000)
    workplace.chmod(0o755)
    requirements = REPOSITORY / "requirements"
    wanted = (
        ["-r", requirements / "label.txt", "setuptools>=77"],
        ["--no-deps", "-r", requirements / "label-no-deps.txt"],
    )
    with unpacked(buildah, image_of("label", *wanted)) as (root, config):
        record_property("figure", size_of(root))
        assert config["User"] == "1000"
        place = "/opt/anomalyclip/bundles/anomalyclip"
        (root / place[1:]).mkdir()
        given = {
            "ROOT": str(root), "IN": str(data / "studies"), "BUNDLE": str(bundle), "BUNDLE_AT": place, "OUT": str(data),
            "OUT_AT": "/data", "PLACE": config["WorkingDir"], "ENVIRONMENT": " ".join(config["Env"]),
            "LOOPBACK": LOOPBACK,
        }  # fmt: skip
        done = launch(given, "python", "-c", ASK, *config["Cmd"])
    said = done.stdout[-3000:] + done.stderr[-6000:]
    assert done.returncode == 0, said
    assert done.stdout.startswith("{"), said
    info = json.loads(done.stdout)
    assert "Research use only" in info["description"]
    assert "anomaly" in info["models"]
    assert (data / "app" / "main.py").stat().st_uid == 1000
