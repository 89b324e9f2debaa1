"""What a Grad-CAM map is worth: does it depend on the weights, and how compact is it?

Adebayo et al., "Sanity Checks for Saliency Maps", NeurIPS 2018, arXiv:1810.03292, section 3: a map
that stays the same when weights become random explains the image, not the network. Their cascading
randomisation runs from the logit down. Ours differs: several draws are averaged, because one random
last layer reverses the sign of the evidence or does not, by chance.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from scipy.stats import rankdata
from torch import Tensor

from semforensics.detector.gradcam import SIGNS, ImageClass, explain_images
from semforensics.detector.networks import NetworkName, NPRNetwork, build_network
from semforensics.trials.intervals import Interval, cluster_resamples, percentile_interval

STEPS = ("fc1", "layer2", "layer1", "stem")
"""The parts whose weights become random, one after the other, each on top of those before it."""

MAX_CORRELATION = 0.5
"""Of maps before and after all weights become random, on average. Adebayo et al. give no number;
at a rank correlation of one half a quarter of the ranks' variance is still shared."""

ClaimResult = Literal["supported", "not supported", "undecided"]
Shares = dict[ImageClass, Float[np.ndarray, " _"]]
"""For each class what `half_mass_share` returns."""

_DRAWS = 5  # of random weights; one draw may by chance agree with the trained ones
_PARTS = {step: (step,) for step in STEPS} | {"stem": ("conv1", "bn1")}


