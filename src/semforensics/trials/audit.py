"""The shortcut audit: five gates that a detector passes if it judges images, not their history.

1. Files. After canonicalisation nothing about a file but its content may tell the classes apart.
2. Swapped encoders. Reals written as fakes are, and fakes as reals are, score as before.
3. One-sided processing. Processing one class alone costs hardly more than processing both.
4. Controls. Noise, and reals with random phases, are neither real nor fake: "inconclusive".
5. Permuted labels. A training on labels that mean nothing learns nothing that holds on the test
   side; where groups stand on several sides, it does.

A red gate does not stop the pipeline: a detector is audited in order to be shown with its faults.
`release.check_release` is what refuses.
"""

import json
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Shaped, UInt8
from PIL import Image, JpegImagePlugin
from scipy.stats import rankdata
from torch import Tensor

from semforensics.core.device import seed_everything
from semforensics.core.errors import InputError
from semforensics.core.files import atomic_file, atomic_folder, sha256_of
from semforensics.core.images import read_crop, read_grey, to_uint8, to_unit_range, write_grey_png
from semforensics.core.processing import gaussian_blur, gaussian_noise, jpeg
from semforensics.detector.calibration import Labels, Scores, calibration_sizes
from semforensics.detector.corpus import (
    LabelledImages,
    draw_evenly,
    draw_test_split,
    draw_training_split,
)
from semforensics.detector.domain import DOMAIN_FILE, phase_randomised
from semforensics.detector.networks import NPRNetwork, build_network, place
from semforensics.detector.perturbations import resize
from semforensics.detector.scoring import MODEL_FILE, score_images
from semforensics.detector.training import train_network
from semforensics.figures.audit import audit_markdown, gates_figure
from semforensics.figures.style import save_figure
from semforensics.micrographs.crop import cut, read_image_area
from semforensics.params import AuditShortcutsParams, CropParams, TrainClassifierParams
from semforensics.trials.file_features import (
    feature_table,
    header_features,
    pixel_features,
)
from semforensics.trials.metrics import auroc, paired_difference, wilson_interval
from semforensics.trials.under_test import DetectorUnderTest

Grey = UInt8[np.ndarray, "height width"]
Groups = Shaped[np.ndarray, " n"]

MAX_SWAP_CHANGE = 0.01
"""Of the AUROC: a lossless path may change no more than one pair in a hundred."""

MAX_ONE_SIDED_EXCESS = 0.05
"""Of the AUROC: processing of one class alone may turn no more than one pair in twenty beyond what
processing of both does."""

_NULL_DRAWS = 2000  # of test labels; 1 % in both tails together are ten draws on each side
_NULL_TAIL = 0.005  # one honest training in a hundred is called red by chance
_JPEG_QUALITY, _BLUR_SIGMA_PX, _NOISE_SIGMA, _SHRINK = 90, 0.5, 2.0, 0.9  # hardly seen by eye


