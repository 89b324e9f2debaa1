"""The pictures of a PDF, read by a process of its own.

pdfium and its image codecs are large programs in C++, and a PDF can make them run for ever, take
all memory or crash. So `pdf_pages` reads the document in a child process, under limits of time and
memory. A page that breaks the process is refused by name, and reading continues behind it.
"""

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

from semforensics.core.errors import InputError
from semforensics.core.worker import ProcessLimits, Worker
from semforensics.screening.read.pdf_pages import LeftOut, Opened, read_document
from semforensics.screening.read.provenance import read_provenance
from semforensics.screening.read.settings.text import clean
from semforensics.screening.records import Limits, Picture, Refusal

PAGE_S = 10.0
"""For the next page or picture; what takes longer is refused."""
DOCUMENT_S = 120.0
"""For a document, not counting the time until the caller asks for the next picture."""
MAX_BROKEN = 3
"""Pages that may break the process before the rest is refused."""

_PROCESS = ProcessLimits(
    threads=1,
    memory_bytes=4 * 2**30,  # a picture of 64 megapixels takes about 1 GB while its page is drawn
    cpu_s=180,
)


def read_pdf(
    data: bytes, name: str, sha256: str, limits: Limits, page_s: float = PAGE_S
) -> Iterator[Picture | Refusal]:
    """Read the pictures of a document, page by page.

    Args:
        data: The file.
        name: Of the file, for the report.
        sha256: Of the file.
        limits: Pages and pictures beyond them are refused; images with a shorter side than
            `least_px` are left out: icons and rules.
        page_s: Seconds for the next page or picture.

    Raises:
        InputError: It is no PDF that can be opened, such as one with a password.
    """
    origin = read_provenance(data, name, None)
    page = n_pictures = n_pieces = n_pages = 0
    held: list[Picture | Refusal] = []  # the last picture, which gets the count, and what follows
    for found in _read(data, limits, page_s):
        match found:
            case LeftOut():
                n_pieces += found.pieces
                n_pages += 1
            case Opened():
                software = origin.software | {
                    f"PDF {key}": clean(found.metadata[key])
                    for key in ("Producer", "Creator")
                    if key in found.metadata
                }
            case int():
                page = found
            case Refusal():
                held.append(replace(found, path=name, sha256=sha256))
            case Picture() if n_pictures == limits.max_pictures:
                reason = f"more than {n_pictures} pictures"
                held.append(Refusal(name, f"from page {page + 1} on", sha256, reason))
                break
            case Picture():
                n_pictures += 1
                codec = found.provenance.file_format
                provenance = replace(origin, file_format=codec, software=software)
                yield from held
                held = [replace(found, path=name, sha256=sha256, provenance=provenance)]
    if n_pieces and held and isinstance(held[0], Picture):
        note = f"of its document, {_counted(n_pieces, n_pages)} left out"
        held[0] = replace(held[0], notes=(*held[0].notes, note))
    yield from held


def _counted(pieces: int, pages: int) -> str:
    return f"{pieces} small drawings and text pieces on {pages} pages"


def _read(
    data: bytes, limits: Limits, page_s: float
) -> Iterator[Opened | int | Picture | Refusal | LeftOut]:
    """Read a document as `read_document` does, in a process that is replaced where it breaks."""
    n_pages, page, n_found, n_broken, waited_s = 0, -1, 0, 0, 0.0
    with closing(Worker(read_document, _PROCESS)) as worker:
        while True:
            answers = worker.stream(data, page + 1, limits, timeout_s=DOCUMENT_S, item_s=page_s)
            try:
                for found, seconds in _timed(answers):
                    if isinstance(found, Opened):
                        n_pages = found.n_pages
                    elif isinstance(found, int):
                        page = found
                    n_found += isinstance(found, Picture | Refusal)
                    waited_s += seconds
                    yield found
                    if waited_s > DOCUMENT_S:
                        yield _rest(page, f"the document takes over {DOCUMENT_S:g} s")
                        return
                break
            except TimeoutError:
                reason = f"not read within {page_s:g} s"
            except RuntimeError:
                reason = "it broke the program that reads PDFs"
            if page < 0:
                raise InputError(f"not a readable PDF: {reason}")
            yield Refusal("", f"page {page + 1}", None, reason)
            n_broken += 1
            if page + 1 >= min(n_pages, limits.max_pages):
                break
            if n_broken == MAX_BROKEN:
                yield _rest(page + 1, f"{n_broken} pages before could not be read")
                return
    if n_pages > limits.max_pages:
        yield _rest(limits.max_pages, f"more than {limits.max_pages} pages")
    elif n_found == n_broken == 0:
        reason = f"no image of {limits.least_px} px or more on {n_pages} pages"
        yield Refusal("", "", None, reason)


def _rest(page: int, reason: str) -> Refusal:
    """Refuse a document from a page on; the first page is number 0."""
    return Refusal("", f"from page {page + 1} on", None, reason)


def _timed(answers: Iterator[Any]) -> Iterator[tuple[Any, float]]:
    """Add to each answer the seconds that it took."""
    start = time.monotonic()
    for answer in answers:
        yield answer, time.monotonic() - start
        start = time.monotonic()
