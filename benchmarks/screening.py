"""Time screening and test the search for reuse; write benchmarks/results/screening.md.

    python benchmarks/screening.py [--micrographs FOLDER] [--only reuse|speed|panels]
        [--panels FOLDER...] [--before FILE]

Speed: `semforensics screen` in processes of their own, as a user runs it. Start: one TIFF file of
1280x890 px, the best of three; then a PDF with 20 such figures, JPEG 95, the best of two. Bulk:
1000 PNG files of 512x512 px, without maps; the resident memory of the process and its workers is
read ten times a second from /proc.

Reuse: parts are cut from simulated micrographs, and from those of a folder of real ones, so that
two parts share a known area; one of them is flipped or turned, sent through JPEG and given another
gamma. Then all whole micrographs are compared with each other with the limits off, for the
agreement that different areas reach by chance. Micrographs that do show one place would appear in
that list: look at them. Last, the time to compare 100 and 1000 panels.

Panels: squares of 512x512 px of the pictures in folders of real ones, and copies of them that were
turned, cropped, resized or saved as JPEG, 465 in all. Pairs of different pictures are printed: look
at them. `--before` takes an older `src/semforensics/screening/judge/reuse.py`, which is measured
beside the present one in the same run.
"""

import argparse
import importlib.util
import itertools
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

TABLE = Path(__file__).parent / "results" / "screening.md"
NUM_FILES = 1000
CUTS = 20
"""Pairs of parts for each row of the table of reuse."""
NUM_PANELS = 465
"""Panels of a large submission."""
Search = Callable[[Sequence[Any]], Any]
Change = tuple[int, float, float]
"""JPEG quality, gamma, scale."""


def simulate(count: int, width: int, height: int) -> list[np.ndarray]:
    """Draw micrographs of different areas, without their info bars."""
    from semforensics.acquire.simulated import draw_area, simulate_view
    from semforensics.params import SimulatedParams

    full = height + 134
    params = SimulatedParams.model_validate(
        {
            "num_areas": max(count, 3),  # as many as the simulator asks for
            "magnifications_k": (50, 100, 200),
            "width_px": width,
            "height_px": full,
            "ordered_share": 0.75,
            "compression": "none",
        }
    )
    views = (
        simulate_view(draw_area(params, area, seed=0), (50, 100, 200)[area % 3], width, full)
        for area in range(count)
    )
    return [view[:height] for view in views]


def read_real(folder: Path) -> list[np.ndarray]:
    """Read 1280 px wide 8-bit micrographs of a folder and cut their info bars off."""
    from semforensics.core.images import read_grey

    files = sorted(p for p in folder.rglob("*.tif") if "denoised" not in str(p))
    return [read_grey(file)[:890] for file in files]


def jpeg(grey: np.ndarray, quality: int) -> np.ndarray:
    file = BytesIO()
    Image.fromarray(np.ascontiguousarray(grey)).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def turn(grey: np.ndarray, transform: int) -> np.ndarray:
    """Mirror a panel from the fifth transform on, and turn it by quarters."""
    return np.rot90(grey[:, ::-1] if transform >= 4 else grey, transform % 4)


def search(before: Path | None = None) -> Search:
    """Return the search for reuse, or that of an older file."""
    from semforensics.screening.judge import reuse
    from semforensics.screening.records import Reuse

    if before is None:
        return reuse.find_reuse
    spec = importlib.util.spec_from_file_location("reuse_before", before)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["reuse_before"] = module
    spec.loader.exec_module(module)
    # It knew no scale.
    module.Reuse = lambda first, second, how, *rest: Reuse(first, second, how, 1.0, *rest)
    return module.find_reuse


def resized(grey: np.ndarray, scale: float) -> np.ndarray:
    size = round(grey.shape[1] * scale), round(grey.shape[0] * scale)
    return np.asarray(Image.fromarray(grey).resize(size, Image.Resampling.BICUBIC))


