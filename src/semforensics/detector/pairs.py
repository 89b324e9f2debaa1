"""Training in pairs: every fake beside a real of its collection, alike in all but their origin.

Content is a shortcut: a network that sees fakes of one material and reals of many learns the
material. Here a batch holds as many fakes as reals of each collection, cut at the same place where
the fake is a reconstruction, turned alike and processed alike.

Noise is another: a decoder loses much of it, but not every micrograph has any. So some pairs are
not alike in it: the real is smoothed first, or the fake gets noise of the strength that it lost.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from semforensics.core.errors import InputError
from semforensics.core.processing import noise_sigma
from semforensics.detector.histories import GRID_PX, History, draw_history, draw_smoothing

Grey = UInt8[np.ndarray, "height width"]


@dataclass(frozen=True)
class Source:
    """A real image, and the fakes that are made of it or stand beside it."""

    collection: str
    real: Grey
    fakes: tuple[Grey, ...]
    """Of the real's size where they are reconstructions; else of any size."""
    weight: float = 1.0
    """How often it is drawn, within its collection."""
    drawn: bool = False
    """Whether it is a drawn picture, and `collection` its kind."""


class PairSampler:
    """Draws pairs: collections by the square root of their size, each pair from its own seed."""

    def __init__(
        self,
        sources: Sequence[Source],
        size_px: int,
        seed: int,
        *,
        smoothed: float,
        noisy: float,
        drawn: float,
    ) -> None:
        """Take the images.

        Args:
            sources: At least one, no side shorter than `size_px`.
            size_px: Side of a crop.
            seed: Of all draws.
            smoothed: Chance that the real is smoothed before all else.
            noisy: Chance that the fake gets noise, up to the level of its real.
            drawn: Chance that a pair is of drawn pictures, where there are some.

        Raises:
            InputError: There are none, or an image is smaller than a crop.
        """
        if not sources:
            raise InputError("no images to draw pairs from")
        for source in sources:
            for image in (source.real, *source.fakes):
                if min(image.shape) < size_px:
                    raise InputError(
                        f"{source.collection}: an image of {image.shape[1]}x{image.shape[0]} px, "
                        f"need at least {size_px} px"
                    )
        self._sources, self._size_px, self._seed = sources, size_px, seed
        self._smoothed, self._noisy = smoothed, noisy
        names = [source.collection for source in sources]
        counts = {name: names.count(name) for name in set(names)}
        weights = np.array([s.weight / counts[s.collection] ** 0.5 for s in sources])
        of_drawn = np.array([source.drawn for source in sources])
        if of_drawn.any() and not of_drawn.all():
            weights[of_drawn] *= drawn / weights[of_drawn].sum()
            weights[~of_drawn] *= (1 - drawn) / weights[~of_drawn].sum()
        self._chances = weights / weights.sum()

    def share(self, collection: str) -> float:
        """Return the chance that a pair is of a collection."""
        named = np.array([source.collection == collection for source in self._sources])
        return float(self._chances[named].sum())

    def collection(self, index: int) -> str:
        """Return the collection of a pair."""
        return self._source(index)[0].collection

    def _source(self, index: int) -> tuple[Source, np.random.Generator]:
        """Return what a pair is cut from, and the generator of all further draws."""
        rng = np.random.default_rng([self._seed, index])
        return self._sources[rng.choice(len(self._sources), p=self._chances)], rng

    def pair(self, index: int) -> tuple[Grey, Grey]:
        """Return the crops of a real and of a fake; the same index gives the same pair."""
        source, rng = self._source(index)
        fake = source.fakes[rng.integers(len(source.fakes))]
        room = min(*source.real.shape, *fake.shape)
        history = draw_history(rng, min(1.0, max(0.4, (self._size_px + 2 * GRID_PX) / room)))
        if self._side(history) > room:
            history = History()
        side = self._side(history)
        turn, flip, noise = (int(rng.integers(most)) for most in (4, 2, 2**31))
        place = rng.random(2)
        cuts = []
        for image in (source.real, fake):
            top, left = (
                int(u * (length - side + 1)) for u, length in zip(place, image.shape, strict=True)
            )
            cuts.append(np.ascontiguousarray(image[top : top + side, left : left + side]))
        crops = []
        for cut, before in zip(cuts, self._unequal(cuts[0], cuts[1], rng), strict=True):
            processed = history.apply(before.apply(cut, noise + 1), noise)
            turned = np.rot90(processed[: self._size_px, : self._size_px], turn)
            crops.append(np.ascontiguousarray(turned[:, ::-1] if flip else turned))
        return crops[0], crops[1]

    def _unequal(self, real: Grey, fake: Grey, rng: np.random.Generator) -> tuple[History, History]:
        """Draw what happens first to a real and to its fake."""
        chance, smoothing, share = rng.random(), draw_smoothing(rng), rng.uniform(0.3, 1)
        if chance < self._smoothed:
            return smoothing, History()
        if chance < self._smoothed + self._noisy:
            of_real, of_fake = noise_sigma(np.stack([real, fake]))
            lost = float(max(0.0, of_real**2 - of_fake**2)) ** 0.5
            return History(), History(noise=share * lost)
        return History(), History()

    def _side(self, history: History) -> int:
        """Return the side of a cut that is still large enough after a history."""
        if history.does_nothing():
            return self._size_px
        return math.ceil((self._size_px + history.rows_lost + 1) / history.factor)

    def batch(self, first: int, number: int) -> UInt8[Tensor, "n 1 size size"]:
        """Stack the pairs `first`, `first + 1`, ...: all reals, then their fakes in that order."""
        pairs = [self.pair(first + index) for index in range(number)]
        reals, fakes = zip(*pairs, strict=True)
        return torch.from_numpy(np.stack([*reals, *fakes]))[:, None]


def pair_loss(logits: Float[Tensor, " n"]) -> Float[Tensor, ""]:
    """Return the loss of a batch of `PairSampler`: cross-entropy, and that of the differences.

    The difference of a pair's logits is free of all that the two have in common.
    """
    reals, fakes = logits.chunk(2)
    alone = F.softplus(reals).mean() + F.softplus(-fakes).mean()
    return 0.5 * alone + 0.5 * F.softplus(reals - fakes).mean()
