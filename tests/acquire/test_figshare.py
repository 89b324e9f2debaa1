"""The figshare client against a server with the manners and the faults of a real one."""

import time
from email.utils import formatdate
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from semforensics.acquire.figshare import RemoteFile, download_all, list_record, parse_entry

from .conftest import Figshare

RECORD = 11783661


@pytest.fixture(autouse=True)
def files(figshare: Figshare) -> dict[str, bytes]:
    """Ten files of some kilobytes, all different."""
    figshare.files = {f"{i}.tif": f"file {i} ".encode() * 2000 for i in range(10)}
    return figshare.files


def fetch(figshare: Figshare, folder: Path, **changes: Any) -> None:
    """List the record and fetch all its files."""
    client = figshare.client(**changes)
    download_all(list_record(RECORD, client), folder, client)


def contents(folder: Path) -> dict[str, bytes]:
    """Everything that lies in a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.exists() else {}


def test_all_pages_are_listed(figshare: Figshare) -> None:
    """Pages are asked for until one is short, and every file is listed once."""
    listed = list_record(RECORD, figshare.client(page_size=4))

    assert sorted(file.name for file in listed) == sorted(figshare.files)
    assert [what for _, what in figshare.asked] == ["page 1", "page 2", "page 3"]


def test_an_empty_page_ends_the_list_too(figshare: Figshare) -> None:
    """When the last page is full, one more is asked for."""
    listed = list_record(RECORD, figshare.client(page_size=5))

    assert len(listed) == 10
    assert [what for _, what in figshare.asked] == ["page 1", "page 2", "page 3"]


def test_all_files_arrive_through_their_redirects(figshare: Figshare, tmp_path: Path) -> None:
    """Downloads follow the redirect to a signed address at once, a few at a time."""
    fetch(figshare, tmp_path / "new", parallel=3)

    assert contents(tmp_path / "new") == figshare.files
    assert 1 < figshare.most_at_once <= 3


def test_whole_files_are_not_fetched_again(figshare: Figshare, tmp_path: Path) -> None:
    """A second run fetches only what is missing, or has another MD5 or size."""
    fetch(figshare, tmp_path)
    (tmp_path / "3.tif").unlink()
    (tmp_path / "4.tif").write_bytes(b"x" * len(figshare.files["4.tif"]))
    (tmp_path / "5.tif").write_bytes(figshare.files["5.tif"][:-1])
    figshare.asked.clear()

    fetch(figshare, tmp_path)

    assert contents(tmp_path) == figshare.files
    fetched = sorted(what for _, what in figshare.asked if not what.startswith("page"))
    assert fetched == ["3.tif", "4.tif", "5.tif"]


@pytest.mark.parametrize(
    "fault",
    ["drop", "hang up", "wrong byte", "stall", "trickle", "429", "503", "500", "403"],
)
def test_passing_faults_end_in_the_whole_set(
    fault: str, figshare: Figshare, tmp_path: Path
) -> None:
    """Files that come broken, late or not at all are fetched again, until all are right."""
    figshare.faults = {"2.tif": [fault], "7.tif": [fault, fault]}

    fetch(figshare, tmp_path)

    assert contents(tmp_path) == figshare.files
    assert len(figshare.requests_for("2.tif")) == 2
    assert len(figshare.requests_for("7.tif")) == 3
    assert len(figshare.requests_for("1.tif")) == 1


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("drop", "bytes"),
        ("hang up", "aborted|disconnected"),
        ("wrong byte", "MD5 .* expected"),
        ("stall", "timed out"),
        ("trickle", "not finished within 0.5 s"),
        ("429", "429 Too Many Requests"),
        ("503", "503 Service Unavailable"),
    ],
)
def test_lasting_faults_end_in_a_clear_error(
    fault: str, reason: str, figshare: Figshare, tmp_path: Path
) -> None:
    """A file that never comes whole is named with the reason; the others are kept, whole."""
    figshare.faults = {"7.tif": [fault] * 9}

    with pytest.raises(
        ValueError, match=rf"(?s)1 files.*\(0 more .*7\.tif: .*({reason}).*after 4 attempts"
    ):
        fetch(figshare, tmp_path, file_timeout_s=0.5)

    expected = {name: data for name, data in figshare.files.items() if name != "7.tif"}
    assert contents(tmp_path) == expected


@pytest.mark.parametrize("fault", ["404", "410", "401"])
def test_what_is_gone_is_not_asked_for_again(
    fault: str, figshare: Figshare, tmp_path: Path
) -> None:
    """An answer that more patience cannot change ends the attempts."""
    figshare.faults = {"7.tif": [fault] * 9}

    with pytest.raises(ValueError, match=rf"7\.tif: {fault}"):
        fetch(figshare, tmp_path)

    assert len(figshare.requests_for("7.tif")) == 1


def test_a_dead_server_is_left_alone(figshare: Figshare, tmp_path: Path) -> None:
    """After some files that fail for good the rest is not tried, and the error says so."""
    figshare.faults = {name: ["404"] for name in figshare.files}

    with pytest.raises(ValueError, match=r"\((6|7|8) more were not tried\)(?s:.*)404"):
        fetch(figshare, tmp_path, parallel=1, failures_before_giving_up=2)

    assert contents(tmp_path) == {}
    assert len([what for _, what in figshare.asked if what.endswith(".tif")]) < 6


def test_nobody_answers(figshare: Figshare) -> None:
    """A host that is not there ends in an error that names the address."""
    with pytest.raises(ValueError, match=r"http://127\.0\.0\.1:1/v2/articles/.*after 2 attempts"):
        list_record(RECORD, figshare.client(base_url="http://127.0.0.1:1/v2", attempts=2))


def test_waits_grow(figshare: Figshare, tmp_path: Path) -> None:
    """Each wait is up to twice as long as the one before, and at least half of that."""
    figshare.faults = {"7.tif": ["503"] * 3}

    fetch(figshare, tmp_path, first_wait_s=0.1)

    times = figshare.requests_for("7.tif")
    waits = [later - earlier for earlier, later in pairwise(times)]
    for wait, longest in zip(waits, (0.1, 0.2, 0.4), strict=True):
        assert longest / 2 <= wait < longest + 1  # an answer may take a while on a busy machine


@pytest.mark.parametrize("kind", ["seconds", "date"])
def test_retry_after_is_honoured(kind: str, figshare: Figshare, tmp_path: Path) -> None:
    """The client waits as long as the server asks, said in seconds or as a date."""
    # A date has whole seconds, and some time passes before the file's turn: 3 s are 1 s at least.
    figshare.retry_after = "1" if kind == "seconds" else formatdate(time.time() + 3, usegmt=True)
    figshare.faults = {"7.tif": ["429"]}

    fetch(figshare, tmp_path)

    first, second = figshare.requests_for("7.tif")
    assert second - first >= 0.9
    assert contents(tmp_path) == figshare.files


def test_too_long_a_wait_ends_the_run(figshare: Figshare, tmp_path: Path) -> None:
    """A server that wants to be left alone for an hour is, and the user is told."""
    figshare.retry_after = "3600"
    figshare.faults = {"7.tif": ["429"]}

    with pytest.raises(ValueError, match="come back in 3600 s"):
        fetch(figshare, tmp_path)

    assert len(figshare.requests_for("7.tif")) == 1


def test_nonsense_in_retry_after_is_not_waited_for(figshare: Figshare, tmp_path: Path) -> None:
    """A Retry-After that is neither number nor date counts for nothing."""
    figshare.retry_after = "soon"
    figshare.faults = {"7.tif": ["429"]}

    fetch(figshare, tmp_path)

    assert contents(tmp_path) == figshare.files


@pytest.mark.parametrize("fault", ["429", "503", "html", "drop", "hang up", "trickle"])
def test_listing_survives_passing_faults(fault: str, figshare: Figshare) -> None:
    """A page that comes broken is asked for again."""
    figshare.faults = {"page 2": [fault, fault]}

    listed = list_record(RECORD, figshare.client())

    assert len(listed) == 10
    assert len(figshare.requests_for("page 2")) == 3


def test_listing_of_another_shape_is_refused(figshare: Figshare) -> None:
    """An answer that is no list of entries is named for what it is."""
    figshare.edit = lambda _: {"message": "moved"}
    with pytest.raises(ValueError, match="page 1: dict, expected a list"):
        list_record(RECORD, figshare.client())

    figshare.edit = lambda _: ["a.tif", None, {"name": "b.tif"}]
    with pytest.raises(ValueError, match="3 entries of"):
        list_record(RECORD, figshare.client())


def test_pages_without_end_are_refused(figshare: Figshare) -> None:
    """A server that gives the same full page for ever is left after the second one."""
    figshare.edit = lambda entries: entries[:4] * 1000

    with pytest.raises(ValueError, match="page 2: only files of earlier pages"):
        list_record(RECORD, figshare.client())


def test_entries_that_appear_on_two_pages_count_once(figshare: Figshare) -> None:
    """When the listing shifts between two pages, a repeated entry is no second file."""
    figshare.edit = lambda entries: [*entries[:4], *entries[3:]]

    assert len(list_record(RECORD, figshare.client())) == 10


@pytest.mark.parametrize(
    "name",
    [
        "../evil.tif",
        "/etc/evil.tif",
        "a/b.tif",
        "..\\evil.tif",
        "..",
        ".",
        "",
        ".bashrc",
        "a\0b.tif",
    ],
)
def test_names_that_lead_elsewhere_are_refused(
    name: str, figshare: Figshare, tmp_path: Path
) -> None:
    """A listing with a path for a name is refused before anything is fetched."""
    figshare.edit = lambda entries: [*entries[:-1], entries[-1] | {"name": name}]

    with pytest.raises(
        ValueError, match=r"1 entries of .*cannot be used:\n.*not a plain file name"
    ):
        fetch(figshare, tmp_path / "a/b/new")

    assert list(tmp_path.rglob("*")) == []
    assert all(what.startswith("page") for _, what in figshare.asked)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"is_link_only": True}, "only a link"),
        ({"computed_md5": "", "supplied_md5": ""}, "MD5 is ''"),
        ({"computed_md5": "../x", "supplied_md5": ""}, "MD5 is '../x'"),
        ({"computed_md5": 5}, "MD5 is 5"),
        ({"size": "12"}, "wrong type"),
        ({"name": 7}, "wrong type"),
        ({"download_url": None}, "wrong type"),
    ],
)
def test_unusable_entries_are_named(
    change: dict[str, Any], reason: str, figshare: Figshare
) -> None:
    """Every entry that cannot be used is listed with its reason."""
    figshare.edit = lambda entries: [e | change if e["id"] in (2, 6) else e for e in entries]

    with pytest.raises(ValueError, match=f"(?s)2 entries .*{reason}.*{reason}"):
        list_record(RECORD, figshare.client())


def test_computed_md5_counts_before_the_supplied_one(figshare: Figshare) -> None:
    """The hash of figshare itself is taken where there is one, else the uploader's."""
    entry = figshare.entries()[1]

    assert parse_entry(entry | {"supplied_md5": "0" * 32}).md5 == entry["computed_md5"]
    assert parse_entry(entry | {"computed_md5": None}).md5 == entry["supplied_md5"]


