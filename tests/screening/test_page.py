"""The local page over the wire: what it answers, what it refuses, what it leaves behind."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from semforensics.screening.page import Page, serve_page
from semforensics.screening.upload import PageLimits
from tests.screening.jobs import screen

LIMITS = PageLimits(
    max_files=4,
    max_file_mb=1,
    max_total_mb=2,
    header_s=1.5,
    stall_s=1.5,
    screening_s=60,
    max_waiting=0,
)


@contextmanager
def running(root: Path, limits: PageLimits = LIMITS) -> Iterator[Page]:
    """A page that answers while the block runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(root)  # the worker imports its job from the checkout
        with Page(screen, limits=limits) as page:
            thread = threading.Thread(target=page.serve_forever)
            thread.start()
            yield page
            page.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def page(pytestconfig: pytest.Config) -> Iterator[Page]:
    """A page with small limits."""
    with running(pytestconfig.rootpath) as page:
        yield page


def talk(page: Page, *parts: bytes, pause_s: float = 0, close: bool = False) -> tuple[int, str]:
    """Send bytes, slowly if asked to, and give the status and the body.

    The status is 0 where there is none: no answer, or that of the protocol's first version.
    """
    with socket.create_connection(("127.0.0.1", page.port), timeout=60) as connection:
        try:
            for part in parts:
                connection.sendall(part)
                time.sleep(pause_s)
            if close:
                connection.shutdown(socket.SHUT_WR)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it has answered already
        answer = b""
        while chunk := connection.recv(1 << 16):
            answer += chunk
    head, _, body = answer.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/"):
        return 0, answer.decode()
    return int(head.split()[1]), body.decode()


def request(page: Page, body: bytes, **headers: str | None) -> bytes:
    """A submission as our own page sends it, but for the headers given; None leaves one out."""
    known: dict[str, str | None] = {
        "Host": f"127.0.0.1:{page.port}",
        "Origin": f"http://127.0.0.1:{page.port}",
        "X-Semforensics-Token": page.token,
        "Content-Type": "application/octet-stream",
        "Content-Length": str(len(body)),
    }
    known |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"{name}: {value}\r\n" for name, value in known.items() if value is not None]
    return f"POST /screen HTTP/1.1\r\n{''.join(lines)}\r\n".encode() + body


def body_of(*named: tuple[str, bytes]) -> bytes:
    """The body of a submission of these files."""
    listed = [{"name": name, "size": len(data)} for name, data in named]
    return json.dumps(listed).encode() + b"\n" + b"".join(data for _, data in named)


def submit(page: Page, *named: tuple[str, bytes]) -> tuple[int, dict[str, str]]:
    """Send files and give the status and the answer."""
    status, answer = talk(page, request(page, body_of(*named)))
    return status, json.loads(answer)


def get(page: Page, path: str = "/", host: str | None = None, method: str = "GET") -> bytes:
    """A request for a page."""
    host = host or f"127.0.0.1:{page.port}"
    return f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()


PNG = b"\x89PNG and more"


def test_files_are_reported_under_their_own_names(page: Page) -> None:
    """A submission is answered with all three reports, and nothing of it stays."""
    status, answer = submit(page, ("figure 1.png", PNG), ("notes.docx", b"PK.."))

    assert status == 200
    written = json.loads(answer["json"])
    assert [image["path"] for image in written["images"]] == ["figure 1.png"]
    assert [refusal["path"] for refusal in written["refusals"]] == ["notes.docx"]
    assert "figure 1.png" in answer["html"]
    assert answer["csv"].startswith("path,")
    assert not list(page.folder.iterdir())


@pytest.mark.parametrize(
    "name",
    ["../../etc/passwd.png", "/tmp/x.png", "..", "con.png", "a" * 1000, "x\x00.png",
     "\udcff.png", "<img src=x onerror=alert(1)>.png", "-rf.png", "C:\\x\\y.png"],
)  # fmt: skip
def test_hostile_names_are_only_shown(page: Page, name: str) -> None:
    """No name decides where a file is written; the report shows it as it was sent."""
    status, answer = submit(page, (name, PNG))

    assert status == 200
    assert json.loads(answer["json"])["images"][0]["path"] == name
    assert not list(page.folder.iterdir())