def found_share(
    find: Search, frames: Sequence[np.ndarray], size: int, shared: float, change: Change
) -> int:
    """Count the pairs of parts, of `CUTS`, whose shared area is found.

    To the pixel; within 3 px where the second part is resized.
    """
    quality, gamma, scale = change
    rng = np.random.default_rng(size)
    count = 0
    for cut in range(CUTS):
        frame = frames[cut % len(frames)]
        away = round(size * (1 - shared**0.5))
        top, left = (int(rng.integers(0, side - size - away + 1)) for side in frame.shape)
        first = frame[top : top + size, left : left + size]
        second = frame[top + away : top + away + size, left + away : left + away + size]
        if scale != 1:
            second = resized(second, scale)
        second = jpeg(turn(second, int(rng.integers(8))), quality)
        second = (255 * (second / 255) ** gamma).round().astype(np.uint8)
        found = find([(("a", "", ""), first), (("b", "", ""), second)]).reuses
        off = (
            [abs(side - away) for side in (found[0].overlap.top, found[0].overlap.left)]
            if found
            else [size]
        )
        count += max(off) <= (0 if scale == 1 else 3)
    return count


def chance(frames: Sequence[np.ndarray]) -> tuple[int, list[float]]:
    """Compare different areas with no limit; give the number of pairs and what they reach."""
    from semforensics.screening.judge import reuse

    features = [reuse.find_features(frame, reuse._FEATURES) for frame in frames]
    levels = [reuse._without_shading(frame) for frame in frames]
    reached: dict[tuple[int, int], float] = {}
    for first, second, is_mirrored, fit in reuse._fits(features):
        other = levels[second][:, ::-1].copy() if is_mirrored else levels[second]
        for matrix in reuse._improved(fit, levels[first], other):
            laid, box = reuse._lay(matrix, other, levels[first].shape)
            value = reuse._agreement(levels[first], laid, box)
            reached[first, second] = max(value, reached.get((first, second), -1.0))
    return len(frames) * (len(frames) - 1) // 2, sorted(-value for value in reached.values())


def reuse_table(micrographs: Path | None, before: Path | None) -> list[str]:
    """Write what is found of planted reuse, and what of different areas."""
    from semforensics.core.markdown import markdown_table
    from semforensics.screening.judge.reuse import LEAST_CORRELATION, find_reuse

    sets = {"simulated": simulate(36, 1280, 890)}
    if micrographs:
        sets["real"] = read_real(micrographs)
    searches = {"": search()} | ({" before": search(before)} if before else {})
    lines = [
        f"Found to the pixel (within 3 px where it was resized), of {CUTS} pairs of parts: "
        + ", ".join(f"{len(frames)} {name} frames" for name, frames in sets.items())
        + ".",
        "",
    ]
    rows = []
    changes = [(95, 1.0, 1.0), (50, 1.0, 1.0), (75, 1.6, 1.0), (75, 0.6, 1.0)]
    sizes = [(75, 1.0, scale) for scale in (0.7, 0.85, 1.2, 1.4)]
    cases = [*itertools.product((512, 256), (1.0, 0.25), changes)]
    cases += itertools.product((512,), (1.0, 0.25), sizes)
    for size, shared, change in cases:
        found = [
            f"{found_share(find, frames, size, shared, change) / CUTS:.0%}"
            for frames in sets.values()
            for find in searches.values()
        ]
        rows.append([str(size), f"{shared:.0%}", *map(str, change), *found])
        print(*rows[-1], flush=True)
    names = ["part, px", "shared area", "JPEG quality", "gamma", "scale"]
    names += [f"{name}{when}" for name in sets for when in searches]
    lines.append(markdown_table(names, rows))
    for name, frames in sets.items():
        pairs, reached = chance(frames)
        above = sum(-value >= LEAST_CORRELATION for value in reached)
        lines.append(
            f"Different areas, {name}: of {pairs} pairs {len(reached)} have features that agree"
            f" on a place; the correlation there is {-reached[0] if reached else float('nan'):.3f}"
            f" at most, and {above} pairs reach the limit of {LEAST_CORRELATION}."
        )
    lines += ["", *recurring_structures(), ""]
    base = simulate(100, 512, 512)
    for count in (100, 1000):
        panels = [
            ((str(i), "", ""), base[i % 100] if count == 100 else shuffled(base[i % 100], i))
            for i in range(count)
        ]
        start = time.perf_counter()
        found = find_reuse(panels).reuses
        lines.append(
            f"{count} panels of 512x512 px compared with each other in "
            f"{time.perf_counter() - start:.1f} s; {len(found)} pairs found."
        )
        print(lines[-1], flush=True)
    return lines


