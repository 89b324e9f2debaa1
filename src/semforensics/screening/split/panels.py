"""Composite figures → panels, by a plain rule.

Rule: a gutter is a strip of at least 4 rows (or columns) across the whole part, all of one grey
level that is white, black or exactly constant, and on one side at least a part begins abruptly. A
figure is cut along its gutters, again and again, until no part has one. Margins of the same kind
are cut off. Parts that are mostly of one grey level are drawings or text and are not judged. A
micrograph has noise in every row, so it has no gutters; where its background is clipped to black or
white, things rise from it little by little. One with an info bar below it is one part,
whatever the bar looks like.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from jaxtyping import Bool

from semforensics.core.errors import InputError
from semforensics.micrographs.drawn import DrawnBox
from semforensics.micrographs.text import find_bar, find_drawn
from semforensics.screening.records import Box, Grey, Panel, Picture, Refusal

GUTTER_PX = 4
"""Least thickness of a gutter."""
PART_PX = 24
"""Least side of a part: a cut that leaves less is a label or a rule."""
FLAT = 0.75
"""Share of one grey level from which on a part is no micrograph; of white and black, give or take
two, because JPEG leaves them a little off. Denoised real micrographs: up to 0.69 of 128x128 px."""
ABRUPT = 0.2
"""Least share of the line beside a gutter that is of another level."""
MAX_PARTS = 200

_WHITE, _BLACK = 248, 7  # JPEG leaves gutters a few levels off
_NOISE = 6.0  # range of grey levels in a line of a gutter, most of it
_WHITE_NOISE = 28.0  # the same in a white one: JPEG rings beside a picture
_LINE_SHARE = 0.98  # of a line's pixels within that range: specks of JPEG or a scan are let pass


def split_panels(
    picture: Picture, least_px: int, info_bar: int | None = None
) -> tuple[list[Panel], list[Refusal]]:
    """Cut a picture into the panels that can be judged.

    Args:
        picture: Its info bars still on.
        least_px: Least height and width of a panel without its bar.
        info_bar: Rows to cut off the bottom of the picture, or of each panel where there are
            several; None finds the bar.

    Returns:
        Panels named "a", "b", … in reading order ("" for the only part of a picture), and a refusal
        for each part that is not judged.
    """
    grey = picture.grey
    height = len(grey)
    frame, note = _without_bar(grey, info_bar)
    boxes = [box.moved(frame.top, 0) for box in _parts(frame.cut(grey))]
    if info_bar and len(boxes) > 1:  # each panel has one
        frame, note = Box(0, 0, *grey.shape), f"{info_bar} rows cut off at the bottom, as asked"
        boxes = [replace(box, bottom=max(box.bottom - info_bar, box.top)) for box in _parts(grey)]
    panels: list[Panel] = []
    refusals: list[Refusal] = []
    is_alone = len(boxes) == 1
    for index, box in enumerate(boxes):
        name = "" if is_alone else _letter(index)
        try:
            looks_for_bar = info_bar is None and not (is_alone and note)
            end = height if is_alone else box.bottom
            panel = _panel(name, box, grey, least_px, end if looks_for_bar else None)
            panels.append(replace(panel, notes=((note,) if note else ()) + panel.notes))
        except ValueError as error:
            where = f"{picture.location}, panel {name}".removeprefix(", ") if name else ""
            refusals.append(
                Refusal(picture.path, where or picture.location, picture.sha256, str(error))
            )
    return panels, refusals


def _without_bar(grey: Grey, info_bar: int | None) -> tuple[Box, str]:
    """Take the info bar off a frame; return the rest, and a note where there was one."""
    height, width = grey.shape
    if info_bar:
        kept = Box(0, 0, max(height - info_bar, 0), width)
        return kept, f"{info_bar} rows cut off at the bottom, as asked"
    rows = find_bar(grey) if info_bar is None else None
    return _rest(Box(0, 0, height, width), rows, height)


def _rest(box: Box, rows: tuple[int, int] | None, end: int) -> tuple[Box, str]:
    """Take the rows of an info bar off a box, and say so.

    Args:
        box: Of the picture.
        rows: First and last row of the bar, in pixels of the box.
        end: Row of the picture where the bar ends, with a margin below it.
    """
    if rows is None:
        return box, ""
    first, last = (box.top + row for row in rows)
    if first > box.top:
        note = f"info bar of {end - first} rows cut off at the bottom, from row {first} on"
        return replace(box, bottom=first), note
    note = f"info bar of {last + 1 - box.top} rows cut off at the top, down to row {last}"
    return replace(box, top=last + 1), note


def _panel(name: str, box: Box, picture: Grey, least_px: int, bar_end: int | None) -> Panel:
    """Take the info bar off a part, find what is drawn into it, and refuse what is too small.

    Args:
        name: Of the panel.
        box: Of the part.
        picture: That holds it.
        least_px: Least height and width.
        bar_end: Row of the picture where its info bar would end; None: it has none.
    """
    grey = box.cut(picture)
    height, width = grey.shape
    if min(height, width) < least_px:
        raise InputError(_too_small(width, height, least_px))
    counts = np.bincount(grey.ravel(), minlength=260)
    level = int(counts[:256].argmax())
    spread = 0 if _BLACK < level < _WHITE else 2
    share = counts[max(level - spread, 0) : level + spread + 1].sum() / grey.size
    if share > FLAT:
        raise InputError(f"not a micrograph: {share:.0%} of it is of grey level {level}")
    found = find_drawn(grey, with_bar=bar_end is not None)
    kept, note = _rest(box, found.info_bar, bar_end or box.bottom)
    rows, width = kept.size_px
    if rows < least_px:
        raise InputError(_too_small(width, rows, least_px))
    notes = [note] if note else []
    drawn = [one for one in found.boxes if one.kind != "bar"]
    if drawn:
        count = f"{len(drawn)} places" if len(drawn) > 1 else "one place"
        notes.append(f"text or lines drawn over it in {count} are left out")
    if found.doubt is not None and found.doubt.row:  # at 0 it says nothing of any rows
        first = found.doubt.row
        notes.append(
            f"the rows from {box.top + first} on may be an info bar and are left out"
            f" ({found.doubt.reason})"
        )
        drawn.append(DrawnBox("bar", first, 0, height, width))
    drawn = [one.moved(box.top - kept.top) for one in drawn]
    return Panel(name, kept, kept.cut(picture), tuple(notes), tuple(drawn))


def _too_small(width: int, height: int, least_px: int) -> str:
    return f"too small: {width}x{height} px, need at least {least_px}x{least_px}"


def _parts(grey: Grey) -> Iterator[Box]:
    """Cut along gutters until there are none, in reading order."""
    waiting = [_trimmed(grey, Box(0, 0, *grey.shape))]
    found: list[Box] = []
    while waiting and len(found) + len(waiting) <= MAX_PARTS:
        box = waiting.pop(0)
        pieces = _cut(grey, box)
        if len(pieces) == 1 or _is_one_with_bar(grey, box):
            found.append(box)
        else:
            waiting = pieces + waiting
    found += waiting
    # Reading order: rows of panels that overlap in height, from left to right.
    found.sort(key=lambda b: b.top)
    while found:
        first = found[0]
        row = [b for b in found if b.top < (first.top + first.bottom) / 2]
        yield from sorted(row, key=lambda b: b.left)
        found = [b for b in found if b not in row]


def _is_one_with_bar(grey: Grey, box: Box) -> bool:
    """Say whether a part is one image with an info bar, whose black rows are no gutters."""
    rest, note = _rest(box, find_bar(box.cut(grey)), box.bottom)
    return bool(note) and rest.size_px[0] >= PART_PX and len(_cut(grey, rest)) == 1


def _cut(grey: Grey, box: Box) -> list[Box]:
    """Cut a part along its gutters of one direction, rows first; margins of the pieces go too."""
    part = box.cut(grey)
    for axis in (0, 1):
        lines = part if axis == 0 else part.T
        between = _runs(~_abrupt(lines, _is_gutter(lines)))
        spans = [(a, b) for a, b in between if b - a >= PART_PX]
        if len(spans) > 1:
            pieces = [
                Box(box.top + a, box.left, box.top + b, box.right)
                if axis == 0
                else Box(box.top, box.left + a, box.bottom, box.left + b)
                for a, b in spans
            ]
            return [_trimmed(grey, piece) for piece in pieces]
    return [box]


def _trimmed(grey: Grey, box: Box) -> Box:
    """Cut off margins."""
    part = box.cut(grey)
    top, bottom = _ends(_is_gutter(part))
    left, right = _ends(_is_gutter(part.T))
    if bottom - top < PART_PX or right - left < PART_PX:
        return box
    return Box(box.top + top, box.left + left, box.top + bottom, box.left + right)


def _is_gutter(part: Grey) -> Bool[np.ndarray, " lines"]:
    """Say which rows of a part are of one level that micrographs do not fill whole rows with."""
    is_line = part.max(axis=1) == part.min(axis=1)
    white, black = part >= _WHITE - _WHITE_NOISE / 2, part <= _BLACK + _NOISE / 2
    near = (white.mean(axis=1) >= _LINE_SHARE) | (black.mean(axis=1) >= _LINE_SHARE)
    for index in np.flatnonzero(near & ~is_line):  # hardly ever one, so no more is asked of others
        line = part[index].astype(np.int16)
        middle = np.median(line)
        noise = _WHITE_NOISE if middle >= _WHITE else _NOISE
        is_flat = (np.abs(line - middle) <= noise / 2).mean() >= _LINE_SHARE
        is_line[index] = is_flat and not _BLACK < middle < _WHITE
    # Lines that belong to no strip of the least thickness are of the image.
    for start, stop in _runs(is_line):
        if stop - start < GUTTER_PX:
            is_line[start:stop] = False
    return np.asarray(is_line)


def _abrupt(part: Grey, is_gutter: Bool[np.ndarray, " lines"]) -> Bool[np.ndarray, " lines"]:
    """Keep the gutters inside a part from which a picture begins at once, on one side at least."""
    kept = is_gutter.copy()
    for start, stop in _runs(is_gutter):
        level = np.median(part[start:stop])
        beside = [line for line in (start - 1, stop) if 0 <= line < len(part)]
        away = [(np.abs(part[line] - level) > _NOISE).mean() for line in beside]
        if len(beside) == 2 and max(away) < ABRUPT:
            kept[start:stop] = False
    return kept


def _ends(is_gutter: Bool[np.ndarray, " lines"]) -> tuple[int, int]:
    """First and last line, the last one left out, between the margins."""
    inside = np.flatnonzero(~is_gutter)
    return (int(inside[0]), int(inside[-1]) + 1) if len(inside) else (0, 0)


def _runs(mask: Bool[np.ndarray, " lines"]) -> list[tuple[int, int]]:
    """List the stretches of lines for which a mask is true: begin, and end left out."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(np.int8), [0]])))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def _letter(index: int) -> str:
    """Name a panel: a … z, then aa, ab and so on."""
    letters = ""
    index += 1
    while index:
        index, rest = divmod(index - 1, 26)
        letters = chr(ord("a") + rest) + letters
    return letters
