"""Any file from outside → pictures as 8-bit grey, or a reason why not.

Bytes from a stranger: the content decides what a file is, not its name; sizes are asked of headers
before anything is decoded, and structures that make decoders run wild are refused; archives are
read in memory, PDFs by a process of their own. Nothing is written anywhere, and no input stops
another one. `apart` does all this in a child process.
"""

import hashlib
import io
import warnings
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import tifffile
from jaxtyping import UInt16
from PIL import Image, UnidentifiedImageError
from PIL.TiffImagePlugin import PHOTOMETRIC_INTERPRETATION, TiffImageFile

from semforensics.core.errors import InputError
from semforensics.core.greys import deep_grey, equal_grey, narrowed, orientation, to_8_bit, upright
from semforensics.micrographs.drawn import Mask
from semforensics.screening.read.archive import SIDE_CAR_MB, Member, is_zip, read_zip
from semforensics.screening.read.bombs import refuse_bombs
from semforensics.screening.read.documents import is_document, read_document
from semforensics.screening.read.pdf import read_pdf
from semforensics.screening.read.provenance import is_pdf, read_provenance
from semforensics.screening.read.settings.text import decode_text
from semforensics.screening.records import FORMATS, Grey, Limits, Picture, Refusal

LOSSY = ("JPEG", "MPO", "WEBP", "AVIF", "GIF", "JPEG2000")
"""GIF has at most 256 colours. AVIF and JPEG 2000 have lossless kinds, which are rare: lossy is the
safe guess."""
_ANIMATIONS = ("AVIF", "GIF")  # their first frame is read
_PICTURE_ENDINGS = (
    "png", "jpg", "jpeg", "jpe", "jfif", "tif", "tiff", "bmp", "gif", "webp", "avif", "jp2", "jpx",
)  # fmt: skip
"""Of media files in a document that are refused by name where they cannot be read."""
_PNG_TEXTS = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")  # pixels do not depend on them
_TIFF_COMPRESSION, _LOSSY_TIFF = 259, (6, 7, 33003, 33005, 34712, 50001, 50002)
_BITS_PER_SAMPLE, _SAMPLE_FORMAT, _UNSIGNED = 258, 339, 1
_GREY_16 = ("I;16", "I;16B", "I;16L")
_PNG_START = b"\x89PNG\r\n\x1a\n"
_STARTS = {
    **dict.fromkeys((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), "TIFF"),
    _PNG_START: "PNG",
    b"\xff\xd8\xff": "JPEG",
}
_PNG_GREY, _PNG_GREY_ALPHA, _PNG_RGBA = 0, 4, 6  # colour types


