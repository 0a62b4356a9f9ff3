# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The server of the page: on this machine's loopback address alone, under an address that nobody can guess."""

from __future__ import annotations

import contextlib
import secrets
import socket
import threading
from collections.abc import Sequence
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from monai_anomalyclip.app.address_checks import AddressChecks
from monai_anomalyclip.app.routes import Routes
from monai_anomalyclip.app.runner import Runner
from monai_anomalyclip.app.studies import Workplace

__all__ = ["Server", "serve"]


class Server:
    """The page of a folder of studies, served until it is closed.

    Args:
        folder: private, of all studies.
        words: of the command `predict`, such as ``["--bundle", "anomalyclip_demo"]``.
        port: of the loopback address; 0 for a free one.
        most_bytes: of the files of a study that a browser sends.
        most_files: their number.

    Raises:
        OSError: the port is taken, or the folder cannot be made.

    Example:
        >>> with Server("anomalyclip_app", ["--bundle", "anomalyclip_demo"]) as server:
        ...     print(server.address)
        ...     server.wait()
    """

    def __init__(
        self,
        folder: str | Path,
        words: Sequence[str] = (),
        port: int = 0,
        most_bytes: int = 20 * 2**30,
        most_files: int = 50_000,
    ) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind(("127.0.0.1", port))
            self._socket.listen()  # so that nobody else can
        except OSError as error:
            self._socket.close()
            raise OSError(f"Port {port} of 127.0.0.1 cannot be used ({error.strerror}): choose another one.") from error
        self.port: int = self._socket.getsockname()[1]
        token = secrets.token_urlsafe(24)
        self.address = f"http://127.0.0.1:{self.port}/{token}/"
        place = Workplace(Path(folder).absolute())
        self.runner = Runner(words, most_bytes, most_files)
        routes = Routes(place, self.runner, most_bytes, most_files)
        application = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
        routes.add_to(application)
        checked = AddressChecks(application, token, self.port)
        # No log of requests: their addresses hold the token.
        config = uvicorn.Config(checked, log_level="warning", access_log=False, server_header=False, ws="none")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._run, name="page", daemon=True)
        for study in place.studies.values():
            if study.record.state in ("queued", "running"):  # the program was ended meanwhile
                self.runner.add(study)

    def _run(self) -> None:
        self._server.run(sockets=[self._socket])

    def wait(self) -> None:
        """Until the server ends."""
        while self._thread.is_alive():
            self._thread.join(1)

    def close(self) -> None:
        """End the server, and stop what is being scored: it is resumed next time."""
        self._server.should_exit = True
        self.runner.close()
        if self._thread.is_alive():
            self._thread.join(10)
        self._socket.close()

    def __enter__(self) -> Server:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def serve(
    folder: str | Path, words: Sequence[str] = (), port: int = 0, browse: bool = True, gigabytes: float = 20
) -> None:
    """Serve the page until the program is interrupted.

    Args:
        folder: private, of all studies.
        words: of the command `predict`.
        port: 0 for a free one.
        browse: open the page in the user's browser.
        gigabytes: the most that a browser may send for one study, in GiB.
    """
    with Server(folder, words, port, int(gigabytes * 2**30)) as server:
        print(
            f"Open {server.address}\nStudies and results are kept in {Path(folder).absolute()}; Ctrl+C ends the page."
        )
        if browse:
            import webbrowser

            with contextlib.suppress(webbrowser.Error):
                webbrowser.open(server.address)
        with contextlib.suppress(KeyboardInterrupt):
            server.wait()