def lattice(kind: str, period_px: float, noise: float, rng: np.random.Generator) -> np.ndarray:
    """Draw a view of 512x512 px of a structure that repeats, at a place of its own."""
    rows, columns = np.mgrid[:512, :512] + rng.uniform(0, period_px, (2, 1, 1))
    turns = {"grating": (0,), "squares": (0, 1 / 2), "hexagons": (0, 1 / 3, -1 / 3)}[kind]
    waves = [
        np.cos(2 * np.pi / period_px * (rows * np.cos(np.pi * t) + columns * np.sin(np.pi * t)))
        for t in turns
    ]
    levels = 128 + 60 * np.mean(waves, axis=0) + rng.normal(0, noise, rows.shape)
    return levels.round().clip(0, 255).astype(np.uint8)


def recurring_structures() -> list[str]:
    """Compare views of lattices with each other, with turned copies, and frames of one scene."""
    from semforensics.screening.judge.reuse import find_reuse

    rng = np.random.default_rng(0)
    pairs = listed = copies = 0
    found = dict.fromkeys((95, 75, 50), 0)
    kinds = itertools.product(("grating", "squares", "hexagons"), (14, 30, 60), (3, 10, 30))
    for kind, period_px, noise in kinds:
        views = [lattice(kind, period_px, noise, rng) for _ in range(5)]
        listed += len(find_reuse([((str(i), "", ""), v) for i, v in enumerate(views)]).reuses)
        pairs += 10
        copies += 1
        for quality in found:
            copy = jpeg(turn(views[0], 3), quality)
            found[quality] += len(
                find_reuse([(("a", "", ""), views[0]), (("b", "", ""), copy)]).reuses
            )
    scene = simulate(1, 512, 512)[0].astype(float)
    frames = [(scene + rng.normal(0, 8, scene.shape)).round().clip(0, 255) for _ in range(200)]
    start = time.perf_counter()
    stack = find_reuse([((str(i), "", ""), f.astype(np.uint8)) for i, f in enumerate(frames)])
    stack_s = time.perf_counter() - start
    views = [lattice("hexagons", 30, 10, rng) for _ in range(40)]
    start = time.perf_counter()
    many = find_reuse([((str(i), "", ""), view) for i, view in enumerate(views)])
    return [
        f"Different views of one lattice (gratings, squares and hexagons with periods of 14, 30 and"
        f" 60 px, noise of 3, 10 and 30 levels): {listed} of {pairs} pairs listed. Turned copies of"
        f" them found: {', '.join(f'{n} of {copies} after JPEG {q}' for q, n in found.items())}.",
        "",
        f"200 noisy frames of one scene: {len(stack.reuses)} entries in {stack_s:.1f} s. 40 views"
        f" of one lattice: {len(many.reuses)} entries in {time.perf_counter() - start:.1f} s"
        f" ({many.note()}).",
    ]


def panels_of(folders: Sequence[Path], seed: int) -> tuple[list[np.ndarray], list[str]]:
    """Cut panels out of the pictures of folders, and make copies; the picture that each is of."""
    rng = np.random.default_rng(seed)
    panels, pictures = [], []
    for file in sorted(file for folder in folders for file in folder.rglob("*")):
        if file.suffix.lower() not in (".tif", ".tiff", ".png", ".jpg"):
            continue
        with Image.open(file) as image:
            grey = np.asarray(image.convert("L"))
        grey = grey[: round(0.86 * grey.shape[0])]  # without most info bars
        if min(grey.shape) < 512 and min(grey.shape) >= 256:
            grey = resized(grey, 512 / min(grey.shape))
        if min(grey.shape) >= 512:
            panels.append(grey[:512, :512])
            pictures.append(file.stem)
    originals = len(panels)
    for _ in range(NUM_PANELS - originals):
        index = int(rng.integers(originals))
        top, left = rng.integers(0, 200, 2) if rng.random() < 0.5 else (0, 0)
        copy = panels[index][top:, left:]
        if rng.random() < 0.5:
            copy = resized(np.ascontiguousarray(copy), rng.uniform(0.7, 1.4))
        panels.append(jpeg(turn(copy, int(rng.integers(8))), int(rng.integers(60, 96))))
        pictures.append(pictures[index])
    return panels[:NUM_PANELS], pictures[:NUM_PANELS]


