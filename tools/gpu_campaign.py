"""Use a GPU that is lent for minutes: run its tests, time both GANs, train FastGAN.

    python tools/gpu_campaign.py --minutes 13 --data crops.tar --out gpu_day

`tools/gpu_data.py` makes the archive. The machine needs torch >= 2.11, numpy and Pillow, no network
and no DVC; for packages that it lacks, `tools/stand_ins.py` has what is used of them. Three parts
run one after the other, each in its own process, so that an error of CUDA ends one part only:

- tests: those marked `gpu`, with pytest where it is installed; at most 15 % of the time.
- timings: the steps of both GANs at 256 and 512 px, ours and straightforward ones of the same
  formulas (`benchmarks/*_step.py`), in float32 and bfloat16; at most a quarter of what is left.
- train: FastGAN at the side of the crops for the rest, with a snapshot every few per cent.

The folder of --out holds at most eight files of at most 16 MB, and each is whole at any moment,
since it is written elsewhere and renamed: the process may be killed whenever one likes.
Without CUDA all of it runs on a CPU; `--tiny` makes that a matter of seconds.
"""

import argparse
import contextlib
import csv
import ctypes
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tarfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / folder) for folder in ("src", "benchmarks", "tools")]
FILES = ("report.json", "log.txt", "timings.csv", "losses.csv", "snapshots.csv", "grid.png")
FILES += ("generator.safetensors", "best.safetensors")
"""All that --out may hold."""
MAX_BYTES = 16_000_000
SHARES = {"tests": 0.15, "timings": 0.25, "train": 1.0}
"""Of the time that is left when a part begins."""
TIMED_PX = (256, 512)
GRID = 16
"""Fakes in the picture."""
PART_SHOT_S = 20.0
"""What a part may take beyond its time before it is ended."""


