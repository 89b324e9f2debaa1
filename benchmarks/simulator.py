"""Time the simulated set, and write the table benchmarks/results/simulator.md.

    python benchmarks/simulator.py

Processor time counts the threads of this process and nothing else; wall time is what a user
waits for.
"""

import argparse
import os
import platform
import tempfile
import time
from pathlib import Path

import numpy as np
import scipy

from semforensics.acquire.simulated import draw_area, simulate_set, simulate_view
from semforensics.core.markdown import markdown_table
from semforensics.params import SimulatedParams

TABLE = Path(__file__).parent / "results" / "simulator.md"


def set_params(num_areas: int, width_px: int, height_px: int, compression: str) -> SimulatedParams:
    return SimulatedParams.model_validate(
        {
            "num_areas": num_areas,
            "magnifications_k": (50, 100, 200),
            "width_px": width_px,
            "height_px": height_px,
            "ordered_share": 0.75,
            "compression": compression,
        }
    )


def time_set(params: SimulatedParams, threads: int) -> tuple[float, float, float]:
    """Return frames a second of wall time, processor seconds a frame, and megabytes a frame."""
    with tempfile.TemporaryDirectory() as folder:
        wall, processor = time.perf_counter(), time.process_time()
        rows = simulate_set(params, Path(folder), seed=0, threads=threads)
        wall, processor = time.perf_counter() - wall, time.process_time() - processor
        size = sum(path.stat().st_size for path in Path(folder).iterdir())
    return len(rows) / wall, processor / len(rows), size / len(rows) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--areas", type=int, default=8)
    areas = parser.parse_args().areas
    simulate_view(draw_area(set_params(3, 480, 384, "none"), 0, seed=0), 100, 480, 384)  # warm up
    cores = len(os.sched_getaffinity(0))
    lines = [
        "# Speed of the simulator",
        "",
        f"Made by `python benchmarks/simulator.py`: {areas} areas at 50k, 100k and 200k; drawing",
        f"the areas and writing the files are included. {cores} {platform.machine()} cores, Python",
        f"{platform.python_version()}, NumPy {np.__version__}, SciPy {scipy.__version__}.",
        "Load average before the run, so what else the machine was doing: "
        f"{os.getloadavg()[0]:.1f}.",
        "",
    ]
    rows = []
    for width, height, compression, threads in (
        (1280, 1024, "none", 2),
        (1280, 1024, "none", 1),
        (1280, 1024, "deflate", 2),
        (480, 384, "deflate", 2),
    ):
        rate, seconds, size = time_set(set_params(areas, width, height, compression), threads)
        measured = [f"{rate:.1f}", f"{seconds:.2f}", f"{size:.2f}"]
        rows.append([f"{width} x {height}", compression, str(threads), *measured])
        print(*rows[-1])
    names = ["frame, px", "compression", "threads", "frames a second", "CPU s a frame"]
    lines.append(markdown_table([*names, "MB a frame"], rows))
    TABLE.write_text("\n".join(lines))


if __name__ == "__main__":
    main()