def panels_table(folders: Sequence[Path], before: Path | None) -> list[str]:
    """Write how long the search takes for the panels of a large submission, and what it finds."""
    panels, pictures = panels_of(folders, seed=0)
    lines = []
    names = {(str(i), "", ""): picture for i, picture in enumerate(pictures)}
    for when in ("", " before") if before else ("",):
        find = search(before if when else None)
        start, cpu_start = time.perf_counter(), time.process_time()
        found = find(list(zip(names, panels, strict=True)))
        wall_s, cpu_s = time.perf_counter() - start, time.process_time() - cpu_start
        pairs = [(names[one.first], names[one.second], one) for one in found.reuses]
        right = sum(a == b for a, b, _ in pairs)
        # A group of copies of one picture is listed whole where all but one are second.
        groups = len(names) - len({*pictures})
        lines.append(
            f"{len(panels)} panels of {len({*pictures})} pictures{when}: {cpu_s:.0f} s of CPU time"
            f" ({wall_s:.0f} s on the clock); {right} of {groups} copies found, and"
            f" {len(pairs) - right} pairs of different pictures."
        )
        print(lines[-1], flush=True)
        for a, b, one in pairs:
            if a != b:
                print(" ", a, b, one.transform, one.scale, one.overlap, one.correlation, flush=True)
    return ["\n\n".join(lines)]


def shuffled(frame: np.ndarray, seed: int) -> np.ndarray:
    """Make another panel of a frame: its squares of 32 px, less than a landmark's, in disorder."""
    squares = frame.reshape(16, 32, 16, 32).swapaxes(1, 2).reshape(256, 32, 32)
    squares = squares[np.random.default_rng(seed).permutation(256)]
    return np.ascontiguousarray(squares.reshape(16, 16, 32, 32).swapaxes(1, 2).reshape(512, 512))


def tree_memory_mb(pid: int) -> float:
    """Return the resident memory of a process and of all below it."""
    total = 0
    waiting = [pid]
    while waiting:
        one = waiting.pop()
        try:
            total += int(Path(f"/proc/{one}/statm").read_text().split()[1])
            for task in Path(f"/proc/{one}/task").iterdir():
                waiting += map(int, (task / "children").read_text().split())
        except (FileNotFoundError, ProcessLookupError):  # ended meanwhile
            continue
    return total * os.sysconf("SC_PAGE_SIZE") / 1e6


def screen_command(*arguments: object) -> list[str]:
    """Return the command that a user runs."""
    return [sys.executable, "-c", "from semforensics.cli.main import main; main()", "screen",
            *map(str, arguments)]  # fmt: skip


