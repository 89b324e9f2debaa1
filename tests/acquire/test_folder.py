"""A folder of the user's own micrographs."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from semforensics.acquire.folder import FOLDER_LISTING_COLUMNS, acquire_folder, list_folder
from semforensics.acquire.listing import matches, select_files
from semforensics.core.errors import InputError
from semforensics.core.files import sha256_of
from semforensics.core.tables import read_listing
from semforensics.params import FolderParams


def folder_params(**changes: object) -> FolderParams:
    """Everything in a folder, unless changed."""
    values = {"include": ("**/*",), "exclude": (), "measure": (), "licence": "CC0"}
    return FolderParams(**values | changes)


EVERYTHING = folder_params()
FILES = ("1-S1-A1-50k-ordered.tif", "deep/er/2-S1-A1-100k-ordered.png", "deep/photo.jpg")


def make_list(
    folder: Path,
    listing: Path,
    params: FolderParams = EVERYTHING,
    max_left_out: float = 0,
    manifest: Path | None = None,
) -> str:
    """List a folder."""
    return list_folder(folder, listing, params, max_left_out=max_left_out, manifest=manifest)


def acquire(
    folder: Path, tmp_path: Path, params: FolderParams = EVERYTHING, **options: object
) -> list[dict]:
    """List a folder and acquire it."""
    make_list(folder, tmp_path / "listing.csv", params, **options)
    return acquire_folder(params, tmp_path / "raw", folder, tmp_path / "listing.csv")


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
    make_list(folder, tmp_path / "listing.csv")
    return tmp_path / "listing.csv"


def test_listing_has_sizes_and_hashes(folder: Path, listing: Path) -> None:
    """The listing names every file, sorted, with its size and hash."""
    lines = listing.read_text().splitlines()

    assert lines[0] == ",".join(FOLDER_LISTING_COLUMNS)
    assert [line.split(",")[:3] for line in lines[1:]] == [
        [f, str((folder / f).stat().st_size), sha256_of(folder / f)] for f in sorted(FILES)
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
        "collection": "mine",
        "use": "train",
    }
    assert rows[1]["group"] == "S1-A1"
    assert rows[2] == {
        "file": FILES[2], "group": FILES[2], "licence": "CC0", "collection": "deep", "use": "train",
    }  # fmt: skip


def test_a_table_says_what_is_known(folder: Path, tmp_path: Path) -> None:
    """A table becomes part of the listing, counts before the names, and need not be complete."""
    manifest = tmp_path / "table.csv"
    manifest.write_text(
        f"KV,path,group,colour,licence,use\n5,{FILES[0]},g,red,MIT,\n7,{FILES[1]},,blue,,measure\n"
    )

    rows = acquire(folder, tmp_path, manifest=manifest)

    about = {row["file"]: row for row in rows}
    assert [about[FILES[0]][k] for k in ("kv", "group", "licence", "use")] == [
        "5", "g", "MIT", "train",
    ]  # fmt: skip
    assert [about[FILES[1]][k] for k in ("kv", "group", "licence", "use")] == [
        "7", "S1-A1", "CC0", "measure",
    ]  # fmt: skip
    assert about[FILES[2]]["group"] == FILES[2]


def test_each_folder_has_its_own_table(folder: Path, tmp_path: Path) -> None:
    """The nearest MANIFEST.csv counts, and names the collection after its folder."""
    (folder / "MANIFEST.csv").write_text(f"file,group,collection\n{FILES[0]},g,mine\n")
    (folder / "deep/manifest.csv").write_text("path,group\nphoto.jpg,g\n")

    rows = acquire(folder, tmp_path)

    assert {row["file"]: (row["collection"], row["group"]) for row in rows} == {
        FILES[0]: ("mine", "mine/g"),
        FILES[1]: ("deep", "S1-A1"),
        FILES[2]: ("deep", "deep/g"),
    }


def test_without_tables_each_sub_folder_is_a_collection(folder: Path, tmp_path: Path) -> None:
    """Files that are in no sub-folder are the collection of the folder itself."""
    rows = acquire(folder, tmp_path)

    assert [row["collection"] for row in rows] == ["mine", "deep", "deep"]


def test_patterns_choose_what_is_measured_and_excluded(folder: Path, tmp_path: Path) -> None:
    """What `measure` matches is for measuring only; what `exclude` matches is not read."""
    params = folder_params(measure=("deep/*.jpg",), exclude=("deep/er/**",))

    rows = acquire(folder, tmp_path, params)

    assert {row["file"]: row["use"] for row in rows} == {FILES[0]: "train", FILES[2]: "measure"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,group\nz.tif,g\n", r"table\.csv: names none of the 3 pictures"),
        ("file,group\n" + "".join(f"{f},g\n" for f in (*FILES, FILES[0])), "named twice"),
        ("sample,area\n", "columns sample, area; expected file, and perhaps group"),
        ("file,path\na.tif,a.tif\n", "file: a column twice"),
        (f"file,use\n{FILES[0]},sell\n", "use 'sell', expected train or measure"),
        (f"file,kv\n{FILES[0]},5 kV\n", "kv '5 kV', expected a number above 0"),
        (f"file,info_bar\n{FILES[0]},-3\n", "info_bar '-3', expected rows to cut"),
        ("file,group\na.tif\n", "rows of different lengths"),
        ("file,group\na.tif,b,c\n", "rows of different lengths"),
        ('file,group\n"a.tif,b\n', "not a CSV file"),
        ("", "columns ; expected"),
    ],
)
def test_wrong_tables_are_refused(text: str, message: str, folder: Path, tmp_path: Path) -> None:
    """A table that cannot be true of the folder is refused, and nothing is listed."""
    (tmp_path / "table.csv").write_text(text)

    with pytest.raises(InputError, match=message):
        make_list(folder, tmp_path / "listing.csv", manifest=tmp_path / "table.csv")

    assert not (tmp_path / "listing.csv").exists()


def test_what_is_no_picture_is_counted(folder: Path, tmp_path: Path) -> None:
    """Notes, hidden files and tables are no pictures; their number is said."""
    for name in ("README.md", "notes.txt", ".hidden.tif", "sub.csv"):
        (folder / name).write_text("hello")

    line = make_list(folder, tmp_path / "listing.csv")

    assert line.startswith("3 pictures of 2 collections")
    assert "4 files that are no pictures (1 .csv, 1 .md, 1 .tif, 1 .txt)" in line


def test_unreadable_and_equal_pictures_are_left_out_by_name(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A broken picture and a copy of another are named with the reason, and are not acquired."""
    (folder / "broken.tif").write_bytes(b"II*\0broken")
    (folder / "empty.png").touch()
    (folder / "copy.tif").write_bytes((folder / FILES[0]).read_bytes())

    rows = acquire(folder, tmp_path, max_left_out=0.5)

    assert {row["file"] for row in rows} == set(FILES)
    errors = capsys.readouterr().err
    assert f"left out: copy.tif: the same file as {FILES[0]}" in errors
    assert "left out: broken.tif: " in errors
    assert "left out: empty.png: empty" in errors


