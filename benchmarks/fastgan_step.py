"""Time a FastGAN training step against a straightforward float32 version of the same step.

    python benchmarks/fastgan_step.py

writes benchmarks/results/fastgan_step.md. The straightforward version is what one writes from the
paper: nearest upsampling and a convolution, torch's own spectral normalisation, a gated linear
unit on slices, NCHW, float32, one perceptual pass per image, the default allocator. Both run in
processes of their own, since an allocator's settings hold for a whole process, and take turns, so
that a busy machine slows both. Before anything is timed, one step of each in float32 on the same
weights, images and random numbers must give the same losses.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

TABLE = Path(__file__).parent / "results" / "fastgan_step.md"
NAMES = ("", "straightforward, s", "ours, s", "ratio")
NAMES += ("straightforward, CPU s", "ours, CPU s", "ratio")


@dataclass(frozen=True)
class Setting:
    """Sizes of networks and images."""

    title: str
    size_px: int
    ngf: int
    ndf: int
    nz: int
    net: str
    rounds: int


SETTINGS = (
    Setting("256 px, ngf 64, VGG loss", 256, 64, 64, 256, "vgg", 5),
    Setting("the demo's sizes: 64 px, ngf 16, ndf 16, AlexNet loss", 64, 16, 16, 64, "alex", 15),
)
BATCH = 8


def plain_networks(setting: Setting) -> tuple[Any, Any]:
    """Return generator and discriminator as one writes them down, under the public names."""
    import torch
    from torch import nn
    from torch.nn.utils import spectral_norm

    def conv(*arguments: int) -> nn.Module:
        return spectral_norm(nn.Conv2d(*arguments, bias=False))

    class GLU(nn.Module):
        def forward(self, x: Any) -> Any:
            half = x.size(1) // 2
            return x[:, :half] * torch.sigmoid(x[:, half:])

    class Noise(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, x: Any) -> Any:
            return x + self.weight * self.drawn

    def up(i: int, o: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Upsample(scale_factor=2), conv(i, 2 * o, 3, 1, 1), nn.BatchNorm2d(2 * o), GLU()
        )

    def up_comp(i: int, o: int) -> nn.Sequential:
        layers = [nn.Upsample(scale_factor=2), conv(i, 2 * o, 3, 1, 1)]
        layers += [Noise(), nn.BatchNorm2d(2 * o), GLU(), conv(o, 2 * o, 3, 1, 1)]
        return nn.Sequential(*layers, Noise(), nn.BatchNorm2d(2 * o), GLU())

    class SLE(nn.Module):
        def __init__(self, low: int, high: int) -> None:
            super().__init__()
            squeeze = [nn.AdaptiveAvgPool2d(4), conv(low, high, 4), nn.SiLU()]
            self.main = nn.Sequential(*squeeze, conv(high, high, 1), nn.Sigmoid())

        def forward(self, low: Any, high: Any) -> Any:
            return high * self.main(low)

    w = {4: 16, 8: 8, 16: 4, 32: 2, 64: 2, 128: 1, 256: 0.5, 512: 0.25}
    sides = [side for side in w if side <= setting.size_px]
    w = {side: int(factor * setting.ngf) for side, factor in w.items()}
    small_px = min(128, setting.size_px // 2)

    class Generator(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            first = spectral_norm(nn.ConvTranspose2d(setting.nz, 2 * w[4], 4, bias=False))
            self.init = nn.Sequential(first, nn.BatchNorm2d(2 * w[4]), GLU())
            self.feat, self.se = nn.ModuleDict(), nn.ModuleDict()
            for side in sides[1:]:
                block = up_comp if side in (8, 32, 128, 512) else up
                self.feat[str(side)] = block(w[side // 2], w[side])
            for side in sides:
                if side >= 64:
                    self.se[str(side)] = SLE(w[side // 16], w[side])
            self.to_small = conv(w[small_px], 1, 1)
            self.to_big = conv(w[setting.size_px], 1, 3, 1, 1)

        def forward(self, z: Any, noises: Any) -> Any:
            places = [m for m in self.modules() if isinstance(m, Noise)]
            for place, noise in zip(places, noises, strict=True):
                place.drawn = noise
            x = self.init(z[:, :, None, None])
            maps = {4: x}
            for side in sides[1:]:
                x = self.feat[str(side)](x)
                if side >= 64:
                    x = self.se[str(side)](maps[side // 16], x)
                maps[side] = x
            return torch.tanh(self.to_big(x)), torch.tanh(self.to_small(maps[small_px]))

    def leaky() -> nn.Module:
        return nn.LeakyReLU(0.2)

    class Down(nn.Module):
        def __init__(self, i: int, o: int) -> None:
            super().__init__()
            self.main = nn.Sequential(conv(i, o, 4, 2, 1), nn.BatchNorm2d(o), leaky())

        def forward(self, x: Any) -> Any:
            return self.main(x)

    class DownComp(nn.Module):
        def __init__(self, i: int, o: int) -> None:
            super().__init__()
            layers = [conv(i, o, 4, 2, 1), nn.BatchNorm2d(o), leaky(), conv(o, o, 3, 1, 1)]
            self.main = nn.Sequential(*layers, nn.BatchNorm2d(o), leaky())
            self.direct = nn.Sequential(nn.AvgPool2d(2), conv(i, o, 1), nn.BatchNorm2d(o), leaky())

        def forward(self, x: Any) -> Any:
            return (self.main(x) + self.direct(x)) / 2

    class Decoder(nn.Module):
        def __init__(self, channels: int) -> None:
            super().__init__()
            doublings = (small_px // 8).bit_length() - 1
            widths = [channels, *(128, 64, 64)[: doublings - 1], 32]
            ups = [up(i, o) for i, o in pairwise(widths)]
            layers = [nn.AdaptiveAvgPool2d(8), *ups, conv(32, 1, 3, 1, 1), nn.Tanh()]
            self.main = nn.Sequential(*layers)

        def forward(self, x: Any) -> Any:
            return self.main(x)

    d = {2**n: int(2 ** (10 - n) / 8 * setting.ndf) for n in range(4, 11)}
    d |= {8: 16 * setting.ndf, 16: 8 * setting.ndf}

    class Discriminator(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            entry = min(setting.size_px, 256)
            first = (4, 2, 1) if setting.size_px == 512 else (3, 1, 1)
            self.down_from_big = nn.Sequential(conv(1, d[2 * entry], *first), leaky())
            self.down, self.se = nn.ModuleDict(), nn.ModuleDict()
            for side in (128, 64, 32, 16, 8):
                if side < entry:
                    self.down[str(512 // side)] = DownComp(d[4 * side], d[2 * side])
                if side <= 32 and 8 * side <= entry:
                    self.se[str(512 // side)] = SLE(d[16 * side], d[2 * side])
            head = [conv(d[16], d[8], 1), nn.BatchNorm2d(d[8]), leaky(), conv(d[8], 1, 4)]
            self.rf_big = nn.Sequential(*head)
            downs = [Down(d[8 * s], d[4 * s]) for s in (32, 16, 8) if 4 * s <= small_px]
            self.down_from_small = nn.Sequential(conv(1, d[2 * small_px], 4, 2, 1), leaky(), *downs)
            self.rf_small = conv(d[32], 1, 4)
            self.decoder_big, self.decoder_small = Decoder(d[16]), Decoder(d[32])
            self.decoder_part = Decoder(d[32])

        def forward(self, big: Any, small: Any, quadrant: int | None = None) -> Any:
            x = self.down_from_big(big)
            maps = {min(setting.size_px, 256): x}
            for level, block in self.down.items():
                x = block(x)
                side = 512 // int(level)
                if level in self.se:
                    x = self.se[level](maps[8 * side], x)
                maps[side] = x
            s = self.down_from_small(small)
            logits = torch.cat([self.rf_big(x).flatten(), self.rf_small(s).flatten()])
            if quadrant is None:
                return logits
            row, column = divmod(quadrant, 2)
            quarter = maps[16][:, :, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
            images = self.decoder_big(x), self.decoder_small(s), self.decoder_part(quarter)
            return logits, images

    return Generator(), Discriminator()


class Plain:
    """The straightforward step."""

    def __init__(
        self, setting: Setting, weights: Path, device: str = "cpu", params: Any = None
    ) -> None:
        import torch

        prepared = prepare(setting, weights, "float32", device, params)
        self.state, self.reals, self.lpips, self.params = prepared
        self.generator, self.discriminator = plain_networks(setting)
        for ours, plain in (
            (self.state.generator, self.generator),
            (self.state.discriminator, self.discriminator),
        ):
            state = {n.replace("weight_orig", "weight"): n for n in plain.state_dict()}
            plain.load_state_dict({state[n]: t for n, t in ours.state_dict().items()})
            plain.to(device)
        self.average = [p.detach().clone() for p in self.generator.parameters()]
        self.optimizer_g, self.optimizer_d = (
            torch.optim.Adam(network.parameters(), self.params.lr, (0.5, 0.999))
            for network in (self.generator, self.discriminator)
        )
        self.iteration = 0

    def __call__(self) -> list[float]:
        """Take a step with the random numbers, in the order, in which ours draws them."""
        import torch
        import torch.nn.functional as F

        from semforensics.generators.common.reals import take
        from semforensics.generators.common.sampling import draw_inputs
        from semforensics.generators.fastgan import losses, training

        rng = self.state.rng
        device = self.lpips.shift.device
        x = take(self.reals, self.state.sampler.take(BATCH), 1, flip=True, rng=rng).to(device)
        big, small = self.generator(*draw_inputs(self.state.generator, BATCH, rng))
        reals = training.augment_reals(x, rng, reference=False)
        fakes = training.augment_fakes(training.Pair(big, small), rng, reference=False)

        self.discriminator.zero_grad()
        quadrant = int(torch.randint(4, (), generator=rng))
        logits, images = self.discriminator(*reals, quadrant)
        whole, part = training.targets(reals, quadrant, reference=False)
        pairs = zip(images, (whole, whole, part), strict=True)
        reconstruction = sum(self.lpips(a, b).mean() for a, b in pairs)
        margins = losses.draw_margins(logits.numel(), rng).to(device)
        hinge = F.relu(margins - logits).mean()
        (hinge + self.params.reconstruction_weight * reconstruction).backward()
        logits = self.discriminator(*(scale.detach() for scale in fakes))
        margins = losses.draw_margins(logits.numel(), rng).to(device)
        fake = F.relu(margins + logits).mean()
        fake.backward()
        self.optimizer_d.step()

        self.generator.zero_grad()
        loss = -self.discriminator(*fakes).mean()
        loss.backward()
        self.optimizer_g.step()
        decay = min(0.999, (1 + self.iteration) / (10 + self.iteration))
        with torch.no_grad():
            for average, live in zip(self.average, self.generator.parameters(), strict=True):
                average.mul_(decay).add_(live, alpha=1 - decay)
        self.iteration += 1
        return [float(v.detach()) for v in (hinge, fake, reconstruction, loss)]


class Ours:
    """The project's step."""

    def __init__(
        self,
        setting: Setting,
        weights: Path,
        precision: str = "bfloat16",
        device: str = "cpu",
        params: Any = None,
    ) -> None:
        self.arguments = prepare(setting, weights, precision, device, params)

    def __call__(self) -> list[float]:
        """Take a step."""
        from semforensics.generators.fastgan.training import take_step

        state = self.arguments[0]
        state.window.zero_()
        take_step(*self.arguments)
        return state.window[0, :4].tolist()


