"""The canonicaliser: what it takes, what it makes of it, and what it refuses with which reason."""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

from semforensics.core.greys import narrowed, to_8_bit
from semforensics.core.images import (
    read_crop,
    read_grey,
    read_samples,
    to_uint8,
    to_unit_range,
    write_grey_png,
)

GREY = np.random.default_rng(0).integers(0, 256, (40, 56)).astype(np.uint8)
DEEP = GREY.astype(np.uint16) * 257
COLOUR = np.dstack([GREY, GREY[::-1], GREY[:, ::-1]])
Save = Callable[[Path], None]


def pillow(array: np.ndarray, mode: str | None = None, **options: object) -> Save:
    """Save through Pillow, after a change of mode."""
    image = Image.fromarray(array)
    return lambda path: (image.convert(mode) if mode else image).save(path, **options)


def tiff(array: np.ndarray, **options: object) -> Save:
    """Save through tifffile."""
    return lambda path: tifffile.imwrite(path, array, **options)


def several(format: str) -> Save:
    """Save two frames."""
    frames = [Image.fromarray(GREY), Image.fromarray(GREY[::-1])]
    return lambda path: frames[0].save(path, format=format, save_all=True, append_images=frames[1:])


def png(width: int, height: int, bits: int, colour: int, rows: bytes) -> bytes:
    """A PNG file of any header, with the rows given."""

    def chunk(name: bytes, content: bytes) -> bytes:
        checksum = zlib.crc32(name + content)
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


LOSSLESS: dict[str, tuple[Save, np.ndarray]] = {
    "grey.tif": (pillow(GREY), GREY),
    "lzw.tif": (pillow(GREY, compression="tiff_lzw"), GREY),
    "deflate.tif": (pillow(GREY, compression="tiff_adobe_deflate"), GREY),
    "packbits.tif": (pillow(GREY, compression="packbits"), GREY),
    "tiled.tif": (tiff(GREY, tile=(16, 16), compression="zlib"), GREY),
    "big.tif": (tiff(GREY, bigtiff=True), GREY),
    "white_is_zero.tif": (tiff(255 - GREY, photometric="miniswhite"), GREY),
    "deep_equal.tif": (tiff(np.dstack([DEEP] * 3), photometric="rgb"), DEEP),
    "deep_planes.tif": (
        tiff(np.stack([DEEP] * 3), photometric="rgb", planarconfig="separate"),
        DEEP,
    ),
    "turned.png": (
        pillow(
            np.rot90(GREY),
            exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0",
        ),
        GREY,
    ),
    "alpha.tif": (
        tiff(
            np.dstack([GREY, np.full_like(GREY, 255)]),
            photometric="minisblack",
            extrasamples=["unassalpha"],
        ),
        GREY,
    ),
    "deep.tif": (pillow(DEEP), DEEP),
    "deep_lzw.tif": (pillow(DEEP, compression="tiff_lzw"), DEEP),
    "deep_predictor.tif": (tiff(DEEP, compression="zlib", predictor=True), DEEP),
    "deep_big_endian.tif": (tiff(DEEP, byteorder=">"), DEEP),
    "deep_white_is_zero.tif": (tiff(65535 - DEEP, photometric="miniswhite"), DEEP),
    "grey.png": (pillow(GREY), GREY),
    "deep.png": (pillow(DEEP), DEEP),
    "palette.png": (pillow(GREY, "P"), GREY),
    "alpha.png": (pillow(GREY, "LA"), GREY),
    "equal_channels.png": (pillow(np.dstack([GREY] * 3)), GREY),
    "equal_channels.tif": (pillow(np.dstack([GREY] * 3), compression="tiff_lzw"), GREY),
    "equal_opaque.png": (pillow(np.dstack([GREY] * 3), "RGBA"), GREY),
}


@pytest.mark.parametrize("name", LOSSLESS)
def test_keeps_grey_levels_exactly(tmp_path: Path, name: str) -> None:
    """Every lossless encoding of grey gives the same samples, of the depth it was written in."""
    save, expected = LOSSLESS[name]
    save(tmp_path / name)

    samples = read_samples(tmp_path / name)

    assert samples.dtype == expected.dtype
    np.testing.assert_array_equal(samples, expected)


@pytest.mark.parametrize("name", ["colour.png", "colour.tif", "planar.tif", "palette.png"])
def test_colour_becomes_luma(tmp_path: Path, name: str) -> None:
    """Unequal channels become ITU-R BT.601 luma, rounded to a grey level."""
    colours = COLOUR
    if name == "palette.png":
        image = Image.fromarray(COLOUR).quantize(64)
        colours = np.asarray(image.convert("RGB"))
        image.save(tmp_path / name)
    elif name == "planar.tif":
        planes = np.moveaxis(COLOUR, 2, 0)
        tifffile.imwrite(tmp_path / name, planes, photometric="rgb", planarconfig="separate")
    else:
        Image.fromarray(COLOUR).save(tmp_path / name)

    grey = read_grey(tmp_path / name)

    luma = colours @ np.array([0.299, 0.587, 0.114])
    # 0.5 of rounding, and the integer weights of 2^-16 each.
    assert np.abs(grey - luma).max() <= 0.5 + 3 * 255 / 65536


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_reads_jpeg(tmp_path: Path, mode: str) -> None:
    """JPEG of high quality gives the grey levels to within a few."""
    smooth = np.add.outer(np.arange(40), np.arange(56)).astype(np.uint8)
    Image.fromarray(smooth).convert(mode).save(tmp_path / "a.jpg", quality=95)

    assert np.abs(read_grey(tmp_path / "a.jpg").astype(int) - smooth).max() <= 3