@dataclass(frozen=True)
class Gate:
    """What one test found."""

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
    crop: CropParams,
    train: TrainClassifierParams,
    scratch: Path,
) -> str:
    """Test a classifier and its files for shortcuts; write gates, tables and a figure.

    Files are read whatever their format, so that those which are not canonical are seen, not
    refused.

    Args:
        tested: The detector; the seed of its corpus is that of all draws but that of the test
            split, which the model has.
        metrics: JSON file to write: the gates, and which model they are of.
        plots: Folder to write: gates.csv, file_features.csv, pixel_features.csv, gates.png,
            gates.md.
        params: Sizes of the tests.
        crop: How the reals were cut.
        train: The recipe of the training with permuted labels.
        scratch: Where an interrupted training waits to be resumed.

    Returns:
        One line per gate, and one that counts the red ones.

    Raises:
        InputError: Images differ in size.
        FileNotFoundError: Images are missing.
    """
    meta, table, seed = tested.meta, tested.listing, tested.corpus.seed
    phases, device, alpha = tested.detector.phases, tested.detector.device, tested.alpha
    test = read_images(draw_test_split(table, meta["seed"]))
    few = read_images(_at_most(test.table, params.max_images, seed))
    headers = pd.DataFrame([header_features(Path(path)) for path in table["path"]])
    pixels = pd.DataFrame([pixel_features(Path(path)) for path in table["path"]])
    is_fake, groups = _labels(table)
    file_table, pixel_table = (
        feature_table(features, is_fake, groups, params.bootstrap_resamples, seed)
        for features in (headers, pixels)
    )
    scorer = Scorer(tested.detector.network, phases, device)
    gates = [
        file_gate(file_table),
        swap_gate(scorer, few, params.bootstrap_resamples, seed)
        if crop.geometry == "tiles"
        else untested_swap(crop.geometry),
        processing_gate(scorer, few, params.bootstrap_resamples, seed),
        control_gate(tested, test, params.num_controls),
        permutation_gate(
            table,
            meta["seed"],
            train.model_copy(update={"epochs": params.permuted_epochs}),
            params.num_permutations,
            seed,
            scratch,
            device,
        ),
    ]
    passed = all(gate.passed for gate in gates)
    n_real, n_fake = calibration_sizes(meta["calibration"][str(phases)])
    result = {
        "passed": passed,
        "detector": tested.name,
        "protocol": meta["protocol"],
        "data": meta["data"],
        "model_sha256": sha256_of(tested.folder / MODEL_FILE),
        "domain_sha256": sha256_of(tested.folder / DOMAIN_FILE),
        "phases": phases,
        "alpha": alpha,
        "n_calibration_real": n_real,
        "n_calibration_fake": n_fake,
        "gates": {
            gate.name: {
                key: value
                for key, value in asdict(gate).items()
                if key in ("passed", "value", "low", "high", "bound")
            }
            for gate in gates
        },
    }
    rows = [asdict(gate) for gate in gates]
    source = (
        f"{meta['network']}, detector {tested.name}, protocol {meta['protocol']}, "
        f"data: {meta['data']}"
    )
    with atomic_folder(plots) as folder:
        for name, numbers in (
            ("gates", pd.DataFrame(rows)),
            ("file_features", file_table),
            ("pixel_features", pixel_table),
        ):
            numbers.to_csv(
                folder / f"{name}.csv", index=False, lineterminator="\n", float_format="%.6g"
            )
        save_figure(gates_figure(rows, source=source), folder / "gates.png")
        (folder / "gates.md").write_text(audit_markdown(rows, pixel_table, source=source))
    with atomic_file(metrics) as path:
        path.write_text(json.dumps(result, indent=2) + "\n")
    shutil.rmtree(scratch, ignore_errors=True)  # nothing is left to resume
    lines = [f"{'green' if gate.passed else 'RED'}: {gate.name}: {gate.remark}" for gate in gates]
    red = sum(not gate.passed for gate in gates)
    return "\n".join([*lines, f"{tested.name}: {red} of {len(gates)} gates red; in {metrics}"])


def _labels(table: pd.DataFrame) -> tuple[Labels, Groups]:
    return (table["class"] == "fake").to_numpy(), table["group"].to_numpy(dtype=str)


def _at_most(table: pd.DataFrame, count: int, seed: int) -> pd.DataFrame:
    """Draw up to `count` images of each class, spread evenly over groups."""
    parts = [draw_evenly(rows, count, seed) for _, rows in table.groupby("class")]
    return pd.concat(parts).sort_values(["class", "file"], ascending=[False, True])


def read_images(table: pd.DataFrame) -> LabelledImages:
    """Read images into memory through the canonicaliser, whatever their format.

    Raises:
        InputError: A file is no image that the canonicaliser takes, or images differ in size.
    """
    images = [read_grey(Path(path)) for path in table["path"]]
    sizes = {image.shape: path for image, path in zip(images, table["path"], strict=True)}
    if len(sizes) > 1:
        found = ", ".join(f"{path}: {w}x{h} px" for (h, w), path in sizes.items())
        raise InputError(f"images of one size expected; found {found}")
    return LabelledImages(table, torch.from_numpy(np.stack(images)[:, None]))


@dataclass(frozen=True)
class Scorer:
    """A network with the way it is asked."""

    network: NPRNetwork
    phases: int
    device: torch.device

    def __call__(self, images: UInt8[Tensor, "n 1 height width"]) -> Scores:
        """Return logits, positive means fake."""
        return score_images(self.network, images, phases=self.phases, device=self.device)


# 1. Files.


def file_gate(features: pd.DataFrame) -> Gate:
    """Judge what headers give away, by the first row of their table: all features together."""
    joint = features.iloc[0]
    low, high = float(joint["auroc_low"]), float(joint["auroc_high"])
    single = features.iloc[1:]
    telling = single.loc[(single["auroc_low"] > 0.5) | (single["auroc_high"] < 0.5), "feature"]
    return Gate(
        name="file_features",
        passed=low <= 0.5 <= high,
        value=float(joint["auroc"]),
        low=low,
        high=high,
        bound=0.5,
        rule="the interval of the AUROC holds the bound",
        remark=f"telling on their own: {', '.join(telling) or 'none'}",
    )


# 2. Swapped encoders.


