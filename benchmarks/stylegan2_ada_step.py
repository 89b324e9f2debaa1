"""Time a StyleGAN2-ADA training step against a straightforward float32 version of the same step.

    python benchmarks/stylegan2_ada_step.py

writes benchmarks/results/stylegan2_ada_step.md. The straightforward version has networks as one
writes them from the paper: zero stuffing and a convolution for every resampling, a transposed or
strided convolution beside the filter, one operation per formula, NCHW, float32, the default
allocator. Phases, augmentation and optimizers around the networks are the project's in both, so
what is skipped there is skipped in both. Both run in processes of their own, since an allocator's
settings hold for a whole process, and take turns, so that a busy machine slows both. Before
anything is timed, a step of each kind in float32 on the same weights, images and random numbers
must give the same losses.

A step has one of three kinds: the two main phases and the weight average, every fourth time with
path length too, every sixteenth with R1 as well. The table gives the mean over sixteen steps.
"""

import argparse
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TABLE = Path(__file__).parent / "results" / "stylegan2_ada_step.md"
NAMES = ("", "step", "straightforward, s", "ours, s", "ratio")
NAMES += ("straightforward, CPU s", "ours, CPU s", "ratio")


@dataclass(frozen=True)
class Setting:
    """Sizes of the networks."""

    title: str
    channel_base: int
    rounds: int
    size_px: int = 128
    latent: int = 512
    """Length of latents and styles."""


SETTINGS = (
    Setting("128 px, channel_base 16384, as auto", 16384, 3),
    Setting("128 px, channel_base 4096", 4096, 5),
)
BATCH = 8
P = 0.3
"""Strength of the augmentation."""
KINDS = {"main": 1, "with path length": 4, "with path length and R1": 16}
"""An iteration at which a step has that kind."""


