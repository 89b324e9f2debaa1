"""A client for figshare's API v2: the files of a record, whole or not at all.

It spares the server: a few downloads at a time, waits that grow with every failure and are as long
as the server asks, and nothing is fetched twice: files whose MD5 already matches are left alone.
"""

import hashlib
import json
import random
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import requests
import urllib3
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from urllib3.util import Retry

from semforensics.core.errors import InputError, raise_problems
from semforensics.core.files import atomic_file
from semforensics.core.tables import is_below

_RETRIED = {403, 408, 429, 500, 502, 503, 504}
"""403 among them: a signed address that has run out answers so; the next try gets a new one."""
_CHUNK_BYTES = 1 << 16

T = TypeVar("T")


@dataclass(frozen=True)
class Client:
    """How figshare is asked; the times are in seconds."""

    base_url: str = "https://api.figshare.com/v2"
    page_size: int = 1000
    """The most that figshare gives; its default is 10."""
    parallel: int = 4
    attempts: int = 6
    first_wait_s: float = 1.0
    """Doubles with every further attempt, less up to a half at random."""
    longest_wait_s: float = 300.0
    """If the server asks for a longer one, the run ends with an error."""
    timeout_s: tuple[float, float] = (10.0, 60.0)
    """To connect; between two pieces of an answer."""
    file_timeout_s: float = 600.0
    """For one attempt at one file or page, so that a trickle ends too."""
    failures_before_giving_up: int = 4
    """Files that fail for good before the rest is not tried any more."""


@dataclass(frozen=True)
class RemoteFile:
    """One file of a record, as its listing has it."""

    file_id: int
    name: str
    size_bytes: int
    md5: str
    url: str
    """Answers with a redirect to an address that lives for seconds; only this one is kept."""


class _TemporaryError(Exception):
    """An answer that may be another one later."""

    response: urllib3.BaseHTTPResponse | None = None
    """May ask for a wait."""


class _Patience(Retry):
    """urllib3's Retry, but its first wait is not 0, and waits vary so that clients part.

    It is asked here, not by the session's adapter: what is tried again is a whole download, with
    its redirect to a new signed address, its size and its hash; the adapter would ask for the old
    address again, and sees no more than headers.
    """

    def get_backoff_time(self) -> float:
        """Return the wait in seconds: doubled with every failure, less up to a half at random."""
        longest_s = self.backoff_factor * 2.0 ** (len(self.history) - 1)
        return min(longest_s * random.uniform(0.5, 1), self.backoff_max)

    def parse_retry_after(self, retry_after: str) -> float:
        """Return the wait in seconds that a header asks for; 0 where it makes no sense."""
        try:
            return super().parse_retry_after(retry_after)
        except urllib3.exceptions.InvalidHeader:
            return 0.0


def list_record(record: int, client: Client) -> list[RemoteFile]:
    """Ask for all pages of a record's list of files, until one is short.

    Raises:
        InputError: figshare does not answer, or not as its API says.
    """
    url = f"{client.base_url}/articles/{record}/files"
    found: dict[int, RemoteFile] = {}
    problems: list[str] = []
    with _session() as session:
        for page in range(1, 1000):
            query = {"page": page, "page_size": client.page_size}
            entries = _persist(partial(_get_json, session, url, query, client), url, client)
            if not isinstance(entries, list):
                raise InputError(f"{url}, page {page}: {type(entries).__name__}, expected a list")
            known = len(found)
            for entry in entries:
                try:
                    file = parse_entry(entry)
                except InputError as error:
                    problems.append(str(error))
                else:
                    found.setdefault(file.file_id, file)
            if len(entries) < client.page_size:
                break
            if len(found) == known and not problems:
                raise InputError(f"{url}, page {page}: only files of earlier pages")
    raise_problems(problems, f"entries of {url} cannot be used")
    return list(found.values())


def _get_json(session: requests.Session, url: str, query: Mapping[str, int], client: Client) -> Any:
    """Ask once for JSON."""
    with session.get(url, params=dict(query), stream=True, timeout=client.timeout_s) as response:
        _check_status(response)
        text = b"".join(_chunks(response, client.file_timeout_s))
    try:
        return json.loads(text)
    except ValueError as error:
        raise _TemporaryError(f"not JSON: {error}") from error


