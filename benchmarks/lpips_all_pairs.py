"""Time LPIPS of all pairs against the best batched use of the `lpips` package.

    python benchmarks/lpips_all_pairs.py
    python benchmarks/lpips_all_pairs.py --squares 32 64 --full 0 0    # a small try, writes nothing

The first writes benchmarks/results/lpips_all_pairs.md and .png. The package gets one image against
many at a time, in batches of the size that is fastest here, so the one passes its trunk once for
them all. Both use the published AlexNet trunk, float32, the same threads, and an allocator that
keeps memory. The package's time is that of a few rows, scaled to all; the two take turns. Ours is
timed whole.

The thesis's size, 750 reals by 2000 fakes at 512 px, runs in processes of its own, so that the peak
of their memory is theirs alone. A few pairs of each are checked against the package.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

from semforensics.core.allocator import keep_memory

RESULTS = Path(__file__).parent / "results"
SQUARES = (16, 32, 64, 128, 256)
SQUARE_PX, FULL_PX = 256, 512
FULL = (750, 2000)
PACKAGE_ROWS = 8
BATCHES = (8, 16, 32, 64)
ROUNDS = 3
CHECKED_PAIRS = 30


def make_images(count: int, size_px: int, seed: int) -> Any:
    """Draw images: random fields of several scales, with noise. [n, 1, height, width]."""
    import torch
    import torch.nn.functional as F

    rng = torch.Generator().manual_seed(seed)
    images = torch.empty(count, 1, size_px, size_px, dtype=torch.uint8)
    for index in range(count):
        levels = 128 + 6 * torch.randn(1, 1, size_px, size_px, generator=rng)
        for cells in (4, 16, 64):
            field = torch.randn(1, 1, cells, cells, generator=rng)
            levels += 20 * F.interpolate(field, size=(size_px, size_px), mode="bilinear")
        images[index] = levels[0].round().clamp(0, 255).to(torch.uint8)
    return images


def load_embedding(weights: Path, precision: str) -> Any:
    """Return our embedding."""
    import torch

    from semforensics.perceptual.lpips import LPIPS, Embedding

    lpips = LPIPS.load(weights)
    return Embedding(lpips, precision=precision, device=torch.device("cpu"))


def load_package(weights: Path) -> Any:
    """Return the package's LPIPS-Alex with the published trunk."""
    import semforensics.core.torchvision_compat  # noqa: F401, I001 - before lpips, which needs it
    from lpips import LPIPS as PackageLPIPS  # noqa: N811
    from safetensors.torch import load_file

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        package = PackageLPIPS(net="alex", pnet_rand=True, verbose=False).eval()
    state = load_file(weights)
    names = {n: f"features.{n.partition('.')[2]}" for n in package.net.state_dict()}
    package.net.load_state_dict({n: state[ours] for n, ours in names.items()})
    return package


def package_row(package: Any, image: Any, others: Any, batch: int) -> Any:
    """Return the distances of one image from many by the package, a batch of them at a time."""
    import torch

    from semforensics.core.images import to_unit_range

    one = to_unit_range(image[None]).expand(-1, 3, -1, -1)
    parts = [
        package(one, to_unit_range(part).expand(-1, 3, -1, -1)).flatten()
        for part in others.split(batch)
    ]
    return torch.cat(parts)


def seconds(work: Any) -> tuple[float, Any]:
    """Return how long something takes, and what it gives."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def fastest_batch(package: Any, images: Any) -> int:
    """Find the batch in which the package is fastest per pair."""
    times = {}
    for batch in BATCHES:
        others = images[:batch]
        runs = [
            seconds(lambda o=others, b=batch: package_row(package, images[0], o, b))[0]
            for _ in range(ROUNDS + 1)
        ]
        times[batch] = statistics.median(runs[1:]) / len(others)
        print(f"package, batches of {batch}: {times[batch] * 1e3:.1f} ms a pair", flush=True)
    return min(times, key=lambda batch: times[batch])


def measure_squares(sides: list[int], weights: Path) -> tuple[list[dict[str, float]], int]:
    """Time N x N distances both ways, for several N; give also the package's batch."""
    import torch

    from semforensics.distances.pairwise import pairwise_lpips

    torch.set_grad_enabled(False)
    package, embedding = load_package(weights), load_embedding(weights, "float32")
    images = make_images(2 * max(sides), SQUARE_PX, seed=0)
    batch = fastest_batch(package, images)
    found = []
    for side in sides:
        a, b = images[:side], images[max(sides) : max(sides) + side]
        rows, ours = [], []
        for turn in range(max(ROUNDS, PACKAGE_ROWS)):
            row, expected = seconds(lambda t=turn, a=a, b=b: package_row(package, a[t], b, batch))
            rows.append(row)
            if turn < ROUNDS:
                whole, distances = seconds(
                    lambda a=a, b=b: pairwise_lpips(
                        a, b, embedding=embedding, block_size=256, memory_gb=4.0
                    )[0]
                )
                ours.append(whole)
            error = float(((distances[turn] - expected).abs() / expected).max())
            assert error < 1e-4, f"row {turn} differs from the package's by {error:.1e}"
        numbers = {
            "side": side,
            "package": statistics.median(rows) * side,
            "ours": statistics.median(ours),
        }
        print(numbers, f"{numbers['package'] / numbers['ours']:.0f} times", flush=True)
        found.append(numbers)
    return found, batch