@dataclass(frozen=True)
class Out:
    """The folder of results, and one of the same file system in which files are written."""

    folder: Path
    unfinished: Path

    @classmethod
    def begin(cls, folder: Path) -> "Out":
        """Make both folders, beside each other where that is one file system."""
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            sys.exit(f"{folder}: not empty; name a new folder with --out")
        unfinished = folder.absolute().with_name(f".{folder.name}.unfinished")
        if folder.stat().st_dev != folder.absolute().parent.stat().st_dev:
            unfinished = folder.absolute() / ".unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        return cls(folder, unfinished)

    @contextlib.contextmanager
    def file(self, name: str) -> Iterator[Path]:
        """Yield a path to write to; the file takes its place when the block ends well."""
        assert name in FILES, name
        path = self.unfinished / name
        yield path
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"{name}: {path.stat().st_size} bytes, at most {MAX_BYTES} come back")
        path.replace(self.folder / name)

    def write_json(self, name: str, content: Any) -> None:
        """Write JSON."""
        with self.file(name) as path:
            path.write_text(json.dumps(content, indent=2) + "\n")

    def write_csv(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write rows, with the columns of all of them."""
        names = list(dict.fromkeys(name for row in rows for name in row))
        with self.file(name) as path, path.open("w", newline="") as file:
            writer = csv.DictWriter(file, names, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


# The driver


def run_campaign(arguments: argparse.Namespace) -> int:
    """Run the parts in processes of their own; return 0 if none failed and a generator is there.

    `report.json` says after each part how it ended.
    """
    started, out = time.time(), Out.begin(arguments.out)
    end = started + 60 * arguments.minutes
    report: dict[str, Any] = {"minutes": arguments.minutes, "parts": {}}
    log = ""
    for part in arguments.parts:
        begun = time.time()
        # What is left at the end is for the last snapshot of a training that is slower than it was.
        reserve = max(5.0, 0.03 * (end - started))
        until = begun + SHARES[part] * (end - reserve - begun)
        report["parts"][part] = {"state": "running"}
        out.write_json("report.json", report)
        state = run_part_apart(arguments, part, out, until, min(until + PART_SHOT_S, end))
        summary = out.unfinished / f"{part}.json"
        said = json.loads(summary.read_text()) if summary.is_file() else {}
        seconds = round(time.time() - begun, 1)
        report["parts"][part] = {"state": state, "seconds": seconds, **said}
        out.write_json("report.json", report)
        text = (out.unfinished / f"{part}.log").read_text(errors="replace")[-200_000:]
        print(f"{part}: {state} in {seconds:.0f} s\n{text[-3000:]}", flush=True)
        log += f"== {part}: {state} in {seconds:.0f} s\n{text}\n"
        with out.file("log.txt") as path:
            path.write_text(log)
    shutil.rmtree(out.unfinished)
    states = {part: entry["state"] for part, entry in report["parts"].items()}
    print(f"{out.folder}: {states}, {', '.join(sorted(p.name for p in out.folder.iterdir()))}")
    is_trained = (out.folder / "generator.safetensors").is_file()
    return int("failed" in states.values() or ("train" in states and not is_trained))


def run_part_apart(
    arguments: argparse.Namespace, part: str, out: Out, until: float, last: float
) -> str:
    """Run a part in a process of its own; return `done`, `failed` or `ended`, if it took too long.

    The part knows that it has time until `until`; at `last` it is killed.
    """
    command = [sys.executable, __file__, "--part", part, "--until", str(until)]
    command += ["--out", str(out.folder), "--unfinished", str(out.unfinished)]
    command += ["--data", str(arguments.data), "--device", arguments.device]
    command += ["--tests", str(arguments.tests), *(["--tiny"] if arguments.tiny else [])]
    with (out.unfinished / f"{part}.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            code = process.wait(max(last - time.time(), 1))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return "ended"
        finally:
            process.kill()
    return "failed" if code else "done"


def run_part(arguments: argparse.Namespace) -> int:
    """Run one part in this process; its summary goes to a file that the driver reads."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: end with the driver
    import stand_ins

    missing = stand_ins.install()
    import torch

    from semforensics.core.allocator import keep_memory
    from semforensics.core.device import choose_device

    keep_memory()
    out = Out(arguments.out, arguments.unfinished)
    device = "cuda" if arguments.part == "tests" and arguments.device == "cuda" else None
    device = device or str(choose_device(arguments.device))
    torch.backends.cudnn.benchmark = True
    said: dict[str, Any] = {"device": device, "torch": str(torch.__version__)}
    said |= {"stand_ins": missing} if missing else {}
    if device.startswith("cuda") and torch.cuda.is_available():
        said |= {"gpu": torch.cuda.get_device_name(), "cuda": str(torch.version.cuda)}

    def say(**more: Any) -> None:
        said.update(more)
        (out.unfinished / f"{arguments.part}.json").write_text(json.dumps(said))

    say()
    match arguments.part:
        case "tests":
            return run_tests(arguments.tests, device, say)
        case "timings":
            return time_gans(out, arguments.until, device, tiny=arguments.tiny, say=say)
        case _:
            train(out, arguments.data, arguments.until, device, tiny=arguments.tiny, say=say)
    return 0


# The tests


def run_tests(folder: Path, device: str, say: Callable[..., None]) -> int:
    """Run the tests of a folder that are marked `gpu`; return pytest's exit code."""
    files = [file for file in sorted(folder.rglob("test_*.py")) if "mark.gpu" in file.read_text()]
    if not device.startswith("cuda"):
        say(left_out=f"no CUDA device for the tests in {len(files)} files")
        return 0
    if find_spec("pytest") is None:
        say(left_out="pytest is not installed")
        return 0
    import pytest

    os.chdir(ROOT)
    options = ["-m", "gpu", "-q", "-ra", "-p", "no:cacheprovider", "--import-mode=importlib"]
    # Not the project's settings: their plugins may be missing, and here a warning is no error.
    options += ["-c", os.devnull, "--rootdir", str(ROOT), "-W", "default"]
    code = int(pytest.main([*options, *map(str, files)]))
    say(files=[file.name for file in files], exit_code=code)
    return code


# The timings


def time_gans(out: Out, until: float, device: str, *, tiny: bool, say: Callable[..., None]) -> int:
    """Time steps of both GANs at each size, a row per version; return 1 if one cannot be timed."""
    import torch

    cases = [(gan, px) for px in ((64,) if tiny else TIMED_PX) for gan in STEPS]
    rows: list[dict[str, Any]] = []
    failed = 0
    for index, (gan, size_px) in enumerate(cases):
        seconds = (until - time.time()) / (len(cases) - index)
        if seconds <= 0:
            say(left_out=[f"{gan} at {px} px" for gan, px in cases[index:]])
            break
        try:
            rows += time_case(gan, size_px, device, seconds, tiny=tiny)
        except Exception as error:  # too little memory, or a mistake that the day shall show
            traceback.print_exc()
            rows.append({"gan": gan, "size_px": size_px, "error": str(error).splitlines()[0]})
            failed = 1
        if device.startswith("cuda"):
            torch.cuda.empty_cache()
        out.write_csv("timings.csv", rows)
    for row in rows:
        print(", ".join(f"{name} {value}" for name, value in row.items()), flush=True)
    return failed


def fastgan_steps(size_px: int, device: str, *, tiny: bool) -> dict[str, Callable[[str], Any]]:
    """Return FastGAN's step in four versions, each with networks of its own, all alike."""
    import torch

    import fastgan_step

    width = 4 if tiny else 64
    setting = fastgan_step.Setting("", size_px, width, width, 8 if tiny else 256, "alex", 0)
    nowhere, params = Path("no weights"), fastgan_params(size_px, tiny=tiny)

    def ours(precision: str) -> Callable[[str], Any]:
        step = fastgan_step.Ours(setting, nowhere, precision, device, params)
        return lambda _: step()

    def plain(precision: str) -> Callable[[str], Any]:
        step = fastgan_step.Plain(setting, nowhere, device, params)

        def take(_: str) -> Any:
            bf16 = precision == "bfloat16"
            with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=bf16):
                return step()

        return take

    return versions(plain, ours)


