"""Find out which results depend on the processor's instruction set, and what a portable mode costs.

    python benchmarks/instruction_sets.py
    python benchmarks/instruction_sets.py --emulator 'qemu-x86_64 -cpu Haswell'

writes benchmarks/results/instruction_sets.md. Short trainings and distances, always in float32 and
on one thread, run in processes of their own: with all instructions of this processor, with its
libraries held to AVX2 by hand, and in the portable mode (`SEMFORENSICS_PORTABLE=1`). With an
emulator the mode runs once more on a processor that has no AVX-512, other caches and another name;
emulated sizes are smaller, since each step takes 30 to 100 times as long. Hashes say whether bytes
are equal; differences are relative to the largest number of the tensor.
"""

import argparse
import hashlib
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

TABLE = Path(__file__).parent / "results" / "instruction_sets.md"
MODE = {"SEMFORENSICS_PORTABLE": "1"}
HELD = {
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "ATEN_CPU_CAPABILITY": "avx2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
}
NATIVE = "this processor"
VARIANTS = {NATIVE: {}, "held to AVX2": HELD, "portable mode": MODE}


def reals(count: int, side: int) -> Any:
    """Return grey images by integer arithmetic alone, the same on every machine."""
    import torch

    at = torch.arange(count * side * side, dtype=torch.int64).view(count, 1, side, side)
    noise = (at * 2654435761 % 4294967296) >> 26
    return (60 + noise + 8 * (at % side // 8)).clamp(0, 255).to(torch.uint8)


def train_gan(gan: str, steps: int, size_px: int) -> dict[str, Any]:
    """Return a GAN's averaged weights after some steps."""
    import torch

    from semforensics.params import FastGANParams, StyleGAN2Params, read_params
    from semforensics.perceptual.lpips import LPIPS

    sections = read_params(Path(__file__).parents[1] / "params.yaml").train_gan
    images = reals(16, size_px)
    if gan == "fastgan":
        from semforensics.generators.fastgan import training

        params: FastGANParams = sections.fastgan.model_copy(
            update={"precision": "float32", "ngf": 8, "ndf": 8, "nz": 16, "batch": 4}
        )
        torch.manual_seed(1)
        lpips = LPIPS("alex")
        state = training.new_state(params, size_px, len(images), 0, torch.device("cpu"))
        for _ in range(steps):
            training.take_step(state, images, lpips, params)
        return state.average.state_dict()
    from semforensics.generators.stylegan2_ada import training as style

    styled: StyleGAN2Params = sections.stylegan2_ada.model_copy(
        update={"precision": "float32", "channel_base": 512, "channel_max": 16, "batch": 4}
        | {"z_dim": 16, "w_dim": 16, "r1_every": 2, "path_length_every": 2}
    )
    configuration = style.resolve(styled, size_px)
    other = style.new_state(styled, configuration, size_px, len(images), 0, torch.device("cpu"))
    other.ada.p = 0.5
    for _ in range(steps):
        style.take_step(other, images, styled, configuration)
    return other.average.state_dict()


def train_autoencoder(steps: int, size_px: int) -> dict[str, Any]:
    """Return an encoder-decoder's weights."""
    import torch

    from semforensics.core.training import Setup
    from semforensics.generators.autoencoders import training
    from semforensics.params import TrainAutoencodersParams

    params = TrainAutoencodersParams(steps=steps, batch=4, width=8, lr=0.001)
    with tempfile.TemporaryDirectory() as folder:
        setup = Setup(0, Path(folder), torch.device("cpu"))
        state = training.train_autoencoder("autoencoder", reals(16, size_px), params, setup)
    return state.network.state_dict()


def train_classifier(steps: int, size_px: int) -> dict[str, Any]:
    """Return weights of the NPR network that learns to tell images from doubled ones."""
    import torch
    import torch.nn.functional as F

    from semforensics.core.images import to_unit_range
    from semforensics.core.portable import adam_kernel
    from semforensics.detector.networks import build_network

    torch.manual_seed(0)
    network = build_network("npr_tiny", 1)
    optimizer = torch.optim.Adam(network.parameters(), 0.002, fused=adam_kernel())
    images = reals(16, size_px)
    fakes = images[..., ::2, ::2].repeat_interleave(2, 2).repeat_interleave(2, 3)
    x = to_unit_range(torch.cat([images, fakes])).contiguous(memory_format=torch.channels_last)
    is_fake = (torch.arange(32) >= 16).float()
    for _ in range(steps):
        loss = F.binary_cross_entropy_with_logits(network(x).float(), is_fake)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    return network.state_dict()


def lpips_distances(steps: int, size_px: int) -> dict[str, Any]:
    """Return LPIPS (AlexNet of random weights) of all pairs of a few images."""
    import torch

    from semforensics.distances.pairwise import pairwise_lpips
    from semforensics.perceptual.lpips import LPIPS, Embedding

    torch.manual_seed(0)
    embedding = Embedding(LPIPS("alex"), precision="float32", device=torch.device("cpu"))
    images = reals(max(2, steps), size_px)
    return {"lpips": pairwise_lpips(images, images, embedding=embedding, memory_gb=1)}


def pixels(steps: int, size_px: int) -> dict[str, Any]:
    """Return what numpy, OpenCV and Pillow make: a simulated view, spectra, perturbed images."""
    import numpy as np
    import torch

    from semforensics.acquire.simulated import draw_area, simulate_view
    from semforensics.detector.perturbations import find, rng_of
    from semforensics.distances.spectra import radial_power_spectra
    from semforensics.params import read_params

    simulated = read_params(Path(__file__).parents[1] / "params.yaml").acquire.simulated
    area = draw_area(simulated, 0, seed=0)
    view = np.asarray(simulate_view(area, 100, 192, 160))
    images = reals(max(2, steps), size_px).numpy()[:, 0]
    found = {"simulated": view, "spectra": radial_power_spectra(images)[1]}
    for p in find(["resize x0.75 bicubic", "filter non-local means", "tone gamma 1.4"]):
        found[f"{p.axis} {p.level}"] = np.asarray(p.apply(images[0], rng_of(0, p, "a"), images[1]))
    return {name: torch.from_numpy(np.ascontiguousarray(a)) for name, a in found.items()}


def step_seconds(gan: str, steps: int) -> float:
    """Return the CPU seconds of a step at the sizes, and in the precision, of params.yaml."""
    import torch

    from semforensics.core.portable import is_portable
    from semforensics.params import in_float32, read_params
    from semforensics.perceptual.lpips import LPIPS

    params = read_params(Path(__file__).parents[1] / "params.yaml")
    sections = (in_float32(params) if is_portable() else params).train_gan
    images, cpu = reals(64, params.crop.size_px), torch.device("cpu")
    size_px = params.crop.size_px
    take: Callable[[], Any]
    if gan == "FastGAN":
        from semforensics.generators.fastgan import training

        lpips = LPIPS("alex")
        state = training.new_state(sections.fastgan, size_px, len(images), 0, cpu)
        take = lambda: training.take_step(state, images, lpips, sections.fastgan)  # noqa: E731
    else:
        from semforensics.generators.stylegan2_ada import training as style

        configuration = style.resolve(sections.stylegan2_ada, size_px)
        own = style.new_state(sections.stylegan2_ada, configuration, size_px, 64, 0, cpu)
        own.ada.p = 0.3
        take = lambda: style.take_step(own, images, sections.stylegan2_ada, configuration)  # noqa: E731
    for _ in range(2):
        take()
    begun = time.process_time()
    for _ in range(steps):
        take()
    return (time.process_time() - begun) / steps


TASKS: dict[str, Callable[[int, int], dict[str, Any]]] = {
    "classifier": train_classifier,
    "LPIPS distances": lpips_distances,
    "encoder-decoder": train_autoencoder,
    "FastGAN": lambda steps, size: train_gan("fastgan", steps, size),
    "StyleGAN2-ADA": lambda steps, size: train_gan("stylegan2_ada", steps, size),
    "pixels": pixels,
}


def work(folder: Path, steps: int, size_px: int, tasks: list[str]) -> None:
    """Run tasks in this process; leave the tensors in a folder, and print hashes and seconds."""
    from semforensics.core.portable import make_portable

    make_portable()
    import torch

    torch.set_num_threads(1)
    if not tasks:
        for gan in ("FastGAN", "StyleGAN2-ADA"):
            seconds = step_seconds(gan, steps)
            print(json.dumps({"task": gan, "seconds": seconds}), flush=True)
    for name in tasks:
        begun = time.process_time()
        tensors = {
            key: tensor.detach().clone() for key, tensor in TASKS[name](steps, size_px).items()
        }
        seconds = time.process_time() - begun
        torch.save(tensors, folder / f"{name}.pt")
        digest = hashlib.sha256()
        for key, tensor in sorted(tensors.items()):
            digest.update(key.encode() + tensor.contiguous().numpy().tobytes())
        found = {"task": name, "sha256": digest.hexdigest()[:12], "seconds": seconds}
        print(json.dumps(found | {"isa": torch.backends.cpu.get_cpu_capability()}), flush=True)


def run(
    folder: Path,
    environment: dict[str, str],
    steps: int,
    size_px: int,
    emulator: str,
    tasks: list[str],
) -> dict[str, dict[str, Any]]:
    """Run tasks in another process; return what it printed, by task."""
    folder.mkdir(exist_ok=True)
    command = [*shlex.split(emulator), sys.executable, __file__, "--worker", str(folder)]
    command += ["--steps", str(steps), "--size-px", str(size_px), "--tasks", *tasks]
    clean = {name: value for name, value in os.environ.items() if name not in HELD | MODE}
    done = subprocess.run(command, env=clean | environment, stdout=subprocess.PIPE, text=True)
    print(done.stdout, file=sys.stderr, flush=True)
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return {row["task"]: row for row in rows}


def costs(root: Path, rounds: int) -> list[str]:
    """Return what a step of the demo's GANs costs as params.yaml says, and in the portable mode."""
    from semforensics.core.markdown import markdown_table

    found: dict[tuple[str, str], list[float]] = {}
    for _ in range(rounds):
        for name in (NATIVE, "portable mode"):
            for gan, row in run(root / "cost", VARIANTS[name], 16, 64, "", []).items():
                found.setdefault((gan, name), []).append(row["seconds"])
    rows = []
    for gan in dict.fromkeys(gan for gan, _ in found):
        native, portable = (
            statistics.median(found[gan, name]) for name in (NATIVE, "portable mode")
        )
        rows.append([gan, f"{native:.3f}", f"{portable:.3f}", f"{portable / native:.2f}"])
    names = ["step of the demo's", "CPU s, native, as params.yaml", "CPU s, portable", "ratio"]
    return ["## What the mode costs", "", markdown_table(names, rows)]


def difference(ours: Path, theirs: Path) -> float:
    """Return the largest difference of two files of tensors, relative to the tensor's largest."""
    import torch

    a, b = (torch.load(path) for path in (ours, theirs))
    worst = 0.0
    for name, x in a.items():
        scale = max(float(x.double().abs().max()), 1e-12)
        worst = max(worst, float((x.double() - b[name].double()).abs().max()) / scale)
    return worst


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--size-px", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3, help="of each variant, in turns")
    parser.add_argument("--emulator", default="", help="a command that runs x86-64 programs")
    parser.add_argument("--emulated-steps", type=int, default=2)
    parser.add_argument("--tasks", nargs="*", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--print", action="store_true", help="write no table")
    parser.add_argument("--worker", type=Path)
    arguments = parser.parse_args()
    tasks = arguments.tasks
    if arguments.worker:
        work(arguments.worker, arguments.steps, arguments.size_px, tasks)
        return
    lines = compare(arguments)
    print("\n".join(lines))
    if not arguments.print:
        TABLE.write_text("\n".join(lines) + "\n")


def compare(arguments: argparse.Namespace) -> list[str]:
    """Run all variants; return the page."""
    from semforensics.core.markdown import markdown_table

    tasks, steps = arguments.tasks, arguments.steps
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        found: dict[str, list[dict[str, dict[str, Any]]]] = {name: [] for name in VARIANTS}
        for _ in range(arguments.rounds):
            for name, environment in VARIANTS.items():
                how = (root / name, environment, steps, arguments.size_px, "", tasks)
                found[name].append(run(*how))
        rows = []
        for task in tasks:
            hashes = {name: {r[task]["sha256"] for r in runs} for name, runs in found.items()}
            seconds = {
                name: statistics.median(r[task]["seconds"] for r in runs)
                for name, runs in found.items()
            }
            row = [task, "yes" if all(len(h) == 1 for h in hashes.values()) else "no"]
            row += ["yes" if hashes[NATIVE] == hashes["held to AVX2"] else "no"]
            files = (root / name / f"{task}.pt" for name in (NATIVE, "held to AVX2"))
            row += [f"{difference(*files):.1e}"]
            row += [f"{seconds[NATIVE]:.2f}", f"{seconds['portable mode']:.2f}"]
            row += [f"{seconds['portable mode'] / seconds[NATIVE]:.2f}"]
            rows.append(row)
        names = ["", "again: same bytes", "AVX2: same bytes", "largest difference"]
        names += ["CPU s, native", "CPU s, portable", "ratio"]
        command = (
            f"python benchmarks/instruction_sets.py --steps {steps} --rounds {arguments.rounds}"
        )
        lines = ["# Results and the processor's instruction set", ""]
        lines += [f"Made by `{command}`: {arguments.size_px} px, float32, one thread.", ""]
        lines += [markdown_table(names, rows)]
        lines += costs(root, arguments.rounds)
        if arguments.emulator:
            few = arguments.emulated_steps
            how = (MODE, few, arguments.size_px)
            here = run(root / "mode here", *how, "", tasks)
            there = run(root / "mode there", *how, arguments.emulator, tasks)
            rows = []
            for task in tasks:
                if task in there:
                    same = "yes" if here[task]["sha256"] == there[task]["sha256"] else "no"
                    files = (root / f"mode {place}/{task}.pt" for place in ("here", "there"))
                    rows.append([task, same, f"{difference(*files):.1e}"])
                else:
                    rows.append([task, "not run", ""])
            lines += [f"## The portable mode here and under `{arguments.emulator}`", ""]
            lines += [f"After {few} steps.", ""]
            lines += [markdown_table(["", "same bytes", "largest difference"], rows)]
    return lines


if __name__ == "__main__":
    main()