REFUSED: dict[str, tuple[Save, str]] = {
    "empty.tif": (lambda path: path.write_bytes(b""), "empty file"),
    "text.tif": (lambda path: path.write_text("kV 20"), "not a TIFF, PNG or JPEG image"),
    "still.gif": (pillow(GREY), "not a TIFF, PNG or JPEG image"),
    "animated.gif": (several("GIF"), "not a TIFF, PNG or JPEG image"),
    "animated.png": (several("PNG"), "2 pages or frames, expected one"),
    "pages.tif": (several("TIFF"), "2 pages or frames, expected one"),
    "pictures.jpg": (several("MPO"), "2 pages or frames, expected one"),
    "cmyk.jpg": (pillow(GREY, "CMYK"), "samples of mode CMYK"),
    "cmyk.tif": (pillow(GREY, "CMYK"), "samples of mode CMYK"),
    "lab.tif": (pillow(COLOUR, "LAB"), "samples of mode LAB"),
    "bilevel.png": (pillow(GREY, "1"), "samples of mode 1"),
    "bilevel.tif": (pillow(GREY, "1"), "samples of type bool"),
    "float.tif": (tiff(GREY.astype(np.float32)), "samples of type float32"),
    "double.tif": (tiff(GREY.astype(np.float64)), "samples of type float64"),
    "complex.tif": (tiff(GREY.astype(np.complex64)), "samples of type complex64"),
    "signed.tif": (tiff(GREY.astype(np.int16)), "samples of type int16"),
    "signed_bytes.tif": (tiff(GREY.view(np.int8)), "samples of type int8"),
    "deeper.tif": (tiff(GREY.astype(np.uint32)), "samples of type uint32"),
    "deep_colour.tif": (
        tiff(np.dstack([DEEP, DEEP, DEEP[::-1]]), photometric="rgb"),
        "16 bits per colour channel that differ",
    ),
    "deep_colour.png": (
        lambda path: path.write_bytes(png(2, 1, 16, 2, bytes(13))),
        "16 bits per colour",
    ),
    "clear.png": (pillow(np.dstack([COLOUR, GREY])), "transparent: alpha from 0 to 255"),
    "clear_level.png": (pillow(GREY, transparency=3), "transparent: alpha from 0 to 255"),
    "large.png": (
        lambda path: path.write_bytes(png(10_000, 6_500, 8, 0, bytes(9))),
        "too large: 10000x6500 px, more than 64 megapixels",
    ),
    "larger.png": (
        lambda path: path.write_bytes(png(10_000, 9_000, 8, 0, b"")),
        "too large: .*bomb",
    ),
    "largest.png": (
        lambda path: path.write_bytes(png(60_000, 60_000, 8, 0, b"")),
        "too large: .*bomb",
    ),
    "followed.png": (
        lambda path: path.write_bytes(png(1, 1, 8, 0, b"\0\7") + b"!"),
        "truncated, or other bytes follow",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refuses_with_a_reason(tmp_path: Path, name: str) -> None:
    """What would lose bits, pages, colours or memory is refused; the message names file and why."""
    save, reason = REFUSED[name]
    save(tmp_path / name)

    with pytest.raises(ValueError, match=rf"{name}: {reason}"):
        read_grey(tmp_path / name)


def test_bounds_the_size_by_its_parameter(tmp_path: Path) -> None:
    """The bound holds to the pixel and needs the header only."""
    write_grey_png(tmp_path / "a.png", GREY)

    assert read_grey(tmp_path / "a.png", max_megapixels=GREY.size / 1e6).shape == GREY.shape
    with pytest.raises(ValueError, match="too large: 56x40 px"):
        read_grey(tmp_path / "a.png", max_megapixels=(GREY.size - 1) / 1e6)


def test_leaves_the_bomb_limit_of_pillow_alone() -> None:
    """Reading changes no limit that other code relies on."""
    assert Image.MAX_IMAGE_PIXELS == 89_478_485


def test_missing_files_are_named(tmp_path: Path) -> None:
    """A missing file is reported as such."""
    with pytest.raises(FileNotFoundError, match=r"absent\.tif"):
        read_grey(tmp_path / "absent.tif")


@pytest.mark.parametrize(
    "name", ["grey.tif", "lzw.tif", "deflate.tif", "deep.tif", "grey.png", "deep.png", "grey.jpg"]
)
def test_refuses_truncated_files(tmp_path: Path, name: str) -> None:
    """A file that ends too early is refused wherever it ends, be it one byte before its end."""
    save = pillow(GREY, quality=90) if name == "grey.jpg" else LOSSLESS[name][0]
    save(tmp_path / name)
    content = (tmp_path / name).read_bytes()

    for missing in [1, 2, 3, 4, 5, 11, 12, 13, 50, len(content) // 2, len(content) - 30]:
        (tmp_path / name).write_bytes(content[:-missing])
        with pytest.raises(ValueError, match=name):
            read_grey(tmp_path / name)


@given(
    st.binary(max_size=200),
    st.sampled_from([b"", b"II*\0", b"MM\0*", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"]),
)
def test_any_bytes_are_refused_cleanly(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, start: bytes
) -> None:
    """Bytes that are no image end in a ValueError, never in another exception."""
    path = tmp_path_factory.getbasetemp() / "bytes"
    path.write_bytes(start + content)

    with pytest.raises(ValueError, match="bytes: "):
        read_grey(path)


@given(arrays(np.uint16, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12)))
def test_16_bits_become_8_in_order(samples: np.ndarray) -> None:
    """Reducing depth keeps the order of grey levels, and uses the whole range."""
    grey = to_8_bit(samples)

    order = np.argsort(samples, axis=None, kind="stable")
    assert (np.diff(grey.ravel()[order].astype(int)) >= 0).all()
    if samples.min() < samples.max() and narrowed(samples) is None:
        assert (grey.min(), grey.max()) == (0, 255)


def test_16_bits_become_8_by_percentiles() -> None:
    """The 0.1th and 99.9th percentile become black and white; single outliers set no scale."""
    samples = np.full((100, 100), 3000, dtype=np.uint16)
    samples[:, :50] = 1000
    samples[0, 0], samples[0, 99] = 0, 65535

    grey = to_8_bit(samples)

    assert grey[50, 0] == 0
    assert grey[50, 99] == 255
    assert grey[0, 0] == 0
    assert grey[0, 99] == 255


@pytest.mark.parametrize(("level", "expected"), [(0, 0), (65535, 255), (257 * 80, 80)])
def test_constant_16_bit_images_keep_their_share_of_full_scale(level: int, expected: int) -> None:
    """An image of one grey level has no range to stretch."""
    assert (to_8_bit(np.full((3, 4), level, dtype=np.uint16)) == expected).all()


@given(
    arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12)),
    st.sampled_from([1, 16, 256, 257]),
)
def test_widened_8_bit_samples_come_back(grey: np.ndarray, factor: int) -> None:
    """What another program did to 8-bit samples, to store them in 16 bits, is undone."""
    assume(grey.size > 1)
    grey.flat[:2] = 255, 0  # a few dark levels may be more than one image widened

    np.testing.assert_array_equal(to_8_bit(grey.astype(np.uint16) * factor), grey)


def test_8_bit_images_are_not_stretched() -> None:
    """8-bit grey comes back as it is."""
    samples = np.array([[10, 20]], dtype=np.uint8)

    np.testing.assert_array_equal(to_8_bit(samples), samples)


@given(arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12)))
def test_crops_survive_the_disk(tmp_path_factory: pytest.TempPathFactory, grey: np.ndarray) -> None:
    """A crop that is written and read is the same."""
    path = tmp_path_factory.getbasetemp() / "crop.png"

    write_grey_png(path, grey)

    np.testing.assert_array_equal(read_crop(path), grey)
    np.testing.assert_array_equal(read_grey(path), grey)


