"""The screening report as a page of this computer: drop files, read the report, nothing is kept.

The server answers on the loopback interface alone. A page from elsewhere that the same browser has
open must not use it, so every request has to name this host (against DNS rebinding), and a
submission also this origin and a secret that only our own page knows. Files lie in a temporary
folder until the answer is sent.
"""

import base64
import hashlib
import io
import json
import secrets
import select
import shutil
import signal
import socket
import socketserver
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from html import escape
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from typing import Any

from semforensics.core.worker import Worker
from semforensics.screening.upload import (
    RefusedError,
    UploadLimits,
    judged_paths,
    read_manifest,
    store_files,
)
from semforensics.screening.write.rendering import REPORT_CSS

HOST = "127.0.0.1"
_ASSETS = {
    "/page.css": "text/css; charset=utf-8",
    "/page.js": "text/javascript; charset=utf-8",
}
_REPORTS = ("html", "json", "csv")

Screen = Callable[[Sequence[Path], Path, Path, Mapping[Path, str]], None]
"""Files, folder to write the report to, scratch folder, names to show → None."""


@dataclass(frozen=True)
class ServeLimits:
    """How much time and how many connections the page gives away."""

    upload: UploadLimits = field(default_factory=UploadLimits)
    header_s: float = 10
    """Until the headers of a request have arrived."""
    stall_s: float = 15
    """That a body may take in any case; beyond that it has to keep up `slowest_bytes_per_s`."""
    slowest_bytes_per_s: float = 200_000
    screening_s: float = 1800
    """That a submission may take to be judged."""
    max_connections: int = 16
    max_waiting: int = 3
    """Submissions that wait while another one is judged; the next is told to come back."""


