"""Score many images fast: the same network with less to compute, and files read beside it.

Nothing is trained any more, so every batch normalisation is a part of the convolution before it
(two products less at each position), three equal channels are one, and the scale of NPR stands in
the first weights. NPR of an 8-bit image is then whole numbers up to 255, which bfloat16 holds
exactly: only weights and later activations are rounded. Where that could change what is said of an
image, near the logits at which a verdict changes, it is scored in float32 as well.
"""

import copy
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from semforensics.core.images import read_crop
from semforensics.detector.networks import NPRNetwork, place
from semforensics.detector.npr import GAIN, GREY_STD, IMAGENET_STD, npr
from semforensics.detector.scoring import score_images
from semforensics.params import Precision

_LEVELS = 127.5  # grey levels in a unit of -1 … 1
_FILES = 4  # scored at a time on a thread: more is no faster
MARGIN = 0.5
"""Logits nearer than this to a border are scored in float32: five times the largest difference
between the two precisions on the 1566 test images of benchmarks/results/classifier_inference.md."""


class FoldedNetwork(nn.Module):
    """A trained network with its normalisations folded into its convolutions."""

    def __init__(self, network: NPRNetwork, precision: Precision) -> None:
        """Copy a network in eval mode.

        Args:
            network: Any of the project's.
            precision: Of weights and activations. bfloat16 changes a logit by about a hundredth.
        """
        super().__init__()
        assert not network.training, "statistics of a batch cannot be folded"
        body = copy.deepcopy(network)
        std = (GREY_STD,) if body.channels == 1 else IMAGENET_STD
        scale = body.conv1.weight.new_tensor(std).reciprocal() * (GAIN / 2 / _LEVELS)
        first = nn.Conv2d(1, body.conv1.out_channels, 3, stride=2, padding=1, bias=False)
        weight = (body.conv1.weight * scale.view(1, -1, 1, 1)).sum(dim=1, keepdim=True)
        first.weight = nn.Parameter(weight)
        body.conv1 = first.to(weight.device).eval()
        for module in list(body.modules()):
            _fold(module)
        self.dtype: torch.dtype = getattr(torch, precision)
        # `place` puts the folded convolutions into channels-last, too.
        self.body = place(body.requires_grad_(False).to(self.dtype), weight.device)

    def forward(self, images: Float[Tensor, "n 1 height width"]) -> Float[Tensor, " n"]:
        """Score grey images as `NPRNetwork` does: -1 … 1 of even size in, logits out."""
        levels = npr(images.contiguous(memory_format=torch.channels_last) * _LEVELS)
        # A single channel has one layout under two names; the last axis must be named first.
        x = levels.to(self.dtype).contiguous(memory_format=torch.channels_last)
        x = F.max_pool2d(F.relu_(self.body.conv1(x)), 3, stride=2, padding=1)
        for block in (*self.body.layer1, *self.body.layer2):
            x = _apply(block, x)
        # The mean over positions and the last product in float32, which cost nothing.
        mean = x.float().mean(dim=(2, 3))
        logits = F.linear(mean, self.body.fc1.weight.float(), self.body.fc1.bias.float())
        return logits.squeeze(1)


def _apply(block: nn.Module, x: Tensor) -> Tensor:
    """Apply a folded residual block; what nobody reads again is overwritten, not copied."""
    convs = [conv for name in ("conv1", "conv2", "conv3") if (conv := getattr(block, name, None))]
    y = x
    for conv in convs[:-1]:
        y = F.relu_(conv(y))
    y = convs[-1](y)
    return F.relu_(y.add_(block.get_submodule("downsample")(x)))


def _fold(module: nn.Module) -> None:
    """Put the normalisations that are direct parts of a module into their convolutions."""
    if isinstance(module, nn.Sequential):
        pairs = [("0", "1")] if len(module) == 2 else []
    else:
        pairs = [(f"conv{i}", f"bn{i}") for i in (1, 2, 3)]
    for conv_name, norm_name in pairs:
        conv, norm = getattr(module, conv_name, None), getattr(module, norm_name, None)
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            setattr(module, conv_name, fuse_conv_bn_eval(conv, norm))
            setattr(module, norm_name, nn.Identity())


@dataclass(frozen=True)
class CarefulNetwork:
    """Fast where the answer is clear, exact where it is not."""

    fast: FoldedNetwork
    exact: FoldedNetwork
    """Of float32, on the same device."""
    borders: tuple[float, ...]
    """Logits at which something that is said of an image changes, as `Detector.borders` gives."""

    def is_near(self, logits: Float[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
        """Say which logits are within `MARGIN` of a border."""
        away = np.abs(logits[:, None] - np.array(self.borders, dtype=np.float64))
        return np.asarray((away < MARGIN).any(axis=1))

    def score(
        self, images: UInt8[Tensor, "n 1 height width"], *, phases: int, device: torch.device
    ) -> Float[np.ndarray, " n"]:
        """Score as `score_images` does; those near a border are float32's."""
        logits = score_images(self.fast, images, phases=phases, device=device)
        near = self.is_near(logits)
        if near.any():
            again = images[torch.from_numpy(near)]
            logits[near] = score_images(self.exact, again, phases=phases, device=device)
        return logits


def score_files(
    network: FoldedNetwork | CarefulNetwork,
    paths: Iterable[Path],
    *,
    phases: int,
    device: torch.device,
) -> Iterator[tuple[Path, float]]:
    """Score 8-bit grey PNG files, some at a time on every thread.

    Each thread reads and scores on its own: on a CPU that is faster than one image on many threads,
    and no score depends on their number. Memory holds a few images for each, however many files
    there are.

    Args:
        network: On `device`.
        paths: Files of even sizes of at least 16 px.
        phases: As in `score_images`.
        device: Where the network is.

    Yields:
        Each path with its logit, in the order given.

    Raises:
        InputError: A file is no 8-bit grey PNG.
        FileNotFoundError: A file is missing.
    """
    workers = torch.get_num_threads() if device.type == "cpu" else 1
    remaining = iter(paths)
    waiting: deque[Future[list[tuple[Path, float]]]] = deque()
    with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        while True:
            while len(waiting) < 2 * workers and (some := list(islice(remaining, _FILES))):
                waiting.append(pool.submit(_score_some, network, some, phases, device))
            if not waiting:
                break
            yield from waiting.popleft().result()


def _score_some(
    network: FoldedNetwork | CarefulNetwork, paths: list[Path], phases: int, device: torch.device
) -> list[tuple[Path, float]]:
    """Read and score a few files; neighbours of one size pass the network together."""
    scored: list[tuple[Path, float]] = []
    read = ((path, read_crop(path)) for path in paths)
    for _, group in groupby(read, key=lambda one: one[1].shape):
        names, images = zip(*group, strict=True)
        batch = torch.from_numpy(np.stack(images))[:, None]
        if isinstance(network, CarefulNetwork):
            logits = network.score(batch, phases=phases, device=device)
        else:
            logits = score_images(network, batch, phases=phases, device=device)
        scored += zip(names, logits.tolist(), strict=True)
    return scored
