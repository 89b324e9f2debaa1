"""Split the real micrographs of a folder of collections, and say how much of them is judged.

    python benchmarks/screening_files.py /path/to/sem

Renews the section "Real files" of docs/results/screening.md. Needs no model: what is judged follows
from the panels, from what is drawn over them and from the size of a tile.
"""

import argparse
from collections import Counter
from pathlib import Path

from rich.progress import track

from semforensics.core.markdown import markdown_table
from semforensics.detector.tiling import cut_tiles
from semforensics.screening.judge.verdict import LEAST_JUDGED
from semforensics.screening.read.apart import read_inputs
from semforensics.screening.records import Limits, Picture
from semforensics.screening.split.panels import split_panels

TABLE = Path(__file__).parents[1] / "docs/results/screening.md"
HEADING = "## Real files"
COLUMNS = (
    "collection", "pictures", "first row of the info bar", "panels", "refused", "area judged, %",
    "panels below 90 %",
)  # fmt: skip
TILE_PX = 128


def describe(collection: Path) -> tuple[list[str], int, int]:
    """Split the pictures of a collection; return a row, the area of its panels and that judged."""
    rows: Counter[str] = Counter()
    n_pictures = n_panels = n_refused = n_below = area = judged = 0
    for picture in read_inputs([collection], Limits()):
        if not isinstance(picture, Picture):
            continue  # notes beside the pictures
        n_pictures += 1
        panels, refusals = split_panels(picture, TILE_PX)
        n_refused += len(refusals)
        for panel in panels:
            n_panels += 1
            found = cut_tiles(panel.grey, TILE_PX, panel.mask).areas.sum()
            area, judged = area + panel.micrograph_px, judged + int(found)
            n_below += found < LEAST_JUDGED * panel.micrograph_px
            has_bar = any(note.startswith("info bar of") for note in panel.notes)
            rows[str(panel.box.bottom) if has_bar else "none"] += 1
    bars = ", ".join(f"{row} ({count})" for row, count in sorted(rows.items()))
    numbers = [str(n_panels), str(n_refused), f"{100 * judged / max(area, 1):.1f}", str(n_below)]
    return [collection.name, str(n_pictures), bars, *numbers], area, judged


def section(folder: Path) -> str:
    """Write the section."""
    rows, areas, judged = [], 0, 0
    for collection in track(sorted(p for p in folder.iterdir() if p.is_dir()), "files"):
        row, area, part = describe(collection)
        rows.append(row)
        areas, judged = areas + area, judged + part
    parts = [
        HEADING,
        "Made by `python benchmarks/screening_files.py /path/to/sem`. How the pictures of "
        f"{len(rows)} collections are split, and how much of their panels lies in a tile: "
        f"{100 * judged / areas:.1f} % in all. Text and lines drawn over a panel are no area. The "
        "rows of info bars were compared with the pictures by eye, and a test holds them: "
        "`pytest tests/screening/split -k real`. In published panels (`emps_papers`, "
        "`not_sem_tem`), which were resampled, edges of bars are right to two rows. The finder of "
        "text was designed on these files.",
        markdown_table(COLUMNS, rows).strip(),
        "Not judged are a transmission micrograph of which three quarters are saturated white, "
        "so that too little is left, and four parts of three published panels. For two parts "
        "this is right: a box with a letter, and a strip beside a line that is drawn across the"
        " whole picture. The other two are a mistake: the micrograph is cut along the lower "
        "edge of the text of its scale bar, and the 69 rows below are left out; the 86 % above "
        "are judged.",
        "Text is missed where it is soft (resampled), lower than 6 px, or grey on grey. By eye "
        "that is so of some letters in about one in eight published panels; in one file of "
        "`wood_hitachi_palette` the ticks of a ruler are missed. A few bright particles are taken "
        "for text.",
    ]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """Renew the section."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("micrographs", type=Path)
    text = section(parser.parse_args().micrographs)
    before, _, after = TABLE.read_text().partition(HEADING)
    rest = after.partition("\n## ")[2]
    TABLE.write_text(before.rstrip() + "\n\n" + text + (f"\n## {rest}" if rest else ""))


if __name__ == "__main__":
    main()