def swap_gate(scorer: Scorer, test: LabelledImages, resamples: int, seed: int) -> Gate:
    """Write each class as the other one is written, and compare the AUROCs.

    Reals go through the last steps of `generate-fakes`, fakes, as a TIFF file, through `crop`. A
    class whose files are JPEG lends its quantisation tables to the other one.
    """
    is_fake, groups = _labels(test.table)
    paths = {c: test.table.loc[is_fake == c, "path"].map(Path).tolist() for c in (False, True)}
    swapped = np.empty_like(test.images.numpy())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for index, (image, fake) in enumerate(zip(test.images[:, 0], is_fake, strict=True)):
            others = paths[not fake]
            stored = stored_like(image.numpy(), others[index % len(others)], folder)
            swapped[index, 0] = as_real(stored, folder) if fake else as_fake(stored, folder)
    before, after = scorer(test.images), scorer(torch.from_numpy(swapped))
    rng = np.random.default_rng(seed)
    value, low, high = paired_difference(after, before, is_fake, groups, resamples, rng)
    changed = int((swapped != test.images.numpy()).any(axis=(1, 2, 3)).sum())
    return Gate(
        name="encoder_swap",
        passed=abs(value) < MAX_SWAP_CHANGE,
        value=value,
        low=low,
        high=high,
        bound=MAX_SWAP_CHANGE,
        rule="the change of the AUROC is smaller than the bound, either way",
        remark=f"pixels changed in {changed} of {len(swapped)} images; AUROC "
        f"{auroc(before, is_fake):.4f}, then {auroc(after, is_fake):.4f}",
    )


def untested_swap(geometry: str) -> Gate:
    """Return the gate where reals are resampled: that path cannot be undone, so none is swapped."""
    return Gate(
        name="encoder_swap",
        passed=False,
        value=None,
        low=None,
        high=None,
        bound=MAX_SWAP_CHANGE,
        rule="the change of the AUROC is smaller than the bound, either way",
        remark=f"not tested: crop geometry {geometry} resamples the reals, and nothing the fakes",
    )


def as_fake(image: Grey, folder: Path) -> Grey:
    """Send an image through the last steps of a fake: tensor, 8 bits, PNG."""
    path = folder / "fake.png"
    write_grey_png(path, to_uint8(to_unit_range(torch.from_numpy(image))).numpy())
    return read_crop(path)


def as_real(image: Grey, folder: Path) -> Grey:
    """Send an image through the steps of a real: a micrograph's file, the bar, the crop, PNG."""
    micrograph, crop = folder / "micrograph.tif", folder / "crop.png"
    Image.fromarray(image).save(micrograph)
    size_px = min(image.shape)
    params = CropParams(geometry="tiles", size_px=size_px, info_bar=0, max_megapixels=89)
    ((_, _, cropped),) = cut(read_image_area(micrograph, params), params)
    write_grey_png(crop, cropped)
    return read_crop(crop)


def stored_like(image: Grey, example: Path, folder: Path) -> Grey:
    """Return what is left of an image in a file like another: lossless, or JPEG with its tables."""
    with Image.open(example) as other:
        if not isinstance(other, JpegImagePlugin.JpegImageFile):
            return image
        tables, mode = other.quantization, other.mode
        sampling = JpegImagePlugin.get_sampling(other)
    path = folder / "stored.jpg"
    Image.fromarray(image).convert(mode).save(path, qtables=tables, subsampling=sampling)
    return read_grey(path)


# 3. One-sided processing.


def processing_gate(scorer: Scorer, test: LabelledImages, resamples: int, seed: int) -> Gate:
    """Process both classes, reals alone and fakes alone, each in four ways hardly seen by eye.

    They are what can set two folders of images apart: compression, a filter, noise, resampling.

    What is lost when both are processed is fragility: the trace is gone. What is lost beyond that
    when only one class is, is bias: the processing itself counts as a sign of a class. The excess
    is the AUROC of two processed classes minus that of one processed and one untouched class.

    Args:
        scorer: Of the detector.
        test: Test images of both classes.
        resamples: Of the bootstrap.
        seed: Of noise and bootstrap.
    """
    is_fake, groups = _labels(test.table)
    before = scorer(test.images)
    found = []
    for name, images in processed(test.images, seed):
        after = scorer(images)
        for side, one_sided in (
            ("reals", np.where(is_fake, before, after)),
            ("fakes", np.where(is_fake, after, before)),
        ):
            rng = np.random.default_rng(seed)
            excess = paired_difference(after, one_sided, is_fake, groups, resamples, rng)
            lost = auroc(before, is_fake) - auroc(after, is_fake)
            found.append((excess, f"{name} of {side} alone; of both it costs {lost:.4f}"))
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


