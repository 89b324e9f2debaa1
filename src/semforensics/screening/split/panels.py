"""Composite figures → panels.

`parts` finds the parts of a figure. Parts that are mostly of one grey level are drawings or text
and are not judged. Of the others the info bar is taken off, and what is drawn over them is found.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from semforensics.core.errors import InputError
from semforensics.micrographs.drawn import MARGIN_PX, DrawnBox, Mask
from semforensics.micrographs.text import find_drawn
from semforensics.screening.records import Box, Grey, Panel, Picture, Refusal
from semforensics.screening.split.parts import (
    BLACK,
    GUTTER_PX,
    WHITE,
    Part,
    find_bar,
    find_parts,
    is_bar,
)
from semforensics.screening.split.seams import END_PX, find_seams

FLAT = 0.75
"""Share of one grey level from which on a part is no micrograph; of white and black, give or take
two, because JPEG leaves them a little off. Denoised real micrographs: up to 0.69 of 128x128 px."""

_STRIP_PX = 16  # rows that are looked at together for transparent pixels


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
    parts = find_parts(grey, frame)
    if note and len(parts) > 1:  # below a composite it may as well be a caption
        note = _strip_note(frame, height)
    if info_bar and len(parts) > 1:  # each panel has one
        whole = Box(0, 0, *grey.shape)
        note = f"{info_bar} rows cut off at the bottom, as asked"
        parts = [
            replace(p, box=replace(p.box, bottom=max(p.box.bottom - info_bar, p.box.top)))
            for p in find_parts(grey, whole)
        ]
    panels: list[Panel] = []
    refusals: list[Refusal] = []
    is_alone = len(parts) == 1
    all_parts = [one for part in parts for one in (part, *(Part(box) for box, _ in part.insets))]
    host = ""
    for index, part in enumerate(all_parts):
        name = "" if len(all_parts) == 1 else _letter(index)
        try:
            is_inset = part not in parts
            host = host if is_inset else name
            looks_for_bar = info_bar is None and not (is_alone and note) and not is_inset
            end = height if is_alone else part.box.bottom
            panel = _panel(name, part.box, grey, least_px, end if looks_for_bar else None)
            if note and not is_inset:
                panel = replace(panel, notes=(note, *panel.notes))
            insets = [_letter(index + 1 + n) for n in range(len(part.insets))]
            panel = _with_what_parts_says(panel, part, host if is_inset else "", insets)
            if picture.hidden is not None:
                hidden = _boxes_of(panel.box.cut(picture.hidden))
                panel = replace(panel, drawn=(*panel.drawn, *hidden))
            panels.append(panel)
        except ValueError as error:
            where = f"{picture.location}, panel {name}".removeprefix(", ") if name else ""
            refusals.append(
                Refusal(picture.path, where or picture.location, picture.sha256, str(error))
            )
    return panels, refusals


def _with_what_parts_says(panel: Panel, part: Part, host: str, insets: Sequence[str]) -> Panel:
    """Add what is known of a panel from where it was found: insets, and doubt.

    Args:
        panel: As it is without that.
        part: Where it was found.
        host: The panel of which it is an inset; empty where it is none.
        insets: Its own insets, by their names as panels.
    """
    notes, drawn = list(panel.notes), list(panel.drawn)
    if host:
        notes.append(f"this is an inset of panel {host}")
    for _, frame in part.insets:
        inner = frame.moved(-panel.box.top, -panel.box.left)
        height, width = panel.box.size_px
        if inner.top < height and inner.bottom > 0:
            drawn.append(
                DrawnBox(
                    "inset",
                    max(inner.top, 0),
                    max(inner.left, 0),
                    min(inner.bottom, height),
                    min(inner.right, width),
                )
            )
    if insets:
        words, are = ("inset, panel", "is") if len(insets) == 1 else ("insets, panels", "are")
        names = " and ".join(filter(None, [", ".join(insets[:-1]), insets[-1]]))
        notes.append(f"its {words} {names}, {are} left out of it")
    doubts = [f"{kind} {line}" for kind, line in part.doubts if not is_of_text(panel, kind, line)]
    if doubts:
        notes.append(f"it may be composite: two pictures may meet at {' and '.join(doubts)}")
    return replace(panel, notes=tuple(notes), drawn=tuple(drawn), may_be_composite=bool(doubts))


def is_of_text(panel: Panel, kind: str, line: int) -> bool:
    """Say whether what may be a seam is the side of a label, and gone without that label.

    Pictures that meet do so beside the label, too.

    Args:
        panel: With what is drawn over it.
        kind: "row" or "column".
        line: Its number in the picture.
    """
    is_row = kind == "row"
    grey = panel.grey if is_row else panel.grey.T
    at = line - (panel.box.top if is_row else panel.box.left)
    beside = np.ones(grey.shape[1], dtype=bool)
    for one in panel.drawn:
        sides = (one.top, one.bottom) if is_row else (one.left, one.right)
        low, high = (one.left, one.right) if is_row else (one.top, one.bottom)
        if one.kind == "text" and min(abs(at - side) for side in sides) <= GUTTER_PX:
            beside[max(low - MARGIN_PX, 0) : high + MARGIN_PX] = False
    edges = np.flatnonzero(np.diff(np.pad(beside, 1).astype(np.int8))).reshape(-1, 2)
    low, high = max(edges.tolist(), key=lambda run: run[1] - run[0], default=(0, 0))
    if beside.all() or high - low < 0.5 * len(beside) or high - low < 2 * END_PX:
        return False  # there is no such label, or it leaves too little to tell
    seams, _ = find_seams(np.ascontiguousarray(grey[:, low:high]))
    return all(abs(seam.end - at) > GUTTER_PX for seam in seams)


def _boxes_of(hidden: Mask) -> Iterator[DrawnBox]:
    """Cover the transparent pixels of a panel with boxes, strip by strip."""
    for top in range(0, len(hidden), _STRIP_PX):
        strip = hidden[top : top + _STRIP_PX].any(axis=0)
        ends = np.flatnonzero(np.diff(np.pad(strip, 1).astype(np.int8)))
        for left, right in ends.reshape(-1, 2).tolist():
            yield DrawnBox("text", top, left, min(top + _STRIP_PX, len(hidden)), right)


def _without_bar(grey: Grey, info_bar: int | None) -> tuple[Box, str]:
    """Take the info bar off a frame; return the rest, and a note where there was one."""
    height, width = grey.shape
    if info_bar:
        kept = Box(0, 0, max(height - info_bar, 0), width)
        return kept, f"{info_bar} rows cut off at the bottom, as asked"
    rows = find_bar(grey) if info_bar is None else None
    return _rest(Box(0, 0, height, width), rows, height)


def _strip_note(kept: Box, height: int) -> str:
    """Say which rows along a side of a composite figure were cut off."""
    if kept.bottom < height:
        return (
            f"{height - kept.bottom} rows below the panels, from row {kept.bottom} on, were cut off"
            " as info bars or a caption"
        )
    return f"{kept.top} rows above the panels were cut off as info bars or a caption"


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
    spread = 0 if BLACK < level < WHITE else 2
    share = counts[max(level - spread, 0) : level + spread + 1].sum() / grey.size
    if share > FLAT:
        raise InputError(
            f"{share:.0%} of it is of grey level {level}, as in a drawing or where a detector is"
            " saturated: too little is left to judge"
        )
    found = find_drawn(grey, with_bar=bar_end is not None)
    if found.info_bar is not None and not is_bar(grey, found.info_bar):
        found = find_drawn(grey, with_bar=False)
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


def _letter(index: int) -> str:
    """Name a panel: a … z, then aa, ab and so on."""
    letters = ""
    index += 1
    while index:
        index, rest = divmod(index - 1, 26)
        letters = chr(ord("a") + rest) + letters
    return letters