def measure_full(n_real: int, n_fake: int, precision: str, weights: Path) -> dict[str, float]:
    """Time the thesis's size once, in this process."""
    import torch

    from semforensics.distances.pairwise import pairwise_lpips

    torch.set_grad_enabled(False)
    reals, fakes = make_images(n_real, FULL_PX, seed=1), make_images(n_fake, FULL_PX, seed=2)
    embedding = load_embedding(weights, precision)
    embedding.codes(reals[:1])
    done, start = 0, time.perf_counter()

    def advance(images: int) -> None:
        nonlocal done
        done += images
        if done // 250 > (done - images) // 250:
            print(f"{done} images, {time.perf_counter() - start:.0f} s", file=sys.stderr)

    wall, distances = seconds(
        lambda: pairwise_lpips(
            reals, fakes, embedding=embedding, block_size=256, memory_gb=4.0, advance=advance
        )[0]
    )
    peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    package, rng = load_package(weights), torch.Generator().manual_seed(3)
    errors = []
    for _ in range(CHECKED_PAIRS):
        i, j = (int(torch.randint(n, (), generator=rng)) for n in (n_real, n_fake))
        expected = float(package_row(package, reals[i], fakes[j : j + 1], 1))
        errors.append(abs(float(distances[i, j]) - expected) / expected)
    return {"seconds": wall, "peak_gb": peak_gb, "relative_error": max(errors)}


def draw(squares: list[dict[str, float]], path: Path) -> None:
    """Draw how the ratio grows with N."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    sides = [numbers["side"] for numbers in squares]
    ratios = [numbers["package"] / numbers["ours"] for numbers in squares]
    axes.plot(sides, ratios, marker="o", color="#0072B2")
    for side, ratio in zip(sides, ratios, strict=True):
        axes.annotate(f"{ratio:.0f}", (side, ratio), xytext=(0, 7), textcoords="offset points")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    axes.set_xticks(sides, [f"{side:.0f}" for side in sides])
    ticks = [2**k for k in range(0, 12) if min(ratios) / 2 <= 2**k <= max(ratios) * 2]
    axes.set_yticks(ticks, [str(tick) for tick in ticks])
    axes.set_xlabel("N (images in each of the two sets)")
    axes.set_ylabel("Times faster than the package")
    axes.set_title(f"LPIPS-Alex of N x N pairs, {SQUARE_PX} px, float32")
    axes.grid(color="#E5E5E5")
    figure.savefig(path, dpi=120, metadata={"Software": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--weights", type=Path, default=Path("data/pretrained/alex.safetensors"))
    parser.add_argument("--squares", type=int, nargs="*", default=list(SQUARES))
    parser.add_argument("--full", type=int, nargs=2, default=list(FULL), help="reals and fakes")
    parser.add_argument("--worker", choices=["float32", "bfloat16"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    keep_memory()
    import torch

    from semforensics.core.markdown import markdown_table

    torch.set_num_threads(arguments.threads)
    if arguments.worker:
        numbers = measure_full(*arguments.full, arguments.worker, arguments.weights)
        print(json.dumps(numbers))
        return
    load = os.getloadavg()[0]
    full = {}
    if all(arguments.full):
        for precision in ("float32", "bfloat16"):
            command = [sys.executable, __file__, "--worker", precision]
            command += ["--weights", str(arguments.weights), "--threads", str(arguments.threads)]
            command += ["--full", *map(str, arguments.full)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            full[precision] = json.loads(done.stdout.splitlines()[-1])
            print(precision, full[precision], flush=True)
    squares, batch = (
        measure_squares(arguments.squares, arguments.weights) if arguments.squares else ([], 0)
    )
    lines = [
        "# Speed of LPIPS of all pairs",
        "",
        "Made by `python benchmarks/lpips_all_pairs.py`: LPIPS-Alex, published trunk.",
        f"{arguments.threads} threads, {processor_name()}, Python {platform.python_version()}, "
        f"torch {torch.__version__}.",
        f"Load average before the run, so what else the machine was doing: {load:.1f}.",
        "",
        f"## N x N images of {SQUARE_PX} px, float32",
        "",
        f"The package, `lpips` 0.1.4: one image against many, {batch} at a time, the fastest of",
        f"{', '.join(map(str, BATCHES))}; the median of {PACKAGE_ROWS} rows, scaled to N.",
        f"Ours: whole, the median of {ROUNDS}. Every row that the package measured agrees to 1e-4.",
        "",
        markdown_table(
            ["N", "pairs", "package, s (scaled)", "ours, s", "ratio"],
            [
                [
                    str(n["side"]),
                    str(n["side"] ** 2),
                    f"{n['package']:.1f}",
                    f"{n['ours']:.2f}",
                    f"**{n['package'] / n['ours']:.0f}**",
                ]
                for n in squares
            ],
        ),
        "![The ratio grows with N](lpips_all_pairs.png)",
        "",
        f"## {arguments.full[0]} x {arguments.full[1]} images of {FULL_PX} px",
        "",
        f"One run each, in a process of its own; {CHECKED_PAIRS} random pairs checked against the "
        "package.",
        "",
        markdown_table(
            ["trunk", "seconds", "peak resident memory, GB", "largest relative error"],
            [
                [name, f"{n['seconds']:.0f}", f"{n['peak_gb']:.2f}", f"{n['relative_error']:.1e}"]
                for name, n in full.items()
            ],
        ),
    ]
    print("\n".join(lines))
    if arguments.squares == list(SQUARES) and arguments.full == list(FULL):
        (RESULTS / "lpips_all_pairs.md").write_text("\n".join(lines))
        draw(squares, RESULTS / "lpips_all_pairs.png")


def processor_name() -> str:
    """Name the processor as the kernel does."""
    info = Path("/proc/cpuinfo")
    text = info.read_text() if info.is_file() else ""
    names = [line for line in text.splitlines() if line.startswith("model name")]
    return names[0].partition(":")[2].strip() if names else platform.machine()


if __name__ == "__main__":
    main()
