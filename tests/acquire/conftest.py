"""A figshare on this machine, with the manners of the real one and with faults on demand."""

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from semforensics.acquire.figshare import Client

SIGNED_SECONDS = 10.0


@dataclass
class Figshare:
    """What the server holds, what it does wrong, and what it was asked."""

    files: dict[str, bytes] = field(default_factory=dict)
    faults: dict[str, list[str]] = field(default_factory=dict)
    """By file name, or `page <n>`: what goes wrong at the first, second, ... request."""
    retry_after: str = ""
    edit: Callable[[list[dict[str, Any]]], Any] = list
    """Changes the listing before it is cut into pages."""
    asked: list[tuple[float, str]] = field(default_factory=list)
    """Time and file name, or `page <n>`, of every request but the redirected ones."""
    most_at_once: int = 0
    url: str = ""

    def entries(self) -> list[dict[str, Any]]:
        """The listing of all files; every second one has only a supplied MD5."""
        listing = []
        for i, (name, data) in enumerate(sorted(self.files.items())):
            md5 = hashlib.md5(data).hexdigest()
            listing.append(
                {
                    "id": i,
                    "name": name,
                    "size": len(data),
                    "is_link_only": False,
                    "download_url": f"{self.url}/files/{i}",
                    "supplied_md5": md5,
                    "computed_md5": md5 if i % 2 else "",
                    "mimetype": "image/tiff",
                }
            )
        return self.edit(listing)

    def next_fault(self, what: str) -> str:
        """What goes wrong this time; nothing when all faults are used up."""
        left = self.faults.get(what, [])
        return left.pop(0) if left else ""

    def requests_for(self, what: str) -> list[float]:
        """When something was asked for."""
        return [when for when, asked in self.asked if asked == what]

    def client(self, **changes: Any) -> Client:
        """A client of this server that loses no time; the changes replace its settings."""
        settings = {
            "base_url": f"{self.url}/v2",
            "page_size": 4,
            "attempts": 4,
            "first_wait_s": 0.001,
            "longest_wait_s": 5.0,
            "timeout_s": (1.0, 0.3),
            "file_timeout_s": 1.0,
        }
        return Client(**{**settings, **changes})


def make_handler(server: Figshare) -> type[BaseHTTPRequestHandler]:
    """The behaviour of the server, bound to what it holds."""
    signed: dict[str, float] = {}
    lock = threading.Lock()
    busy = 0

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            """Answer listing, download and signed addresses."""
            parts = urlsplit(self.path)
            match parts.path.split("/")[1:]:
                case ["v2", "articles", _, "files"]:
                    query = {key: int(value[0]) for key, value in parse_qs(parts.query).items()}
                    self.answer_page(query.get("page", 1), query.get("page_size", 10))
                case ["files", number]:
                    token = f"{time.monotonic()}-{number}"
                    signed[token] = time.monotonic() + SIGNED_SECONDS
                    self.send_response(302)
                    self.send_header("Location", f"{server.url}/signed/{number}/{token}")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                case ["signed", number, token]:
                    if signed.pop(token, 0.0) < time.monotonic():
                        self.send_error(403)
                    else:
                        self.answer_counted(sorted(server.files)[int(number)])
                case ["circle"]:
                    self.send_response(302)
                    self.send_header("Location", "/circle")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                case _:
                    self.send_error(404)

        def answer_page(self, page: int, page_size: int) -> None:
            server.asked.append((time.monotonic(), f"page {page}"))
            fault = server.next_fault(f"page {page}")
            listing = server.entries()
            if isinstance(listing, list):
                listing = listing[(page - 1) * page_size : page * page_size]
            data = b"<html>" if fault == "html" else json.dumps(listing).encode()
            self.answer(data, fault)

        def answer_counted(self, name: str) -> None:
            nonlocal busy
            server.asked.append((time.monotonic(), name))
            with lock:
                busy += 1
                server.most_at_once = max(server.most_at_once, busy)
            time.sleep(0.01)
            try:
                self.answer(server.files[name], server.next_fault(name))
            finally:
                with lock:
                    busy -= 1

        def answer(self, data: bytes, fault: str) -> None:
            if fault.isdecimal():
                self.send_response(int(fault))
                if server.retry_after:
                    self.send_header("Retry-After", server.retry_after)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            if fault == "hang up":
                self.close_connection = True
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            match fault:
                case "drop":
                    self.wfile.write(data[: len(data) // 2])
                    self.close_connection = True
                case "wrong byte":
                    self.wfile.write(data[:-1] + bytes([data[-1] ^ 1]))
                case "stall":
                    self.wfile.write(data[:10])
                    self.wfile.flush()
                    time.sleep(1)
                    self.close_connection = True
                case "trickle":
                    for i in range(30):
                        self.wfile.write(data[i : i + 1])
                        self.wfile.flush()
                        time.sleep(0.1)
                    self.close_connection = True
                case _:
                    self.wfile.write(data)

        def handle(self) -> None:
            """Serve; a client that turns away is none of our concern."""
            try:
                super().handle()
            except (ConnectionError, TimeoutError):
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            """Stay quiet."""

    return Handler


@pytest.fixture
def figshare() -> Iterator[Figshare]:
    """A running server with nothing in it yet."""
    server = Figshare()
    http = ThreadingHTTPServer(("127.0.0.1", 0), make_handler(server))
    server.url = f"http://127.0.0.1:{http.server_port}"
    thread = threading.Thread(target=http.serve_forever, args=(0.01,))
    thread.start()
    yield server
    http.shutdown()
    thread.join()
    http.server_close()
