"""The pictures of a PDF, read by a process of its own.

pdfium and its image codecs are large programs in C++, and a PDF can make them run for ever, take
all memory or crash. So `pdf_pages` reads the document elsewhere, under limits on time and memory; a
page that breaks it is refused by name, and reading goes on behind it.
"""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from semforensics.core.errors import InputError
from semforensics.screening.records import Grey

PAGE_S = 10.0
"""For the next page or picture; what takes longer is refused."""
DOCUMENT_S = 120.0
"""For a document, the time that its pictures are looked at not counted."""
MAX_BROKEN = 3
"""Pages that may break the process before the rest is refused."""

_PROGRAM = "semforensics.screening.read.pdf_pages"
_PACKAGES = Path(__file__).parents[3]  # where the program is found, whatever the working folder
_OTHERS = (
    b"\x89PNG", b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"BM", b"RIFF", b"PK\3\4"
)  # fmt: skip


@dataclass(frozen=True)
class PdfPicture:
    """A picture of a PDF."""

    location: str
    grey: Grey
    codec: str
    is_lossy: bool
    is_resampled: bool
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class PdfRefusal:
    """A part of a PDF that is not read."""

    location: str
    reason: str


def is_pdf(data: bytes) -> bool:
    """Say whether bytes are a PDF: its mark may follow other bytes, but no image's or ZIP's."""
    return b"%PDF-" in data[:1024] and not data.startswith(_OTHERS)


def read_pdf(
    data: bytes,
    *,
    max_pages: int,
    max_pictures: int,
    max_megapixels: float,
    least_px: int,
    dpi: int,
    page_s: float = PAGE_S,
) -> Iterator[PdfPicture | PdfRefusal]:
    """Read the pictures of a document, page by page.

    Args:
        data: The file.
        max_pages: A longer document is read up to here, and the rest is refused.
        max_pictures: Of the whole document, likewise.
        max_megapixels: Of one picture; a larger one is refused.
        least_px: Images with a shorter side are left out: icons and rules.
        dpi: At which a page is drawn; fewer where it would become too large.
        page_s: Seconds for the next page or picture.

    Raises:
        InputError: It is no PDF that can be opened, such as one with a password.
    """
    options = {"max_megapixels": max_megapixels, "least_px": least_px, "dpi": dpi}
    pages, page, count, broken, left_s = 0, -1, 0, 0, DOCUMENT_S
    has_ended = False
    while not has_ended:
        options |= {"first": page + 1, "last": max_pages}
        with _Process(data, options, page_s) as process:
            for head, grey in process.answers():
                if head["kind"] == "broken":
                    raise InputError(head["reason"])
                if head["kind"] == "pages":
                    pages = head["pages"]
                elif head["kind"] == "page":
                    page = head["page"]
                elif head["kind"] == "end":
                    has_ended = True
                elif grey is None:
                    yield PdfRefusal(head["location"], head["reason"])
                elif count == max_pictures:
                    yield PdfRefusal(f"from page {page + 1} on", f"more than {count} pictures")
                    return
                else:
                    count += 1
                    yield _picture(head, grey)
                if process.waited_s > left_s:
                    reason = f"the document takes over {DOCUMENT_S:g} s"
                    yield PdfRefusal(f"from page {page + 1} on", reason)
                    return
            left_s -= process.waited_s
            if has_ended:
                break
            if pages == 0 or page < 0:
                raise InputError(f"not a readable PDF: {process.end}")
            yield PdfRefusal(f"page {page + 1}", process.end)
            broken += 1
            has_ended = page + 1 >= min(pages, max_pages)
            if broken == MAX_BROKEN and not has_ended:
                reason = f"{broken} pages before could not be read"
                yield PdfRefusal(f"from page {page + 2} on", reason)
                return
    if pages > max_pages:
        yield PdfRefusal(f"from page {max_pages + 1} on", f"more than {max_pages} pages")
    elif count == broken == 0:
        yield PdfRefusal("", f"no image of {least_px} px or more on {pages} pages")


def _picture(head: dict[str, Any], grey: Grey) -> PdfPicture:
    return PdfPicture(
        head["location"], grey, head["codec"], head["is_lossy"], head["is_resampled"],
        tuple(head["notes"]),
    )  # fmt: skip


class _Process:
    """A process that reads a document; leaving the context ends it."""

    def __init__(self, data: bytes, options: dict[str, Any], page_s: float) -> None:
        self._data, self._page_s, self._is_late = data, page_s, False
        path = os.pathsep.join(filter(None, [str(_PACKAGES), os.environ.get("PYTHONPATH")]))
        threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            # -P: a module in the working folder is not ours.
            [sys.executable, "-P", "-m", _PROGRAM, json.dumps(options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **threads, "PYTHONPATH": path},
        )
        self.waited_s = 0.0
        self.end = ""
        """Why there are no more answers."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with suppress(BrokenPipeError):  # what was not written is not wanted
                pipe.close()
        self._process.wait()

    def answers(self) -> Iterator[tuple[dict[str, Any], Grey | None]]:
        """Return what the process says until it has nothing more to say."""
        answer = self._timed(self._first)
        while answer is not None:
            yield answer
            if answer[0]["kind"] == "end":
                return
            answer = self._timed(self._next)
        status = self._process.wait()
        self.end = (
            f"not read within {self._page_s:g} s"
            if self._is_late
            else f"it broke the program that reads PDFs (status {status})"
        )

    def _timed(self, action: Any) -> tuple[dict[str, Any], Grey | None] | None:
        """Take the next answer; the process is killed where it takes too long."""
        timer = threading.Timer(self._page_s, self._expire)
        timer.daemon = True
        start = time.monotonic()
        timer.start()
        try:
            answer: tuple[dict[str, Any], Grey | None] | None = action()
            return answer
        finally:
            timer.cancel()
            self.waited_s += time.monotonic() - start

    def _expire(self) -> None:
        self._is_late = True
        self._process.kill()

    def _first(self) -> tuple[dict[str, Any], Grey | None] | None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(self._data)
            self._process.stdin.close()
        except BrokenPipeError:  # it died; the missing answer says so
            return None
        return self._next()

    def _next(self) -> tuple[dict[str, Any], Grey | None] | None:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line.endswith(b"\n"):
            return None
        head: dict[str, Any] = json.loads(line)
        if "shape" not in head:
            return head, None
        height, width = head["shape"]
        samples = self._process.stdout.read(height * width)
        if len(samples) < height * width:
            return None
        return head, np.frombuffer(bytearray(samples), np.uint8).reshape(height, width)
