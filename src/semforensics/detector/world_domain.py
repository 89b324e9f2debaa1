"""Is a tile like micrographs of scanning electron microscopes, whichever the instrument?

A calibration on some collections promises something only of micrographs that could have come from
another collection of the kind. Two measures of a tile tell what clearly could not:

- Unlikeness: the distance from the nearest tile of any collection, in the space of
  `domain_features`. It is whitened by the covariance within collections, so what varies from
  picture to picture of one instrument counts little.
- Lack of structure: how far it lies towards surrogates that show no object (see
  `domain.phase_randomised` and `domain.shuffled`), along Fisher's linear discriminant.

Each collection is left out in turn, and the limits are such that nine in ten of its panels have
most of their tiles inside. Collections are what is exchangeable, so the share is corrected for
their number as in split conformal prediction: with few of them, all must be inside.

Statistics of tiles do not tell a transmission micrograph. `bright_field` does in most cases, on
a whole panel. No pixel is stored.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from semforensics.core.errors import InputError
from semforensics.detector.domain import (
    Features,
    domain_features,
    feature_names,
    phase_randomised,
    shuffled,
)

Images = UInt8[Tensor, "n 1 side side"]
TilesOfAnyNumber = UInt8[Tensor, "_ 1 side side"]
Grey = UInt8[np.ndarray, "height width"]

BRIGHT_FIELD_LIMIT = 0.35
"""Standard deviations by which the most even third of a panel is brighter than all of it: at most
0.28 in nine of ten micrographs of 20 of 23 collections."""

_KEPT = 0.9
"""Share of the panels of a new collection that is inside."""
_REFERENCES = 960  # tiles that are kept, of all collections together
_SURROGATES = 60  # tiles of each collection that they are made of
_SHRINKAGE = 0.1  # share of the identity in the covariances
_LEAST_SPREAD = 0.01  # of a feature, so that one that never varied is not infinitely strict
_FARTHEST = 4.0  # standard deviations: beyond, a feature says no more about structure
_CELLS = 64  # of a panel's shorter side: coarse enough that noise is no unevenness
_LEAST_CELL_PX = 4


@dataclass(frozen=True)
class _Own:
    """The features of a collection."""

    tiles: Float[np.ndarray, "n f"]
    panel: Int[np.ndarray, " n"]
    """Number of the panel of each tile."""
    surrogates: Float[np.ndarray, "m f"]


@dataclass(frozen=True)
class _Space:
    """Where collections lie."""

    mean: Float[np.ndarray, " f"]
    spread: Float[np.ndarray, " f"]
    whitening: Float[np.ndarray, "f f"]
    references: Float[np.ndarray, "r f"]
    """Tiles of all collections, whitened."""
    direction: Float[np.ndarray, " f"]
    """Along it surrogates lie higher than tiles."""

    @classmethod
    def fit(cls, collections: Sequence[_Own], rng: np.random.Generator) -> "_Space":
        """Learn it, with one vote for each collection."""
        votes = _votes([len(own.tiles) for own in collections])
        tiles = np.concatenate([own.tiles for own in collections])
        mean = np.average(tiles, axis=0, weights=votes)
        spread = np.sqrt(np.average((tiles - mean) ** 2, axis=0, weights=votes)) + _LEAST_SPREAD
        within = np.mean([np.cov((own.tiles / spread).T) for own in collections], axis=0)
        # triu: beside the triangle `inv` leaves roundings that change from run to run.
        whitening = np.triu(np.linalg.inv(np.linalg.cholesky(_shrunk(within))).T)
        whitening /= np.sqrt(len(mean))
        most = max(_REFERENCES // len(collections), 1)
        kept = [own.tiles[rng.permutation(len(own.tiles))[:most]] for own in collections]
        references = ((np.concatenate(kept) - mean) / spread) @ whitening

        surrogates = np.concatenate([own.surrogates for own in collections])
        theirs = _votes([len(own.surrogates) for own in collections])
        both = [((x - mean) / spread).clip(-_FARTHEST, _FARTHEST) for x in (tiles, surrogates)]
        covariances = [np.cov(x.T, aweights=w) for x, w in zip(both, (votes, theirs), strict=True)]
        apart = np.average(both[1], axis=0, weights=theirs)
        apart -= np.average(both[0], axis=0, weights=votes)
        direction = np.linalg.solve(_shrunk(np.mean(covariances, axis=0)), apart)
        return cls(*map(_float32, (mean, spread, whitening, references, direction)))

    def measure(self, features: Features) -> Float[np.ndarray, "n 2"]:
        """Return unlikeness and lack of structure."""
        standard = (features - self.mean) / self.spread
        white = standard @ self.whitening
        squares = (white**2).sum(axis=1)[:, None] + (self.references**2).sum(axis=1)
        nearest = (squares - 2 * white @ self.references.T).min(axis=1, initial=np.inf)
        flat = standard.clip(-_FARTHEST, _FARTHEST) @ self.direction
        return np.stack([np.sqrt(nearest.clip(min=0)), flat], axis=1)


@dataclass(frozen=True)
class WorldDomain:
    """What tiles of micrographs of many collections are like."""

    space: _Space
    limits: tuple[float, float]
    """Of the unlikeness and of the lack of structure."""
    size_px: int
    """Side of the tiles."""

    @classmethod
    def fit(
        cls, panels: Mapping[str, Sequence[TilesOfAnyNumber]], rng: np.random.Generator
    ) -> "WorldDomain":
        """Learn what real tiles are like.

        Args:
            panels: By collection, the tiles of each of its panels: native ones and processed ones,
                reals alone. Panels of many papers are one collection.
            rng: Of the surrogates, and of the tiles that are kept.

        Raises:
            InputError: There are fewer than two collections, or one has no two tiles.
        """
        named = {name: [x for x in own if len(x)] for name, own in sorted(panels.items())}
        few = [name for name, own in named.items() if sum(map(len, own)) < 2]
        if len(named) < 2 or few:
            raise InputError(
                f"a domain of {len(named)} collections, {', '.join(few) or 'none'} with fewer than"
                " two tiles: need at least two of two"
            )
        collections = [_measured(own, rng) for own in named.values()]
        found: list[Float[np.ndarray, "panels 2"]] = []
        for index, own in enumerate(collections):
            others = [*collections[:index], *collections[index + 1 :]]
            measures = _Space.fit(others, rng).measure(own.tiles)
            medians = [np.median(measures[own.panel == i], axis=0) for i in np.unique(own.panel)]
            found.append(np.stack(medians))
        votes = _votes([len(medians) for medians in found])
        limits = _limits(np.concatenate(found), votes, len(collections))
        size_px = next(iter(named.values()))[0].shape[-1]
        return cls(_Space.fit(collections, rng), limits, size_px)

    def is_inside(self, tiles: Images) -> Bool[np.ndarray, " n"]:
        """Say which tiles are within both limits; a panel is inside where most of its tiles are."""
        if not len(tiles):
            return np.zeros(0, dtype=bool)
        measures = self.space.measure(domain_features(tiles))
        return np.asarray((measures <= self.limits).all(axis=1))

    def tensors(self) -> dict[str, Tensor]:
        """Return what goes into a model file."""
        return {name: torch.from_numpy(x).float() for name, x in vars(self.space).items()}

    def numbers(self) -> dict[str, Any]:
        """Return the rest, for the header."""
        features = feature_names()
        return {"limits": list(self.limits), "size_px": self.size_px, "features": features}

    @classmethod
    def restore(cls, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> "WorldDomain":
        """Rebuild from `tensors` and `numbers`.

        Raises:
            InputError: They do not belong together, or are of other statistics.
        """
        names = feature_names()
        if numbers.get("features") != names:
            raise InputError("not a domain of these statistics")
        try:
            space = _Space(**{name: x.double().numpy() for name, x in tensors.items()})
            low, high = numbers["limits"]
            domain = cls(space, (float(low), float(high)), int(numbers["size_px"]))
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"not a whole domain: {error}") from error
        if {x.shape[-1] for x in vars(space).values()} != {len(names)}:
            raise InputError(f"not a whole domain: expected {len(names)} statistics in each part")
        return domain


def bright_field(panel: Grey, drawn: Bool[np.ndarray, "height width"] | None = None) -> float:
    """Return by how much the most even third of a panel is brighter than all of it.

    The ground of a transmission micrograph in bright field is even and bright, its objects are
    dark; in a scanning micrograph the ground is darker than the objects, or both are rough.

    Args:
        panel: Grey levels.
        drawn: Text and lines, which are left out.

    Returns:
        In standard deviations of the grey levels, `BRIGHT_FIELD_LIMIT` and more for bright field; 0
        where too little is left to say.
    """
    cell = max(min(panel.shape) // _CELLS, _LEAST_CELL_PX)
    rows, columns = (side // cell for side in panel.shape)
    if min(rows, columns) < 2:
        return 0.0
    height, width = rows * cell, columns * cell
    shape = (rows, cell, columns, cell)
    cells = panel[:height, :width].reshape(shape).mean(axis=(1, 3))
    steps = np.hypot(*np.gradient(cells))
    if drawn is not None:
        free = ~drawn[:height, :width].reshape(shape).any(axis=(1, 3))
        if not free.any():
            return 0.0
        cells, steps = cells[free], steps[free]
    even = steps <= np.quantile(steps, 1 / 3)
    # + 2: of a panel without contrast nothing is said
    return float((cells[even].mean() - cells.mean()) / (cells.std() + 2))


def _measured(panels: Sequence[TilesOfAnyNumber], rng: np.random.Generator) -> _Own:
    tiles = torch.cat(list(panels))
    some = tiles[torch.from_numpy(rng.permutation(len(tiles))[:_SURROGATES])]
    surrogates = torch.cat([phase_randomised(some, rng), shuffled(some, rng)])
    panel = np.repeat(np.arange(len(panels)), [len(x) for x in panels])
    return _Own(domain_features(tiles), panel, domain_features(surrogates))


def _limits(
    medians: Float[np.ndarray, "panels 2"], votes: Float[np.ndarray, " panels"], n_collections: int
) -> tuple[float, float]:
    """Return limits that leave out as many panels each, so that the asked share is inside both."""
    share = min(_KEPT * (n_collections + 1) / n_collections, 1.0)
    shares = votes / votes.sum()
    for quantile in np.linspace(share, 1, 201):
        first, second = (_weighted_quantile(x, shares, float(quantile)) for x in medians.T)
        if shares[(medians <= (first, second)).all(axis=1)].sum() >= share - 1e-9:
            break
    return first, second


def _weighted_quantile(
    values: Float[np.ndarray, " n"], shares: Float[np.ndarray, " n"], quantile: float
) -> float:
    """Return the lowest value that at least this share does not exceed."""
    order = np.argsort(values, kind="stable")
    passed = np.cumsum(shares[order])
    index = int(np.searchsorted(passed, quantile - 1e-9))
    return float(values[order][min(index, len(order) - 1)])


def _votes(counts: Sequence[int]) -> Float[np.ndarray, " n"]:
    """Return weights by which each collection counts once."""
    return np.concatenate([np.full(count, 1 / count) for count in counts])


def _float32(values: Float[np.ndarray, "*any"]) -> Float[np.ndarray, "*any"]:
    """Round to what a file keeps, so that a stored domain says the same as the fitted one."""
    # order="C": the layout of a matrix changes the last digit of a product with it.
    return values.astype(np.float32, order="C").astype(np.float64)


def _shrunk(covariance: Float[np.ndarray, "f f"]) -> Float[np.ndarray, "f f"]:
    return (1 - _SHRINKAGE) * covariance + _SHRINKAGE * np.eye(len(covariance))