def stylegan2_steps(size_px: int, device: str, *, tiny: bool) -> dict[str, Callable[[str], Any]]:
    """Return StyleGAN2-ADA's step in four versions, each with networks of its own, all alike."""
    import stylegan2_ada_step

    base = 512 if tiny else 32768 if size_px >= 512 else 16384
    setting = stylegan2_ada_step.Setting("", base, 0, size_px, 16 if tiny else 512)
    params = stylegan2_params()

    def version(precision: str, *, is_plain: bool) -> Callable[[str], Any]:
        return stylegan2_ada_step.Step(
            setting, plain=is_plain, precision=precision, device=device, params=params
        )

    return versions(
        lambda precision: version(precision, is_plain=True),
        lambda precision: version(precision, is_plain=False),
    )


def versions(plain: Callable[[str], Any], ours: Callable[[str], Any]) -> dict[str, Any]:
    """Build both in both precisions."""
    kinds = {"straightforward": plain, "ours": ours}
    precisions = ("float32", "bfloat16")
    return {f"{kind} {p}": build(p) for kind, build in kinds.items() for p in precisions}


STEPS: dict[str, Callable[..., dict[str, Callable[[str], Any]]]] = {
    "fastgan": fastgan_steps,
    "stylegan2_ada": stylegan2_steps,
}
KINDS = {
    "fastgan": {"": 1.0},
    "stylegan2_ada": {
        "main": 12 / 16,
        "with path length": 3 / 16,
        "with path length and R1": 1 / 16,
    },
}
"""Kinds of steps, and their shares of all steps."""


def time_case(
    gan: str, size_px: int, device: str, seconds: float, *, tiny: bool
) -> list[dict[str, Any]]:
    """Time the versions in turns, so that what disturbs one disturbs all; return a row for each.

    `step_ms` is the mean over the kinds of steps, each by its share, of the median. Before that a
    step of both float32 versions on the same weights, images and draws, without TF32, gives
    `loss_difference`, the largest relative one of their losses: above 0.01 they differ.
    """
    import torch

    is_cuda = device.startswith("cuda")
    end = time.monotonic() + seconds
    steps = STEPS[gan](size_px, device, tiny=tiny)
    tf32 = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    kinds = KINDS[gan]
    last = list(kinds)[-1]
    theirs, ours = (steps[f"{name} float32"](last) for name in ("straightforward", "ours"))
    pairs = zip(theirs, ours, strict=True)
    difference = max(abs(a - b) / max(abs(a), 0.1) for a, b in pairs)
    torch.backends.cudnn.allow_tf32 = tf32

    times: dict[tuple[str, str], list[float]] = {(n, kind): [] for n in steps for kind in kinds}
    memory = dict.fromkeys(steps, 0)
    rounds = 0
    while rounds < (2 if tiny else 3) or (rounds < 50 and time.monotonic() < end):
        for name, kind in times:
            if is_cuda:
                torch.cuda.synchronize()
                torch.cuda.reset_peak_memory_stats()
                resident = torch.cuda.memory_allocated()
            begun = time.perf_counter()
            steps[name](kind)
            if is_cuda:
                torch.cuda.synchronize()
                taken = torch.cuda.max_memory_allocated() - resident
                memory[name] = max(memory[name], taken)
            if rounds:  # the first warms up
                times[name, kind].append(time.perf_counter() - begun)
        rounds += 1

    def step_ms(name: str) -> float:
        return 1e3 * sum(w * statistics.median(times[name, kind]) for kind, w in kinds.items())

    base = step_ms("straightforward float32")
    return [
        {"gan": gan, "size_px": size_px, "version": name, "step_ms": f"{step_ms(name):.2f}"}
        | {"speed_up": f"{base / step_ms(name):.2f}", "steps_timed": rounds - 1}
        | {"memory_of_step_mb": round(memory[name] / 1e6) if is_cuda else ""}
        | {"loss_difference": f"{difference:.1e}"}
        for name in steps
    ]


