"""A folder of the user's own micrographs."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from semforensics.acquire.folder import acquire_folder, list_folder
from semforensics.acquire.listing import matches, select_files
from semforensics.core.files import sha256_of
from semforensics.core.tables import LISTING_COLUMNS, read_listing
from semforensics.params import FolderParams

EVERYTHING = FolderParams(include=("**/*",), licence="CC0")
FILES = ("1-S1-A1-50k-ordered.tif", "deep/er/2-S1-A1-100k-ordered.png", "deep/photo.jpg")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three pictures of three formats, two of them in subfolders."""
    folder = tmp_path / "mine"
    for i, file in enumerate(FILES):
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 5), i, np.uint8)).save(folder / file)
    return folder


@pytest.fixture
def listing(folder: Path, tmp_path: Path) -> Path:
    """The listing of that folder."""
    list_folder(folder, tmp_path / "listing.csv", EVERYTHING)
    return tmp_path / "listing.csv"


def test_listing_has_sizes_and_hashes(folder: Path, listing: Path) -> None:
    """The listing names every file, sorted, with its size and hash."""
    lines = listing.read_text().splitlines()

    assert lines[0] == ",".join(LISTING_COLUMNS)
    assert lines[1:] == [
        f"{f},{(folder / f).stat().st_size},{sha256_of(folder / f)}" for f in sorted(FILES)
    ]


def test_tracked_listing_is_empty(root: Path) -> None:
    """The repository's own listing has a header and nothing else on the main branch."""
    assert read_listing(root / "data/folder_listing.csv").empty


def test_listed_files_are_copied(folder: Path, listing: Path, tmp_path: Path) -> None:
    """Every listed file arrives at its relative path, as a file of its own."""
    rows = acquire_folder(EVERYTHING, tmp_path / "raw", folder, listing)

    assert [row["file"] for row in rows] == sorted(FILES)
    for file in FILES:
        assert (tmp_path / "raw" / file).read_bytes() == (folder / file).read_bytes()
        assert not (tmp_path / "raw" / file).samefile(folder / file)


def test_groups_come_from_names_else_each_file_is_one(
    folder: Path, listing: Path, tmp_path: Path
) -> None:
    """Two views of one area share a group; a file of another name is its own group."""
    rows = acquire_folder(EVERYTHING, tmp_path / "raw", folder, listing)

    assert rows[0] == {
        "file": FILES[0],
        "sample": "S1",
        "area": "A1",
        "magnification_k": 50,
        "group": "S1-A1",
        "label": "ordered",
        "licence": "CC0",
    }
    assert rows[1]["group"] == "S1-A1"
    assert rows[2] == {"file": FILES[2], "group": FILES[2], "licence": "CC0"}


def test_groups_come_from_a_csv(folder: Path, tmp_path: Path) -> None:
    """A CSV of groups becomes part of the listing, and counts before the names."""
    groups, listing = tmp_path / "groups.csv", tmp_path / "listing.csv"
    groups.write_text("kv,file,group\n" + "".join(f"{i},{f},g{i}\n" for i, f in enumerate(FILES)))

    list_folder(folder, listing, EVERYTHING, groups)
    rows = acquire_folder(EVERYTHING, tmp_path / "raw", folder, listing)

    assert {row["file"]: (row["group"], row["kv"]) for row in rows} == {
        file: (f"g{i}", str(i)) for i, file in enumerate(FILES)
    }
    assert rows[0]["sample"] == "", "what the CSV does not say is unknown"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,group\na.tif,g\n", r"4 problems(?s:.*)a\.tif: not in the folder(?s:.*)has no group"),
        ("file,group\n" + "".join(f"{f},g\n" for f in (*FILES, FILES[0])), "named twice"),
        ("file,group\n" + "".join(f"{f}, \n" for f in FILES), "its group is empty"),
        ("file,sample\n", "columns file, sample; expected file, group"),
        ("file,group,colour\n", "colour; expected file, group"),
        ("file,group\na.tif\n", "rows of different lengths"),
        ("file,group\na.tif,b,c\n", "rows of different lengths"),
        ('file,group\n"a.tif,b\n', "not a CSV file"),
        ("", "columns ; expected"),
    ],
)
def test_wrong_groups_are_refused(text: str, message: str, folder: Path, tmp_path: Path) -> None:
    """A CSV of groups that does not name every file once is refused, and nothing is listed."""
    (tmp_path / "groups.csv").write_text(text)

    with pytest.raises(ValueError, match=message):
        list_folder(folder, tmp_path / "listing.csv", EVERYTHING, tmp_path / "groups.csv")

    assert not (tmp_path / "listing.csv").exists()