def list_inputs(paths: Sequence[Path]) -> list[Path]:
    """Expand folders into their files, sorted; hidden files and side-car texts are left out.

    Raises:
        FileNotFoundError: A path does not exist.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            files = sorted(p for p in path.rglob("*") if p.is_file() and not _is_hidden(p, path))
            stems = {p.with_suffix("") for p in files if p.suffix.lower() != ".txt"}
            found += [
                p for p in files if p.suffix.lower() != ".txt" or p.with_suffix("") not in stems
            ]
        elif path.exists():
            found.append(path)
        else:
            raise FileNotFoundError(f"{path}: no such file or folder")
    return found


def read_input(path: Path, name: str, limits: Limits) -> Iterator[Picture | Refusal]:
    """Read one file picture by picture.

    Args:
        path: As `list_inputs` returns it.
        name: What the report shows in its place.
        limits: On what is read.

    Yields:
        Pictures, and a refusal for whatever cannot be one.
    """
    try:
        if not path.is_file():  # a pipe or a device may never end
            yield Refusal(name, "", None, "not a file")
            return
        size = path.stat().st_size
        if size > limits.max_file_mb * 1e6:
            reason = f"{size / 1e6:.0f} MB, more than {limits.max_file_mb:g}"
            yield Refusal(name, "", None, reason)
            return
        data = path.read_bytes()
        text = find_side_car(path)
        side_car = decode_text(text.read_bytes(), may_be_japanese=True) if text else None
    except OSError as error:
        reason = f"cannot be read: {error.strerror or type(error).__name__}"
        yield Refusal(name, "", None, reason)
        return
    try:
        yield from _read_bytes(name, data, side_car, limits, depth=0)
    except MemoryError:
        yield Refusal(name, "", None, "reading it takes more memory than a file may take")
    except Exception as error:  # bytes from outside may break anything
        yield Refusal(name, "", None, f"cannot be read: {type(error).__name__}: {error}")


def _read_bytes(
    name: str, data: bytes, side_car: str | None, limits: Limits, depth: int
) -> Iterator[Picture | Refusal]:
    digest = hashlib.sha256(data).hexdigest()
    try:
        if not data:
            raise InputError("empty file")
        if is_pdf(data):
            yield from read_pdf(data, name, digest, limits)
        elif is_document(data, limits):
            yield from _read_document(name, data, digest, limits)
        elif not is_zip(data):
            yield from _read_image(name, data, digest, side_car, limits)
        elif depth:
            raise InputError("an archive inside an archive; unpack it first")
        else:
            for found in read_zip(data, limits):
                if isinstance(found, Member):
                    member = f"{name}/{found.name}"
                    yield from _read_bytes(member, found.data, found.side_car, limits, depth=1)
                else:
                    yield replace(found, path=f"{name}/{found.path}")
    except InputError as error:
        yield Refusal(name, "", digest, str(error))


def _read_document(
    name: str, data: bytes, digest: str, limits: Limits
) -> Iterator[Picture | Refusal]:
    """Read the pictures of an Office file; other media are counted in one line."""
    others: Counter[str] = Counter()
    n_found = 0
    for found in read_document(data, limits):
        if isinstance(found, Refusal):
            n_found += 1
            yield replace(found, path=name, sha256=digest)
            continue
        try:
            for picture in _read_image(name, found.data, digest, None, limits):
                if min(picture.grey.shape) >= limits.least_px:
                    n_found += 1
                    location = ", ".join(filter(None, (found.location, picture.location)))
                    yield replace(picture, location=location)
        except InputError as error:
            if found.ending in _PICTURE_ENDINGS:
                n_found += 1
                yield Refusal(name, found.location, digest, str(error))
            else:
                others[found.ending.upper()] += 1
    if others:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(others.items())[:10])
        yield Refusal(name, "", digest, f"drawings and other media that are not read: {kinds}")
    elif not n_found:
        reason = f"no picture of {limits.least_px} px or more in the document"
        yield Refusal(name, "", digest, reason)


def _read_image(
    name: str, data: bytes, digest: str, side_car: str | None, limits: Limits
) -> Iterator[Picture]:
    number = 0
    try:
        for grey, notes, is_lossy, hidden in decode(data, limits):
            number += 1
            if number == 1:
                provenance = read_provenance(data, name, side_car)
            location = "" if number == 1 else f"frame {number}"
            made_of = (digest, grey, provenance, is_lossy, False, tuple(notes), hidden)
            yield Picture(name, location, *made_of)
    except InputError as error:
        where = f"frame {number + 1}: " if number else ""
        raise InputError(f"{where}{error}") from error


def decode(data: bytes, limits: Limits) -> Iterator[tuple[Grey, list[str], bool, Mask | None]]:
    """Decode an image file frame by frame.

    Yields:
        Grey levels; what had to be decided; whether the samples went through a lossy codec; which
        pixels are transparent, if any.

    Raises:
        InputError: It is no image, or one that is not taken, with the reason.
    """
    refuse_bombs(data, limits.max_pictures)
    with _decoding(data, limits):
        data = _verified(data)
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    with image:
        pixels = index = 0
        while True:
            # Not across `yield`: the caller's warnings are its own.
            with _decoding(data, limits):
                is_animation = image.format in _ANIMATIONS
                frames = 1 if is_animation else getattr(image, "n_frames", 1)
                if frames > limits.max_pictures:
                    raise InputError(f"{frames} frames, more than {limits.max_pictures}")
                image.seek(index)
                _check_size(image.size, limits)
                _check_samples(image)
                pixels += image.size[0] * image.size[1]
                if pixels > limits.max_total_megapixels * 1e6:
                    most = limits.max_total_megapixels
                    raise InputError(f"its frames have more than {most:g} megapixels")
                image.load()
                is_lossy = _is_lossy(image, data)
                wide = _wide_grey(image, data, index)
                grey, notes = to_grey(image) if wide is None else _from_16_bits(wide)
                hidden = hidden_pixels(image) if wide is None else None
                hidden = None if hidden is None else upright(hidden, orientation(image))
                grey = _turned(image, grey, notes)
                if is_animation and getattr(image, "is_animated", False):
                    notes.append("an animation: the first frame was read")
            yield grey, notes, is_lossy, hidden
            index += 1
            if index == frames:
                return


@contextmanager
def _decoding(data: bytes, limits: Limits) -> Iterator[None]:
    """Silence the warnings of a decoder, and turn whatever it raises into an InputError."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            yield
        except (InputError, MemoryError):
            raise
        except UnidentifiedImageError:
            kind = next((kind for start, kind in _STARTS.items() if data.startswith(start)), None)
            if kind is not None:
                raise InputError(f"a {kind} file that is damaged, or of a rare kind") from None
            raise InputError(
                "not a PNG, JPEG, TIFF, BMP, WebP, AVIF, GIF or JPEG 2000 image, PDF, DOCX, PPTX,"
                " ODT, ODP or ZIP"
            ) from None
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            most = limits.max_megapixels
            raise InputError(f"too large: more than {most:g} megapixels") from error
        except Exception as error:  # a decoder may raise anything on bytes from outside
            reason = str(error) or type(error).__name__
            raise InputError(f"cannot be decoded: {reason}") from error


