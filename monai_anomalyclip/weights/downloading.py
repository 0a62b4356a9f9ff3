# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""A file fetched over HTTPS: bounded, resumed, checked, and under its name only when it is right.

By hand, because pooch neither resumes nor bounds a file, and huggingface_hub follows redirections that leave https.
"""

from __future__ import annotations

import http.client
import re
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from tqdm import tqdm

from monai_anomalyclip import __version__

__all__ = ["download", "partial_path", "read_address"]

_CHUNK = 1 << 18
_SECONDS = 60
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def download(url: str, target: str | Path, check: Callable[[Path], None], *, limit: int, progress: bool = True) -> None:
    """Fetch a file.

    A connection that breaks leaves a partial file beside the target, with which the next call goes on. A file that is
    too large or not the right one is removed.

    Args:
        url: an https address (http is taken from this machine only).
        target: the file to write; must not exist.
        check: raises ValueError, with the reason, when the file it is given is not the right one.
        limit: bytes that the file must not exceed.
        progress: show a bar on a terminal.

    Raises:
        FileExistsError: the target exists.
        ConnectionError: the address cannot be read, or the connection broke.
        ValueError: the address or a redirection is not allowed, or the file is too large or not the right one.
    """
    target = Path(target)
    if target.exists():
        raise FileExistsError(f"{target.name} exists already: move it away to fetch it again.")
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_path(target)
    try:
        if partial.is_file() and partial.stat().st_size > 0:
            _continue(url, partial, limit, progress)
        else:
            _receive(url, partial, 0, limit, progress)
        check(partial)
        if target.exists():  # another process was faster
            raise FileExistsError(f"{target.name} exists already: move it away to fetch it again.")
        partial.rename(target)
    except ValueError as error:
        partial.unlink(missing_ok=True)
        raise ValueError(f"{url} was not taken: {error}") from error


def read_address(url: str, *, limit: int) -> bytes:
    """The content of an address, at most ``limit`` bytes; raises as :func:`download`."""
    with _open(url, {}) as answer:
        try:
            content: bytes = answer.read(limit + 1)
        except (OSError, http.client.HTTPException) as error:
            raise ConnectionError(f"{url} broke off ({type(error).__name__}): start the command again.") from error
        announced = _announced(answer)
    if len(content) > limit:
        raise ValueError(f"{url} was not taken: it has more than {limit} bytes.")
    if announced is not None and len(content) < announced:
        raise ConnectionError(f"{url} broke off at {len(content)} of {announced} bytes: start the command again.")
    return content


def partial_path(target: Path) -> Path:
    """Where a file lies as long as it is not complete."""
    return target.with_name(f".partial-{target.name}")


def _continue(url: str, partial: Path, limit: int, progress: bool) -> None:
    try:
        _receive(url, partial, partial.stat().st_size, limit, progress)
    except _CannotResumeError:
        partial.unlink()
        _receive(url, partial, 0, limit, progress)


class _CannotResumeError(ConnectionError):
    """The server has no rest of the file to give."""


def _receive(url: str, partial: Path, start: int, limit: int, progress: bool) -> None:
    """Write what the address gives from byte ``start`` on; from 0 when the server does not know parts."""
    with _open(url, {"Range": f"bytes={start}-"} if start else {}) as answer:
        if answer.status == 206 and not answer.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            raise _CannotResumeError(f"{url} gave another part than was asked for.")
        start = start if answer.status == 206 else 0
        announced = _announced(answer)
        total = None if announced is None else start + announced
        if total is not None and total > limit:
            raise ValueError(f"it has {total} bytes, more than the {limit} that it can have.")
        received = start
        bar = tqdm(total=total, initial=start, unit="B", unit_scale=True, disable=None if progress else True)
        with partial.open("ab" if start else "wb") as file, bar:
            while chunk := _read(answer, url):
                received += len(chunk)
                if received > limit:
                    raise ValueError(f"it has more than the {limit} bytes that it can have.")
                file.write(chunk)
                bar.update(len(chunk))
    if total is not None and received < total:
        raise ConnectionError(f"{url} broke off at {received} of {total} bytes: the same command fetches the rest.")


def _announced(answer: Any) -> int | None:
    """How many bytes the server says that it sends, where it does."""
    announced = answer.headers.get("Content-Length", "")
    return int(announced) if re.fullmatch(r"\d{1,18}", announced) else None


def _read(answer: IO[bytes], url: str) -> bytes:
    try:
        return answer.read(_CHUNK)
    except (OSError, http.client.HTTPException) as error:
        raise ConnectionError(
            f"{url} broke off ({type(error).__name__}): the same command fetches the rest."
        ) from error


def _open(url: str, headers: dict[str, str]) -> Any:
    """Open an address; nothing but https, also after redirections."""
    _allow(url)
    request = urllib.request.Request(url, headers={"User-Agent": f"monai_anomalyclip/{__version__}", **headers})
    try:
        return urllib.request.build_opener(_HTTPSRedirections).open(request, timeout=_SECONDS)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and "Range" in headers:
            raise _CannotResumeError(f"{url} has no such part.") from error
        raise ConnectionError(f"{url} cannot be read: HTTP {error.code} {' '.join(error.msg.split())[:200]}") from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or type(error).__name__
        raise ConnectionError(
            f"{url} cannot be read ({reason}): is this machine connected? Elsewhere `monai-anomalyclip weights bundle "
            "-o DIR` makes a folder to carry here."
        ) from error


def _allow(url: str, source: str | None = None) -> None:
    """Take https, and http from this machine's own servers unless an outside server sends us there."""
    parts = urlsplit(url)
    inside = parts.scheme == "http" and parts.hostname in _LOOPBACK and (source is None or source.startswith("http://"))
    if parts.scheme != "https" and not inside:
        raise ValueError(f"{url} is not an https address.")


class _HTTPSRedirections(urllib.request.HTTPRedirectHandler):
    """Follows few redirections, and none that leaves https."""

    max_redirections = 5
    max_repeats = 2

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        _allow(newurl, req.full_url)
        return super().redirect_request(req, fp, code, msg, headers, newurl)