def randomised(network: NPRNetwork, name: NetworkName, last_step: str, seed: int) -> NPRNetwork:
    """Copy a network, with random weights from the logit down to `last_step`, one of `STEPS`.

    A seed draws the same weights whatever the step; random normalisations have mean 0, variance 1.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = build_network(name, network.channels).state_dict()
    drawn = [part for step in STEPS[: STEPS.index(last_step) + 1] for part in _PARTS[step]]
    changed = copy.deepcopy(network)
    state = network.state_dict()
    changed.load_state_dict(
        {key: fresh[key] if key.split(".")[0] in drawn else state[key] for key in state}
    )
    return changed.eval()


def rank_correlation(
    before: Float[Tensor, "n map_height map_width"], after: Float[Tensor, "n map_height map_width"]
) -> Float[np.ndarray, " n"]:
    """Return Spearman's rank correlation of each map with its changed one; ties share a mean rank.

    Returns:
        -1 … 1; 0 where the changed map is constant, NaN where the first one is: there was nothing
        to lose.
    """
    ranks = []
    for maps in (before, after):
        ranked = rankdata(maps.flatten(1).numpy(), axis=1)
        ranks.append(ranked - ranked.mean(axis=1, keepdims=True))
    one, two = ranks  # [n, map_height * map_width]
    norms = [np.sqrt((r**2).sum(axis=1)) for r in ranks]
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation = (one * two).sum(axis=1) / (norms[0] * norms[1])
    correlation = np.where(norms[1] == 0, 0.0, correlation)
    result: Float[np.ndarray, " n"] = np.where(norms[0] == 0, np.nan, correlation)
    return result


def half_mass_share(
    maps: Float[Tensor, "n map_height map_width"],
) -> Float[np.ndarray, " n"]:
    """Return the smallest share of a map's pixels that holds half of its sum.

    The last pixel counts by the part of it that is needed, so a constant map has exactly 0.5. Maps
    are 0 or more, at the layer's own resolution: up-sampling would spread every peak.

    Returns:
        Above 0, at most 0.5, smaller is more compact; NaN for a map that is zero everywhere.
    """
    values = -np.sort(-maps.flatten(1).double().numpy(), axis=1)  # float64: sums are compared
    sums = values.cumsum(axis=1)
    half = sums[:, -1:] / 2
    whole = (sums < half).sum(axis=1)  # pixels that are needed as a whole
    rows = np.arange(len(values))
    last = values[rows, whole]
    before = sums[rows, whole] - last
    with np.errstate(invalid="ignore", divide="ignore"):
        part = (half[:, 0] - before) / last
    share: Float[np.ndarray, " n"] = (whole + part) / values.shape[1]
    return np.where(sums[:, -1] == 0, np.nan, share)


def mean_resamples(
    values: Float[np.ndarray, " n"],
    groups: list[str],
    resamples: int,
    rng: np.random.Generator,
) -> tuple[float, Float[np.ndarray, " resamples"]]:
    """Return the mean of the known values, and its means over a bootstrap by whole groups.

    NaN is an unknown value; the results are NaN where none is known.
    """
    known = ~np.isnan(values)
    if not known.any():
        return float("nan"), np.full(resamples, np.nan)
    clusters = np.unique(np.array(groups)[known], return_inverse=True)[1]
    weights = cluster_resamples(clusters, resamples, rng)
    means: Float[np.ndarray, " resamples"] = (weights * values[known]).sum(axis=1)
    return float(values[known].mean()), means / weights.sum(axis=1)


def decide_claim(difference: Interval) -> ClaimResult:
    """Decide "reals are compact, fakes are broad" by the interval of real minus fake.

    A compact map holds half of its mass in few pixels, so the claim says that the difference is
    below 0.
    """
    low, high = difference
    if high < 0:
        return "supported"
    return "not supported" if low > 0 else "undecided"


def join_results(results: Sequence[ClaimResult]) -> ClaimResult:
    """Decide the claim over both signs of the evidence.

    A claim about images must hold for both signs. If the result changes with the sign, it is a
    property of the maps.
    """
    if "not supported" in results:
        return "not supported"
    return "undecided" if "undecided" in results else "supported"


def compare_compactness(
    shares: Shares, groups: dict[ImageClass, list[str]], resamples: int, seed: int
) -> dict[str, Any]:
    """Compare how compact the maps of two classes are, resampled separately, by group.

    Returns:
        Mean share of each class and the difference real - fake, each with its 95 % interval (NaN
        where a class has no map with mass), counts of zero maps, and under `verdict` whether reals
        are compact and fakes broad.
    """
    rng = np.random.default_rng(seed)
    drawn = {c: mean_resamples(shares[c], groups[c], resamples, rng) for c in SIGNS}
    numbers: dict[str, Any] = {}
    for image_class, (mean, resampled) in drawn.items():
        numbers |= _with_interval(image_class, mean, percentile_interval(resampled))
        numbers[f"zero_{image_class}"] = int(np.isnan(shares[image_class]).sum())
    interval = percentile_interval(drawn["real"][1] - drawn["fake"][1])
    numbers |= _with_interval("difference", drawn["real"][0] - drawn["fake"][0], interval)
    return numbers | {"verdict": decide_claim(interval)}


def _with_interval(name: str, value: float, interval: Interval) -> dict[str, float]:
    return {name: value, f"{name}_low": interval[0], f"{name}_high": interval[1]}


@dataclass(frozen=True)
class Control:
    """How maps changed when weights became random."""

    steps: list[dict[str, Any]]
    """Per lowest part with random weights: the mean rank correlation of both classes, with
    intervals; NaN where no map had mass."""
    passed: bool
    """The correlation of both classes is clearly low once all weights are random."""
    examples: dict[ImageClass, Float[Tensor, "steps map_height map_width"]]
    """Of the first image of each class: the trained map, then one per step of the first draw."""


def randomisation_control(
    network: NPRNetwork,
    name: NetworkName,
    images: dict[ImageClass, UInt8[Tensor, "_ 1 height width"]],
    groups: dict[ImageClass, list[str]],
    resamples: int,
    seed: int,
    device: torch.device,
) -> Control:
    """Make the weights random from the logit down, and compare each class's own maps.

    A map that was zero before is left out, one that is zero afterwards counts as uncorrelated.
    `images` are grey levels of each class, and `groups` what each belongs to.
    """
    trained = {c: explain_images(network, images[c], SIGNS[c], device) for c in SIGNS}
    examples = {c: [maps[0]] for c, maps in trained.items()}
    steps: list[dict[str, Any]] = []
    for step in STEPS:
        numbers: dict[str, Any] = {"fresh_from_logit_to": step}
        random = [randomised(network, name, step, seed + draw) for draw in range(_DRAWS)]
        rng = np.random.default_rng(seed)
        for c, sign in SIGNS.items():
            maps = [explain_images(other, images[c], sign, device) for other in random]
            examples[c].append(maps[0][0])
            per_image = np.mean([rank_correlation(trained[c], changed) for changed in maps], axis=0)
            mean, resampled = mean_resamples(per_image, groups[c], resamples, rng)
            numbers |= _with_interval(c, mean, percentile_interval(resampled))
        steps.append(numbers)
    # A class without any map has NaN here, and does not pass.
    passed = all(steps[-1][f"{c}_high"] < MAX_CORRELATION for c in SIGNS)
    return Control(steps, passed, {c: torch.stack(maps) for c, maps in examples.items()})
