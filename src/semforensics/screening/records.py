"""What the steps of a screening hand to each other: pictures, panels, findings.

A submission is a list of inputs (files, folders, archives). Each input holds pictures, each picture
one or more panels. What is found of a panel has three parts that are never mixed: the verdict of
the detector, the evidence shown with it, and the provenance of the file.
"""

from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from semforensics.micrographs.drawn import DrawnBox, mask_of

Grey = UInt8[np.ndarray, "height width"]
GreyOfAnySize = UInt8[np.ndarray, "_ _"]
"""For lists of panels that differ in size."""

MapName = Literal["grad_cam", "logit_map"]
"""Of what an evidence says of where the network looked; each kind of model has one of them."""

Pixels = TypeVar("Pixels", bound=np.ndarray)
"""Of any kind: grey levels, or what was computed of them."""

FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP", "AVIF", "GIF", "JPEG2000")
"""Image files that are read, by Pillow's names."""


@dataclass(frozen=True)
class Limits:
    """What is read at most; more is refused by name."""

    max_file_mb: float = 512.0
    """Of one file, in 10^6 bytes."""
    max_megapixels: float = 64.0
    """Of one picture."""
    max_side_px: int = 20_000
    """Of one picture; what is longer and still small is a damaged header, and slow to look at."""
    max_total_megapixels: float = 4000.0
    """Of all frames of one file together."""
    max_pictures: int = 1000
    """Frames of a file, images of a PDF, members of an archive."""
    max_pages: int = 300
    """Of a PDF."""
    max_unpacked_mb: float = 1024.0
    """Of all members of an archive together."""
    render_dpi: int = 300
    """At which pages are drawn whose figures are no whole images."""
    least_px: int = 32
    """Smaller images of a PDF (icons, rules) are left out without a word."""


Verdict = Literal["consistent", "inconclusive", "ai-suspected", "refused"]

WORDING: dict[Verdict, str] = {
    "consistent": "consistent with a real micrograph",
    "inconclusive": "inconclusive",
    "ai-suspected": "AI-suspected: ask for the instrument files",
    "refused": "not judged",
}
"""What a report says of each verdict: no more than the detector can defend."""


@dataclass(frozen=True)
class Box:
    """A rectangle of a picture, in its pixels; `bottom` and `right` are outside."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def size_px(self) -> tuple[int, int]:
        """Height and width."""
        return self.bottom - self.top, self.right - self.left

    def cut(self, pixels: Pixels) -> Pixels:
        """Return this part of a picture [height, width]."""
        return pixels[self.top : self.bottom, self.left : self.right]  # type: ignore[return-value]

    def moved(self, rows: int, columns: int) -> "Box":
        """Return a box of the same size, so far down and to the right."""
        return Box(self.top + rows, self.left + columns, self.bottom + rows, self.right + columns)


@dataclass(frozen=True)
class Provenance:
    """What a file says of its origin. A missing tag is no guilt, and a tag is no proof."""

    file_format: str
    """Of the file that held the samples, such as "PNG" or "JPEG"; of a PDF's image, its filter."""
    instrument: dict[str, str] = field(default_factory=dict)
    """Settings that a microscope wrote into the file, by their own names."""
    instrument_source: str | None = None
    """Where they were, such as "TIFF tag 34682 (FEI/Thermo)" or "side-car x.txt (Hitachi)"."""
    software: dict[str, str] = field(default_factory=dict)
    """Tags that programs write: Software, CreatorTool, EXIF and PNG text, by their names."""
    c2pa: str = "not looked for"
    """"none", "present: …" or why it was not looked for."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Picture:
    """One picture of an input, as 8-bit grey, its info bar still on."""

    path: str
    """As the report shows it: the path given; "archive.zip/inner.png" inside an archive."""
    location: str
    """Inside the file: "", "page 3 of 8", "page 2, image 1", "page 2, rendered at 300 dpi"."""
    sha256: str
    """Of the input file's bytes (of the member, inside an archive)."""
    grey: Grey
    provenance: Provenance
    is_lossy: bool
    """Its samples went through a lossy codec on the way here, as far as the container tells."""
    is_resampled: bool
    """It was rendered or drawn to another size on the way here, as far as is known."""
    notes: tuple[str, ...] = ()
    """What the reader had to decide, such as how 16 bits became 8."""
    hidden: Bool[np.ndarray, "height width"] | None = None
    """Pixels that are transparent in the file, at least in part; None where there are none."""


@dataclass(frozen=True)
class Refusal:
    """An input, a picture or a panel that is not judged, and why."""

    path: str
    location: str
    sha256: str | None
    reason: str