def parse_entry(entry: Any) -> RemoteFile:
    """Read one entry of a listing.

    Raises:
        InputError: It lacks a field, points elsewhere, or has a name that is not a plain file name.
    """
    try:
        name, size, url = entry["name"], entry["size"], entry["download_url"]
        md5 = entry.get("computed_md5") or entry.get("supplied_md5")
        file_id, is_link = entry["id"], entry.get("is_link_only", False)
    except (TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{entry!r}: no field {error}") from error
    texts = all(isinstance(value, str) for value in (name, url))
    if not texts or not isinstance(size, int) or not isinstance(file_id, int):
        raise InputError(f"{entry!r}: a field is of the wrong type")
    if not is_below(name) or "/" in name or name.startswith("."):
        raise InputError(f"{name!r}: not a plain file name")
    if is_link:
        raise InputError(f"{name}: only a link to a file elsewhere")
    if not isinstance(md5, str) or not re.fullmatch("[0-9a-f]{32}", md5):
        raise InputError(f"{name}: its MD5 is {md5!r}")
    return RemoteFile(file_id, name, size, md5, url)


def download_all(files: list[RemoteFile], folder: Path, client: Client) -> None:
    """Fetch files into a folder, a few at a time; those that are there and whole are left alone.

    Raises:
        InputError: Some cannot be had whole; the message lists each of them with its reason.
    """
    folder.mkdir(parents=True, exist_ok=True)
    console = Console(stderr=True)
    problems: list[str] = []
    columns = TextColumn("Downloading"), BarColumn(), DownloadColumn(), TransferSpeedColumn()
    local = threading.local()
    with (
        Progress(*columns, console=console, disable=not console.is_terminal) as progress,
        ThreadPoolExecutor(client.parallel) as pool,
    ):
        task = progress.add_task("", total=sum(file.size_bytes for file in files))

        def fetch(file: RemoteFile) -> None:
            # One session per thread: requests does not promise that threads may share one.
            if not hasattr(local, "session"):
                local.session = _session()
            download(file, folder / file.name, local.session, client)
            progress.advance(task, file.size_bytes)

        futures = [pool.submit(fetch, file) for file in files]
        try:
            for future in as_completed(futures):
                error = None if future.cancelled() else future.exception()
                if isinstance(error, InputError):
                    problems.append(str(error))
                elif error is not None:
                    raise error
                if len(problems) == client.failures_before_giving_up:
                    # One by one: as_completed never hears of what a shutdown cancels.
                    for waiting in futures:
                        waiting.cancel()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    untried = sum(future.cancelled() for future in futures)
    raise_problems(problems, f"files cannot be fetched ({untried} more were not tried)")


def download(file: RemoteFile, path: Path, session: requests.Session, client: Client) -> None:
    """Fetch one file, unless it is there with the right MD5.

    Raises:
        InputError: It cannot be had whole.
    """
    if path.is_file() and path.stat().st_size == file.size_bytes and _md5_of(path) == file.md5:
        return
    _persist(partial(_download_once, file, path, session, client), file.name, client)


def _download_once(file: RemoteFile, path: Path, session: requests.Session, client: Client) -> None:
    """Try once; the file appears at its path only when size and MD5 are right."""
    digest, num_bytes = hashlib.md5(usedforsecurity=False), 0
    with (
        session.get(file.url, stream=True, timeout=client.timeout_s) as response,
        atomic_file(path) as temporary,
    ):
        _check_status(response)
        with temporary.open("wb") as out:
            for chunk in _chunks(response, client.file_timeout_s):
                num_bytes += len(chunk)
                if num_bytes > file.size_bytes:
                    break
                digest.update(chunk)
                out.write(chunk)
        if num_bytes != file.size_bytes:
            more = "more than " * (num_bytes > file.size_bytes)
            raise _TemporaryError(
                f"{more}{min(num_bytes, file.size_bytes)} bytes, expected {file.size_bytes}"
            )
        if digest.hexdigest() != file.md5:
            raise _TemporaryError(f"MD5 {digest.hexdigest()}, expected {file.md5}")


def _chunks(response: requests.Response, seconds: float) -> Iterator[bytes]:
    """Yield what has arrived, as it arrives, for at most so many seconds."""
    end = time.monotonic() + seconds
    # read1 returns with whatever there is, so that a trickle cannot outlast the deadline unseen.
    while chunk := response.raw.read1(_CHUNK_BYTES):
        if time.monotonic() > end:
            raise _TemporaryError(f"not finished within {seconds:g} s")
        yield chunk


def _persist(attempt: Callable[[], T], what: str, client: Client) -> T:
    """Repeat an attempt while its failure is a temporary one, with growing waits.

    Raises:
        InputError: It failed for good, or too often; the message begins with `what`.
    """
    retry = _Patience(
        client.attempts - 1, backoff_factor=client.first_wait_s, backoff_max=client.longest_wait_s
    )
    while True:
        try:
            return attempt()
        except ValueError as error:  # among them addresses that requests cannot use
            raise InputError(f"{what}: {error}") from error
        except (_TemporaryError, requests.RequestException, urllib3.exceptions.HTTPError) as error:
            failure = error
        reason = str(failure) or type(failure).__name__
        response = failure.response if isinstance(failure, _TemporaryError) else None
        asked_s = (retry.get_retry_after(response) or 0) if response else 0
        if asked_s > client.longest_wait_s:
            raise InputError(f"{what}: {reason}; the server asks to come back in {asked_s:.0f} s")
        try:
            retry = retry.increment("GET", what, error=failure)
        except urllib3.exceptions.MaxRetryError:
            raise InputError(f"{what}: {reason}, after {client.attempts} attempts") from failure
        retry.sleep(response)


def _check_status(response: requests.Response) -> None:
    """Raise for an answer that is not the one asked for."""
    message = f"{response.status_code} {response.reason}"
    if response.status_code in _RETRIED:
        error = _TemporaryError(message)
        error.response = response.raw
        raise error
    if response.status_code != requests.codes.ok:
        raise InputError(message)


def _session() -> requests.Session:
    """A session that says who asks."""
    session = requests.Session()
    session.headers["User-Agent"] = "semforensics (https://doi.org/10.1038/s41597-020-0439-1)"
    # Sizes and hashes are those of the file, not of a compressed answer.
    session.headers["Accept-Encoding"] = "identity"
    return session


def _md5_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