def plain_networks(generator: Any, discriminator: Any) -> tuple[Any, Any]:
    """Return both networks as one writes them down, under the same names, with the same weights."""
    import torch
    import torch.nn.functional as F
    from torch import nn

    taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
    fir = taps.outer(taps) / 64

    def filtered(x: Any, padding: tuple[int, ...], gain: float = 1.0) -> Any:
        kernel = (fir * gain).to(x)[None, None].repeat(x.shape[1], 1, 1, 1)
        return F.conv2d(F.pad(x, padding), kernel, groups=x.shape[1])

    def up(x: Any) -> Any:
        batch, channels, height, width = x.shape
        stuffed = x.new_zeros(batch, channels, height, 2, width, 2)
        stuffed[:, :, :, 0, :, 0] = x
        return filtered(stuffed.view(batch, channels, 2 * height, 2 * width), (2, 1, 2, 1), 4.0)

    def down(x: Any) -> Any:
        return filtered(x, (1, 1, 1, 1))[:, :, ::2, ::2]

    def activated(x: Any, bias: Any) -> Any:
        return F.leaky_relu(x + bias.view(1, -1, 1, 1), 0.2) * math.sqrt(2)

    class Linear(nn.Module):
        def __init__(self, i: int, o: int, rate: float = 1.0) -> None:
            super().__init__()
            self.weight, self.bias = nn.Parameter(torch.empty(o, i)), nn.Parameter(torch.empty(o))
            self.rate = rate

        def forward(self, x: Any) -> Any:
            weight = self.weight * (self.rate / math.sqrt(self.weight.shape[1]))
            return F.linear(x, weight, self.bias * self.rate)

    class Mapping(nn.Module):
        def __init__(self, like: Any) -> None:
            super().__init__()
            self.register_buffer("w_avg", torch.empty(like.w_dim))
            for i in range(like.arguments["mapping_layers"]):
                self.add_module(f"fc{i}", Linear(like.w_dim if i else like.z_dim, like.w_dim, 0.01))

        def forward(self, z: Any) -> Any:
            w = z / torch.sqrt((z**2).mean(dim=1, keepdim=True) + 1e-8)
            for layer in self.children():
                w = F.leaky_relu(layer(w), 0.2) * math.sqrt(2)
            return w

        @torch.no_grad()
        def track_w_average(self, w: Any) -> None:
            self.w_avg.copy_(0.995 * self.w_avg + 0.005 * w.mean(dim=0))

    class StyledConv(nn.Module):
        def __init__(self, i: int, o: int, w_dim: int, side: int, doubled: bool) -> None:
            super().__init__()
            self.side, self.doubled = side, doubled
            self.affine = Linear(w_dim, i)
            self.weight = nn.Parameter(torch.empty(o, i, 3, 3))
            self.bias = nn.Parameter(torch.empty(o))
            self.noise_strength = nn.Parameter(torch.empty(()))
            self.register_buffer("noise_const", torch.empty(side, side))

        def forward(self, x: Any, w: Any, noise: Any) -> Any:
            style = self.affine(w)
            modulated = self.weight[None] * style[:, None, :, None, None]
            demodulation = torch.rsqrt((modulated**2).sum(dim=(2, 3, 4)) + 1e-8)
            x = x * style[:, :, None, None]
            if self.doubled:
                x = F.conv_transpose2d(x, self.weight.transpose(0, 1), stride=2)
                x = filtered(x, (1, 1, 1, 1), 4.0)
            else:
                x = F.conv2d(x, self.weight, padding=1)
            x = x * demodulation[:, :, None, None] + noise * self.noise_strength
            return activated(x, self.bias)

    class ToImage(nn.Module):
        def __init__(self, i: int, channels: int, w_dim: int) -> None:
            super().__init__()
            self.affine = Linear(w_dim, i)
            self.weight = nn.Parameter(torch.empty(channels, i, 1, 1))
            self.bias = nn.Parameter(torch.empty(channels))

        def forward(self, x: Any, w: Any) -> Any:
            style = self.affine(w) / math.sqrt(x.shape[1])
            return F.conv2d(x * style[:, :, None, None], self.weight, self.bias)

    width = {4: generator.synthesis.b4.const.shape[0]}
    size_px = generator.arguments["size_px"]
    for side in [2**n for n in range(3, 11) if 2**n <= size_px]:
        width[side] = getattr(generator.synthesis, f"b{side}").conv0.weight.shape[0]

    class Synthesis(nn.Module):
        def __init__(self, like: Any) -> None:
            super().__init__()
            for side, o in width.items():
                level = nn.Module()
                if side == 4:
                    level.const = nn.Parameter(torch.empty(o, 4, 4))
                else:
                    level.conv0 = StyledConv(width[side // 2], o, like.w_dim, side, True)
                level.conv1 = StyledConv(o, o, like.w_dim, side, False)
                level.torgb = ToImage(o, like.channels, like.w_dim)
                self.add_module(f"b{side}", level)

        def forward(self, ws: Any, noises: Sequence[Any]) -> Any:
            waiting = iter(noises)
            x = self.b4.const.repeat(len(ws), 1, 1, 1)
            image, i = None, 0
            for level in self.children():
                for name in ("conv0", "conv1"):
                    if hasattr(level, name):
                        x = getattr(level, name)(x, ws[:, i], next(waiting))
                        i += 1
                part = level.torgb(x, ws[:, i])
                image = part if image is None else up(image) + part
            return image

    class Generator(nn.Module):
        def __init__(self, like: Any) -> None:
            super().__init__()
            self.arguments, self.device = like.arguments, like.device
            self.z_dim, self.nz, self.num_ws = like.z_dim, like.nz, like.num_ws
            self.noise_sides = like.noise_sides
            self.mapping, self.synthesis = Mapping(like), Synthesis(like)
            self.load_state_dict(like.state_dict())

        def broadcast(self, w: Any) -> Any:
            return w[:, None].repeat(1, self.num_ws, 1)

    class Conv(nn.Module):
        def __init__(self, i: int, o: int, k: int, *, bias: bool = True, halved: bool = False):
            super().__init__()
            self.weight = nn.Parameter(torch.empty(o, i, k, k))
            self.bias = nn.Parameter(torch.empty(o)) if bias else None
            self.halved = halved

        def forward(self, x: Any) -> Any:
            weight = self.weight / math.sqrt(self.weight[0].numel())
            if self.bias is None:
                return F.conv2d(down(x), weight)
            if self.halved:
                x = F.conv2d(filtered(x, (2, 2, 2, 2)), weight, stride=2)
            else:
                x = F.conv2d(x, weight, padding=weight.shape[-1] // 2)
            return activated(x, self.bias)

    class Discriminator(nn.Module):
        def __init__(self, like: Any) -> None:
            super().__init__()
            self.group = like.arguments["mbstd_group"]
            for side in sorted(width, reverse=True)[:-1]:
                i, o = width[side], width[side // 2]
                level = nn.Module()
                level.conv0, level.conv1 = Conv(i, i, 3), Conv(i, o, 3, halved=True)
                level.skip = Conv(i, o, 1, bias=False, halved=True)
                if side == size_px:
                    level.fromrgb = Conv(like.channels, i, 1)
                self.add_module(f"b{side}", level)
            self.b4 = nn.Module()
            self.b4.conv = Conv(width[4] + 1, width[4], 3)
            self.b4.fc, self.b4.out = Linear(width[4] * 16, width[4]), Linear(width[4], 1)
            self.load_state_dict(like.state_dict())

        def forward(self, images: Any) -> Any:
            x = getattr(self, f"b{size_px}").fromrgb(images)
            for level in list(self.children())[:-1]:
                x = (level.conv1(level.conv0(x)) + level.skip(x)) * math.sqrt(0.5)
            groups = x.view(self.group, -1, *x.shape[1:])
            deviation = torch.sqrt(groups.var(dim=0, unbiased=False) + 1e-8).mean(dim=(1, 2, 3))
            extra = deviation.repeat(self.group).view(-1, 1, 1, 1).expand(-1, 1, 4, 4)
            x = self.b4.conv(torch.cat([x, extra], dim=1))
            x = F.leaky_relu(self.b4.fc(x.flatten(1)), 0.2) * math.sqrt(2)
            return self.b4.out(x).squeeze(1)

    return Generator(generator), Discriminator(discriminator)


class Step:
    """A training step of either version."""

    def __init__(
        self,
        setting: Setting,
        *,
        plain: bool,
        precision: str,
        device: str = "cpu",
        params: Any = None,
    ) -> None:
        import copy

        import torch

        from semforensics.generators.stylegan2_ada import training
        from semforensics.params import read_params

        file, size_px = Path(__file__).parents[1] / "params.yaml", setting.size_px
        params = params or read_params(file).train_gan.stylegan2_ada
        params = params.model_copy(
            update={"configuration": "auto", "channels": 1}
            | {"z_dim": setting.latent, "w_dim": setting.latent}
            | {"channel_base": setting.channel_base, "channel_max": 512, "batch": BATCH}
            | {"augment": "bgc", "orientation": "free", "precision": precision}
            | {"path_length_every": 4, "r1_every": 16}
        )
        configuration = training.resolve(params, size_px)
        rng = torch.Generator().manual_seed(2)
        self.reals = torch.randint(
            0, 256, (64, 1, size_px, size_px), generator=rng, dtype=torch.uint8
        )
        self.state = training.new_state(
            params, configuration, size_px, len(self.reals), 0, torch.device(device)
        )
        if plain:
            state = self.state
            networks = plain_networks(state.generator, state.discriminator)
            for network in networks:
                network.to(device)
            state.generator, state.discriminator = networks
            state.average = copy.deepcopy(state.generator).requires_grad_(False)
            every = (params.path_length_every, params.r1_every)
            state.optimizer_g, state.optimizer_d = (
                training.lazy_adam(network, configuration.lr, n)
                for network, n in zip(networks, every, strict=True)
            )
        self.take = training.take_step
        self.settings = params, configuration

    def __call__(self, kind: str) -> list[float]:
        """Take a step of this kind; give what it measured."""
        self.state.iteration = KINDS[kind]
        self.state.ada.p = P
        self.state.window.zero_()
        self.take(self.state, self.reals, *self.settings)
        return self.state.window[0].tolist()


def work(name: str, setting: Setting, threads: int) -> None:
    """Take a step of the kind that comes in; answer with seconds and losses."""
    if name == "ours":
        from semforensics.core.allocator import keep_memory

        keep_memory()
    import torch

    torch.set_num_threads(threads)
    precision = "bfloat16" if name == "ours" else "float32"
    step = Step(setting, plain=name == "plain", precision=precision)
    for line in sys.stdin:
        command, _, kind = line.strip().partition(" ")
        if command == "profile":
            print(json.dumps(profile(step)), flush=True)
            continue
        wall, processor = time.perf_counter(), time.process_time()
        found = step(kind)
        wall, processor = time.perf_counter() - wall, time.process_time() - processor
        print(json.dumps({"wall": wall, "processor": processor, "losses": found}), flush=True)


def profile(step: Step) -> list[tuple[str, float, int]]:
    """Return the operations in which a main step spends its time, with their seconds and calls."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as torch_profile

    with torch_profile(activities=[ProfilerActivity.CPU]) as run:
        step("main")
    events = sorted(run.key_averages(), key=lambda e: -e.self_cpu_time_total)
    return [(e.key, e.self_cpu_time_total / 1e6, e.count) for e in events]


class Worker:
    """A process that takes steps on request."""

    def __init__(self, name: str, setting: Setting, threads: int) -> None:
        command = [sys.executable, __file__, "--worker", name]
        command += ["--setting", str(SETTINGS.index(setting)), "--threads", str(threads)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)

    def ask(self, line: str) -> Any:
        """Return the answer to one request."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        while True:
            answer = self.process.stdout.readline()
            if not answer:
                raise RuntimeError(f"worker ended with {self.process.wait()}")
            if answer.startswith(("{", "[")):
                return json.loads(answer)

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def check_same_losses(setting: Setting, threads: int) -> float:
    """Return the largest relative difference between what both versions measure in float32."""
    worst = 0.0
    for kind in KINDS:
        # Fresh ones each time: Adam's first step has the same size for every weight, however small
        # its gradient, so rounding shows in the second.
        workers = [Worker(name, setting, threads) for name in ("plain", "ours_float32")]
        plain, ours = (worker.ask(f"step {kind}")["losses"] for worker in workers)
        for worker in workers:
            worker.close()
        error = max(abs(a - b) / max(abs(a), 0.1) for a, b in zip(plain, ours, strict=True))
        assert error < 1e-3, f"the two versions do not take the same step: {plain} {ours}"
        worst = max(worst, error)
    return worst


def measure(setting: Setting, threads: int) -> tuple[list[list[str]], list[tuple[str, float, int]]]:
    """Return table rows of both versions, and the profile of ours."""
    error = check_same_losses(setting, threads)
    print(f"{setting.title}: losses agree to {error:.1e}", flush=True)
    workers = {name: Worker(name, setting, threads) for name in ("plain", "ours")}
    times: dict[tuple[str, str], list[dict[str, float]]] = {
        (name, kind): [] for name in workers for kind in KINDS
    }
    for turn in range(setting.rounds + 1):
        for kind in KINDS:
            for name, worker in workers.items():
                answer = worker.ask(f"step {kind}")
                if turn:  # the first warms up
                    times[name, kind].append(answer)
                    print(f"{name} {kind}: {answer['wall']:.2f} s", flush=True)
    events = workers["ours"].ask("profile")
    for worker in workers.values():
        worker.close()

    rows = []
    for label in (*KINDS, "mean of sixteen"):
        row = [setting.title, label]
        for clock in ("wall", "processor"):
            plain, ours = (
                mean_of_sixteen(
                    *(statistics.median(t[clock] for t in times[name, kind]) for kind in KINDS)
                )
                if label not in KINDS
                else statistics.median(t[clock] for t in times[name, label])
                for name in ("plain", "ours")
            )
            row += [f"{plain:.2f}", f"{ours:.2f}", f"**{plain / ours:.2f}**"]
        rows.append(row)
    return rows, events


def mean_of_sixteen(main: float, fourth: float, sixteenth: float) -> float:
    """Average a step: twelve of sixteen are main ones, three have path length."""
    return (12 * main + 3 * fourth + sixteenth) / 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--worker")
    parser.add_argument("--setting", type=int)
    parser.add_argument("--only", type=int, help="index of one setting; prints, writes nothing")
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments.worker, SETTINGS[arguments.setting], arguments.threads)
        return
    import torch

    from semforensics.core.markdown import markdown_table

    load = os.getloadavg()[0]
    chosen = SETTINGS if arguments.only is None else [SETTINGS[arguments.only]]
    results = [measure(setting, arguments.threads) for setting in chosen]
    lines = [
        "# Speed of a StyleGAN2-ADA training step",
        "",
        f"Made by `python benchmarks/stylegan2_ada_step.py`: 128 px, batch {BATCH}, one",
        f"channel, 512 latents, mapping of 2 layers, augmentation bgc at p = {P}; a whole step",
        "(both networks, lazy penalties, Adam, the weight average). Straightforward: float32,",
        "NCHW, zero stuffing, default allocator. Ours: bf16 autocast, channels-last, resampling by",
        "bilinear interpolation and one filter per channel, thin layers as matrix products, kept",
        "memory. Two processes that take turns; medians of "
        f"{' and '.join(str(s.rounds) for s in chosen)} steps of each kind.",
        f"{arguments.threads} threads, {processor_name()}, Python {platform.python_version()}, "
        f"torch {torch.__version__}.",
        f"Load average before the run, so what else the machine was doing: {load:.1f}.",
        "",
        markdown_table(NAMES, [row for rows, _ in results for row in rows]),
    ]
    for setting, (_, events) in zip(chosen, results, strict=True):
        total = sum(seconds for _, seconds, _ in events)
        lines += [f"## Where the time of our main step goes: {setting.title}", ""]
        shares = [
            [n, f"{100 * s / total:.1f}", f"{s * 1e3:.0f}", str(c)] for n, s, c in events[:14]
        ]
        lines.append(markdown_table(["operation", "%", "ms", "calls"], shares))
    print("\n".join(lines))
    if arguments.only is None:
        TABLE.write_text("\n".join(lines))


def processor_name() -> str:
    """Name the processor as the kernel does."""
    info = Path("/proc/cpuinfo")
    names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
    return names[0].partition(":")[2].strip() if names else platform.machine()


if __name__ == "__main__":
    main()