def test_files_of_one_name_are_both_judged(page: Page) -> None:
    """Two files of one name stay two; a text beside a picture is its side-car, not an input."""
    status, answer = submit(
        page, ("a.png", PNG), ("a.png", PNG), ("a.txt", b"side-car"), ("b.txt", b"alone")
    )

    assert status == 200
    written = json.loads(answer["json"])
    assert [image["path"] for image in written["images"]] == ["a.png", "a.png"]
    assert [refusal["path"] for refusal in written["refusals"]] == ["b.txt"]


def test_it_listens_on_this_computer_alone(page: Page) -> None:
    """The address is the loopback's; from the network interface nobody answers."""
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", page.port), timeout=2)


@pytest.mark.parametrize("path", ["/", "/page.css", "/page.js"])
def test_pages_carry_a_policy_that_lets_nothing_out(page: Page, path: str) -> None:
    """Every answer forbids other sources, framing, sniffing and storing."""
    with socket.create_connection(("127.0.0.1", page.port), timeout=60) as connection:
        connection.sendall(get(page, path))
        answer = b"".join(iter(lambda: connection.recv(1 << 16), b"")).decode()

    assert answer.startswith("HTTP/1.1 200")
    answer = answer.lower()
    for words in (
        "Content-Security-Policy: default-src 'none'; script-src 'self'; connect-src 'self'",
        "frame-ancestors 'none'", "X-Content-Type-Options: nosniff", "Cache-Control: no-store",
        "Referrer-Policy: no-referrer", "Cross-Origin-Resource-Policy: same-origin",
    ):  # fmt: skip
        assert words.lower() in answer
    assert "http://" not in answer
    assert "https://" not in answer


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "127.0.0.1:1", "localhost.evil:80"])
def test_another_host_name_is_refused(page: Page, host: str) -> None:
    """A name that somebody has pointed at this computer gets neither page nor secret."""
    status, answer = talk(page, get(page, host=host))

    assert status == 403
    assert page.token not in answer


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": None}, 400),
        ({"Host": "evil.example"}, 403),
        ({"Origin": None}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"X_Semforensics_Token": None}, 403),
        ({"X_Semforensics_Token": "guess\xe9"}, 403),
        ({"Content_Type": "multipart/form-data; boundary=x"}, 415),
        ({"Content_Type": "text/plain"}, 415),
        ({"Content_Length": None}, 411),
        ({"Transfer_Encoding": "chunked"}, 411),
        ({"Content_Length": "-5"}, 400),
        ({"Content_Length": "1e9"}, 400),
        ({"Content_Length": "٣"}, 400),
        ({"Content_Length": "9" * 30}, 400),
        ({"Content_Length": "9" * 20}, 413),
        ({"Content_Length": "3000000"}, 413),
    ],
)
def test_submissions_from_elsewhere_or_of_no_length_are_refused(
    page: Page, headers: dict[str, Any], status: int
) -> None:
    """Another origin, no secret, another kind of body: each is refused before the body is read."""
    found, answer = talk(page, request(page, body_of(("a.png", PNG)), **headers))

    assert found == status
    assert status == 400 or json.loads(answer)["error"]  # 400: not even HTTP
    assert not list(page.folder.iterdir())


