"""Time scoring of images, and write the table benchmarks/results/classifier_inference.md.

    python benchmarks/classifier_inference.py

Images are simulated micrographs, saved as the pipeline saves crops. The plain forward is what one
writes first: NCHW, batches of 16, the default allocator. Both score images in memory, in float32.
They run in processes of their own, since an allocator's settings hold for a whole process, and
take turns, so that a busy machine slows both; medians.
"""

import argparse
import itertools
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

TABLE = Path(__file__).parent / "results" / "classifier_inference.md"
NAMES = ("network", "px", "phases", "plain, ms", "ours, ms", "ours, images/s", "plain / ours")
BATCH = 16
ROUNDS = 7
NUM_FILES = 96
"""Of each size; a turn reads them all."""


def write_images(folder: Path) -> None:
    """Cut simulated frames of the instrument's size into crops of 512 and 256 px."""
    from PIL import Image

    from semforensics.acquire.simulated import draw_area, simulate_view
    from semforensics.params import SimulatedParams

    params = SimulatedParams.model_validate(
        {
            "num_areas": 3,
            "magnifications_k": (50, 100, 200),
            "width_px": 1280,
            "height_px": 1024,
            "ordered_share": 0.75,
            "compression": "none",
        }
    )
    frames = [
        simulate_view(draw_area(params, area, seed=0), magnification, 1280, 1024)
        for area, magnification in itertools.product(range(3), (50, 100, 200))
    ]
    for size in (512, 256):
        (folder / str(size)).mkdir()
        tiles = itertools.cycle(
            frame[top : top + size, left : left + size]
            for frame in frames
            for top in range(0, 890 - size + 1, size // 2)
            for left in range(0, 1280 - size + 1, size // 2)
        )
        for index, tile in enumerate(itertools.islice(tiles, NUM_FILES)):
            Image.fromarray(np.ascontiguousarray(tile)).save(folder / f"{size}/{index:03d}.png")


def work(mode: str, network_name: str, size: int, phases: int, folder: Path, threads: int) -> None:
    """Take a turn for every line on stdin: score all files, print milliseconds an image."""
    if mode != "plain":
        from semforensics.core.allocator import keep_memory

        keep_memory()
    import torch

    from semforensics.core.images import read_crop, to_unit_range
    from semforensics.detector.inference import FoldedNetwork
    from semforensics.detector.networks import build_network
    from semforensics.detector.scoring import score_images

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    network = build_network(network_name, 1 if network_name == "npr_tiny" else 3).eval()
    crops = [read_crop(path) for path in sorted((folder / str(size)).iterdir())]
    levels = torch.from_numpy(np.stack(crops)[:, None])
    images, folded = to_unit_range(levels), FoldedNetwork(network)
    for _ in sys.stdin:
        start = time.perf_counter()
        if mode == "plain":
            with torch.inference_mode():
                for batch in images.split(BATCH):
                    network(batch)
        else:
            score_images(folded, levels, phases=phases, device=torch.device("cpu"))
        print(1000 * (time.perf_counter() - start) / len(levels), flush=True)


def start(mode: str, *arguments: object) -> subprocess.Popen[str]:
    """Start a process that takes turns."""
    command = [sys.executable, __file__, "--worker", mode, *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def take_turns(modes: tuple[str, ...], *arguments: object) -> dict[str, float]:
    """Return the median milliseconds an image of each mode."""
    workers = {mode: start(mode, *arguments) for mode in modes}
    times: dict[str, list[float]] = {mode: [] for mode in modes}
    for turn in range(ROUNDS + 1):
        for mode, worker in workers.items():
            assert worker.stdin is not None
            assert worker.stdout is not None
            worker.stdin.write("\n")
            worker.stdin.flush()
            milliseconds = float(worker.stdout.readline())
            if turn:  # the first warms up
                times[mode].append(milliseconds)
    for worker in workers.values():
        worker.communicate()
    return {mode: statistics.median(values) for mode, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--worker", nargs=6, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        mode, name, size, phases, folder, threads = arguments.worker
        work(mode, name, int(size), int(phases), Path(folder), int(threads))
        return
    import torch

    from semforensics.core.markdown import markdown_table

    load = os.getloadavg()[0]
    lines = [
        "# Speed of scoring",
        "",
        f"Made by `python benchmarks/classifier_inference.py`: {NUM_FILES} simulated micrographs "
        f"in memory, float32. Plain: NCHW, batches of {BATCH}, default allocator. Ours: "
        "normalisations folded in, channels last, kept memory. Processes that take turns; medians "
        f"of {ROUNDS} turns. {arguments.threads} threads, {platform.machine()}, Python "
        f"{platform.python_version()}, torch {torch.__version__}. "
        f"Load average before the run: {load:.1f}.",
        "",
    ]
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_images(folder)
        for network, size, phases in (
            ("npr_tiny", 512, 1),
            ("npr_tiny", 512, 4),
            ("npr_resnet50", 256, 1),
        ):
            ms = take_turns(("plain", "ours"), network, size, phases, folder, arguments.threads)
            # The plain forward knows one phase only.
            ratio = f"**{ms['plain'] / ms['ours']:.2f}**" if phases == 1 else ""
            times = [f"{ms['plain']:.1f}", f"{ms['ours']:.1f}", f"{1000 / ms['ours']:.0f}"]
            rows.append([network, str(size), str(phases), *times, ratio])
            print(*rows[-1], flush=True)
    lines.append(markdown_table(NAMES, rows))
    print("\n".join(lines))
    TABLE.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