def processed(
    images: UInt8[Tensor, "n 1 height width"], seed: int
) -> Iterator[tuple[str, UInt8[Tensor, "n 1 height width"]]]:
    """Return the images once per way of processing, with its name."""
    rng = np.random.default_rng(seed)
    greys = images[:, 0].numpy()
    for name, changed in (
        (f"JPEG {_JPEG_QUALITY}", [jpeg(image, _JPEG_QUALITY) for image in greys]),
        (f"blur {_BLUR_SIGMA_PX:g} px", [gaussian_blur(i, _BLUR_SIGMA_PX) for i in greys]),
        (f"noise {_NOISE_SIGMA:g}", [gaussian_noise(i, rng, _NOISE_SIGMA) for i in greys]),
        (f"resampling x{_SHRINK:g} and back", [_shrunk_and_back(image) for image in greys]),
    ):
        yield name, torch.from_numpy(np.stack(changed)[:, None])


def _shrunk_and_back(image: Grey) -> Grey:
    smaller = Image.fromarray(resize(image, _SHRINK, "bicubic"))
    return np.array(smaller.resize(image.shape[::-1], Image.Resampling.BICUBIC))


# 4. Controls.


def control_gate(tested: DetectorUnderTest, test: LabelledImages, count: int) -> Gate:
    """Ask for verdicts on images that are neither real nor fake; all must be inconclusive.

    Args:
        tested: The detector; the seed of its corpus is that of noise and phases.
        test: Its test split. Reals lend the controls their spectra, means and spreads.
        count: Noise-only images, and as many phase-randomised ones.
    """
    detector, alpha = tested.detector, tested.alpha
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
        verdicts = {kind: detector.verdicts(images, alpha) for kind, images in kinds.items()}
        honest = detector.verdicts(test.images, alpha)
    except InputError as error:  # a calibration that cannot resolve alpha says nothing of anything
        return Gate(name, False, None, None, None, bound, rule, f"not tested: {error}")
    open_ones = {kind: int((v == "inconclusive").sum()) for kind, v in verdicts.items()}
    low, high = wilson_interval(sum(open_ones.values()), 2 * count)
    remark = ", ".join(f"{kind} {number} of {count}" for kind, number in open_ones.items())
    decided = (honest != "inconclusive").mean()
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


# 5. Permuted labels.


def permutation_gate(
    table: pd.DataFrame,
    draw_seed: int,
    params: TrainClassifierParams,
    count: int,
    seed: int,
    scratch: Path,
    device: torch.device,
) -> Gate:
    """Train on permuted labels, and compare with chance on the test side's permuted labels.

    Labels are drawn by group, on all sides at once, and balanced within each class and side: so
    they carry nothing of the class, and where a group stands on two sides a network that remembers
    it is found out. Chance is exact: the same scores against test labels drawn anew.

    Args:
        table: All images with their sides.
        draw_seed: Of the draws that balance the sides, as for the model.
        params: The recipe, with the epochs of this test.
        count: Trainings, each with labels and weights of its own.
        seed: Of labels and weights.
        scratch: Where an interrupted training waits to be resumed.
        device: Where to train.

    Returns:
        The mean AUROC; its interval is that of chance, moved to the value.
    """
    sides = {
        "train": read_images(draw_training_split(table, "train", draw_seed)),
        "validation": read_images(draw_training_split(table, "validation", draw_seed)),
        "test": read_images(draw_test_split(table, draw_seed)),
    }
    everything = pd.concat([part.table for part in sides.values()])
    values, chance = [], np.zeros(_NULL_DRAWS)
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        labels = permuted_labels(everything, rng)
        mixed = {
            side: LabelledImages(
                part.table.assign(
                    **{"class": np.where(part.table["group"].map(labels), "fake", "real")}
                ),
                part.images,
            )
            for side, part in sides.items()
        }
        seed_everything(seed + number)
        network = place(build_network(params.network, params.channels), device)
        folder = scratch / f"permutation_{number}"
        train_network(
            network, mixed["train"], mixed["validation"],
            params=params, seed=seed + number, scratch=folder, device=device,
        )  # fmt: skip
        scores = score_images(network, sides["test"].images, phases=1, device=device)
        values.append(auroc(scores, mixed["test"].is_fake.numpy()))
        chance += chance_aurocs(sides["test"].table, scores, rng) / count
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
        remark=f"{count} trainings of {params.epochs} epochs: "
        + ", ".join(f"{one:.3f}" for one in values),
    )


def permuted_labels(table: pd.DataFrame, rng: np.random.Generator) -> dict[str, bool]:
    """Draw a label for each group: half of them fake within each class and side.

    A group of both classes, or on several sides, has one label, drawn where it comes first.
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
    """Return the AUROCs of fixed scores against labels drawn anew: what chance alone does."""
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