def test_every_difference_from_the_listing_is_named(
    folder: Path, listing: Path, tmp_path: Path
) -> None:
    """New, missing and changed files end in one error that says how to list anew."""
    (folder / "new.tif").write_bytes(b"new")
    (folder / FILES[0]).unlink()
    data = (folder / FILES[1]).read_bytes()
    (folder / FILES[1]).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    (folder / FILES[2]).write_bytes(b"shorter")

    with pytest.raises(ValueError, match=r"4 files of .*`semforensics list-folder ") as caught:
        acquire_folder(EVERYTHING, tmp_path / "raw", folder, listing)

    lines = {line.strip() for line in str(caught.value).splitlines()[1:]}
    expected = {"new.tif: new", f"{FILES[0]}: missing"}
    assert lines == expected | {f"{FILES[1]}: changed", f"{FILES[2]}: changed"}


def test_listing_again_makes_it_whole(folder: Path, listing: Path, tmp_path: Path) -> None:
    """After listing anew the changed folder is acquired."""
    (folder / FILES[0]).rename(folder / "renamed.tif")
    list_folder(folder, listing, EVERYTHING)

    rows = acquire_folder(EVERYTHING, tmp_path / "raw", folder, listing)

    assert sorted(row["file"] for row in rows) == sorted(["renamed.tif", *FILES[1:]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "columns ; expected file, size_bytes, sha256"),
        ("file,sha256\n", "expected file, size_bytes, sha256"),
        ("file,size_bytes,sha256\n../a.tif,1,0\n", r"'\.\./a\.tif': not a path below"),
        ("file,size_bytes,sha256\na.tif,1,0\na.tif,1,0\n", "listed twice"),
        ("file,size_bytes,sha256\na.tif,1\n", "rows of different lengths"),
    ],
)
def test_broken_listings_are_refused(text: str, message: str, tmp_path: Path) -> None:
    """A listing edited by hand is refused with what is wrong."""
    (tmp_path / "listing.csv").write_text(text)

    with pytest.raises(ValueError, match=message):
        read_listing(tmp_path / "listing.csv")


def test_only_patterns_select(folder: Path) -> None:
    """Files that no pattern names are left out; what two patterns name is listed once."""
    (folder / "notes.txt").write_text("hello")

    assert select_files(folder, ["*.tif", "**/*.tif"]) == [FILES[0]]
    assert select_files(folder, ["deep/**"]) == sorted(FILES[1:])
    assert select_files(folder, ["**/*"]) == sorted([*FILES, "notes.txt"])


def test_patterns_that_select_nothing_are_an_error(folder: Path) -> None:
    """A pattern with a slip of the pen does not silently leave files out."""
    with pytest.raises(ValueError, match=r"no file matches the pattern '\*\.tiff'"):
        select_files(folder, ["**/*.tif", "*.tiff"])


def test_links_inside_the_folder_are_files(folder: Path, tmp_path: Path) -> None:
    """A link to a file of the folder is copied as that file."""
    (folder / "link.tif").symlink_to(FILES[0])
    list_folder(folder, tmp_path / "listing.csv", EVERYTHING)

    acquire_folder(EVERYTHING, tmp_path / "raw", folder, tmp_path / "listing.csv")

    copy = tmp_path / "raw/link.tif"
    assert not copy.is_symlink()
    assert copy.read_bytes() == (folder / FILES[0]).read_bytes()


