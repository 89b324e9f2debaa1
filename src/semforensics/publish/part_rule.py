"""Calibrate the search for generated parts on held-out panels, and on composites made of them."""

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import torch
from jaxtyping import UInt8

from semforensics.detector.inference import FoldedNetwork, window_logits
from semforensics.detector.perturbations import AS_IT_IS, Perturbation, find, rng_of
from semforensics.screening.judge.parts import WINDOWS, PartRule
from semforensics.screening.records import Grey, GreyOfAnySize

SIDES = (1.25, 1.5, 2.0, 3.0)
"""Of the part of a composite, in tiles; a smaller one need not hold a whole window."""
_PER_PANEL = 16  # composites made of each panel


def measure_part_rule(
    network: FoldedNetwork,
    panels: Sequence[GreyOfAnySize],
    fakes: Sequence[UInt8[np.ndarray, "n size_px size_px"]],
    *,
    phases: int,
    kinds: Sequence[str],
    seed: int,
) -> PartRule | None:
    """Score real panels, as they are and processed, and composites; see what they reach.

    Args:
        network: On a CPU.
        panels: Reals that nothing was trained on.
        fakes: Tiles of each generator that nothing was trained on.
        phases: As the model scores.
        kinds: Of processing, as `find` takes them.
        seed: Of noise, and of where parts are pasted.

    Returns:
        None where no panel has twice the side of a tile.

    Raises:
        InputError: There are no such kinds.
    """
    size_px = fakes[0].shape[-1]
    large = [panel for panel in panels if min(panel.shape) >= 2 * size_px]
    if not large:
        return None
    windows = partial(
        window_logits,
        network,
        size_px=size_px,
        step_px=size_px // WINDOWS,
        phases=phases,
        device=torch.device("cpu"),
    )

    def processed(cell: Perturbation) -> Iterator[GreyOfAnySize]:
        for number, panel in enumerate(large):
            changed = cell.apply(panel, rng_of(seed, cell, str(number)), panel)
            if min(changed.shape) >= size_px:
                yield changed

    reals = {
        f"{cell.axis} {cell.level}": [windows(panel) for panel in processed(cell)]
        for cell in (AS_IT_IS, *find(kinds))
    }
    rng = np.random.default_rng(seed)
    composites = [
        windows(paste(panel, tiles, side, rng))
        for panel in large
        for number in range(_PER_PANEL)
        for tiles, side in [(fakes[number % len(fakes)], SIDES[number // len(fakes) % len(SIDES)])]
    ]
    return PartRule.measure(reals, composites)


def paste(
    panel: Grey,
    tiles: UInt8[np.ndarray, "n size_px size_px"],
    side: float,
    rng: np.random.Generator,
) -> Grey:
    """Paste a square of generated tiles, laid edge to edge, at a random place.

    Args:
        panel: At least as large as the square, or it is made smaller.
        tiles: To draw from.
        side: Of the square, in tiles.
        rng: Draws tiles and place.
    """
    size_px = tiles.shape[-1]
    side_px = min(round(side * size_px), *panel.shape)
    count = -(-side_px // size_px)
    drawn = tiles[rng.integers(0, len(tiles), count**2)].reshape(count, count, size_px, size_px)
    square = drawn.swapaxes(1, 2).reshape(count * size_px, -1)[:side_px, :side_px]
    top, left = (int(rng.integers(0, length - side_px + 1)) for length in panel.shape)
    composite = panel.copy()
    composite[top : top + side_px, left : left + side_px] = square
    return composite
