"""The simulated micrograph set: palladium on carbon, as in Boiko et al. 2020, with no download.

Constants of the scene, the instrument and the info bar are in their modules, with their reasons.
They imitate the published set and are never tuned on a detector's results.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from semforensics.acquire.names import describe_name
from semforensics.acquire.simulated_info_bar import bar_rows, draw_info_bar
from semforensics.acquire.simulated_instrument import (
    Tone,
    View,
    draw_tone,
    pixel_size_nm,
    take_frame,
)
from semforensics.acquire.simulated_scene import Scene, draw_scene
from semforensics.core.progress import track
from semforensics.params import SimulatedParams

LICENCE = "MIT"  # as this repository
AREAS_PER_SAMPLE = 4
"""About as many as there are samples to a session; they share one tone curve."""
VOLTAGES_KV, VOLTAGE_SHARES = (10.0, 20.0, 30.0), (167 / 750, 153 / 750, 430 / 750)
"""As in the published ordered set."""
WORKING_DISTANCES_MM = (8.9, 9.6, 11.2, 11.3, 11.4)
"""As read off published info bars."""


@dataclass(frozen=True)
class Area:
    """One area of one sample, and how the microscope was set for it."""

    seed: int
    index: int
    """Counts all areas, from 0."""
    ordered: bool
    sample: int
    """Counts all samples, from 1; ordered and disordered areas are on different samples."""
    scene: Scene
    tone: Tone
    kv: float
    wd_mm: float
    background: float

    @property
    def label(self) -> str:
        """How its particles are arranged."""
        return "ordered" if self.ordered else "disordered"


def simulate_set(
    params: SimulatedParams, raw: Path, *, seed: int, threads: int = 2
) -> list[dict[str, Any]]:
    """Write a whole set as TIFF files into a folder; the same seed writes the same bytes.

    `threads` areas are drawn at a time, which bounds memory and never changes a file.

    Returns:
        One row per file, for the catalogue: `file`, `sample`, `area`, `magnification_k`, `kv`,
        `wd_mm`, `group`, `label`, `licence`; in order of the areas, then of the magnifications.

    Raises:
        FileNotFoundError: There is no folder `raw`.
    """
    if not raw.is_dir():
        raise FileNotFoundError(f"{raw}: no such folder to write the simulated set to")

    def write_area(index: int) -> list[dict[str, Any]]:
        return list(_write_views(draw_area(params, index, seed=seed), params, raw))

    with ThreadPoolExecutor(threads) as pool:
        areas = track(
            pool.map(write_area, range(params.num_areas)), "Simulating", total=params.num_areas
        )
        return [row for rows in areas for row in rows]


def _write_views(area: Area, params: SimulatedParams, raw: Path) -> Iterator[dict[str, Any]]:
    """Write every view of an area, and yield its row of the catalogue."""
    for rank, magnification_k in enumerate(params.magnifications_k):
        image_id = area.index * len(params.magnifications_k) + rank + 1
        name = f"S{area.sample}-A{area.index + 1}-{magnification_k}k-{area.label}"
        file = f"{image_id}-{name}.tif"
        frame = simulate_view(area, magnification_k, params.width_px, params.height_px)
        compression = {"none": None, "deflate": "zlib"}[params.compression]
        tifffile.imwrite(
            raw / file,
            frame,
            photometric="minisblack",
            compression=compression,
            predictor=compression is not None,
            metadata=None,
            software=False,
        )
        known = {"kv": area.kv, "wd_mm": area.wd_mm, "licence": LICENCE}
        yield describe_name(file) | known


def draw_area(params: SimulatedParams, index: int, *, seed: int) -> Area:
    """Draw one area of the set, counted from 0: its scene and the settings of the microscope.

    The first areas, as many as `params` says, are ordered.
    """
    num_ordered = round(params.ordered_share * params.num_areas)
    ordered = index < num_ordered
    samples_before = 0 if ordered else -(-num_ordered // AREAS_PER_SAMPLE)
    rank = index if ordered else index - num_ordered
    sample = samples_before + rank // AREAS_PER_SAMPLE + 1
    rng = _generator(seed, 0, index)
    return Area(
        seed=seed,
        index=index,
        ordered=ordered,
        sample=sample,
        scene=draw_scene(rng, ordered=ordered),
        tone=draw_tone(_generator(seed, 1, sample)),
        kv=float(rng.choice(VOLTAGES_KV, p=VOLTAGE_SHARES)),
        wd_mm=float(rng.choice(WORKING_DISTANCES_MM)),
        background=rng.uniform(0.23, 0.27),
    )


def simulate_view(
    area: Area, magnification_k: int, width_px: int, height_px: int
) -> NDArray[np.uint8]:
    """Take a micrograph of an area, with its info bar: grey levels, `height_px` x `width_px`.

    Views at different magnifications, in thousands and 50 or more, are nested. A smaller frame is
    the middle of a larger one's field of view at the same size of a pixel.
    """
    rng = _generator(area.seed, 2, area.index, magnification_k)
    pixel_nm = pixel_size_nm(magnification_k)
    bar = draw_info_bar(
        width_px,
        height_px,
        lines=(
            f"SIM {area.kv:.1f}kV {area.wd_mm:.1f}mm x{magnification_k:.1f}k SE(U)",
            f"Simulated Pd nanoparticles on carbon ({area.label})",
        ),
        note="No specimen: drawn by semforensics",
        pixel_nm=pixel_nm,
    )
    view = View(
        width_px=width_px,
        height_px=height_px - bar_rows(height_px),
        pixel_nm=pixel_nm,
        # The operator centres a feature again after zooming, to about 1 % of the field of view.
        centre_nm=(
            rng.normal(0, 0.01) * width_px * pixel_nm,
            rng.normal(0, 0.01) * height_px * pixel_nm,
        ),
        kv=area.kv,
        background=area.background,
    )
    return np.concatenate([take_frame(area.scene, view, area.tone, rng), bar])


def _generator(*key: int) -> np.random.Generator:
    """Make a generator for one purpose, so that no draw depends on how many another makes."""
    return np.random.default_rng(np.random.SeedSequence(key[0], spawn_key=key[1:]))