def fastgan_params(size_px: int, *, tiny: bool) -> Any:
    """Return FastGAN's parameters: the thesis's where nothing is said."""
    from semforensics.params import FastGANParams

    widths = {"ngf": 4, "ndf": 4, "nz": 8} if tiny else {"ngf": 64, "ndf": 64, "nz": 128}
    if not tiny:
        widths["ngf"] = widest(size_px, widths["nz"])
    return FastGANParams(
        **widths,
        reference=False,
        channels=1,
        iterations=10**9,  # until time is up
        batch=4 if tiny else 16,  # 8 in the thesis: a GPU takes as long for twice as many
        flip=True,
        lr=0.0002,
        adam_beta1=0.5,
        adam_beta2=0.999,
        ema_decay=0.999,
        perceptual_net="alex",
        reconstruction_weight=8,
        r1_gamma=0,
        r1_every=16,
        tanh=True,
        precise_bn_images=64 if tiny else 1024,
        precision="float32" if tiny else "bfloat16",
        compile=False,
        log_every=5 if tiny else 20,
        snapshot_every=10**9,  # by the clock instead
        keep_snapshots=0,
        keep_best=True,
    )


def widest(size_px: int, nz: int) -> int:
    """Return the largest width of a generator whose 16-bit file may come back."""
    import torch

    from semforensics.generators.fastgan.networks import Generator

    for ngf in range(64, 8, -4):
        with torch.device("meta"):
            network = Generator(size_px=size_px, channels=1, ngf=ngf, nz=nz, tanh=True)
        numbers = sum(tensor.numel() for tensor in network.state_dict().values())
        if 2.05 * numbers < MAX_BYTES:
            return ngf
    raise AssertionError(size_px)


def stylegan2_params() -> Any:
    """Return StyleGAN2-ADA's parameters as `auto` sets them; the benchmark sets the sizes."""
    from semforensics.params import StyleGAN2Params

    left_to_auto = ("mapping_layers", "channel_base", "kimg", "batch", "mbstd_group", "lr")
    left_to_auto += ("r1_gamma", "ema_kimg", "ema_rampup")
    return StyleGAN2Params(
        **dict.fromkeys(left_to_auto),
        configuration="auto",
        channels=1,
        z_dim=512,
        w_dim=512,
        channel_max=512,
        mirror=True,
        r1_every=16,
        path_length_every=4,
        augment="bgc",
        orientation="free",
        ada_target=0.6,
        ada_kimg=500,
        ada_every=4,
        ada_p_max=0.8,
        perceptual_net="alex",
        precision="bfloat16",
        log_every=20,
        snapshot_every=500,
        keep_snapshots=0,
        keep_best=True,
    )


# The training