def test_everything_that_is_no_file_of_the_folder_is_listed(folder: Path, tmp_path: Path) -> None:
    """Links that leave the folder, links to nothing or to folders, and pipes are all refused."""
    (tmp_path / "secret.tif").write_bytes(b"secret")
    (folder / "out.tif").symlink_to(tmp_path / "secret.tif")
    (folder / "broken.tif").symlink_to(folder / "nowhere.tif")
    (folder / "circle.tif").symlink_to(folder / "circle.tif")
    (folder / "deep link").symlink_to(folder / "deep")
    os.mkfifo(folder / "pipe.tif")

    with pytest.raises(ValueError, match="5 problems") as caught:
        list_folder(folder, tmp_path / "listing.csv", EVERYTHING)

    message = str(caught.value)
    for reason in (
        "out.tif: a link that leads out of the folder, to ",
        "broken.tif: a broken link",
        "circle.tif: a broken link",
        "deep link: a link to a folder, which is not followed",
        "pipe.tif: not a regular file",
    ):
        assert reason in message
    assert not (tmp_path / "listing.csv").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is unreadable to root")
def test_unreadable_files_and_folders_are_listed(folder: Path) -> None:
    """What may not be read is named before anything is copied."""
    (folder / FILES[0]).chmod(0)
    (folder / "deep/er").chmod(0)

    with pytest.raises(ValueError, match=r"(?s)2 problems.*Permission denied.*may not be read"):
        select_files(folder, ["**/*"])

    (folder / "deep/er").chmod(0o700)


def test_a_folder_that_is_gone_is_named(listing: Path, tmp_path: Path) -> None:
    """A folder that does not exist is an error, not an empty set."""
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
        acquire_folder(EVERYTHING, tmp_path / "raw", tmp_path / "nowhere", listing)


@pytest.mark.parametrize(
    ("path", "pattern", "expected"),
    [
        ("a.tif", "*.tif", True),
        ("a.TIF", "*.tif", False),
        ("a/b.tif", "*.tif", False),
        ("a/b.tif", "**/*.tif", True),
        ("b.tif", "**/*.tif", True),
        ("a/b/c.tif", "a/**/*.tif", True),
        ("a/c.tif", "a/**/*.tif", True),
        ("b/a/c.tif", "a/**/*.tif", False),
        ("a/b/c.tif", "a/*/c.tif", True),
        ("a/c.tif", "a/*/c.tif", False),
        ("a/b/c.tif", "a/**", True),
        ("a", "a/**", False),
        ("a/b1.tif", "a/b[0-9].tif", True),
        (".hidden", "**/*", True),
    ],
)
def test_patterns_match_as_globs_do(path: str, pattern: str, expected: bool) -> None:
    """`*` stays within a name, `**` stands for any number of folders, capitals count."""
    assert matches(path.split("/"), pattern.split("/")) is expected


PARTS = st.lists(st.sampled_from(["a", "b", "ab"]), min_size=1, max_size=4)


@given(
    path=PARTS, pattern=st.lists(st.sampled_from(["a", "b*", "*", "**"]), min_size=1, max_size=4)
)
def test_patterns_match_as_pathlib_does(
    path: list[str], pattern: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Selection agrees with pathlib's own glob, save that a last `**` takes files."""
    folder = tmp_path_factory.mktemp("glob")
    file = folder.joinpath(*path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()

    glob = [*pattern, "*"] if pattern[-1] == "**" else pattern
    found = any(p.is_file() for p in folder.glob("/".join(glob)))

    assert matches(path, pattern) is found


def test_published_micrographs_form_22_groups(shared: Path, tmp_path: Path) -> None:
    """The 29 raw micrographs of the published set that lie here are 22 groups."""
    folder = shared / "sem/boiko-pdc-partial"
    params = FolderParams(
        include=("original_with_bar/**/*.tif", "cropped_890/**/*.tif"), licence="CC BY 4.0"
    )

    assert list_folder(folder, tmp_path / "listing.csv", params) == 29
    rows = acquire_folder(params, tmp_path / "raw", folder, tmp_path / "listing.csv")

    assert len({row["group"] for row in rows}) == 22
    assert {row["magnification_k"] for row in rows} == {50, 100, 200}
