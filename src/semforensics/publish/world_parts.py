"""Calibrate the search for generated parts of `train_world`, fold by fold."""

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np

from semforensics.detector.cells import fold, panel_windows
from semforensics.detector.panels import GRID
from semforensics.detector.tiling import cut_tiles
from semforensics.detector.world_calibration import Specimen
from semforensics.detector.world_network import CELL_PX, WorldEnsemble
from semforensics.params import WorldPart
from semforensics.publish.part_rule import SIDES, paste
from semforensics.screening.judge.parts import WINDOWS, PartRule, Windows

HISTORIES = ("native", "JPEG 85", "x0.75", "x0.75, JPEG 85")
"""Of real panels, beside which a part must stand out."""
_PER_PANEL = 3  # composites made of each panel


def measure_world_parts(
    specimens: Sequence[Specimen],
    ensembles: Mapping[WorldPart | None, WorldEnsemble],
    size_px: int,
    *,
    seed: int,
) -> PartRule | None:
    """Score real panels, as they are and processed, and composites; see what they reach.

    Each is scored by the network that has not seen it.

    Args:
        specimens: Reals, each followed by a fake made of it, as `of_folds` yields them.
        ensembles: The networks by the specimens' parts.
        size_px: Side of a tile.
        seed: Of noise, and of where parts are pasted.

    Returns:
        None where no panel has twice the side of a tile.
    """
    pairs = [
        (real, fake)
        for real, fake in zip(specimens[::2], specimens[1::2], strict=True)
        if min(real.image.shape) >= 2 * size_px
    ]
    if not pairs:
        return None
    folded = {part: fold(ensemble) for part, ensemble in ensembles.items()}
    reals: dict[str, list[Windows]] = {name: [] for name in HISTORIES}
    composites, rng, step = [], np.random.default_rng(seed), size_px // CELL_PX // WINDOWS
    for number, (real, fake) in enumerate(pairs):
        windows = partial(panel_windows, folded[real.part], tile_px=size_px, step=step)
        for name, of_kind in reals.items():
            changed = GRID[name].apply(real.image, seed)
            if min(changed.shape) >= size_px:
                of_kind.append(windows(changed))
        tiles = cut_tiles(fake.image, size_px).pixels[:, 0].numpy()
        for index in range(_PER_PANEL):
            side = SIDES[(number + index) % len(SIDES)]
            composites.append(windows(paste(real.image, tiles, side, rng)))
    return PartRule.measure(reals, composites)
