"""The screening report as a page of this computer: drop files, read the report, nothing is kept.

The server answers on the loopback interface alone, and only to its own page (`page_checks`). Files
lie in a temporary folder until the answer is sent.
"""

import io
import json
import secrets
import select
import shutil
import signal
import socket
import socketserver
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any

from semforensics.core.errors import InputError
from semforensics.core.worker import Worker
from semforensics.screening.page_checks import HOST, SECURITY_HEADERS, check_host, check_submission
from semforensics.screening.upload import PageLimits, RefusedError, receive_files, screened_paths
from semforensics.screening.write.rendering import TEMPLATES

_ASSETS = files(__package__)
_PAGE = TEMPLATES.from_string(_ASSETS.joinpath("page.html").read_text(encoding="utf-8"))
_KINDS = {"/page.css": "text/css", "/page.js": "text/javascript"}

Screen = Callable[[Sequence[Path], Path, Path, Mapping[Path, str]], None]
"""Files, folder to write the report to, scratch folder, names to show → None."""


class Page(ThreadingHTTPServer):
    """The server of the local page; `with` ends its worker and removes its folder at the end."""

    daemon_threads = True
    request_queue_size = 16

    def __init__(
        self, screen: Screen, *, port: int = 0, limits: PageLimits | None = None, notice: str = ""
    ) -> None:
        """Bind to the loopback interface; `serve_forever` answers.

        Args:
            screen: Screens files and writes `report.html`, `report.json` and `report.csv`. Runs in
                a separate process, so it has to be picklable.
            port: 0 takes any that is free.
            limits: On what one person may ask for.
            notice: What to know about the model before dropping a file; shown on top.

        Raises:
            OSError: The port is taken.
        """
        self.limits = limits or PageLimits()
        self.notice = notice
        self.token = secrets.token_urlsafe(32)
        self.slots = threading.BoundedSemaphore(1 + self.limits.max_waiting)
        self._connections = threading.BoundedSemaphore(self.limits.max_connections)
        super().__init__((HOST, port), _Handler)
        self.folder = Path(mkdtemp(prefix="semforensics-page-"))  # for its owner alone
        self.worker = Worker(screen)

    @property
    def url(self) -> str:
        """What to open in a browser."""
        return f"http://{HOST}:{self.server_port}/"

    def server_bind(self) -> None:
        """Bind without asking any name server who we are, as the base class would."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = HOST, self.server_address[1]

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Refuse a connection where too many are open; the base class closes it."""
        del client_address
        if self._connections.acquire(blocking=False):
            return True
        request.settimeout(1)
        with suppress(OSError):  # it may be gone
            request.sendall(b"HTTP/1.1 503 Too many connections\r\nConnection: close\r\n\r\n")
        return False

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer a request, then free its connection."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._connections.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print an error as one line, unless it is that the browser closed the connection."""
        del request, client_address
        error = sys.exception()
        if not isinstance(error, ConnectionError | TimeoutError):
            print(f"page: {type(error).__name__}: {error}", file=sys.stderr)

    def __exit__(self, *error: object) -> None:
        """Stop screening, and remove all files."""
        self.server_close()
        self.worker.close()
        for _ in range(20):  # a thread may be writing to it still
            shutil.rmtree(self.folder, ignore_errors=True)
            if not self.folder.exists():
                return
            time.sleep(0.05)
        raise OSError(f"{self.folder}: cannot be removed")


def serve_page(
    screen: Screen, *, port: int, notice: str = "", announce: Callable[[str], None] = print
) -> None:
    """Answer until Ctrl-C or SIGTERM; then remove all files.

    `announce` is told the address once the page answers; the other arguments are those of `Page`.
    """
    with Page(screen, port=port, notice=notice) as page:

        def stop(_number: int, _frame: object) -> None:
            # In a thread: `shutdown` waits for the loop that this very thread is in.
            threading.Thread(target=page.shutdown).start()

        for name in ("SIGTERM", "SIGINT", "SIGHUP"):  # the last: terminal closed; not on Windows
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), stop)
        announce(page.url)
        page.serve_forever(poll_interval=0.2)