def test_too_many_unreadable_pictures_end_in_an_error(folder: Path, tmp_path: Path) -> None:
    """Above the share that may be left out, the run stops and lists every file."""
    (folder / "broken.tif").write_bytes(b"II*\0broken")

    make_list(folder, tmp_path / "listing.csv", max_left_out=0.25)
    with pytest.raises(InputError, match=r"1 of 4 pictures of .*mine cannot(?s:.*)broken\.tif: "):
        make_list(folder, tmp_path / "listing.csv", max_left_out=0.2)


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    """Of a folder without any picture the message says what is there."""
    (tmp_path / "a.txt").touch()

    with pytest.raises(InputError, match=r"no TIFF, PNG or JPEG file .* and 1 files"):
        make_list(tmp_path, tmp_path / "listing.csv")


def test_every_difference_from_the_listing_is_named(
    folder: Path, listing: Path, tmp_path: Path
) -> None:
    """New, missing and changed files end in one error that says how to list anew."""
    Image.fromarray(np.full((4, 5), 9, np.uint8)).save(folder / "new.tif")
    (folder / FILES[0]).unlink()
    data = (folder / FILES[1]).read_bytes()
    (folder / FILES[1]).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    Image.fromarray(np.full((4, 4), 9, np.uint8)).save(folder / FILES[2])

    with pytest.raises(ValueError, match=r"4 files of .*`semforensics list-folder ") as caught:
        acquire_folder(EVERYTHING, tmp_path / "raw", folder, listing)

    lines = {line.strip() for line in str(caught.value).splitlines()[1:]}
    expected = {"new.tif: new", f"{FILES[0]}: missing"}
    assert lines == expected | {f"{FILES[1]}: changed", f"{FILES[2]}: changed"}


def test_listing_again_makes_it_whole(folder: Path, listing: Path, tmp_path: Path) -> None:
    """After listing anew the changed folder is acquired."""
    (folder / FILES[0]).rename(folder / "renamed.tif")
    make_list(folder, listing)

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
    data = (folder / FILES[0]).read_bytes()
    (folder / FILES[0]).rename(folder / ".original")
    (folder / "link.tif").symlink_to(".original")

    acquire(folder, tmp_path)

    copy = tmp_path / "raw/link.tif"
    assert not copy.is_symlink()
    assert copy.read_bytes() == data


def test_everything_that_is_no_file_of_the_folder_is_listed(folder: Path, tmp_path: Path) -> None:
    """Links that leave the folder, links to nothing or to folders, and pipes are all refused."""
    (tmp_path / "secret.tif").write_bytes(b"secret")
    (folder / "out.tif").symlink_to(tmp_path / "secret.tif")
    (folder / "broken.tif").symlink_to(folder / "nowhere.tif")
    (folder / "circle.tif").symlink_to(folder / "circle.tif")
    (folder / "deep link").symlink_to(folder / "deep")
    os.mkfifo(folder / "pipe.tif")

    with pytest.raises(InputError, match="5 of 8 pictures") as caught:
        make_list(folder, tmp_path / "listing.csv")

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
    params = folder_params(include=("original_with_bar/**/*.tif", "cropped_890/**/*.tif"))

    rows = acquire(folder, tmp_path, params)

    assert len(rows) == 29
    assert len({row["group"] for row in rows}) == 22
    assert {row["magnification_k"] for row in rows} == {50, 100, 200}