def test_two_hosts_or_lengths_are_refused(page: Page) -> None:
    """A header that is there twice, which two readers could read differently, is refused."""
    whole = request(page, body_of(("a.png", PNG)))
    host = b"Host: 127.0.0.1:%d\r\n" % page.port

    for more in (host, b"Content-Length: 12\r\n"):
        assert talk(page, whole.replace(host, host + more))[0] == 400


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"", 400, "cannot be read"),
        (b"no json\n", 400, "cannot be read"),
        (b"[" * 60_000 + b"\n", 400, "cannot be read"),
        (b'{"name": "a"}\n', 400, "holds a list"),
        (b"[]\n", 400, "no files"),
        (b'[{"name": "", "size": 1}]\nx', 400, "name and a size"),
        (b'[{"name": "a", "size": -1}]\n', 400, "name and a size"),
        (b'[{"name": "a", "size": true}]\nx', 400, "name and a size"),
        (b'[{"name": "a", "size": 1}]\n', 400, "27 bytes sent, 28 announced"),
        (b'[{"name": "a", "size": 1}]\nxx', 400, "29 bytes sent, 28 announced"),
        (b'[{"name": "a", "size": 1000001}]\n', 413, "at most 1 MB"),
        (body_of(*[("a", b"x")] * 5), 413, "5 files at once; at most 4"),
        (b"x" * 70_000, 400, "cannot be read"),
    ],
)
def test_bodies_that_are_wrong_are_refused(
    page: Page, body: bytes, status: int, message: str
) -> None:
    """Lies about sizes, too much of something and nonsense get a clear message."""
    found, answer = talk(page, request(page, body))

    assert found == status
    assert message in json.loads(answer)["error"]
    assert not list(page.folder.iterdir())


def test_too_much_is_answered_while_it_is_sent(page: Page) -> None:
    """A browser that is still sending reads why it is refused."""
    body = b"x" * 20_000_000

    status, answer = talk(page, request(page, body))

    assert status == 413
    assert "at most 2 MB" in answer


def test_a_body_that_ends_early_leaves_nothing_behind(page: Page) -> None:
    """A browser that closes its connection before the last file is complete hears nothing."""
    whole = request(page, body_of(("a.png", PNG * 100)))

    status, _ = talk(page, whole[:-50], close=True)

    end = time.monotonic() + 10
    while [*page.folder.iterdir()] and time.monotonic() < end:
        time.sleep(0.02)
    assert status == 0
    assert not list(page.folder.iterdir())


def test_slow_headers_are_cut_off(page: Page) -> None:
    """A client that trickles its headers is closed after their time, however often it sends."""
    start = time.monotonic()

    status, _ = talk(page, *[bytes([byte]) for byte in get(page)[:40]], pause_s=0.1)

    assert status == 0
    assert time.monotonic() - start < 8


def test_slow_bodies_are_cut_off(page: Page) -> None:
    """A client that trickles a file is told so, and its file is removed."""
    whole = request(page, body_of(("a.png", PNG * 9)))

    status, answer = talk(page, whole[:-60], *[b"x"] * 25, pause_s=0.1)

    assert status == 408
    assert "too slowly" in answer
    assert not list(page.folder.iterdir())


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "HEAD", "TRACE", "BREW"])
def test_other_methods_are_refused(page: Page, method: str) -> None:
    """Neither a preflight from another page nor any other method is answered with a yes."""
    assert talk(page, get(page, method=method))[0] == 405


@pytest.mark.parametrize("path", ["/../serve.py", "/page.html", "/report.css", "/?x", "/%2e"])
def test_nothing_else_is_served(page: Page, path: str) -> None:
    """Only the page, its style and its script have an address."""
    assert talk(page, get(page, path))[0] == 404


@pytest.mark.parametrize(
    "junk", [b"\r\n\r\n", b"GET\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\r\n\r\n", b"A" * 70_000,
             b"GET / HTTP/9.9\r\n\r\n", b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 200 + b"\r\n"],
)  # fmt: skip
def test_junk_does_not_stop_it(page: Page, junk: bytes) -> None:
    """What is no request gets an error or silence, and the next person an answer."""
    status, _ = talk(page, junk)

    assert status == 0 or status >= 400
    assert talk(page, get(page))[0] == 200