def prepare(
    setting: Setting, weights: Path, precision: str, device: str = "cpu", params: Any = None
) -> tuple[Any, Any, Any, Any]:
    """Return fresh networks, random images, LPIPS and parameters, the same in every process.

    `params` are of params.yaml unless they are given.
    """
    import torch

    from semforensics.generators.fastgan.training import new_state
    from semforensics.params import read_params
    from semforensics.perceptual.lpips import LPIPS

    file = Path(__file__).parents[1] / "params.yaml"
    params = params or read_params(file).train_gan.fastgan
    params = params.model_copy(
        update={"channels": 1, "ngf": setting.ngf, "ndf": setting.ndf, "nz": setting.nz}
        | {"batch": BATCH, "flip": True, "tanh": True, "precision": precision, "compile": False}
        | {"perceptual_net": setting.net, "reference": False, "r1_gamma": 0}
    )
    file = weights / f"{setting.net}.safetensors"
    torch.manual_seed(1)
    lpips = LPIPS.load(file) if file.is_file() else LPIPS(setting.net)  # type: ignore[arg-type]
    rng = torch.Generator().manual_seed(2)
    shape = (64, 1, setting.size_px, setting.size_px)
    reals = torch.randint(0, 256, shape, generator=rng, dtype=torch.uint8)
    state = new_state(params, setting.size_px, len(reals), 0, torch.device(device))
    return state, reals, lpips.to(device), params