def find_side_car(path: Path) -> Path | None:
    """Find the text that Hitachi's and JEOL's programs write beside an image."""
    for ending in (".txt", ".TXT"):
        text = path.with_suffix(ending)
        if text != path and text.is_file() and text.stat().st_size <= SIDE_CAR_MB * 1e6:
            return text
    return None


def _verified(data: bytes) -> bytes:
    """Check what Pillow leaves unchecked or cuts to fewer bits in a PNG file.

    Returns:
        The file, a PNG without texts and colour profile: Pillow refuses pictures with long ones.
    """
    if not data.startswith(_PNG_START):
        return data
    if data[12:16] != b"IHDR":
        raise InputError("cannot be decoded: a PNG that does not begin with its header")
    data = _without_texts(data)
    with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
        image.verify()  # the checksums of all other chunks
    return data


def _without_texts(data: bytes) -> bytes:
    """Leave texts and colour profiles out of a PNG file."""
    kept, at = [data[:8]], 8
    while at + 8 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4])
        if data[at + 4 : at + 8] not in _PNG_TEXTS:
            kept.append(data[at:end])
        at = end
    return b"".join(kept)


def _turned(image: Image.Image, grey: Grey, notes: list[str]) -> Grey:
    """Turn grey levels as the EXIF orientation of their file says."""
    if (found := orientation(image)) != 1:
        notes.append(f"turned as its EXIF orientation {found} says")
    return upright(grey, found)


def _wide_grey(
    image: Image.Image, data: bytes, index: int
) -> UInt16[np.ndarray, "height width"] | None:
    """Return the grey of a TIFF or PNG of equal 16-bit colours, which Pillow would cut.

    Raises:
        InputError: The channels differ, or pixels are transparent.
    """
    bits: tuple[int, ...] = (1,)
    if isinstance(image, TiffImageFile):
        bits = image.tag_v2.get(_BITS_PER_SAMPLE, bits)
    elif image.format == "PNG" and data[25] != _PNG_GREY:
        bits = (data[24],) * 3
    if len(bits) == 1 or max(bits) <= 8:
        return None
    refusal = InputError(f"{max(bits)} bits per colour channel that differ or are not opaque")
    if set(bits) != {16} or len(bits) < 3 or "transparency" in image.info:
        raise refusal
    if image.format == "PNG":
        grey = equal_grey(_wide_png(data))
    else:
        with tifffile.TiffFile(io.BytesIO(data)) as tiff:
            grey = deep_grey(tiff.pages[index])
    if grey is None:
        raise refusal
    return grey