class _TimedReader(io.RawIOBase):
    """Reads a connection up to a moment, however slowly its bytes come."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self.end = float("inf")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left = self.end - time.monotonic()
        if left <= 0:
            raise TimeoutError("too slow")
        self._connection.settimeout(left)
        return self._connection.recv_into(buffer)


class _Handler(BaseHTTPRequestHandler):
    server: Page
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "semforensics", ""

    def setup(self) -> None:
        super().setup()
        self._reader = _TimedReader(self.connection)
        self._reader.end = time.monotonic() + self.server.limits.header_s
        self.rfile = io.BufferedReader(self._reader)

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    def _answer(self, respond: Callable[[], tuple[str, bytes]]) -> None:
        try:
            check_host(self.headers, self.server.server_port)
            kind, body = respond()
        except RefusedError as error:
            self._send_refusal(error.status, str(error))
        except TimeoutError:
            self._send_refusal(HTTPStatus.REQUEST_TIMEOUT, "the files came too slowly")
        else:
            self._send(HTTPStatus.OK, kind, body)

    def _get(self) -> tuple[str, bytes]:
        if self.path == "/":
            server = self.server
            page = _PAGE.render(token=server.token, notice=server.notice, limits=server.limits)
            return "text/html; charset=utf-8", page.encode()
        if self.path not in _KINDS:
            raise RefusedError(HTTPStatus.NOT_FOUND, "there is nothing at this address")
        return f"{_KINDS[self.path]}; charset=utf-8", _ASSETS.joinpath(self.path[1:]).read_bytes()

    def _post(self) -> tuple[str, bytes]:
        if self.path != "/screen":
            raise RefusedError(HTTPStatus.NOT_FOUND, "there is nothing at this address")
        length = check_submission(self.headers, self.server.token, self.server.limits)
        if not self.server.slots.acquire(blocking=False):
            raise RefusedError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "busy: other submissions are waiting already; try again in a minute",
            )
        try:
            with TemporaryDirectory(dir=self.server.folder, ignore_cleanup_errors=True) as folder:
                return "application/json", json.dumps(self._screen(length, Path(folder))).encode()
        finally:
            self.server.slots.release()

    def _screen(self, length: int, folder: Path) -> dict[str, str]:
        """Store the files of a request, screen them, and return the three reports."""
        limits = self.server.limits
        self._reader.end = time.monotonic() + limits.stall_s + length / limits.slowest_bytes_per_s
        inputs, out, scratch = (folder / name for name in ("files", "report", "scratch"))
        inputs.mkdir()
        stored = receive_files(self.rfile, length, limits, inputs)
        try:
            self.server.worker.run(
                screened_paths([*stored]), out, scratch, stored,
                timeout_s=limits.screening_s, cancelled=self._is_gone,
            )  # fmt: skip
            return {k: (out / f"report.{k}").read_text("utf-8") for k in ("html", "json", "csv")}
        except InputError as error:
            message = str(error)
            for path, name in stored.items():
                message = message.replace(str(path), name)
            raise RefusedError(HTTPStatus.UNPROCESSABLE_ENTITY, message) from error
        except TimeoutError as error:
            raise RefusedError(HTTPStatus.GATEWAY_TIMEOUT, f"given up: {error}") from error
        except InterruptedError as error:
            raise ConnectionAbortedError(str(error)) from error
        except (RuntimeError, OSError) as error:
            raise RefusedError(HTTPStatus.INTERNAL_SERVER_ERROR, f"failed: {error}") from error

    def _is_gone(self) -> bool:
        """Tell whether the browser has closed the connection: it sends nothing after its body."""
        readable, _, _ = select.select([self.connection], [], [], 0)
        try:
            return bool(readable) and not self.connection.recv(1, socket.MSG_PEEK)
        except OSError:
            return True

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer what the base class refuses, such as another method or broken headers, alike."""
        del explain
        status = HTTPStatus.METHOD_NOT_ALLOWED if code == 501 else HTTPStatus(code)
        self._send_refusal(status, message or status.phrase)

    def _send_refusal(self, status: HTTPStatus, message: str) -> None:
        self._send(status, "application/json", json.dumps({"error": message}).encode())
        # Read what the browser still sends, for a moment, or it never reads our answer.
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_WR)
        self._reader.end = time.monotonic() + 2
        with suppress(OSError):  # too slow, or gone
            while self._reader.readinto(bytearray(1 << 16)):
                pass

    def _send(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self.connection.settimeout(self.server.limits.stall_s)
        headers = {"Content-Type": kind, "Content-Length": str(len(body)), "Connection": "close"}
        if status == HTTPStatus.METHOD_NOT_ALLOWED:
            headers["Allow"] = "GET, POST"
        if status == HTTPStatus.SERVICE_UNAVAILABLE:
            headers["Retry-After"] = "60"
        self.send_response(status)
        for name, value in (headers | SECURITY_HEADERS).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Keep no record of who sent what."""