@pytest.mark.parametrize("more", [-5, 5])
def test_files_of_another_size_than_listed_are_refused(
    more: int, figshare: Figshare, tmp_path: Path
) -> None:
    """A file that is longer or shorter than its entry says is not kept."""
    figshare.edit = lambda entries: [
        e | {"size": e["size"] + more} if e["name"] == "7.tif" else e for e in entries
    ]

    with pytest.raises(ValueError, match=r"7\.tif: .*bytes, expected \d+"):
        fetch(figshare, tmp_path)

    assert "7.tif" not in contents(tmp_path)
    assert len(contents(tmp_path)) == 9


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://127.0.0.1/a", "not an address", ""])
def test_only_web_addresses_are_fetched(url: str, figshare: Figshare, tmp_path: Path) -> None:
    """An address of another kind is refused at once."""
    file = RemoteFile(1, "a.tif", 10, "0" * 32, url)

    started = time.monotonic()
    with pytest.raises(ValueError, match=r"a\.tif: "):
        download_all([file], tmp_path, figshare.client(first_wait_s=20, longest_wait_s=20))

    assert time.monotonic() - started < 10
    assert contents(tmp_path) == {}


def test_redirects_in_a_circle_end(figshare: Figshare, tmp_path: Path) -> None:
    """Redirects that lead back to themselves are not followed for ever."""
    file = RemoteFile(1, "a.tif", 10, "0" * 32, f"{figshare.url}/circle")

    with pytest.raises(ValueError, match=r"a\.tif: Exceeded 30 redirects"):
        download_all([file], tmp_path, figshare.client())

    assert contents(tmp_path) == {}
