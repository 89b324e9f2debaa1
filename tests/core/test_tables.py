"""CSV files of stages and users: read as text or as numbers, or refused by name."""

from pathlib import Path

import pandas as pd
import pytest

from semforensics.core.errors import InputError
from semforensics.core.tables import number_text, read_table, read_text, write_table


def test_texts_survive_a_round_trip(tmp_path: Path) -> None:
    """Numbers keep their digits, and a sample called NA stays a name."""
    text = 'file,sample,kv\na.tif,NA,20.0\n"b,c.tif",,1e1\n'
    (tmp_path / "a.csv").write_text(text)

    table = read_text(tmp_path / "a.csv")
    write_table(table, tmp_path / "b.csv")

    assert table["sample"].tolist() == ["NA", ""]
    assert (tmp_path / "b.csv").read_text() == text


@pytest.mark.parametrize("read", [read_text, read_table])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a,b\n1\xff,2\n", "not a CSV file"),
        (b'a,b\n"1,2\n', "not a CSV file"),
        (b"a,c\n1,2\n", "no column b; found a, c"),
        (b"", "not a CSV file|no column a, b"),
    ],
)
def test_what_is_no_such_table_is_refused(
    read: object, content: bytes, message: str, tmp_path: Path
) -> None:
    """The message names the file, what was found and what was expected."""
    (tmp_path / "a.csv").write_bytes(content)

    with pytest.raises(InputError, match=rf"a\.csv: ({message})"):
        read(tmp_path / "a.csv", ("a", "b"))


def test_rows_of_different_lengths_are_refused(tmp_path: Path) -> None:
    """A row with a value too many or too few is never cut or filled."""
    for row in ("1", "1,2,3"):
        (tmp_path / "a.csv").write_text(f"a,b\n{row}\n")
        with pytest.raises(InputError, match="rows of different lengths"):
            read_text(tmp_path / "a.csv")


@pytest.mark.parametrize(
    ("value", "text"), [(100.0, "100"), (8.3, "8.3"), (None, ""), (float("nan"), ""), (3, "3")]
)
def test_numbers_are_written_as_short_as_they_are(value: float | None, text: str) -> None:
    """Whole numbers have no point, unknown ones no text."""
    assert number_text(value) == text


def test_a_table_that_fails_leaves_the_old_one(tmp_path: Path) -> None:
    """Nothing is written by halves."""
    write_table(pd.DataFrame({"a": [1]}), tmp_path / "a.csv")

    with pytest.raises(TypeError):
        write_table(pd.DataFrame({"a": [_Unwritable()]}), tmp_path / "a.csv")

    assert (tmp_path / "a.csv").read_text() == "a\n1\n"


class _Unwritable:
    def __str__(self) -> str:
        raise TypeError("no text")