def train(
    out: Out, data: Path, until: float, device: str, *, tiny: bool, say: Callable[..., None]
) -> None:
    """Train FastGAN until time is up; leave the last and the best generator, curves and a grid."""
    import torch

    from semforensics.core.training import Setup, describe_training
    from semforensics.generators.common.reals import load_reals
    from semforensics.generators.common.snapshots import diversity
    from semforensics.generators.fastgan.training import check_inputs, new_state, take_step
    from semforensics.perceptual.lpips import LPIPS

    started = time.time()
    folder = unpacked(data, out.unfinished)
    reals = load_reals(sorted(folder.rglob("*.png")))
    lpips = LPIPS.load(folder / "alex.safetensors").to(device)
    size_px = reals.shape[-1]
    params = fastgan_params(size_px, tiny=tiny)
    check_inputs(params, len(reals), size_px, folder)
    state = new_state(params, size_px, len(reals), 0, torch.device(device))
    setup = Setup(0, out.unfinished, torch.device(device))
    meta = describe_training("fastgan", state.generator, params, setup, "clean", len(reals))
    meta["data"] = json.loads((folder / "about.json").read_text())
    say(n_real=len(reals), size_px=size_px, ngf=params.ngf, batch=params.batch)

    took, due = 0.0, started
    while True:
        shown, fakes = take_step(state, reals, lpips, params)
        is_last = time.time() + 1.5 * took >= until
        if state.iteration % params.log_every == 0:
            state.log(seconds=time.time() - started, diversity=diversity(lpips, fakes, shown))
        if is_last or time.time() >= due:
            begun = time.time()
            leave_snapshot(out, state, lpips, reals, params, meta)
            took = time.time() - begun
            due = time.time() + max(10 * took, (until - started) / 20)
            found = state.snapshots[-1]
            say(seconds_per_snapshot=round(took, 2), snapshots=len(state.snapshots), last=found)
            print(found, flush=True)
        if is_last:
            break


def leave_snapshot(
    out: Out, state: Any, lpips: Any, reals: Any, params: Any, meta: Mapping[str, Any]
) -> None:
    """Draw and measure fakes of the averaged generator; write all files of the training anew."""
    from semforensics.core.checkpoints import save_checkpoint
    from semforensics.core.images import write_grey_png
    from semforensics.generators.common.sampling import generate_grey
    from semforensics.generators.common.snapshots import NUM_WATCHED, best, measure_fakes
    from semforensics.generators.fastgan.training import sampling_network

    network = sampling_network(state.average, params)
    fakes = generate_grey(network, range(NUM_WATCHED))
    measured = measure_fakes(lpips, fakes, reals)
    state.snapshots.append({"iteration": float(state.iteration), **measured})
    described = {**meta, "step": state.iteration, **measured}
    is_best = best(state.snapshots) is state.snapshots[-1]
    for name in ("generator", *(["best"] if is_best else [])):
        with out.file(f"{name}.safetensors") as path:
            save_checkpoint(path, network.state_dict(), described, half=True)
    side = fakes.shape[-1]
    columns = int(GRID**0.5)
    grid = (
        fakes[:GRID].view(columns, columns, side, side).transpose(1, 2).reshape(columns * side, -1)
    )
    with out.file("grid.png") as path:
        write_grey_png(path, grid.numpy())
    if state.rows:
        out.write_csv("losses.csv", rounded(state.rows))
    out.write_csv("snapshots.csv", rounded(state.snapshots))


def rounded(rows: Sequence[Mapping[str, float]]) -> list[dict[str, str]]:
    """Write numbers with six digits."""
    return [{name: f"{value:.6g}" for name, value in row.items()} for row in rows]


def unpacked(data: Path, unfinished: Path) -> Path:
    """Return the folder of the crops, unpacked where `data` is an archive."""
    if data.is_dir():
        return data
    folder = unfinished / "data"
    with tarfile.open(data) as archive:
        for member in archive:  # extractall(filter="data") needs Python 3.11.4
            path = folder / member.name
            if not path.resolve().is_relative_to(folder.resolve()):
                sys.exit(f"{data}: holds {member.name}, which lies outside of the archive")
            if member.isfile() and (file := archive.extractfile(member)):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(file.read())
    return folder


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=13, help="for all of it")
    parser.add_argument("--data", type=Path, required=True, help="what tools/gpu_data.py made")
    parser.add_argument("--out", type=Path, required=True, help="new folder for the results")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--tiny", action="store_true", help="small networks, to try the command")
    parser.add_argument("--parts", nargs="+", choices=list(SHARES), default=list(SHARES))
    parser.add_argument("--tests", type=Path, default=ROOT / "tests", help=argparse.SUPPRESS)
    parser.add_argument("--part", choices=list(SHARES), help=argparse.SUPPRESS)
    parser.add_argument("--unfinished", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--until", type=float, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if not arguments.data.exists():
        sys.exit(f"{arguments.data}: no such archive or folder; tools/gpu_data.py makes one")
    return run_part(arguments) if arguments.part else run_campaign(arguments)


if __name__ == "__main__":
    sys.exit(main())
