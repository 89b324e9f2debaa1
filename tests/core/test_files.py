"""Files and folders are written whole or not at all."""

from pathlib import Path

import pytest

from semforensics.core.errors import InputError
from semforensics.core.files import atomic_file, atomic_folder, read_json, sha256_of, write_json


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    """An error inside the block keeps the former content and no temporary file."""
    target = tmp_path / "table.csv"
    target.write_text("old")

    with pytest.raises(RuntimeError, match="disk"), atomic_file(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError("disk full")

    assert target.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["table.csv"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a disk that is always full")
def test_a_full_disk_is_named_with_the_file(tmp_path: Path) -> None:
    """The system's error of a write has no name; the user must know which disk."""
    with (
        pytest.raises(OSError, match=r"No space left on device: '.*kept\.bin'"),
        atomic_file(tmp_path / "kept.bin") as temporary,
    ):
        temporary.symlink_to("/dev/full")
        temporary.write_bytes(b"x")

    assert list(tmp_path.iterdir()) == []


def test_a_file_appears_whole(tmp_path: Path) -> None:
    """The target does not exist until the block ends, and keeps its suffix meanwhile."""
    target = tmp_path / "new" / "image.png"

    with atomic_file(target) as temporary:
        temporary.write_text("pixels")
        assert not target.exists()
        assert temporary.suffix == ".png"

    assert target.read_text() == "pixels"


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    """A second run leaves nothing of the first one's files."""
    target = tmp_path / "crops"

    for name in ("first", "second"):
        with atomic_folder(target) as temporary:
            (temporary / name).write_text(name)

    assert [p.name for p in target.iterdir()] == ["second"]
    assert [p.name for p in tmp_path.iterdir()] == ["crops"]


def test_a_failed_folder_leaves_the_old_one(tmp_path: Path) -> None:
    """An error inside the block keeps the former folder and removes the new one."""
    target = tmp_path / "crops"
    target.mkdir()
    (target / "old").write_text("old")

    with pytest.raises(RuntimeError, match="disk"), atomic_folder(target) as temporary:
        (temporary / "half").write_text("half")
        raise RuntimeError("disk full")

    assert [p.name for p in target.iterdir()] == ["old"]
    assert [p.name for p in tmp_path.iterdir()] == ["crops"]


def test_sha256_of_a_known_text(tmp_path: Path) -> None:
    """The hash is the published one of the text `abc` (FIPS 180-2, appendix B.1)."""
    (tmp_path / "abc").write_text("abc")

    digest = sha256_of(tmp_path / "abc")

    assert digest == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_json_comes_back_and_what_is_none_is_named(tmp_path: Path) -> None:
    """Objects are read as they were written, NaN as null; what is not JSON is refused by name."""
    write_json(tmp_path / "a.json", {"value": 0.1, "none": [None, float("nan")]})
    (tmp_path / "list.json").write_text("[1]")
    (tmp_path / "broken.json").write_bytes(b"\xff{")

    assert read_json(tmp_path / "a.json") == {"value": 0.1, "none": [None, None]}
    with pytest.raises(InputError, match=r"list\.json: not a JSON object"):
        read_json(tmp_path / "list.json")
    with pytest.raises(InputError, match=r"broken\.json: not JSON"):
        read_json(tmp_path / "broken.json")
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "infinite.json", float("inf"))
    assert not (tmp_path / "infinite.json").exists()
