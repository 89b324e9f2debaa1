"""What file names say."""

import csv
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from semforensics.acquire.names import BoikoName, parse_name

WORDS = st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=6)


@given(
    image_id=st.integers(0, 10**6),
    sample=WORDS,
    area=st.none() | WORDS,
    magnification_k=st.integers(1, 1000),
    label=st.sampled_from(["ordered", "disordered"]),
    folder=st.sampled_from(["", "a/", "7-S1-A1-50k-ordered/b/"]),
    suffix=st.sampled_from([".tif", ".TIFF", ".png", ".jpg"]),
)
def test_names_survive_a_round_trip(
    image_id: int,
    sample: str,
    area: str | None,
    magnification_k: int,
    label: str,
    folder: str,
    suffix: str,
) -> None:
    """A name written by the rule is read back, whatever folder and suffix it has."""
    stem = f"{image_id}-{sample}-{area or 'no_area'}-{magnification_k}k-{label}"

    name = parse_name(f"{folder}{stem}{suffix}")

    assert name == BoikoName(image_id, sample, area, magnification_k, label)
    assert name.group == f"{sample}-{area or 'no_area'}"


@given(st.text(max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    """No file name makes the parser fail, and what it reads it can write again."""
    name = parse_name(text)

    if name is not None:
        assert f"-{name.sample}-{name.area or 'no_area'}-" in text
        assert f"k-{name.label}" in text


@pytest.mark.parametrize(
    "name",
    [
        "501-S1-A6-50k.tif",
        "501-S1-A6-50-ordered.tif",
        "501-S1-50k-ordered.tif",
        "x-S1-A6-50k-ordered.tif",
        "501-S1-A6-50k-unordered.tif",
        "501-S1-A6-50k-ordered copy.tif",
        "",
    ],
)
def test_other_names_say_nothing(name: str) -> None:
    """A name that breaks the rule in one place is not read at all."""
    assert parse_name(name) is None


def test_images_of_unknown_area_are_one_group_per_sample() -> None:
    """`no_area` is an unknown area, and one group of its sample."""
    name = parse_name("19-S4-no_area-100k-disordered.tif")

    assert name.area is None
    assert name.row()["area"] is None
    assert name.group == parse_name("43-S4-no_area-50k-disordered.tif").group
    assert name.group != parse_name("43-S1-no_area-50k-disordered.tif").group


def test_processed_copies_belong_to_their_originals_group() -> None:
    """A word after the label changes nothing that the name says."""
    copy = parse_name("574-S1-A10-100k-ordered_blurred.tif")

    assert copy == parse_name("574-S1-A10-100k-ordered.tif")


def test_published_names_are_read(shared: Path) -> None:
    """Names in the published records say the area, magnification and label that figshare lists."""
    with (shared / "sem/boiko-pdc-partial/figshare_known_files.csv").open() as file:
        known = list(csv.DictReader(file))

    assert len(known) == 18
    for row in known:
        name = parse_name(row["name"])
        area = name.area or "no_area"
        said = (area, str(name.magnification_k), name.label)
        assert said == (row["area"], row["magnification_k"], row["label"])