def bulk_panels(micrographs: Path | None) -> list[np.ndarray]:
    """Return 125 panels of 512x512 px, cut out of real micrographs where there are some."""
    if micrographs is None:
        return simulate(NUM_FILES // 8, 512, 512)
    frames = read_real(micrographs)
    places = itertools.product((0, 378), (0, 384, 768), frames)
    cut = (frame[top : top + 512, left : left + 512] for top, left, frame in places)
    return [*itertools.islice(cut, NUM_FILES // 8)]


def speed_table(micrographs: Path | None) -> list[str]:
    """Write how long a start takes, and what bulk reaches."""
    lines: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        frames = (read_real(micrographs) if micrographs else simulate(20, 1280, 890))[:20]
        pictures = [Image.fromarray(np.ascontiguousarray(frame)) for frame in frames]
        pictures[0].save(folder / "one.tif")
        pages = {"save_all": True, "append_images": pictures[1:], "quality": 95}
        pictures[0].save(folder / "figures.pdf", **pages)
        kinds = (
            ("one.tif", "One 1280x890 TIFF", 3),
            ("figures.pdf", f"A PDF with {len(pictures)} figures of 1280x890 px", 2),
        )
        for (file, kind, repeats), maps in itertools.product(kinds, ("--no-maps", "--maps")):
            times = []
            for _ in range(repeats):
                start = time.perf_counter()
                arguments = (folder / file, "--out", folder / "report", maps)
                subprocess.run(screen_command(*arguments), check=True, stdout=subprocess.DEVNULL)
                times.append(time.perf_counter() - start)
            lines.append(f"{kind} in a fresh process, `{maps}`: {min(times):.1f} s to the report.")
            print(lines[-1], flush=True)
        inputs = folder / "inputs"
        inputs.mkdir()
        for index, frame in enumerate(bulk_panels(micrographs)):
            for transform in range(8):
                file = inputs / f"{transform}_{index:03d}.png"
                Image.fromarray(np.ascontiguousarray(turn(frame, transform))).save(file)
        cores = len(os.sched_getaffinity(0))
        out, scratch = folder / "bulk", folder / "scratch"
        how = ("--no-maps", "--no-reuse", "--workers", cores)
        arguments = (inputs, "--out", out, *how, "--scratch", scratch)
        start = time.perf_counter()
        process = subprocess.Popen(screen_command(*arguments), stdout=subprocess.DEVNULL)
        memory: dict[int, float] = {}
        judged = 0.0
        while process.poll() is None:
            done = len([*scratch.glob("*/inputs/*.json")])
            memory[done] = max(memory.get(done, 0), tree_memory_mb(process.pid))
            if done >= NUM_FILES and not judged:
                judged = time.perf_counter() - start
            time.sleep(0.1)
        whole = time.perf_counter() - start
        if process.returncode:
            raise RuntimeError(f"screen ended with {process.returncode}")
        shutil.rmtree(inputs)
        counts = json.loads((out / "report.json").read_text())["summary"]
    early = max(mb for done, mb in memory.items() if done <= NUM_FILES // 10)
    late = max(mb for done, mb in memory.items() if NUM_FILES * 0.9 <= done < NUM_FILES)
    last = max(mb for done, mb in memory.items() if done == NUM_FILES)
    kind = "real" if micrographs else "simulated"
    lines.append(
        f"{NUM_FILES} PNG files of 512x512 px, parts of {kind} micrographs, each turned in eight"
        f" ways ({counts['n_ai_suspected']} suspected, {counts['n_inconclusive']} inconclusive,"
        f" {counts['n_consistent']} consistent),"
        f" `--no-maps --no-reuse --workers {cores}`: "
        f"{NUM_FILES / judged:.1f} panels a second until all are scored ({judged:.0f} s, start of"
        f" the workers included), {whole:.0f} s with the report. Resident"
        f" memory of all processes together: {early:.0f} MB at most up to picture"
        f" {NUM_FILES // 10}, {late:.0f} MB over the last tenth, {last:.0f} MB at most during the"
        " report."
    )
    print(lines[-1], flush=True)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--micrographs", type=Path, help="folder of real micrographs")
    parser.add_argument("--only", choices=("reuse", "speed", "panels"))
    parser.add_argument("--panels", type=Path, nargs="*", help="folders of pictures")
    parser.add_argument("--before", type=Path, help="an older reuse.py, to compare with")
    arguments = parser.parse_args()
    load = os.getloadavg()[0]
    made_by = "python benchmarks/screening.py" + (
        " --micrographs FOLDER" if arguments.micrographs else ""
    )
    if arguments.panels:
        made_by += " --panels " + " ".join(folder.name for folder in arguments.panels)
    if arguments.before:
        made_by += " --before reuse.py"
    if arguments.only:
        made_by += f" --only {arguments.only}"
    import torch

    made = (
        f"Made by `{made_by}` on {len(os.sched_getaffinity(0))} cores, {platform.machine()}, Python"
        f" {platform.python_version()}, torch {torch.__version__}. Load average before the run, so"
        f" what else the machine was doing: {load:.1f}."
    )
    sections = TABLE.read_text().split("\n## ")[1:] if TABLE.is_file() else []
    parts = {section.split("\n")[0]: f"## {section.strip()}" for section in sections}
    makers = {
        "Speed": lambda: speed_table(arguments.micrographs),
        "Reuse": lambda: reuse_table(arguments.micrographs, arguments.before),
        "Panels": lambda: panels_table(arguments.panels, arguments.before),
    }
    for name, make in makers.items():
        if arguments.only in (None, name.lower()) and (name != "Panels" or arguments.panels):
            parts[name] = "\n".join([f"## {name}", "", made, "", *make()])
    kept = [parts[name] for name in makers if name in parts]
    TABLE.write_text("\n\n".join(["# Screening: speed and reuse", *kept]) + "\n")


if __name__ == "__main__":
    main()
