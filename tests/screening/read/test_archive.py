"""The files of a ZIP archive, unpacked in memory under limits."""

import io
import stat
import struct
import zipfile

import pytest
from tests.screening.documents import zipped

from semforensics.screening.read.archive import Member, read_zip
from semforensics.screening.records import Limits, Refusal


def unpack(data: bytes, **limits: float) -> list[Member | Refusal]:
    """Read an archive, under wide limits but for those given."""
    bounds = {"max_pictures": 100, "max_file_mb": 100.0, "max_unpacked_mb": 100.0} | limits
    return list(read_zip(data, Limits(**bounds)))


def refusal(name: str, reason: str) -> Refusal:
    """A member that is not read."""
    return Refusal(name, "", None, reason)


@pytest.mark.parametrize("name", ["../x.png", "/etc/x.png", "a/../../x", "C:\\x.png", "..\\x.png"])
def test_names_that_point_out_of_the_archive_are_refused(name: str) -> None:
    """They are refused by name, and the others are read."""
    refused, read = unpack(zipped({name: b"1", "z.png": b"2"}))

    assert isinstance(refused, Refusal)
    assert refused.reason == "a name that points out of the archive"
    assert read == Member("z.png", b"2", None)


def test_members_without_a_name_are_refused() -> None:
    """Nothing breaks on them, and the others are read."""
    data = bytearray(zipped({"x": b"1", "z.png": b"2"}))
    table = data.index(b"PK\1\2")
    data[table + 28] = 0  # the length of the first name
    del data[table + 46]  # the name
    data[-10:-6] = struct.pack("<I", struct.unpack("<I", data[-10:-6])[0] - 1)

    refused, read = unpack(bytes(data))

    assert refused == refusal("", "a member without a name")
    assert read == Member("z.png", b"2", None)


def test_a_name_that_occurs_twice_is_read_once() -> None:
    """A report could not tell the two apart, and would call them reuse of each other."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("x.png", b"1")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("x.png", b"1")

    assert unpack(buffer.getvalue()) == [
        Member("x.png", b"1", None),
        refusal("x.png", "a second member of this name"),
    ]


def test_links_are_refused() -> None:
    """A link to another file of the machine is not followed."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        info = zipfile.ZipInfo("x.png")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "/etc/passwd")

    assert unpack(buffer.getvalue()) == [refusal("x.png", "a link, not a file")]


def test_encrypted_members_are_refused() -> None:
    """Nobody is asked for a password."""
    data = bytearray(zipped({"x.png": b"1"}))
    data[data.index(b"PK\1\2") + 8] |= 1

    assert unpack(bytes(data)) == [refusal("x.png", "encrypted: needs a password")]


def test_members_that_swell_are_refused() -> None:
    """Size, ratio and sum are bounded, and what was unpacked in vain counts too."""
    bomb = zipped({"a": bytes(30_000_000), "b": b"2"})

    by_ratio, small = unpack(bomb)
    assert by_ratio == refusal("a", "unpacks to more than 200 times its size")
    assert small == Member("b", b"2", None)
    assert unpack(bomb, max_file_mb=5.0)[0] == refusal("a", "unpacks to more than 5 MB")
    refused = refusal("b", "the archive unpacks to more than is read of one")
    assert unpack(bomb, max_unpacked_mb=8.0)[1] == refused


def test_a_size_that_lies_is_not_believed() -> None:
    """The header's word does not decide how much is unpacked."""
    data = zipped({"a": bytes(30_000_000)})
    lie = data.replace(struct.pack("<I", 30_000_000), struct.pack("<I", 100))

    (found,) = unpack(lie, max_file_mb=5.0)

    assert isinstance(found, Refusal) or len(found.data) <= 100


def test_methods_that_take_memory_beforehand_are_refused() -> None:
    """LZMA's header may ask for 4 GB before the first byte."""
    (found,) = unpack(zipped({"a": b"1" * 100}, zipfile.ZIP_LZMA))

    assert found == refusal("a", "packed by method 14, expected stored or deflated")


def test_damage_is_found() -> None:
    """A member with a wrong checksum is refused."""
    data = bytearray(zipped({"a": b"grey levels"}, zipfile.ZIP_STORED))
    data[data.index(b"grey")] ^= 1

    (found,) = unpack(bytes(data))

    assert isinstance(found, Refusal)
    assert "Bad CRC-32" in found.reason


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (zipped({}), "an archive without files"),
        (zipped({".hidden": b"1", "__MACOSX/x": b"2"}), "an archive without files"),
        (zipped({"a": b"1"})[:-10], "not a readable ZIP archive"),
        (zipped({str(n): b"" for n in range(101)}), "101 members, more than 100"),
        (zipped({"a": b"PK\1\2" * 3000}, zipfile.ZIP_STORED), "3001 entries, more than 2000"),
    ],
)
def test_archives_that_cannot_be_read_are_refused(data: bytes, message: str) -> None:
    """The whole archive is refused, with the reason."""
    with pytest.raises(ValueError, match=message):
        unpack(data)


def test_texts_beside_pictures_go_with_them() -> None:
    """A text of the same name is not a member of its own; one without a picture is."""
    found = unpack(zipped({"a.tif": b"1", "a.txt": b"$CM_MAG 1", "b.txt": b"2"}))

    assert found == [Member("a.tif", b"1", "$CM_MAG 1"), Member("b.txt", b"2", None)]


def test_names_are_fit_to_be_shown() -> None:
    """Control characters are replaced and endless names cut."""
    (found,) = unpack(zipped({"a\x1b[31m" + "b" * 1000: b"1"}))

    assert found.name.startswith("a?[31mb")
    assert len(found.name) == 300
