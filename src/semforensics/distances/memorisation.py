"""Whether a generator copied: are its fakes nearer to the training reals than other reals are?

A generator that has learned the distribution is as far from its training images as images are that
it has never seen; one that has copied them is nearer. Meehan, Chaudhuri and Dasgupta, "A
Non-Parametric Test to Detect Data-Copying in Generative Models", AISTATS 2020, arXiv:2004.05675,
compare the two with a rank test. Ours differs: one test over all images instead of one per cell,
and copies are searched over flips as well.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from scipy.stats import mannwhitneyu

from semforensics.core.types import FLIPS

# Share of reals that lie nearer to the training reals than a fake may without being listed.
SUSPICIOUS_SHARE = 0.01
NEIGHBOURS = 10  # with which the nearest real is compared


@dataclass(frozen=True)
class Twins:
    """For each image, the training real that is nearest to it, whichever way it is turned."""

    distance: Float[np.ndarray, " n"]
    """The smallest distance over all reals and flips."""
    real: Int[np.ndarray, " n"]
    flip: Int[np.ndarray, " n"]
    """Index of that flip; the first wins a tie, then the first real."""


def nearest_over_flips(distances: Float[np.ndarray, "flips n_real n"]) -> Twins:
    """Find the nearest real of every image, over all flips."""
    _, n_real, n = distances.shape
    best = distances.reshape(-1, n).argmin(axis=0)
    flip, real = np.divmod(best, n_real)
    return Twins(distances[flip, real, np.arange(n)], real, flip)


def relative_to_next(distances: Float[np.ndarray, "flips n_real n"]) -> Float[np.ndarray, " n"]:
    """Divide every image's smallest distance by its mean distance from the next ten reals.

    Towards 0 for a copy, which is near to one real only; about 1 for an image such as plain ground,
    which is near to many. Carlini et al., "Extracting Training Data from Diffusion Models", USENIX
    Security 2023, arXiv:2301.13188, section 5.1, tell copies in this way.

    Returns:
        0 … 1; 1 where the next reals are as near, or where there are none.
    """
    per_real = np.sort(distances.min(axis=0), axis=0)
    smallest, others = per_real[0], per_real[1 : NEIGHBOURS + 1]
    mean = others.mean(axis=0) if len(others) else smallest
    relative: Float[np.ndarray, " n"] = np.divide(
        smallest, mean, out=np.ones_like(smallest), where=mean > smallest
    )
    return relative


def without_itself(
    distances: Float[np.ndarray, "flips n_real n_real"],
) -> Float[np.ndarray, "flips n_real n_real"]:
    """Put every real infinitely far from itself, however it is turned."""
    others = distances.copy()
    others[:, np.arange(others.shape[1]), np.arange(others.shape[1])] = np.inf
    return others


def threshold(references: Float[np.ndarray, " n_reference"]) -> float:
    """Return the first percentile of the distances of reals from their nearest training real.

    With fewer than 100 of them it lies between the two smallest.
    """
    return float(np.quantile(references, SUSPICIOUS_SHARE))


@dataclass(frozen=True)
class Measured:
    """One kind of distance between the training reals and everything else."""

    to_fakes: Float[np.ndarray, "flips n_real n_fake"]
    to_others: Float[np.ndarray, "flips n_real n_other"]
    """Infinite between a real and itself, where the others are the training reals themselves."""


def memorisation_table(
    reals: Sequence[str],
    others: Sequence[str],
    fakes: Sequence[str],
    measured: Mapping[str, Measured],
) -> pd.DataFrame:
    """Return the training real nearest to every fake and every other real, and how it is turned.

    Returns:
        `kind` (fake or real), `file`, and for each distance `<name>`, `<name>_nearest`,
        `<name>_flip` and, of fakes alone, `<name>_relative`: see `relative_to_next`.
    """
    flips = list(FLIPS)
    parts = []
    for kind, files in (("fake", fakes), ("real", others)):
        part = pd.DataFrame({"kind": kind, "file": list(files)})
        for name, distances in measured.items():
            found = nearest_over_flips(
                distances.to_fakes if kind == "fake" else distances.to_others
            )
            part[name] = found.distance
            part[f"{name}_nearest"] = [reals[index] for index in found.real]
            part[f"{name}_flip"] = [flips[index] for index in found.flip]
        parts.append(part)
    for name, distances in measured.items():
        parts[0][f"{name}_relative"] = relative_to_next(distances.to_fakes)
    return pd.concat(parts, ignore_index=True)


def suspicious_fakes(table: pd.DataFrame, thresholds: Mapping[str, float]) -> pd.DataFrame:
    """List the fakes below a threshold and by which distances, the most alone with its real first.

    A threshold of 0, between reals that are equal, is met by a copy. The table is that of
    `memorisation_table`.
    """
    fakes = table[table["kind"] == "fake"].drop(columns="kind")
    below = pd.DataFrame(
        {name: (fakes[name] < limit) | (fakes[name] == 0) for name, limit in thresholds.items()}
    )
    fakes.insert(1, "by", [" and ".join(below.columns[row]) for row in below.to_numpy()])
    alone = fakes[[f"{name}_relative" for name in thresholds]].min(axis=1)
    order = alone[below.any(axis=1)].sort_values(kind="stable").index
    return fakes.loc[order]


def memorisation_numbers(
    table: pd.DataFrame, thresholds: Mapping[str, float], *, held_out: bool
) -> dict[str, float | str]:
    """Return what the metrics file says of copies, from the table of `memorisation_table`.

    Where the other reals are not `held_out` from the generator, there is nothing to test against.
    """
    is_fake = table["kind"] == "fake"
    numbers: dict[str, float | str] = {
        "memorisation": "against held-out reals"
        if held_out
        else "not tested: the protocol holds out no reals"
    }
    for name, limit in thresholds.items():
        fakes, reals = table.loc[is_fake, name].to_numpy(), table.loc[~is_fake, name].to_numpy()
        numbers[f"{name}_first_percentile_real_to_real"] = limit
        if held_out:
            nearer, p_value = copying_test(fakes, reals)
            numbers |= {
                f"memorisation_{name}_share_fakes_nearer": nearer,
                f"memorisation_{name}_p_value": p_value,
                f"memorisation_{name}_median_fakes": float(np.median(fakes)),
                f"memorisation_{name}_median_held_out": float(np.median(reals)),
            }
    return numbers


def copying_test(
    fakes: Float[np.ndarray, " n_fake"], held_out: Float[np.ndarray, " n_held_out"]
) -> tuple[float, float]:
    """Ask whether fakes are nearer to the training reals than held-out reals are.

    Returns:
        The probability that a fake is nearer than a held-out real, ties counting half: 0.5 without
        copying, towards 1 with it; and the one-sided p-value of Mann and Whitney's test. That takes
        images for independent, which crops of one micrograph are not: it is too small.
    """
    statistic, p_value = mannwhitneyu(held_out, fakes, alternative="greater")
    return float(statistic / (len(fakes) * len(held_out))), float(p_value)