def test_crops_hold_pixels_only(tmp_path: Path) -> None:
    """A crop's file holds header, pixels and end: no metadata that could tell real from fake."""
    write_grey_png(tmp_path / "a.png", GREY)

    content, chunks, at = (tmp_path / "a.png").read_bytes(), [], 8
    while at < len(content):
        length, name = struct.unpack(">I4s", content[at : at + 8])
        chunks.append(name)
        at += 12 + length
    assert chunks == [b"IHDR", b"IDAT", b"IEND"]


@pytest.mark.parametrize("name", ["deep.png", "palette.png", "grey.tif", "equal_channels.png"])
def test_crops_are_8_bit_grey_png(tmp_path: Path, name: str) -> None:
    """Reading a crop refuses every other kind of image."""
    LOSSLESS[name][0](tmp_path / name)

    with pytest.raises(ValueError, match=rf"{name}: .* expected an 8-bit grey PNG"):
        read_crop(tmp_path / name)


def test_broken_crops_are_named(tmp_path: Path) -> None:
    """A crop that is cut off is refused by name."""
    write_grey_png(tmp_path / "a.png", GREY)
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:200])

    with pytest.raises(ValueError, match=r"a\.png"):
        read_crop(tmp_path / "a.png")


def test_unit_range_and_back_is_exact() -> None:
    """All 256 grey levels survive the way to -1 … 1 and back."""
    levels = torch.arange(256, dtype=torch.uint8)

    images = to_unit_range(levels)

    assert (images.min(), images.max()) == (-1, 1)
    assert torch.equal(to_uint8(images), levels)


def test_values_beyond_the_unit_range_are_clamped() -> None:
    """Overshoot of a generator becomes black or white."""
    assert to_uint8(torch.tensor([-3.0, 3.0])).tolist() == [0, 255]
