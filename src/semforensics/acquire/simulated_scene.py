"""The scene in front of the simulated microscope: layered carbon with palladium particles on it.

Everything is in nanometres around the centre of the area and independent of any pixel grid, so that
views at several magnifications show one and the same area. After ARTIMAGEN (Cizmar et al.,
Scanning 30, 381, 2008), which imitates gold on carbon; ours adds flakes, defect lines and the two
arrangements of particles of Boiko et al. (Scientific Data 7, 101, 2020).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft, sparse
from scipy.spatial import Voronoi, cKDTree

EXTENT_NM = (2800.0, 2250.0)
"""Width and height of a scene: the field of view at 50k, 2540 nm x 2032 nm, and a border."""
HURST = 0.7
"""Of all relief; cleaved and evaporated carbon lies between 0.6 and 0.8."""
MEDIAN_DIAMETER_NM = (5.5, 8.0)
"""Per area; upper half of the 3-8 nm of the specification, where the published particles lie."""
SIGMA_LN_DIAMETER = 0.3
CELL_NM = (52.0, 100.0)
"""Mean width of the cells between defect lines, per area; read off the published 50k images."""
STRETCH = (1.0, 3.2)
"""Cells are as long, in widths; above 2 the lines look like a family of parallels."""

Floats = NDArray[np.float32]
Points = NDArray[np.float64]
"""x and y in nm, one row per point."""
Segments = NDArray[np.float64]
"""Two ends per segment: [segment, end, axis], nm."""


@dataclass(frozen=True)
class NoiseTile:
    """A periodic random field of unit variance."""

    values: Floats
    side_nm: float

    def on_grid(self, x_nm: Points, y_nm: Points) -> Floats:
        """Sample on the grid of all pairs, one row per y."""
        columns, rows = self._weights(x_nm), self._weights(y_nm)
        return np.ascontiguousarray((columns @ (rows @ self.values).T).T)

    def at(self, points: Points) -> Points:
        """Sample at single points, linearly between the nodes."""
        size = len(self.values)
        position = points / self.side_nm * size
        low = np.floor(position).astype(int)
        (fx, fy), (ix, iy) = (position - low).T, low.T % size
        jx, jy = (ix + 1) % size, (iy + 1) % size
        upper = self.values[iy, ix] * (1 - fx) + self.values[iy, jx] * fx
        lower = self.values[jy, ix] * (1 - fx) + self.values[jy, jx] * fx
        return np.asarray(upper * (1 - fy) + lower * fy)

    def _weights(self, coordinates_nm: Points) -> sparse.csr_array:
        """Catmull-Rom weights of the nodes, one row per coordinate."""
        size = len(self.values)
        position = coordinates_nm / self.side_nm * size
        low = np.floor(position).astype(int)
        t = position - low
        weights = np.stack(
            [
                t * (-0.5 + t * (1 - 0.5 * t)),
                1 + t * t * (-2.5 + 1.5 * t),
                t * (0.5 + t * (2 - 1.5 * t)),
                t * t * (-0.5 + 0.5 * t),
            ],
            axis=1,
        )
        nodes = (low[:, None] + np.arange(-1, 3)) % size
        starts = np.arange(0, 4 * len(t) + 1, 4)
        return sparse.csr_array(
            (weights.ravel().astype(np.float32), nodes.ravel(), starts), shape=(len(t), size)
        )


def fractional_noise(
    rng: np.random.Generator,
    *,
    size: int,
    side_nm: float,
    longest_nm: float,
    shortest_nm: float,
) -> NoiseTile:
    """Draw fractional Brownian motion between two wavelengths, by filtering white noise.

    The power spectrum in two dimensions falls as frequency to the power of -2 (Hurst + 1).
    """
    white = rng.standard_normal((size, size), dtype=np.float32)
    frequency = np.hypot(
        np.fft.fftfreq(size, side_nm / size)[:, None], np.fft.rfftfreq(size, side_nm / size)
    )
    band = (frequency >= 1 / longest_nm) & (frequency <= 1 / shortest_nm)
    amplitude = np.where(band, np.maximum(frequency, 1 / longest_nm) ** -(HURST + 1), 0)
    field = fft.irfft2(fft.rfft2(white) * amplitude.astype(np.float32), s=white.shape)
    return NoiseTile((field / field.std()).astype(np.float32), side_nm)


@dataclass(frozen=True)
class Layer:
    """A sheet of carbon lying on what is below it, bounded by a convex polygon.

    Signal changes with the distance to its edge alone, so a layer is a profile over that distance.
    """

    corners: Points
    """In order, nm."""
    thickness_nm: float
    bevel_nm: float
    """Width over which the edge rises to the full thickness."""
    face: float
    """Signal of its face over that of what lies below."""
    glow: float
    """More signal at the very edge, as a factor less one: electrons leave through two faces."""
    glow_nm: float
    """Distance over which the glow decays."""
    opacity: float
    """Share of what lies below that its face hides."""
    shadow: float
    """Share of the signal lost at the foot of the edge."""
    shadow_nm: float
    """Distance over which the shadow decays."""

    @property
    def edges(self) -> Segments:
        """The sides of the polygon."""
        return np.stack([self.corners, np.roll(self.corners, -1, axis=0)], axis=1)


@dataclass(frozen=True)
class Particles:
    """Spheres of palladium."""

    centres: Points
    diameters_nm: Points
    brightness: Points
    """Signal of bulk palladium, relative."""
    oblong: Points
    """How far each departs from a disc: shares of x^2 - y^2 and of 2 x y in its squared radius."""
    facets: Points
    """Relative change of signal from the centre to the right and to the lower rim."""


@dataclass(frozen=True)
class Scene:
    """One area of one sample."""

    relief: NoiseTile
    """Fine height, unit variance."""
    swell: NoiseTile
    """Slow variation of the signal, unit variance."""
    warp: tuple[NoiseTile, NoiseTile]
    """Displaces edges and lines, in x and in y; unit variance."""
    warp_nm: float
    """Displacement of the edges of layers; lines of particles meander twice as far."""
    relief_nm: float
    """Standard deviation of the fine height."""
    tilt: tuple[float, float]
    """Slope of the area towards the beam, in x and in y."""
    layers: tuple[Layer, ...]
    particles: Particles


def draw_scene(rng: np.random.Generator, *, ordered: bool) -> Scene:
    """Draw an area at random.

    If it is ordered, particles lie along steps, flake edges and defect lines; else they are
    scattered at random.
    """
    warp = _coarse_tile(rng), _coarse_tile(rng)
    warp_nm = rng.uniform(5, 9)
    layers = tuple(_draw_layers(rng, ordered=ordered))
    median_nm = rng.uniform(*MEDIAN_DIAMETER_NM)
    if ordered:
        edges = np.concatenate([layer.edges for layer in layers])
        parts = [
            _string_along(rng, _inside(edges), median_nm, meander=(warp, warp_nm)),
            _string_along(rng, _inside(_defect_lines(rng)), median_nm, meander=(warp, 2 * warp_nm)),
            _scatter_strays(rng, median_nm),
        ]
    else:
        parts = [_scatter_aggregates(rng, median_nm)]
    centres, diameters = (np.concatenate(part) for part in zip(*parts, strict=True))
    near = (np.abs(centres) < np.divide(EXTENT_NM, 2)).all(axis=1)
    centres, diameters = centres[near], diameters[near]
    keep = _without_overlap(centres, diameters, share=0.62 if ordered else 0.35)
    particles = Particles(
        centres[keep],
        diameters[keep],
        brightness=np.clip(rng.normal(1, 0.13, keep.sum()), 0.65, 1.35),
        oblong=np.clip(rng.normal(0, 0.17, (keep.sum(), 2)), -0.4, 0.4),
        facets=np.clip(rng.normal(0, 0.18, (keep.sum(), 2)), -0.4, 0.4),
    )
    angle, slope = rng.uniform(0, 2 * np.pi), rng.uniform(0.15, 0.3)
    return Scene(
        # 1.5 nm a node: finer than the interaction volume shows, coarser than the finest pixel.
        relief=fractional_noise(rng, size=1024, side_nm=1536, longest_nm=90, shortest_nm=6),
        swell=_coarse_tile(rng),
        warp=warp,
        warp_nm=warp_nm,
        # The ordered samples are on smooth graphite, the disordered ones on rougher carbon.
        relief_nm=rng.uniform(0.8, 1.6) if ordered else rng.uniform(1.5, 3.2),
        tilt=(slope * np.cos(angle), slope * np.sin(angle)),
        layers=layers,
        particles=particles,
    )


def _coarse_tile(rng: np.random.Generator) -> NoiseTile:
    return fractional_noise(rng, size=256, side_nm=4096, longest_nm=1400, shortest_nm=48)


def _draw_layers(rng: np.random.Generator, *, ordered: bool) -> list[Layer]:
    """Draw low steps across the whole scene, flakes with an edge near the centre, and splinters."""
    steps = [
        _draw_layer(rng, size_nm=9000, thickness_nm=rng.uniform(0.7, 3), spread_nm=900)
        for _ in range(rng.integers(3, 7))
    ]
    flakes = [
        _draw_layer(
            rng,
            size_nm=rng.lognormal(np.log(800), 0.5),
            thickness_nm=rng.lognormal(np.log(20), 0.6),
            spread_nm=700,
        )
        for _ in range(rng.integers(2, 6) if ordered else rng.integers(3, 8))
    ]
    splinters = [
        _draw_layer(
            rng,
            size_nm=rng.lognormal(np.log(20), 0.5),
            thickness_nm=rng.lognormal(np.log(9), 0.5),
            spread_nm=800,
            elongation=rng.uniform(3, 9),
        )
        for _ in range(rng.integers(4, 12) if ordered else rng.integers(15, 40))
    ]
    return steps + flakes + splinters


def _draw_layer(
    rng: np.random.Generator,
    *,
    size_nm: float,
    thickness_nm: float,
    spread_nm: float,
    elongation: float = 1.6,
) -> Layer:
    """Draw a polygon, one side of which passes through a random point around the centre."""
    count = rng.integers(3, 7)
    angles = 2 * np.pi * (np.arange(count) + rng.uniform(-0.3, 0.3, count)) / count
    angles += rng.uniform(0, 2 * np.pi)
    corners = size_nm * np.stack([elongation * np.cos(angles), np.sin(angles)], axis=1)
    corners = _turned(corners, rng.uniform(0, 2 * np.pi))
    along = rng.uniform(0.2, 0.8)
    corners += rng.normal(0, spread_nm, 2) - ((1 - along) * corners[0] + along * corners[1])
    flake = min(thickness_nm / 20, 1.5)
    return Layer(
        corners,
        thickness_nm=thickness_nm,
        bevel_nm=8 + thickness_nm * rng.uniform(0.8, 2.5),
        face=1 + rng.uniform(-0.1, 0.35) * min(flake, 1),
        glow=flake * rng.uniform(0.2, 0.7),
        glow_nm=rng.choice([rng.uniform(5, 14), rng.uniform(20, 90)], p=[0.6, 0.4]),
        opacity=1 - np.exp(-thickness_nm / 8),
        shadow=rng.uniform(0.2, 0.65) * min(flake, 1),
        shadow_nm=8 + thickness_nm * rng.uniform(0.5, 1.5),
    )


def _turned(points: Points, angle: float) -> Points:
    """Turn points, or segments, around the centre of the scene."""
    c, s = np.cos(angle), np.sin(angle)
    turned: Points = points @ np.array([[c, s], [-s, c]])
    return turned


def _defect_lines(rng: np.random.Generator) -> Segments:
    """Draw a net of lines: the borders of Voronoi cells, stretched along one direction.

    Cells are smaller around the centre: an operator drives to where there is something to see.
    """
    cell_nm, stretch = rng.uniform(*CELL_NM), rng.uniform(*STRETCH)
    side_nm = 1.5 * max(EXTENT_NM)
    count = int(side_nm**2 / (cell_nm**2 * stretch))
    seeds = np.concatenate(
        [
            rng.uniform(-0.5, 0.5, (count, 2)) * side_nm,
            rng.normal(0, 260, (int(260**2 / (0.22 * cell_nm**2 * stretch)), 2)),
        ]
    )
    cells = Voronoi(seeds / [stretch, 1])
    ridges = np.asarray(cells.ridge_vertices)
    segments = cells.vertices[ridges[(ridges >= 0).all(1)]] * [stretch, 1]
    turn = rng.uniform(0, np.pi)
    segments = _turned(segments, turn)
    # Lines across the grain are rarer than lines along it.
    direction = segments[:, 1] - segments[:, 0]
    along = np.abs(direction @ [np.cos(turn), np.sin(turn)]) / np.linalg.norm(direction, axis=1)
    keep = rng.uniform(size=len(segments)) < np.where(stretch > 2, 0.25 + 0.65 * along, 0.75)
    return np.asarray(segments[keep])


def _inside(segments: Segments) -> Segments:
    """Cut segments at a circle around the scene, and drop those that stay outside."""
    radius = 0.5 * np.hypot(*EXTENT_NM)
    start, step = segments[:, 0], segments[:, 1] - segments[:, 0]
    a = (step**2).sum(1)
    half_b = (start * step).sum(1)
    root = half_b**2 - a * ((start**2).sum(1) - radius**2)
    crossing = root > 0
    start, step, a, half_b = start[crossing], step[crossing], a[crossing], half_b[crossing]
    root = np.sqrt(root[crossing])
    enter = np.clip((-half_b - root) / a, 0, 1)[:, None]
    leave = np.clip((-half_b + root) / a, 0, 1)[:, None]
    cut = np.stack([start + enter * step, start + leave * step], axis=1)
    long: Points = cut[np.linalg.norm(cut[:, 1] - cut[:, 0], axis=1) > 1]
    return long


def _diameters(rng: np.random.Generator, median_nm: float, count: int) -> Points:
    return median_nm * rng.lognormal(0, SIGMA_LN_DIAMETER, count).clip(0.4, 1.8)


def _string_along(
    rng: np.random.Generator,
    lines: Segments,
    median_nm: float,
    *,
    meander: tuple[tuple[NoiseTile, NoiseTile], float],
) -> tuple[Points, Points]:
    """Place particles along segments that a warp then bends: touching runs, gaps, small clusters.

    Returns:
        Centres and diameters, in nm.
    """
    lengths = np.linalg.norm(lines[:, 1] - lines[:, 0], axis=1)
    counts = rng.poisson(lengths / (0.85 * median_nm))
    line = np.repeat(np.arange(len(lines)), counts)
    # Stratified along the line, so that neighbours touch rather than pile up.
    rank = np.arange(len(line)) - np.repeat(np.cumsum(counts) - counts, counts)
    where = (rank + rng.uniform(0.2, 0.8, len(line))) / counts[line]
    centres = lines[line, 0] + where[:, None] * (lines[line, 1] - lines[line, 0])
    # Gaps: where a field that varies over a few diameters is low.
    occupied = fractional_noise(rng, size=512, side_nm=4096, longest_nm=70, shortest_nm=24)
    density = occupied.at(centres)
    centres, density = centres[density > -0.5], density[density > -0.5]
    centres += rng.normal(0, 0.22 * median_nm, centres.shape)
    diameters = _diameters(rng, median_nm, len(centres))

    clustered = np.repeat(np.arange(len(centres)), rng.poisson(0.45 * np.exp(0.5 * density)))
    angle = rng.uniform(0, 2 * np.pi, len(clustered))
    companions = _diameters(rng, median_nm, len(clustered))
    reach = 0.45 * (companions + diameters[clustered])
    beside = centres[clustered] + (reach * [np.cos(angle), np.sin(angle)]).T
    centres = _unwarp(np.concatenate([centres, beside]), *meander)
    return centres, np.concatenate([diameters, companions])


def _scatter_strays(rng: np.random.Generator, median_nm: float) -> tuple[Points, Points]:
    """Scatter a few single particles between the lines; return centres and diameters in nm."""
    count = rng.poisson(np.prod(EXTENT_NM) / rng.uniform(2500, 9000))
    return rng.uniform(-0.5, 0.5, (count, 2)) * EXTENT_NM, _diameters(rng, 0.9 * median_nm, count)


def _scatter_aggregates(rng: np.random.Generator, median_nm: float) -> tuple[Points, Points]:
    """Scatter nuclei by a Poisson process; let some grow into worms and lumps of spheres.

    Returns:
        Centres and diameters, in nm.
    """
    count = rng.poisson(np.prod(EXTENT_NM) / rng.uniform(750, 1400))
    nuclei = rng.uniform(-0.5, 0.5, (count, 2)) * EXTENT_NM
    kind = rng.choice(3, count, p=[0.68, 0.3, 0.02])  # single sphere, worm, lump
    sizes = np.choose(kind, [1, 2 + rng.geometric(0.25, count), 14 + rng.geometric(0.06, count)])
    scale = np.choose(kind, [0.72, 0.95, 1.0]) * rng.lognormal(0, 0.2, count)
    owner = np.repeat(np.arange(count), sizes)
    diameters = _diameters(rng, median_nm, len(owner)) * scale[owner]

    # Worms turn slowly from sphere to sphere; lumps turn at random.
    heading = rng.normal(0, np.choose(kind, [0.0, 0.8, 2.0])[owner])
    first = np.cumsum(sizes) - sizes
    heading[first] = rng.uniform(0, 2 * np.pi, count)
    heading = _cumulative(heading, first, owner)
    step = rng.uniform(0.45, 0.9, len(owner)) * diameters * [np.cos(heading), np.sin(heading)]
    step[:, first] = nuclei.T
    return np.stack([_cumulative(axis, first, owner) for axis in step], axis=1), diameters


def _cumulative(values: Points, first: NDArray[np.int_], owner: NDArray[np.int_]) -> Points:
    """Sum up within each group of consecutive values."""
    total = np.cumsum(values)
    return np.asarray(total - (total - values)[first][owner])


def _unwarp(centres: Points, warp: tuple[NoiseTile, NoiseTile], warp_nm: float) -> Points:
    """Find the positions that the warp displaces to the given ones, by fixed-point iteration."""
    positions = centres
    for _ in range(4):
        positions = centres - warp_nm * np.stack([tile.at(positions) for tile in warp], axis=1)
    return positions


def _without_overlap(centres: Points, diameters: Points, *, share: float) -> NDArray[np.bool_]:
    """Choose particles no two of which are nearer than a share of the sum of their radii."""
    pairs = cKDTree(centres).query_pairs(share * diameters.max(), output_type="ndarray")
    distance = np.linalg.norm(centres[pairs[:, 0]] - centres[pairs[:, 1]], axis=1)
    close = pairs[distance < share * 0.5 * diameters[pairs].sum(1)]
    keep = np.ones(len(centres), bool)
    # In order, so that a particle gives way only to one that stays.
    for first, second in close[np.lexsort(close.T)].tolist():
        keep[second] &= not keep[first]
    return keep