def work(name: str, setting: Setting, weights: Path, threads: int) -> None:
    """Take a step whenever a line comes in; answer with wall and processor seconds and losses."""
    if name == "ours":
        from semforensics.core.allocator import keep_memory

        keep_memory()
    import torch

    torch.set_num_threads(threads)
    match name:
        case "plain":
            step: Any = Plain(setting, weights)
        case "ours":
            step = Ours(setting, weights)
        case _:
            step = Ours(setting, weights, "float32")
    for line in sys.stdin:
        if line.strip() == "profile":
            print(json.dumps(profile(step)), flush=True)
            continue
        wall, processor = time.perf_counter(), time.process_time()
        found = step()
        wall, processor = time.perf_counter() - wall, time.process_time() - processor
        print(json.dumps({"wall": wall, "processor": processor, "losses": found}), flush=True)


def profile(step: Any) -> list[tuple[str, float, int]]:
    """Return the operations in which a step spends its time, with their seconds and calls."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as torch_profile

    with torch_profile(activities=[ProfilerActivity.CPU]) as run:
        step()
    events = sorted(run.key_averages(), key=lambda e: -e.self_cpu_time_total)
    return [(e.key, e.self_cpu_time_total / 1e6, e.count) for e in events]


class Worker:
    """A process that takes steps on request."""

    def __init__(self, name: str, setting: Setting, weights: Path, threads: int) -> None:
        command = [sys.executable, __file__, "--worker", name, "--weights", str(weights)]
        command += ["--setting", str(SETTINGS.index(setting)), "--threads", str(threads)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)

    def ask(self, line: str = "step") -> Any:
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


def check_same_losses(setting: Setting, weights: Path, threads: int) -> float:
    """Return the largest relative difference between the losses of both versions in float32."""
    workers = [Worker(name, setting, weights, threads) for name in ("plain", "ours_float32")]
    # One step: Adam's first one has the same size for every weight, however small its gradient, so
    # rounding shows in the second.
    plain, ours = (worker.ask()["losses"] for worker in workers)
    for worker in workers:
        worker.close()
    error = max(abs(a - b) / max(abs(a), 0.1) for a, b in zip(plain, ours, strict=True))
    assert error < 1e-3, f"the two versions do not take the same step: {plain} {ours}"
    return error


def measure(setting: Setting, weights: Path, threads: int) -> tuple[list[str], list[list[str]]]:
    """Return table rows of both versions, and the profile of ours."""
    error = check_same_losses(setting, weights, threads)
    print(f"{setting.title}: losses agree to {error:.1e}", flush=True)
    workers = {name: Worker(name, setting, weights, threads) for name in ("plain", "ours")}
    for worker in workers.values():
        worker.ask()
        worker.ask()
    times: dict[str, list[dict[str, float]]] = {name: [] for name in workers}
    for _ in range(setting.rounds):
        for name, worker in workers.items():
            times[name].append(worker.ask())
            print(name, f"{times[name][-1]['wall']:.2f} s", flush=True)
    events = workers["ours"].ask("profile")
    for worker in workers.values():
        worker.close()

    def median(name: str, kind: str) -> float:
        return statistics.median(t[kind] for t in times[name])

    row = [setting.title]
    for kind in ("wall", "processor"):
        plain, ours = median("plain", kind), median("ours", kind)
        row += [f"{plain:.2f}", f"{ours:.2f}", f"**{plain / ours:.2f}**"]
    total = sum(seconds for _, seconds, _ in events)
    shares = [[n, f"{100 * s / total:.1f}", f"{s * 1e3:.0f}", str(c)] for n, s, c in events[:14]]
    return row, shares


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--weights", type=Path, default=Path("data/pretrained"))
    parser.add_argument("--worker")
    parser.add_argument("--setting", type=int)
    parser.add_argument("--only", type=int, help="index of one setting; prints, writes nothing")
    arguments = parser.parse_args()
    if arguments.worker:
        setting = SETTINGS[arguments.setting]
        work(arguments.worker, setting, arguments.weights, arguments.threads)
        return
    import torch

    from semforensics.core.markdown import markdown_table

    load = os.getloadavg()[0]
    chosen = SETTINGS if arguments.only is None else [SETTINGS[arguments.only]]
    with tempfile.TemporaryDirectory():
        results = [measure(s, arguments.weights, arguments.threads) for s in chosen]
    random = [s.net for s in chosen if not (arguments.weights / f"{s.net}.safetensors").is_file()]
    lines = [
        "# Speed of a FastGAN training step",
        "",
        "Made by `python benchmarks/fastgan_step.py`: batch 8, one channel, a whole step (both",
        "networks, three reconstructions, the weight average). Straightforward: float32, NCHW,",
        "default allocator. Ours: bf16 autocast, channels-last, composed upsampling, batched",
        "perceptual passes, kept memory. Two processes that take turns; medians of "
        f"{' and '.join(str(s.rounds) for s in chosen)} steps.",
        f"{arguments.threads} threads, {processor_name()}, Python {platform.python_version()}, "
        f"torch {torch.__version__}.",
        f"Load average before the run, so what else the machine was doing: {load:.1f}.",
        *([f"Perceptual nets of random weights, at the same cost: {random}."] if random else []),
        "",
        markdown_table(NAMES, [row for row, _ in results]),
    ]
    for setting, (_, shares) in zip(chosen, results, strict=True):
        lines += [f"## Where the time of our step goes: {setting.title}", ""]
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