class Page(ThreadingHTTPServer):
    """The server of the local page; `with` gives its folder and its worker back at the end."""

    daemon_threads = True
    request_queue_size = 16

    def __init__(
        self,
        screen: Screen,
        *,
        port: int = 0,
        limits: ServeLimits | None = None,
        notice: str = "",
    ) -> None:
        """Bind to the loopback interface; `serve_forever` answers.

        Args:
            screen: Judges files and writes `report.html`, `report.json` and `report.csv`. Runs in
                a process of its own, so it has to be picklable.
            port: 0 takes any that is free.
            limits: On what one person may ask for.
            notice: What has to be known of the model before anything is dropped; stands on top.

        Raises:
            OSError: The port is taken.
        """
        self.limits = limits or ServeLimits()
        self.notice = notice
        self.token = secrets.token_urlsafe(32)
        self.slots = threading.BoundedSemaphore(1 + self.limits.max_waiting)
        self._connections = threading.BoundedSemaphore(self.limits.max_connections)
        super().__init__((HOST, port), _Handler)
        self.folder = Path(tempfile.mkdtemp(prefix="semforensics-page-"))  # for its owner alone
        self.worker = Worker(screen)

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.server_address[1])

    @property
    def url(self) -> str:
        """What to open in a browser."""
        return f"http://{HOST}:{self.port}/"

    def server_bind(self) -> None:
        """Bind without asking any name server who we are, as the base class would."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = HOST, self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread, or close the connection where too many are open."""
        if not self._connections.acquire(blocking=False):
            request.settimeout(1)
            with suppress(OSError):  # it may be gone
                request.sendall(b"HTTP/1.1 503 Too many connections\r\nConnection: close\r\n\r\n")
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Return the place back when a request is done."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._connections.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say what went wrong in one line; a browser that went away is not worth one."""
        del request, client_address
        error = sys.exception()
        if not isinstance(error, ConnectionError | TimeoutError):
            print(f"page: {type(error).__name__}: {error}", file=sys.stderr)

    def __exit__(self, *error: object) -> None:
        """Stop judging, and remove all files."""
        self.server_close()
        self.worker.close()
        for _ in range(20):  # a thread may be writing to it still
            shutil.rmtree(self.folder, ignore_errors=True)
            if not self.folder.exists():
                return
            time.sleep(0.05)
        raise OSError(f"{self.folder}: cannot be removed")

    @contextmanager
    def submission(self) -> Iterator[Path]:
        """Return a folder for one submission, and remove it."""
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def serve_page(
    screen: Screen,
    *,
    port: int,
    limits: ServeLimits | None = None,
    notice: str = "",
    announce: Callable[[str], None] = print,
) -> None:
    """Answer until Ctrl-C or SIGTERM; then remove all files.

    Args:
        screen: As for `Page`.
        port: 0 takes any that is free.
        limits: As for `Page`.
        notice: As for `Page`.
        announce: Is told the address once it answers.
    """
    with Page(screen, port=port, limits=limits, notice=notice) as page:

        def stop(_number: int, _frame: object) -> None:
            # In a thread: `shutdown` waits for the loop that this very thread is in.
            threading.Thread(target=page.shutdown).start()

        for name in ("SIGTERM", "SIGINT", "SIGHUP"):  # the last: the terminal is closed
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

    def _answer(self, give: Callable[[], tuple[str, bytes]]) -> None:
        try:
            self._check_host()
            kind, body = give()
        except RefusedError as error:
            self._send_refusal(error.status, str(error))
        except TimeoutError:
            self._send_refusal(HTTPStatus.REQUEST_TIMEOUT, "the files came too slowly")
        else:
            self._send(HTTPStatus.OK, kind, body)

    def _get(self) -> tuple[str, bytes]:
        assets = files("semforensics.screening")
        if self.path in _ASSETS:
            return _ASSETS[self.path], assets.joinpath(self.path[1:]).read_bytes()
        if self.path != "/":
            raise RefusedError(HTTPStatus.NOT_FOUND, "there is nothing at this address")
        upload = self.server.limits.upload
        page = assets.joinpath("page.html").read_text(encoding="utf-8")
        for name, value in (
            ("TOKEN", self.server.token),
            ("HIDDEN", "" if self.server.notice else "hidden"),
            ("NOTICE", escape(self.server.notice)),
            ("MAX_FILES", upload.max_files),
            ("MAX_FILE_MB", upload.max_file_mb),
            ("MAX_TOTAL_MB", upload.max_total_mb),
        ):
            page = page.replace(f"{{{name}}}", str(value))
        return "text/html; charset=utf-8", page.encode()

    def _post(self) -> tuple[str, bytes]:
        if self.path != "/screen":
            raise RefusedError(HTTPStatus.NOT_FOUND, "there is nothing at this address")
        self._check_origin()
        length = self._body_length()
        if not self.server.slots.acquire(blocking=False):
            raise RefusedError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "busy: other submissions are waiting already; try again in a minute",
            )
        try:
            with self.server.submission() as folder:
                return "application/json", json.dumps(self._screen(length, folder)).encode()
        finally:
            self.server.slots.release()

    def _screen(self, length: int, folder: Path) -> dict[str, str]:
        """Store the files of a request, judge them, and give the three reports."""
        limits = self.server.limits
        seconds = limits.stall_s + length / limits.slowest_bytes_per_s
        self._reader.end = time.monotonic() + seconds
        entries = read_manifest(self.rfile, length, limits.upload)
        inputs, out, scratch = (folder / name for name in ("files", "report", "scratch"))
        inputs.mkdir()
        stored = store_files(self.rfile, entries, inputs)
        try:
            self.server.worker.run(
                judged_paths([*stored]), out, scratch, stored,
                timeout_s=limits.screening_s, cancelled=self._is_gone,
            )  # fmt: skip
            return {kind: (out / f"report.{kind}").read_text("utf-8") for kind in _REPORTS}
        except ValueError as error:
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

    def _check_host(self) -> None:
        hosts = self.headers.get_all("Host", [])
        known = {f"{name}:{self.server.port}" for name in (HOST, "localhost")}
        if len(hosts) != 1 or hosts[0] not in known:
            raise RefusedError(HTTPStatus.FORBIDDEN, "this page answers to its own address alone")

    def _check_origin(self) -> None:
        """Refuse what does not come from our own page."""
        origin, token = self.headers.get("Origin"), self.headers.get("X-Semforensics-Token", "")
        if origin != f"http://{self.headers['Host']}":
            raise RefusedError(HTTPStatus.FORBIDDEN, "sent from another page")
        if not secrets.compare_digest(token.encode(), self.server.token.encode()):
            raise RefusedError(HTTPStatus.FORBIDDEN, "out of date: load the page again")
        if self.headers.get_content_type() != "application/octet-stream":
            raise RefusedError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "not sent by this page's script")

    def _body_length(self) -> int:
        lengths = self.headers.get_all("Content-Length", [])
        if "Transfer-Encoding" in self.headers or not lengths:
            raise RefusedError(HTTPStatus.LENGTH_REQUIRED, "its length has to be given")
        if len(lengths) != 1 or not (lengths[0].isascii() and lengths[0].isdigit()):
            raise RefusedError(HTTPStatus.BAD_REQUEST, "its length is not a number")
        upload = self.server.limits.upload
        if len(lengths[0]) > 15 or int(lengths[0]) > upload.max_body_bytes:
            raise RefusedError(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"too much at once; at most {upload.max_total_mb} MB are taken",
            )
        return int(lengths[0])

    def _send_refusal(self, status: HTTPStatus, message: str) -> None:
        self._send(status, "application/json", json.dumps({"error": message}).encode())
        self._drain()

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer what the base class refuses, such as another method or broken headers, alike."""
        del explain
        status = HTTPStatus.METHOD_NOT_ALLOWED if code == 501 else HTTPStatus(code)
        self._send_refusal(status, message or status.phrase)

    def _send(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self.connection.settimeout(self.server.limits.stall_s)
        self.send_response(status)
        for name, value in {
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            "Connection": "close",
            "Cache-Control": "no-store",
            "Content-Security-Policy": _content_policy(),
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
            "X-Frame-Options": "DENY",
        }.items():
            self.send_header(name, value)
        if status == HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "GET, POST")
        if status == HTTPStatus.SERVICE_UNAVAILABLE:
            self.send_header("Retry-After", "60")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _drain(self) -> None:
        """Read what a refused browser still sends, for a moment, or it never reads our answer."""
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_WR)
        self._reader.end = time.monotonic() + 2
        try:
            while self._reader.readinto(bytearray(1 << 16)):
                pass
        except OSError:  # too slow, or gone
            return

    def log_message(self, format: str, *args: Any) -> None:
        """Keep no record of who sent what."""


def _content_policy() -> str:
    """Allow our own script and style, the style of a report, and pictures inside of it."""
    digest = base64.b64encode(hashlib.sha256(REPORT_CSS.encode()).digest()).decode()
    return (
        "default-src 'none'; script-src 'self'; connect-src 'self'; img-src data:;"
        f" style-src 'self' 'sha256-{digest}'; frame-ancestors 'none'; base-uri 'none';"
        " form-action 'none'"
    )
