"""The screening report as a page of this computer: drop files, read the report, nothing is kept.

The server answers on the loopback interface alone, and only to requests that name it (against DNS
rebinding). Files lie in a temporary folder until the answer is sent.
"""

import asyncio
import base64
import hashlib
import secrets
import shutil
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from http import HTTPStatus
from importlib.resources import files
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from semforensics.core.errors import InputError
from semforensics.core.worker import Worker
from semforensics.screening.upload import (
    PageLimits,
    RefusedError,
    check_submission,
    receive_files,
    screened_paths,
)
from semforensics.screening.write.rendering import REPORT_CSS, TEMPLATES

HOST = "127.0.0.1"
_KINDS = {"page.css": "text/css", "page.js": "text/javascript"}
_DRAIN_S = 2.0
"""To read what a browser still sends before it is told why it is refused, or it never listens."""

_STYLE_HASH = base64.b64encode(hashlib.sha256(REPORT_CSS.encode()).digest()).decode()
SECURITY_HEADERS = {
    # Our own script and style, the style of a report, and pictures inside of it.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; connect-src 'self';"
    f" img-src data:; style-src 'self' 'sha256-{_STYLE_HASH}'; frame-ancestors 'none';"
    " base-uri 'none'; form-action 'none'",
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""Of every answer."""

Screen = Callable[[Sequence[Path], Path, Path, Mapping[Path, str]], None]
"""Files, folder to write the report to, scratch folder, names to show → None."""


class Page:
    """The server of the local page; `with` ends its worker and removes its folder at the end."""

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
        self.token = secrets.token_urlsafe(32)
        page = TEMPLATES.from_string(_asset("page.html")).render(
            token=self.token, notice=notice, limits=self.limits
        )
        self._socket = socket.create_server((HOST, port))
        self.port = self._socket.getsockname()[1]
        self._n_submissions = 0
        routes = [
            Route("/", _fixed(page, "text/html")),
            *(Route(f"/{name}", _fixed(_asset(name), kind)) for name, kind in _KINDS.items()),
            Route("/screen", self._submit, methods=["POST"]),
        ]
        self._app = Starlette(routes=routes, exception_handlers={HTTPException: _as_json})
        self._server = uvicorn.Server(
            uvicorn.Config(
                self._answer,
                interface="asgi3",
                http=_timed(self.limits),
                ws="none",
                lifespan="off",
                log_config=None,
                log_level="error",
                access_log=False,  # no record of who sent what
                proxy_headers=False,
                server_header=False,
                headers=[*SECURITY_HEADERS.items(), ("Connection", "close")],
                limit_concurrency=self.limits.max_connections + 1,
                timeout_graceful_shutdown=1,
            )
        )
        self.folder = Path(mkdtemp(prefix="semforensics-page-"))  # for its owner alone
        self.worker = Worker(screen)

    @property
    def url(self) -> str:
        """What to open in a browser."""
        return f"http://{HOST}:{self.port}/"

    def serve_forever(self) -> None:
        """Answer until `shutdown`; in the main thread also until SIGINT or SIGTERM."""
        self._server.run(sockets=[self._socket])

    def shutdown(self) -> None:
        """Have `serve_forever` end; a submission that is being screened is given up."""
        self._server.should_exit = True

    def __enter__(self) -> "Page":
        return self

    def __exit__(self, *error: object) -> None:
        """Stop screening, and remove all files."""
        self._socket.close()
        self.worker.close()
        for _ in range(20):  # a thread may be writing to it still
            shutil.rmtree(self.folder, ignore_errors=True)
            if not self.folder.exists():
                return
            time.sleep(0.05)
        raise OSError(f"{self.folder}: cannot be removed")

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse what does not name this page, whatever else it asks for."""
        app: Any = self._app
        own = ([f"{HOST}:{self.port}"], [f"localhost:{self.port}"])
        if Headers(scope=scope).getlist("Host") not in own:
            app = _refusal(HTTPStatus.FORBIDDEN, "this page answers to its own address alone")
        elif scope["method"] not in ("GET", "POST"):
            app = _refusal(HTTPStatus.METHOD_NOT_ALLOWED, "neither GET nor POST")
        elif scope["query_string"]:
            app = _refusal(HTTPStatus.NOT_FOUND, "there is nothing at this address")
        await app(scope, receive, send)

    async def _submit(self, request: Request) -> Response:
        try:
            return JSONResponse(await self._report(request))
        except ClientDisconnect:
            return Response()  # nobody reads it
        except RefusedError as error:
            with suppress(TimeoutError, ClientDisconnect, RuntimeError):  # the last: all is read
                async with asyncio.timeout(_DRAIN_S):
                    async for _ in request.stream():
                        pass
            return _refusal(error.status, str(error))

    async def _report(self, request: Request) -> dict[str, str]:
        """Store the files of a request, screen them, and return the three reports."""
        length = check_submission(request.headers, self.token, self.limits)
        if self._n_submissions > self.limits.max_waiting:
            raise RefusedError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "busy: other submissions are waiting already; try again in a minute",
            )
        self._n_submissions += 1
        seconds = self.limits.stall_s + length / self.limits.slowest_bytes_per_s
        folder = Path(mkdtemp(dir=self.folder))
        try:
            async with asyncio.timeout(seconds):
                stored = await receive_files(request.stream(), length, self.limits, folder)
            # Nothing but the end of the connection follows a body.
            gone = asyncio.ensure_future(request.receive())
            try:
                return await run_in_threadpool(self._screen, stored, folder, gone.done)
            finally:
                gone.cancel()
        except TimeoutError as error:
            raise RefusedError(HTTPStatus.REQUEST_TIMEOUT, "the files came too slowly") from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            self._n_submissions -= 1

    def _screen(
        self, stored: Mapping[Path, str], folder: Path, is_gone: Callable[[], bool]
    ) -> dict[str, str]:
        out, scratch = folder / "report", folder / "scratch"
        try:
            self.worker.run(
                screened_paths([*stored]), out, scratch, stored,
                timeout_s=self.limits.screening_s,
                cancelled=lambda: is_gone() or self._server.should_exit,
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
            raise RefusedError(HTTPStatus.SERVICE_UNAVAILABLE, "the page was closed") from error
        except (RuntimeError, OSError) as error:
            raise RefusedError(HTTPStatus.INTERNAL_SERVER_ERROR, f"failed: {error}") from error


def serve_page(
    screen: Screen, *, port: int, notice: str = "", announce: Callable[[str], None] = print
) -> None:
    """Answer until Ctrl-C or SIGTERM; then remove all files.

    `announce` is told the address once the page answers; the other arguments are those of `Page`.
    """
    with Page(screen, port=port, notice=notice) as page:
        # The last: terminal closed; not on Windows. uvicorn passes the first two on when it ends.
        for name in ("SIGTERM", "SIGINT", "SIGHUP"):
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), lambda *_: page.shutdown())
        announce(page.url)
        page.serve_forever()


def _timed(limits: PageLimits) -> type[H11Protocol]:
    """Make a protocol with limits of time that uvicorn does not know."""

    class Timed(H11Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self.loop.call_later(limits.header_s, self._close_without_request)

        def _close_without_request(self) -> None:
            if self.scope is None:  # its headers are not complete
                self.transport.abort()  # type: ignore[unreachable]

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self.loop.call_later(limits.stall_s, self.transport.abort)  # a reader that stalls

    return Timed


def _asset(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _fixed(text: str, kind: str) -> Callable[[Request], Response]:
    return lambda _request: Response(text, media_type=kind)


def _refusal(status: int, message: str) -> Response:
    wait = {"Retry-After": "60"} if status == HTTPStatus.SERVICE_UNAVAILABLE else None
    return JSONResponse({"error": message}, status, headers=wait)


def _as_json(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    words = {404: "there is nothing at this address"}
    return _refusal(error.status_code, words.get(error.status_code, error.detail))