@dataclass(frozen=True)
class Panel:
    """A part of a picture that is judged by itself: without info bar, gutters and neighbours."""

    name: str
    """"a", "b", … in reading order; "" where the picture is one panel."""
    box: Box
    grey: Grey
    notes: tuple[str, ...] = ()
    """Such as "info bar of 134 rows cut off at the bottom, from row 890 on"."""
    drawn: tuple[DrawnBox, ...] = ()
    """Text and lines over the micrograph, in pixels of the panel, without a margin. Of kind "bar":
    rows that may be an info bar."""
    may_be_composite: bool = False
    """It may hold more than one picture; a note says where they may meet."""

    @classmethod
    def of(cls, grey: GreyOfAnySize) -> "Panel":
        """Take a whole picture as a panel in which nothing is drawn."""
        return cls("", Box(0, 0, *grey.shape), grey)

    @property
    def mask(self) -> Bool[np.ndarray, "height width"]:
        """Pixels that no tile may hold: what is drawn, with a margin around it."""
        return mask_of(self.drawn, self.grey.shape)

    @property
    def micrograph_px(self) -> int:
        """Pixels of the panel but for text and lines; a bar that is in doubt counts."""
        text = [box for box in self.drawn if box.kind != "bar"]
        return self.grey.size - int(mask_of(text, self.grey.shape, margin_px=0).sum())


@dataclass(frozen=True)
class Finding:
    """The verdict on a panel, with the numbers that it rests on."""

    verdict: Verdict
    reason: str
    """Why this verdict and not another one, and a warning where most such suspicions are wrong."""
    n_tiles: int = 0
    logit: float | None = None
    """Pooled over the tiles; positive means fake."""
    probability: float | None = None
    """Calibrated, at a prevalence of one half."""
    predictive_value: float | None = None
    """The same at the prevalence that the user gave."""
    p_real: float | None = None
    """How unusual the score would be for a real: small speaks against one."""
    p_fake: float | None = None
    """How unusual it would be for a fake of a generator that the model knows."""
    share_inside: float | None = None
    """Of the area of its tiles, inside the training domain."""
    share_judged: float | None = None
    """Of the panel's area, text and lines left out, that lies in a tile."""
    p_part: float | None = None
    """How unusual the part that disagrees most with the rest would be for a real panel of this
    size; None where no part was searched for."""
    part_box: Box | None = None
    """That part, in pixels of the panel, where the verdict rests on it."""
    history: str | None = None
    """What its pixels tell of their processing, where the model compares panels by it."""
    power: float | None = None
    """Of generated panels with such pixels and so many tiles, share that would be suspected."""

    is_known: bool | None = None
    """Whether the model knows images like it; None where there is nothing to judge."""
    second_p_real: float | None = None
    """The p_real of a second model; None where none was asked, or it knows no images like it."""
    by_second: bool = False
    """All numbers here are the second model's."""

    @property
    def is_in_part(self) -> bool:
        """Whether only a part of the panel is suspected: `part_box`."""
        return self.verdict == "ai-suspected" and self.part_box is not None


@dataclass(frozen=True)
class Map:
    """A map over a panel, of any resolution, and the box of the panel that it covers."""

    values: Any
    """Float array [rows, columns]."""
    box: Box
    """In pixels of the panel."""
    unit: str


@dataclass(frozen=True)
class TileScores:
    """The score of every tile of a panel."""

    corners: Int[np.ndarray, "n 2"]
    """Top row and left column, in pixels of the panel."""
    size_px: int
    logits: Float[np.ndarray, " n"]
    """Positive for generated."""


@dataclass(frozen=True)
class Evidence:
    """What is shown with a verdict and does not change it. Parts that were not asked for are None.

    `reencoded`: name of a processing → logit and verdict after it. `grad_cam`: NaN where there is
    no tile. `logit_map`: the logits of small cells, whose mean over a tile is that of the tile; NaN
    likewise. `residual`: the NPR residual around a stretch of the panel, as grey levels to look at.
    `spectrum`: `frequency` (cycles per pixel), `panel` (its power in dB), and `p05`, `p50`, `p95`
    (percentiles of the training reals' power), lists of one length. `nearest_real`: only when
    suspiciously near; `distance`, `threshold`, `crop`, `transform` and what else is known.
    """

    reencoded: dict[str, tuple[float, Verdict]] | None = None
    tiles: TileScores | None = None
    grad_cam: Map | None = None
    logit_map: Map | None = None
    residual: Grey | None = None
    spectrum: dict[str, list[float]] | None = None
    nearest_real: dict[str, Any] | None = None


@dataclass(frozen=True)
class PanelResult:
    """All that is said of one panel."""

    panel: Panel
    finding: Finding
    evidence: Evidence


@dataclass(frozen=True)
class PictureResult:
    """All that is said of one picture."""

    picture: Picture
    panels: tuple[PanelResult, ...]
    refusals: tuple[Refusal, ...] = ()
    """Parts of it that are not judged, such as panels below the least size."""


PanelName = tuple[str, str, str]
"""Path, location and panel name."""


@dataclass(frozen=True)
class Reuse:
    """Two panels of one submission that show the same place."""

    first: PanelName
    second: PanelName
    transform: str
    """What is done to the second, anticlockwise, until it lies on the first: "as it is",
    "mirrored", "turned by 90 degrees", "mirrored, then turned by 37 degrees", …"""
    scale: float
    """What its width and height are multiplied by; below 1 where the second is the larger copy."""
    overlap: Box
    """Of the first panel, in its pixels."""
    correlation: float
    """Of the grey levels over the overlap, -1 … 1: the median of its blocks."""