def _wide_png(data: bytes) -> UInt16[np.ndarray, "height width channels"]:
    """Decode a PNG of 16-bit colours, of which Pillow keeps one byte, once for each byte."""
    if data[25] == _PNG_GREY_ALPHA:  # two samples of two bytes: read as four of one byte
        header = b"IHDR" + data[16:24] + b"\x08" + bytes([_PNG_RGBA]) + data[26:29]
        data = data[:12] + header + zlib.crc32(header).to_bytes(4) + data[33:]
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            pairs = np.asarray(image).astype(np.uint16)
        return pairs[..., ::2] << 8 | pairs[..., 1::2]
    halves = []
    for order in ("16B", "16L"):  # the first byte of each pair, then the second
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            image.tile = [tile._replace(args=f"{image.mode};{order}") for tile in image.tile]
            halves.append(np.asarray(image).astype(np.uint16))
    return halves[0] << 8 | halves[1]


def _check_samples(image: Image.Image) -> None:
    """Refuse samples that Pillow takes for unsigned."""
    if not isinstance(image, TiffImageFile):
        return
    formats = image.tag_v2.get(_SAMPLE_FORMAT, (_UNSIGNED,))
    if any(kind != _UNSIGNED for kind in formats):
        raise InputError("samples that are signed or floating-point numbers, expected unsigned")


def _is_lossy(image: Image.Image, data: bytes) -> bool:
    """Say whether the samples went through a lossy codec, as far as the container tells."""
    if isinstance(image, TiffImageFile):
        return image.tag_v2.get(_TIFF_COMPRESSION) in _LOSSY_TIFF
    if image.format == "WEBP":
        return b"VP8L" not in data[:4096]  # the lossless kind; further on, lossy is the safe guess
    return image.format in LOSSY


def to_grey(image: Image.Image) -> tuple[Grey, list[str]]:
    """Turn an image of any mode into 8-bit grey, and say what had to be decided.

    Raises:
        InputError: Its samples are neither of 8 nor of 16 bits.
    """
    notes: list[str] = []
    if image.mode in _GREY_16:
        samples = np.asarray(image).astype(np.uint16)
        if isinstance(image, TiffImageFile) and image.tag_v2.get(PHOTOMETRIC_INTERPRETATION) == 0:
            samples = np.invert(samples)
        return _from_16_bits(samples)
    if image.mode in ("I", "F"):
        raise InputError(f"samples of mode {image.mode}, expected 8 or 16 bits")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        if hidden_pixels(rgba) is not None:
            notes.append("transparent parts were laid on white and are not judged")
        white = Image.new("RGBA", rgba.size, "white")
        white.alpha_composite(rgba)
        image = white.convert("RGB")
    elif image.mode in ("CMYK", "YCbCr", "LAB", "HSV"):
        notes.append(f"{image.mode} became RGB, then grey")
        image = image.convert("RGB")
    elif image.mode in ("P", "PA"):
        image = image.convert("RGB")
    return np.array(image.convert("L")), notes


def hidden_pixels(image: Image.Image) -> Mask | None:
    """Return which pixels of an image are transparent, at least in part; None: all are opaque."""
    if not image.has_transparency_data:
        return None
    hidden = np.asarray(image.convert("RGBA").getchannel("A")) < 255
    return hidden if hidden.any() else None


def _from_16_bits(samples: UInt16[np.ndarray, "height width"]) -> tuple[Grey, list[str]]:
    """Reduce 16-bit grey to 8 bits, and say how."""
    if narrowed(samples) is not None:
        note = "its 16 bits hold samples of 8 bits, which are read as they were"
    else:
        note = "16 bits became 8: the 0.1th percentile is black, the 99.9th white"
    return to_8_bit(samples), [note]


def _check_size(size: tuple[int, int], limits: Limits) -> None:
    width, height = size
    if width * height > limits.max_megapixels * 1e6:
        raise InputError(
            f"too large: {width}x{height} px, more than {limits.max_megapixels:g} megapixels"
        )
    if max(size) > limits.max_side_px:
        raise InputError(
            f"too long: {width}x{height} px, at most {limits.max_side_px} px on a side"
        )


def _is_hidden(path: Path, below: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(below).parts)