def test_a_file_that_breaks_the_judge_breaks_nothing_else(page: Page) -> None:
    """A crash, a bug and a refusal are answered in words, and the next submission is judged."""
    crash, bug, refusal = (
        submit(page, ("bad file.tif", b"do " + what)) for what in (b"crash", b"fail", b"refuse")
    )
    fine = submit(page, ("fine.png", PNG))

    assert crash[0] == bug[0] == 500
    assert "broke it" in crash[1]["error"]
    assert "division by zero" in bug[1]["error"]
    assert refusal == (422, {"error": "bad file.tif: not a picture"})
    assert fine[0] == 200
    assert not list(page.folder.iterdir())


def test_a_second_submission_is_told_to_wait_and_a_gone_browser_makes_room(page: Page) -> None:
    """While one is judged the next hears "busy"; when its browser leaves, its files go at once."""
    address = ("127.0.0.1", page.port)
    with socket.create_connection(address, timeout=60) as connection:
        connection.sendall(request(page, body_of(("slow.tif", b"do hang ......"))))
        end = time.monotonic() + 30
        while not [*page.folder.glob("*/000.tif")] and time.monotonic() < end:
            time.sleep(0.02)

        status, answer = submit(page, ("b.png", PNG))

    assert status == 503
    assert "busy" in answer["error"]
    while [*page.folder.iterdir()] and time.monotonic() < end:
        time.sleep(0.02)
    assert not list(page.folder.iterdir())
    assert submit(page, ("b.png", PNG))[0] == 200


def test_more_connections_than_allowed_are_closed(page: Page) -> None:
    """Idle connections cannot use up the server: beyond the bound each is turned away."""
    address = ("127.0.0.1", page.port)
    idle = [socket.create_connection(address, timeout=60) for _ in range(16)]
    time.sleep(0.3)

    status, _ = talk(page, get(page))
    for connection in idle:
        connection.close()

    assert status == 503


def test_the_end_leaves_nothing_behind(pytestconfig: pytest.Config) -> None:
    """Closing the page ends its worker and removes its folder."""
    with running(pytestconfig.rootpath) as page:
        folder = page.folder
        assert folder.stat().st_mode & 0o077 == 0

    assert not folder.exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_removes_files_that_are_being_judged(
    root: Path, tmp_path: Path, number: signal.Signals
) -> None:
    """SIGTERM, Ctrl-C, a closed terminal during a submission: files and processes are gone."""
    code = (
        "from tests.screening.jobs import screen\n"
        "from semforensics.screening.page import serve_page\n"
        "if __name__ == '__main__':\n"
        "    serve_page(screen, port=0, announce=lambda url: print(url, flush=True))\n"
    )
    script = tmp_path / "page.py"
    script.write_text(code)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    path = os.pathsep.join([str(root), *sys.path])
    environment = os.environ | {"PYTHONPATH": path, "TMPDIR": str(temporary)}
    with (
        subprocess.Popen(
            [sys.executable, script], stdout=subprocess.PIPE, text=True, env=environment
        ) as process,
        ExitStack() as at_the_end,
    ):
        at_the_end.callback(process.kill)
        assert process.stdout is not None
        port = int(process.stdout.readline().rstrip("/\n").rsplit(":", 1)[1])
        with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
            connection.sendall(f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
            answer = b"".join(iter(lambda: connection.recv(1 << 16), b"")).decode()
        page = type("Known", (), {"port": port, "token": answer.split('token" content="')[1][:43]})
        with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
            connection.sendall(request(page, body_of(("slow.tif", b"do hang ......"))))
            worker = ""
            end = time.monotonic() + 60
            while time.monotonic() < end and not worker.isdigit():  # the job writes its process
                time.sleep(0.02)
                worker = "".join(f.read_text("latin-1") for f in temporary.glob("*/*/000.tif"))
            process.send_signal(number)
            assert process.wait(60) == 0

    assert not list(temporary.iterdir())
    assert not Path(f"/proc/{worker}").exists()


def test_a_taken_port_is_said(page: Page) -> None:
    """A second page on one port is an error, with nothing left behind."""
    with pytest.raises(OSError, match="in use"):
        serve_page(screen, port=page.port)
