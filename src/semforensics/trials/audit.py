"""The shortcut audit: gates that a detector passes if it scores images, not their history.

1. One-sided processing. Processing one class alone costs hardly more than processing both.
2. Controls. Noise, and reals with random phases, are neither real nor fake: "inconclusive".
3. Permuted labels. A training on labels without meaning learns nothing that holds on the test
   split; where groups are in several splits, it does.

A red gate does not stop the pipeline: a detector is audited in order to be shown with its faults.
`release.check_release` is what refuses.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from scipy.stats import rankdata
from torch import Tensor

from semforensics.core.device import seed_everything
from semforensics.core.errors import InputError
from semforensics.core.files import atomic_folder, sha256_of, write_json
from semforensics.core.images import read_crop
from semforensics.core.processing import gaussian_blur, gaussian_noise, jpeg
from semforensics.core.training import Setup, clear_scratch
from semforensics.detector.calibration import Scores
from semforensics.detector.conformal import calibration_sizes
from semforensics.detector.corpus import (
    LabelledImages,
    draw_evenly,
    draw_test_split,
    draw_training_split,
    load_images,
)
from semforensics.detector.domain import DOMAIN_FILE, phase_randomised
from semforensics.detector.networks import build_network, to_device
from semforensics.detector.perturbations import resize
from semforensics.detector.scoring import MODEL_FILE, score_images
from semforensics.detector.training import train_network
from semforensics.figures.audit import audit_markdown, gates_figure
from semforensics.figures.style import save_figure
from semforensics.params import AuditShortcutsParams, TrainClassifierParams
from semforensics.trials.intervals import labels_and_groups, paired_difference, wilson_interval
from semforensics.trials.metrics import auroc
from semforensics.trials.pixel_features import feature_table, pixel_features
from semforensics.trials.under_test import DetectorUnderTest

Grey = UInt8[np.ndarray, "height width"]
Images = UInt8[Tensor, "n 1 height width"]
Score = Callable[[Images], Scores]
"""Of images; positive means fake."""

MAX_ONE_SIDED_EXCESS = 0.05
"""Of the AUROC: processing one class alone may reverse the order of at most one pair in twenty more
than processing both does."""

_NULL_DRAWS = 2000  # of test labels; 1 % in both tails together are ten draws at each end
_NULL_TAIL = 0.005  # one honest training in a hundred is called red by chance
_JPEG_QUALITY, _BLUR_SIGMA_PX, _NOISE_SIGMA, _SHRINK = 90, 0.5, 2.0, 0.9  # hardly seen by eye


@dataclass(frozen=True)
class Gate:
    """The result of one test."""

    name: str
    passed: bool
    value: float | None
    """None where the test could not be made, which is no pass."""
    low: float | None
    """Of the 95 % interval; of permuted labels, 99 %."""
    high: float | None
    bound: float
    rule: str
    """How value, interval and bound decide."""
    remark: str


def audit_shortcuts(
    tested: DetectorUnderTest,
    metrics: Path,
    plots: Path,
    *,
    params: AuditShortcutsParams,
    geometry: str,
    train: TrainClassifierParams,
    scratch: Path,
) -> str:
    """Test a classifier for shortcuts; return one line per gate, and one that counts the red ones.

    Writes the gates and their model to the JSON file `metrics`, and gates.csv, pixel_features.csv,
    gates.png and gates.md to the folder `plots`. `geometry` is how the reals were cut, which
    `release.check_release` reads; `train` is the recipe of the training with permuted labels. All
    draws take the seed of the corpus, except that of the test split, which takes the model's.

    Raises:
        InputError: Images differ in size.
        FileNotFoundError: Images are missing.
    """
    seed, resamples = tested.corpus.seed, params.bootstrap_resamples
    few = at_most(tested.test, params.max_images, seed)
    gates = [
        processing_gate(tested.detector.logits, few, resamples, seed),
        control_gate(tested, params.num_controls),
        permutation_gate(
            tested.listing,
            tested.meta["seed"],
            train.model_copy(update={"epochs": params.permuted_epochs}),
            params.num_permutations,
            seed,
            scratch,
            tested.detector.device,
        ),
    ]
    # No gate: how well traces in the pixels of all images tell the classes.
    paths = map(Path, tested.listing["path"])
    rows = pd.DataFrame([pixel_features(read_crop(p), p.stat().st_size) for p in paths])
    pixels = feature_table(rows, *labels_and_groups(tested.listing), resamples, seed)

    write_json(metrics, summarise(tested, gates, geometry))
    meta = tested.meta
    source = (
        f"{meta['network']}, detector {tested.name}, protocol {meta['protocol']}, "
        f"data: {meta['data']}"
    )
    _write_plots(plots, gates, pixels, source)
    for number in range(params.num_permutations):  # nothing is left to resume
        clear_scratch(scratch / f"permutation_{number}")
    clear_scratch(scratch)
    lines = [f"{'green' if gate.passed else 'RED'}: {gate.name}: {gate.remark}" for gate in gates]
    red = sum(not gate.passed for gate in gates)
    return "\n".join([*lines, f"{tested.name}: {red} of {len(gates)} gates red; in {metrics}"])


def summarise(tested: DetectorUnderTest, gates: list[Gate], geometry: str) -> dict[str, Any]:
    """Return the gates, and which model they are of, as the metrics file has them."""
    meta, phases = tested.meta, tested.detector.phases
    n_real, n_fake = calibration_sizes(meta["calibration"][str(phases)])
    numbers = ("passed", "value", "low", "high", "bound")
    return {
        "passed": all(gate.passed for gate in gates),
        "detector": tested.name,
        "protocol": meta["protocol"],
        "data": meta["data"],
        "geometry": geometry,
        "model_sha256": sha256_of(tested.folder / MODEL_FILE),
        "domain_sha256": sha256_of(tested.folder / DOMAIN_FILE),
        "phases": phases,
        "alpha": tested.alpha,
        "n_calibration_real": n_real,
        "n_calibration_fake": n_fake,
        "gates": {gate.name: {key: getattr(gate, key) for key in numbers} for gate in gates},
    }


def _write_plots(plots: Path, gates: list[Gate], pixels: pd.DataFrame, source: str) -> None:
    rows = [asdict(gate) for gate in gates]
    with atomic_folder(plots) as folder:
        for name, table in (("gates", pd.DataFrame(rows)), ("pixel_features", pixels)):
            table.to_csv(
                folder / f"{name}.csv", index=False, lineterminator="\n", float_format="%.6g"
            )
        save_figure(gates_figure(rows, source=source), folder / "gates.png")
        (folder / "gates.md").write_text(audit_markdown(rows, pixels, source=source))


def at_most(images: LabelledImages, count: int, seed: int) -> LabelledImages:
    """Draw up to `count` images of each class, spread evenly over groups."""
    parts = [draw_evenly(rows, count, seed) for _, rows in images.table.groupby("class")]
    kept = pd.concat(parts).sort_values(["class", "file"], ascending=[False, True])
    return LabelledImages(kept, images.images[kept.index.tolist()])


# 1. One-sided processing.


def processing_gate(score: Score, test: LabelledImages, resamples: int, seed: int) -> Gate:
    """Process both classes, reals alone and fakes alone, each in four ways hardly seen by eye.

    They are what can set two folders of images apart: compression, a filter, noise, resampling.
    If both classes are processed, a loss is fragility: the trace is gone. What one processed class
    loses beyond that is bias: the processing itself counts as a sign of a class. The excess is the
    AUROC of two processed classes minus that of one processed and one untouched class.
    """
    is_fake, groups = labels_and_groups(test.table)
    before = score(test.images)
    found = []
    for name, images in processed(test.images, seed):
        after = score(images)
        lost = auroc(before, is_fake) - auroc(after, is_fake)
        for one_class, chosen in (("reals", ~is_fake), ("fakes", is_fake)):
            one_sided = np.where(chosen, after, before)
            rng = np.random.default_rng(seed)
            excess = paired_difference(after, one_sided, is_fake, groups, resamples, rng)
            found.append((excess, f"{name} of {one_class} alone; of both it costs {lost:.4f}"))
    (value, low, high), worst = max(found)
    return Gate(
        name="one_sided_processing",
        passed=value <= MAX_ONE_SIDED_EXCESS,
        value=value,
        low=low,
        high=high,
        bound=MAX_ONE_SIDED_EXCESS,
        rule="AUROC with both classes processed minus that with one: at most the bound",
        remark=f"largest for {worst}",
    )


def processed(images: Images, seed: int) -> Iterator[tuple[str, Images]]:
    """Yield the images once per way of processing, with its name."""
    rng = np.random.default_rng(seed)
    ways: dict[str, Callable[[Grey], Grey]] = {
        f"JPEG {_JPEG_QUALITY}": lambda image: jpeg(image, _JPEG_QUALITY),
        f"blur {_BLUR_SIGMA_PX:g} px": lambda image: gaussian_blur(image, _BLUR_SIGMA_PX),
        f"noise {_NOISE_SIGMA:g}": lambda image: gaussian_noise(image, rng, _NOISE_SIGMA),
        f"resampling x{_SHRINK:g} and back": _shrink_and_enlarge,
    }
    for name, change in ways.items():
        changed = [change(image) for image in images[:, 0].numpy()]
        yield name, torch.from_numpy(np.stack(changed)[:, None])


def _shrink_and_enlarge(image: Grey) -> Grey:
    """Shrink to even height and width, as the robustness grid does, and back."""
    smaller = Image.fromarray(resize(image, _SHRINK, "bicubic"))
    return np.array(smaller.resize(image.shape[::-1], Image.Resampling.BICUBIC))


# 2. Controls.


def control_gate(tested: DetectorUnderTest, count: int) -> Gate:
    """Ask for verdicts on `count` images of noise and as many with random phases.

    All must be inconclusive, as they are neither real nor fake. The test reals lend them their
    spectra, means and spreads.
    """
    test = tested.test
    reals = test.images[~test.is_fake, 0].numpy()
    rng = np.random.default_rng(tested.corpus.seed)
    chosen = reals[np.linspace(0, len(reals) - 1, count).astype(int)]
    noise = np.stack([noise_like(image, rng) for image in chosen])
    kinds = {
        "noise": torch.from_numpy(noise[:, None]),
        "random phases": phase_randomised(torch.from_numpy(chosen[:, None]), rng),
    }
    name, bound, rule = "controls_inconclusive", 1.0, "all verdicts are inconclusive"
    try:
        verdicts, honest = (
            {kind: tested.detector.verdicts(images, tested.alpha) for kind, images in of.items()}
            for of in (kinds, {"test": test.images})
        )
    except InputError as error:  # the calibration cannot resolve alpha: every image is inconclusive
        return Gate(name, False, None, None, None, bound, rule, f"not tested: {error}")
    open_ones = {kind: int((v == "inconclusive").sum()) for kind, v in verdicts.items()}
    low, high = wilson_interval(sum(open_ones.values()), 2 * count)
    remark = ", ".join(f"{kind} {number} of {count}" for kind, number in open_ones.items())
    decided = (honest["test"] != "inconclusive").mean()
    return Gate(
        name=name,
        passed=all(number == count for number in open_ones.values()),
        value=sum(open_ones.values()) / (2 * count),
        low=low,
        high=high,
        bound=bound,
        rule=rule,
        # A detector that never decides would pass.
        remark=f"inconclusive: {remark}; of the test images {decided:.1%} are decided",
    )


def noise_like(image: Grey, rng: np.random.Generator) -> Grey:
    """Draw independent normal noise with the mean and the spread of an image."""
    noise = rng.normal(image.mean(), image.std(), image.shape)
    return np.asarray(noise.round().clip(0, 255), dtype=np.uint8)


# 3. Permuted labels.


def permutation_gate(
    listing: pd.DataFrame,
    draw_seed: int,
    params: TrainClassifierParams,
    count: int,
    seed: int,
    scratch: Path,
    device: torch.device,
) -> Gate:
    """Train on permuted labels, and compare with chance on the test split's permuted labels.

    Labels are drawn by group, in all splits at once, and balanced within each class and split: so
    they carry nothing of the class, and if a group is in two splits a network that remembers it is
    noticed. Chance is exact: the same scores against other draws of test labels.

    `draw_seed` is that of the draws that balance the splits, as for the model. Each of `count`
    trainings has its own labels and weights, drawn from `seed`; `params` has the epochs of this
    test.

    Returns:
        The mean AUROC; its interval is that of chance, moved to the value.
    """
    splits = {
        "train": load_images(draw_training_split(listing, "train", draw_seed)),
        "validation": load_images(draw_training_split(listing, "validation", draw_seed)),
        "test": load_images(draw_test_split(listing, draw_seed)),
    }
    everything = pd.concat([part.table for part in splits.values()])
    values, chance = [], np.zeros(_NULL_DRAWS)
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        labels = permuted_labels(everything, rng)
        mixed = {name: _relabelled(part, labels) for name, part in splits.items()}
        folder = scratch / f"permutation_{number}"
        scores = _train_and_score(mixed, params, seed + number, folder, device)
        values.append(auroc(scores, mixed["test"].is_fake.numpy()))
        chance += chance_aurocs(splits["test"].table, scores, rng) / count
    return judged_by_chance(values, chance, f"{count} trainings of {params.epochs} epochs")


def judged_by_chance(
    values: Sequence[float], chance: Float[np.ndarray, " draws"], trainings: str
) -> Gate:
    """Compare the mean AUROC of trainings on labels without meaning with that of chance.

    Args:
        values: AUROC of each training.
        chance: Means of AUROCs of the same scores, with other draws of the labels.
        trainings: What they were, in words.
    """
    value = float(np.mean(values))
    low, high = np.quantile(chance, [_NULL_TAIL, 1 - _NULL_TAIL]) - 0.5
    return Gate(
        name="permuted_labels",
        passed=bool(low <= value - 0.5 <= high),
        value=value,
        low=float(value - high),
        high=float(value - low),
        bound=0.5,
        rule="the 99 % interval of the AUROC holds the bound",
        remark=f"{trainings}: " + ", ".join(f"{one:.3f}" for one in values),
    )


def _relabelled(images: LabelledImages, labels: dict[str, bool]) -> LabelledImages:
    classes = np.where(images.table["group"].map(labels), "fake", "real")
    return LabelledImages(images.table.assign(**{"class": classes}), images.images)


def _train_and_score(
    splits: dict[str, LabelledImages],
    params: TrainClassifierParams,
    seed: int,
    scratch: Path,
    device: torch.device,
) -> Scores:
    """Train a network, and score the test split."""
    seed_everything(seed)
    network = to_device(build_network(params.network, params.channels), device)
    setup = Setup(seed, scratch, device)
    train_network(network, splits["train"], splits["validation"], params=params, setup=setup)
    return score_images(network, splits["test"].images, phases=1, device=device)


def permuted_labels(table: pd.DataFrame, rng: np.random.Generator) -> dict[str, bool]:
    """Draw a label for each group: half of them fake within each class and split.

    A group of both classes, or in several splits, has one label, drawn where it comes first.
    """
    labels: dict[str, bool] = {}
    first = table.drop_duplicates("group")
    for _, rows in first.groupby(["class", "split"]):
        groups = rng.permutation(sorted(rows["group"]))
        starts_fake = bool(rng.integers(2))  # which of the two gets the odd one
        labels |= {str(g): (index % 2 == 0) == starts_fake for index, g in enumerate(groups)}
    return labels


def chance_aurocs(
    test: pd.DataFrame, scores: Scores, rng: np.random.Generator
) -> Float[np.ndarray, " draws"]:
    """Return the AUROCs of fixed scores against newly drawn labels: what chance alone does."""
    _, group_index = np.unique(test["group"].to_numpy(dtype=str), return_inverse=True)
    first = test.assign(number=group_index).drop_duplicates("group")
    labels = np.empty((_NULL_DRAWS, len(first)), dtype=bool)
    for _, rows in first.groupby(["class", "split"]):
        halves = np.arange(len(rows)) % 2 == 0
        swapped = rng.integers(2, size=(_NULL_DRAWS, 1)).astype(bool)
        labels[:, rows["number"]] = (
            rng.permuted(np.tile(halves, (_NULL_DRAWS, 1)), axis=1) ^ swapped
        )
    is_fake = labels[:, group_index]  # [draws, n]
    n_fake = is_fake.sum(axis=1)
    # The sum of the fakes' ranks counts the pairs in order (Mann and Whitney 1947).
    ordered = is_fake @ rankdata(scores) - n_fake * (n_fake + 1) / 2
    result: Float[np.ndarray, " draws"] = ordered / (n_fake * (len(scores) - n_fake))
    return result
