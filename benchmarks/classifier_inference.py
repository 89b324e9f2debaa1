"""Time scoring of images, and write the table benchmarks/results/classifier_inference.md.

    python benchmarks/classifier_inference.py [--classifier data/classifiers/both]

Images are simulated micrographs, saved as the pipeline saves crops. The plain forward is what one
writes first: float32, NCHW, batches of 16 in memory, the default allocator. Ours reads the files
too. Both run in processes of their own, since an allocator's settings hold for a whole process, and
take turns, so that a busy machine slows both; medians. Memory is the resident one of a process that
scores 10,000 files. With a classifier, verdicts of its test split are compared between precisions.
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
NAMES = ("network", "px", "phases", "plain, ms", "ours float32, ms", "ours bf16, ms")
NAMES += ("ours bf16, images/s", "plain / ours bf16")
BATCH = 16
ROUNDS = 7
NUM_FILES = 96
"""Of each size; a turn reads them all."""
NUM_STREAMED = 10_000


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
    from semforensics.detector.inference import FoldedNetwork, score_files
    from semforensics.detector.networks import build_network

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    network = build_network(network_name, 1 if network_name == "npr_tiny" else 3).eval()
    files = sorted((folder / str(size)).iterdir())
    cpu = torch.device("cpu")
    if mode == "plain":
        stacked = np.stack([read_crop(path) for path in files])
        images = to_unit_range(torch.from_numpy(stacked)[:, None])
    elif mode == "memory":
        stream_files(FoldedNetwork(network, "bfloat16"), files, phases)
        return
    else:
        folded = FoldedNetwork(network, "float32" if mode == "float32" else "bfloat16")
    for _ in sys.stdin:
        start = time.perf_counter()
        if mode == "plain":
            with torch.inference_mode():
                for batch in images.split(BATCH):
                    network(batch)
        else:
            for _scored in score_files(folded, files, phases=phases, device=cpu):
                pass
        print(1000 * (time.perf_counter() - start) / len(files), flush=True)


def stream_files(network: object, files: list[Path], phases: int) -> None:
    """Score the same files over and over; print the resident memory after every thousandth, MB."""
    import torch

    from semforensics.detector.inference import score_files

    stream = itertools.islice(itertools.cycle(files), NUM_STREAMED)
    scored = score_files(network, stream, phases=phases, device=torch.device("cpu"))
    for index, _ in enumerate(scored, 1):
        if index % 1000 == 0:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            print(pages * os.sysconf("SC_PAGE_SIZE") / 1e6, flush=True)


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


def compare_verdicts(classifier: Path, data: Path) -> str:
    """Say how many verdicts of the test split differ from float32's, and what they cost."""
    import torch

    from semforensics.detector.corpus import Corpus
    from semforensics.detector.detector import Detector
    from semforensics.detector.inference import MARGIN, CarefulNetwork, FoldedNetwork
    from semforensics.detector.scoring import score_images
    from semforensics.params import SplitParams

    cpu = torch.device("cpu")
    detector = Detector.load(classifier, phases=4, device=cpu)
    meta = detector.meta
    corpus = Corpus(
        data / "cropped", data / "splits.csv", data / "fakes",
        meta["protocol"], SplitParams(**meta["shares"]), meta["seed"],
    )  # fmt: skip
    test = corpus.load_test_split(meta)
    exact, fast = (FoldedNetwork(detector.network, p) for p in ("float32", "bfloat16"))
    careful = CarefulNetwork(fast, exact, detector.borders(0.05))
    logits = [score_images(n, test.images, phases=4, device=cpu) for n in (exact, fast)]
    logits.append(careful.score(test.images, phases=4, device=cpu))
    inside = detector.domain.is_inside(test.images)
    verdicts = [detector.verdicts(test.images, 0.05, logits=z, inside=inside) for z in logits]
    called = [z > detector.threshold for z in logits]
    rough, clear = (
        f"{(verdicts[0] != verdicts[i]).sum()} verdicts (alpha 0.05) and "
        f"{(called[0] != called[i]).sum()} calls at the threshold"
        for i in (1, 2)
    )
    rescored = careful.is_near(logits[1]).mean()
    return (
        f"Test split of detector {meta['detector']}, {len(test.images)} images. Between float32 "
        f"and bfloat16 {rough} differ; logits by {np.abs(logits[0] - logits[1]).max():.3f} at "
        f"most, their standard deviation is {logits[0].std():.1f}. Where bfloat16 is within "
        f"{MARGIN} of a border and float32 takes over ({rescored:.1%} of the images), {clear} "
        "differ."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--classifier", type=Path, help="folder of a trained one")
    parser.add_argument("--data", type=Path, default=Path("data"), help="crops, split and fakes")
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
        "Made by `python benchmarks/classifier_inference.py --classifier data/classifiers/both`: "
        f"{NUM_FILES} PNG files of simulated micrographs. Plain: float32, NCHW, batches of {BATCH} "
        "in memory, default allocator. Ours: normalisations folded in, channels last, one image on "
        "a thread, kept memory, decoding included. Processes that take turns; medians of "
        f"{ROUNDS} turns. {arguments.threads} threads, {platform.machine()}, Python "
        f"{platform.python_version()}, torch {torch.__version__}. "
        f"Load average before the run, so what else the machine was doing: {load:.1f}.",
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
            modes = ("plain", "float32", "bfloat16")
            ms = take_turns(modes, network, size, phases, folder, arguments.threads)
            # The plain forward knows one phase only.
            ratio = f"**{ms['plain'] / ms['bfloat16']:.2f}**" if phases == 1 else ""
            times = [f"{ms[mode]:.1f}" for mode in modes]
            speed = f"{1000 / ms['bfloat16']:.0f}"
            rows.append([network, str(size), str(phases), *times, speed, ratio])
            print(*rows[-1], flush=True)
        worker = start("memory", "npr_tiny", 512, 1, folder, arguments.threads)
        resident = [float(line) for line in worker.communicate()[0].split()]
    lines += [
        markdown_table(NAMES, rows),
        f"Resident memory while npr_tiny scores {NUM_STREAMED:,} files of 512 px: "
        f"{resident[0]:.0f} MB after the first thousand, {resident[-1]:.0f} MB after the last, "
        f"{max(resident):.0f} MB at most.",
    ]
    if arguments.classifier:
        lines += ["", compare_verdicts(arguments.classifier, arguments.data)]
    print("\n".join(lines))
    TABLE.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
