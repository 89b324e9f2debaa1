"""Damaged and lying files of every kind end in pictures or refusals: no crash, hang or stray file.

To see one case again: `list(screen_case(number, folder))` with the number that the failure prints.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import ExifTags, Image

from semforensics.screening.read import apart
from semforensics.screening.read.apart import read_inputs
from semforensics.screening.records import Limits, Picture, Refusal
from semforensics.screening.split.panels import split_panels
from tests.screening.documents import (
    Pdf,
    docx_with,
    encoded,
    figure,
    micrograph,
    pdf_with,
    pptx_with,
    put,
    zipped,
)

MOST_S = 10.0
BROKEN = ("it broke the program", "not read in time", "reading it takes more memory")
"""Reasons of files that only the limits of the child have stopped: each is a fault to mend."""
HITACHI = (
    "[SemImageFile]\r\nMagnification=5000\r\nAcceleratingVoltage=15000 Volt\r\nDate=2020/1/2\r\n"
)
LIMITS = Limits(
    max_megapixels=8.0, max_side_px=5000, max_pictures=50, max_pages=5, max_unpacked_mb=50.0
)
_LYING = (0, 1, 0x7F, 0x80, 0xFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)


def _seeds() -> dict[str, list[bytes]]:
    """Make small valid files of each kind, of several encodings."""
    grey = figure([[micrograph(48, 64, 1), micrograph(48, 64, 2)]])
    one = micrograph(64, 96)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.tif"
        tifffile.imwrite(
            path, np.stack([one, one]), photometric="minisblack", bigtiff=True,
            extratags=[(34682, "s", 16, "[Beam]\nHV=5000\n", True)],
        )  # fmt: skip
        stack = path.read_bytes()
    drawn = Pdf()
    lines = b"".join(b"%d 10 m %d 90 l S\n" % (n, n) for n in range(10, 90, 3))
    drawn.page(lines, box=(100, 100))
    drawn.page(put(0, 90, 60), [drawn.image(one, jpeg=True)])
    png, jpeg = encoded(grey, "PNG"), encoded(one, "JPEG")
    workbook = {"[Content_Types].xml": b"", "xl/workbook.xml": b""}
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation], exif[ExifTags.Base.Software] = 6, "by hand"
    tiffs = [encoded(one, "TIFF", compression=c) for c in ("raw", "tiff_lzw", "tiff_deflate")]
    return {
        "PNG": [png, encoded(one, "PNG", optimize=True), encoded(one, "PNG", exif=exif)],
        "JPEG": [
            jpeg,
            encoded(grey, "JPEG", progressive=True, comment=b"by hand"),
            encoded(one, "JPEG", exif=exif),
        ],
        "TIFF": [*tiffs, encoded(one, "TIFF", compression="jpeg"), stack],
        "ZIP": [
            zipped({"a/1.png": png, "a/1.txt": b"$CM_MAG 10\n", "2.jpg": jpeg}),
            zipped({"3.tif": tiffs[1]}, 0),
        ],
        "PDF": [pdf_with(one, grey), drawn.to_bytes()],
        "XLSX": [zipped(workbook | {"xl/media/1.png": png})],
        "DOCX": [docx_with({"1.png": png, "2.jpg": jpeg, "3.emf": b"drawn"})],
        "PPTX": [pptx_with([{"1.png": png}, {"2.tif": tiffs[1]}])],
        "BMP": [encoded(one, "BMP")],
        "WEBP": [encoded(one, "WEBP"), encoded(one, "WEBP", lossless=True)],
        "AVIF": [encoded(one, "AVIF")],
        "GIF": [encoded(one, "GIF")],
        "JPEG2000": [encoded(one, "JPEG2000")],
        "TXT": [HITACHI.encode(), HITACHI.encode("utf-16"), b"$CM_MAG 100000\n$CM_ACCEL_VOLT 5\n"],
    }


# A case of each in turn; fewer PDFs, each of which takes a process.
_KINDS = ("PNG", "JPEG", "TIFF", "ZIP", "TIFF", "PNG", "JPEG", "ZIP", "TIFF", "PDF")
_RARE = ("DOCX", "PPTX", "XLSX", "TXT", "BMP", "WEBP", "AVIF", "GIF", "JPEG2000")
SEEDS = _seeds()


def mutated(number: int) -> tuple[str, bytes]:
    """Damage a valid file, always in the same way for one number."""
    rng = np.random.default_rng([7, number])
    kind = _KINDS[number % len(_KINDS)]
    if number % 23 == 0:
        kind = _RARE[number // 23 % len(_RARE)]
    seeds = SEEDS[kind]
    data = bytearray(seeds[int(rng.integers(len(seeds)))])
    actions: list[Callable[[np.random.Generator, bytearray], None]] = [
        _flip, _flip, _lie, _lie, _cut, _splice, _repeat,
    ]  # fmt: skip
    for _ in range(int(rng.integers(1, 5))):
        actions[int(rng.integers(len(actions)))](rng, data)
    return kind, bytes(data)


def _place(rng: np.random.Generator, data: bytearray) -> int:
    """Draw a place, in half of all cases near an end, where the headers and tables are."""
    most = max(len(data), 1)
    if rng.random() < 0.5:
        near = int(rng.integers(min(most, 200)))
        return near if rng.random() < 0.7 else most - 1 - near
    return int(rng.integers(most))


def _flip(rng: np.random.Generator, data: bytearray) -> None:
    for _ in range(int(rng.integers(1, 9))):
        if data:
            data[_place(rng, data)] ^= 1 << int(rng.integers(8))


def _lie(rng: np.random.Generator, data: bytearray) -> None:
    """Write a number where a length, a size or an offset may stand."""
    size = int(rng.choice([1, 2, 4, 8]))
    value = int(rng.choice(_LYING)) % 256**size
    order = "little" if rng.random() < 0.5 else "big"
    at = _place(rng, data)
    data[at : at + size] = value.to_bytes(size, order)


def _cut(rng: np.random.Generator, data: bytearray) -> None:
    del data[_place(rng, data) :]


def _splice(rng: np.random.Generator, data: bytearray) -> None:
    """Put a piece of a file of another kind in."""
    others = [seed for seeds in SEEDS.values() for seed in seeds]
    other = others[int(rng.integers(len(others)))]
    start, at = int(rng.integers(len(other))), _place(rng, data)
    data[at : at + int(rng.integers(64))] = other[start : start + int(rng.integers(1, 512))]


def _repeat(rng: np.random.Generator, data: bytearray) -> None:
    at, size = _place(rng, data), int(rng.integers(1, 64))
    data[at:at] = data[at : at + size] * int(rng.integers(1, 40))


def screen_case(number: int, folder: Path) -> list[Picture | Refusal]:
    """Read one damaged file and cut what it holds into panels."""
    kind, data = mutated(number)
    files = [folder / f"x.{kind.lower()}"]
    files[0].write_bytes(data)
    if kind == "TXT":  # beside a picture
        files.append(folder / "x.png")
        files[1].write_bytes(SEEDS["PNG"][0])
    found = list(read_inputs(files[-1:], LIMITS))
    for file in files:
        file.unlink()
    for one in found:
        if isinstance(one, Picture):
            assert one.grey.dtype == np.uint8
            panels, refusals = split_panels(one, 32)
            assert panels or refusals
        else:
            assert one.reason
            assert not one.reason.startswith(BROKEN), one.reason
    return found


def _fuzz(numbers: range, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs, work, temporary = folder / "inputs", folder / "work", folder / "temporary"
    for one in (inputs, work, temporary):
        one.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setattr(tempfile, "tempdir", None)
    apart._child.cache_clear()  # a child that works in these folders, too
    counts = {"pictures": 0, "refusals": 0}
    for number in numbers:
        start = time.monotonic()
        try:
            found = screen_case(number, inputs)
        except Exception as error:
            raise AssertionError(f"case {number}: {type(error).__name__}: {error}") from error
        assert found, f"case {number}: neither a picture nor a refusal"
        took = time.monotonic() - start
        assert took < MOST_S, f"case {number} ({mutated(number)[0]}) took {took:.1f} s"
        for one in found:
            counts["pictures" if isinstance(one, Picture) else "refusals"] += 1
    assert list(folder.rglob("*/*")) == [], "a file was left behind"
    # The damage is neither nothing nor everything.
    assert min(counts.values()) > len(numbers) // 10, counts


def test_damaged_files_end_in_pictures_or_refusals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """300 mutated files: none raises, hangs, or leaves a file anywhere."""
    _fuzz(range(300), tmp_path, monkeypatch)


@pytest.mark.slow
def test_many_damaged_files_end_in_pictures_or_refusals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """10,000 more."""
    _fuzz(range(300, 10_300), tmp_path, monkeypatch)
