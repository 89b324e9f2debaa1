"""Signs that pixels are not those of the instrument: then "consistent" means nothing.

The trace of a generator is in neighbouring pixels and does not survive JPEG or resampling: most
generated images look real afterwards (docs/results/detector.md). Five tests, each
on the panel alone, from strong to weak; the first three are measured in `detector.traces`:

- JPEG: decoded coefficients lie at multiples of a quantisation step.
- Interpolation: the second difference of pixels has a period.
- Equal neighbours: neighbours differ by 0 far more often than by 1, as after a median filter or
  denoising.
- Lack of fine detail: less power in the corners of the spectrum than 19 of 20 training crops have.
  What is left then: soft images, resampled or not.
- Too much detail of a few pixels: more power in it, over that in larger objects, than 19 of 20
  training crops have, as where every third or fourth pixel was kept. Every second is not found so.

How often they are right: docs/results/screening.md. None of them proves anything of an image, and
an image without such signs may still have been processed.
"""

from semforensics.detector.tiling import Tiles, cut_tiles
from semforensics.detector.traces import (
    EQUAL_LIMIT,
    GRID_PEAK_LIMIT,
    JPEG_LIMIT,
    PEAK_LIMIT,
    Mask,
    equal_neighbours,
    jpeg_steps,
    periodicity,
)
from semforensics.screening.judge.references import References, fineness, reach
from semforensics.screening.records import Grey, Panel

_CLAUSES = {
    "jpeg": (JPEG_LIMIT, "its pixels show the steps of JPEG compression"),
    "peak": (PEAK_LIMIT, "its pixels show the regular pattern of interpolation"),
    "grid_peak": (
        GRID_PEAK_LIMIT,
        "its pixels show a regular pattern, as blocks of JPEG or interpolation leave it",
    ),
    "equal": (
        EQUAL_LIMIT,
        "its pixels repeat their neighbours, as a median filter or denoising makes them",
    ),
}
"""Signs from strong to weak: the number above which each speaks, and how it is told."""


def looks_denoised(panel: Panel) -> bool:
    """Say whether the pixels of a panel repeat their neighbours, as denoising makes them."""
    drawn = panel.mask if panel.drawn else None
    return equal_neighbours(panel.grey, drawn) > EQUAL_LIMIT


def why_not_native(
    panel: Grey, references: References, drawn: Mask | None = None, tiles: Tiles | None = None
) -> str | None:
    """Say what speaks against native pixels, in one clause; None where nothing does.

    Args:
        panel: Without info bar, at least as large as a tile.
        references: Of the model's training reals.
        drawn: Text and lines, which are left out: they repeat their grey level.
        tiles: Of the panel, where they have been cut already.
    """
    signs = measure(panel, references, drawn, tiles)
    for name, (limit, clause) in _CLAUSES.items():
        if signs[name] > limit:
            return clause
    if signs["fineness_db"] < references.fineness_db:
        return (
            "it has less fine detail than the images that the model was trained on, as after"
            " resizing or smoothing"
        )
    if signs["reach_db"] > references.reach_db:
        return (
            "it has more detail of a few pixels than the images that the model was trained on, as"
            " where pixels were left out"
        )
    return None


def measure(
    panel: Grey, references: References, drawn: Mask | None = None, tiles: Tiles | None = None
) -> dict[str, float]:
    """Return the numbers that `why_not_native` compares with its limits."""
    drawn = None if drawn is None or not drawn.any() else drawn
    tiles = cut_tiles(panel, references.size_px, drawn) if tiles is None else tiles
    peak, grid_peak = periodicity(panel, drawn)
    spectrum = references.spectrum_of(tiles)
    return {
        "jpeg": jpeg_steps(panel),
        "peak": peak,
        "grid_peak": grid_peak,
        "equal": equal_neighbours(panel, drawn),
        "fineness_db": float(fineness(references.frequencies, spectrum)),
        "reach_db": float(reach(references.frequencies, spectrum)),
    }
