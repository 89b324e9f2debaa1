"""The audit sees every shortcut that is planted, and none where there is none."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from semforensics.core.files import sha256_of
from semforensics.core.images import write_grey_png
from semforensics.core.processing import jpeg
from semforensics.detector.corpus import Corpus, LabelledImages
from semforensics.detector.domain import DOMAIN_FILE, Domain
from semforensics.detector.networks import NPRNetwork
from semforensics.detector.perturbations import resize
from semforensics.detector.scoring import MODEL_FILE
from semforensics.detector.training import train_classifier
from semforensics.params import AuditShortcutsParams, CropParams, SplitParams, TrainClassifierParams
from semforensics.publish.release import GATES, check_release
from semforensics.trials.audit import (
    Scorer,
    as_fake,
    as_real,
    audit_shortcuts,
    chance_aurocs,
    control_gate,
    noise_like,
    permutation_gate,
    permuted_labels,
    processed,
    processing_gate,
    stored_like,
    swap_gate,
)
from semforensics.trials.metrics import auroc
from semforensics.trials.under_test import DetectorUnderTest

CPU = torch.device("cpu")
SHARES = SplitParams(train=0.6, test=0.3, validation=0.1)
SIZE_PX = 32
SIZES = AuditShortcutsParams(
    permuted_epochs=1, num_permutations=2, num_controls=6, max_images=40, bootstrap_resamples=200
)
Change = Callable[[np.ndarray], np.ndarray]


def recipe(**changes: object) -> TrainClassifierParams:
    """A short training of the small network."""
    values = {
        "network": "npr_tiny", "channels": 1, "epochs": 8, "batch": 16, "lr": 0.005,
        "lr_decay": 1.0, "lr_decay_every": 10, "flip": True, "random_phase": True,
        "precision": "float32", "max_false_positive_rate": 0.05, "num_seeds": 1,
        "turn": False, "tone_chance": 0.0, "gamma_max": 1.6, "median_chance": 0.0,
        "noise_chance": 0.0, "noise_sigma_max": 12.0, "blur_chance": 0.0, "blur_sigma_max": 3.0,
        "jpeg_chance": 0.0, "jpeg_quality_min": 30,
        "calibrate_on": (), "domain_quantile": 0.99,
    }  # fmt: skip
    return TrainClassifierParams(**(values | changes))


def scene(rng: np.random.Generator) -> np.ndarray:
    """Bright discs in noise, so that images have objects which noise has not."""
    rows, columns = np.indices((SIZE_PX, SIZE_PX))
    image = np.full((SIZE_PX, SIZE_PX), 60.0)
    for _ in range(5):
        row, column, radius = rng.uniform(0, SIZE_PX), rng.uniform(0, SIZE_PX), rng.uniform(2, 4)
        image[(rows - row) ** 2 + (columns - column) ** 2 < radius**2] = 150
    return (image + rng.normal(0, 8, image.shape)).clip(0, 255).astype(np.uint8)


def same(image: np.ndarray) -> np.ndarray:
    """Change nothing."""
    return image


def doubled(image: np.ndarray) -> np.ndarray:
    """Double half the image by nearest neighbours: what the detector is made for."""
    return np.kron(image[::2, ::2], np.ones((2, 2), dtype=np.uint8))


def resampled(image: np.ndarray) -> np.ndarray:
    """Shrink to three quarters and enlarge again."""
    return np.array(Image.fromarray(resize(image, 0.75, "bicubic")).resize(image.shape))


@dataclass(frozen=True)
class Planted:
    """Folders of images, and the classifier that learned from them."""

    cropped: Path
    splits: Path
    fakes: Path
    classifier: Path

    @property
    def corpus(self) -> Corpus:
        """The images under the clean protocol."""
        return Corpus(self.cropped, self.splits, self.fakes, "clean", SHARES, 0)


def plant(root: Path, real: Change, fake: Change) -> Planted:
    """Write 80 reals of 20 groups and 80 fakes, all scenes that are changed by class; train."""
    rng = np.random.default_rng(0)
    planted = Planted(root / "cropped", root / "splits.csv", root / "fakes", root / "classifier")
    planted.cropped.mkdir(parents=True)
    (planted.fakes / "fastgan").mkdir(parents=True)
    rows = []
    for index in range(80):
        group, name = f"S1-A{index % 20}", f"S1-A{index % 20}_{index}.png"
        split = "train" if index % 20 < 12 else "test" if index % 20 < 18 else "validation"
        write_grey_png(planted.cropped / name, real(scene(rng)))
        write_grey_png(planted.fakes / f"fastgan/{index:06d}.png", fake(scene(rng)))
        rows.append(
            {"file": name, "micrograph": f"{group}.tif", "group": group, "label": "",
             "magnification_k": 100, "kv": "", "top_px": 0, "left_px": index, "split": split}
        )  # fmt: skip
    pd.DataFrame(rows).to_csv(planted.splits, index=False)
    train_classifier(
        "fastgan", planted.corpus, planted.classifier, params=recipe(), data="folder",
        scratch=root / "scratch", device=CPU,
    )  # fmt: skip
    return planted


CROP = CropParams(geometry="tiles", size_px=SIZE_PX, info_bar=0, max_megapixels=64)


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    """Fakes are told by their up-sampling alone."""
    return plant(tmp_path_factory.mktemp("honest"), same, doubled)


def audit(
    planted: Planted, root: Path, *, alpha: float = 0.2, crop: CropParams = CROP, **changes: object
) -> tuple[dict, Path]:
    """Run the audit; give its metrics and its plots."""
    tested = DetectorUnderTest.load(
        planted.classifier, replace(planted.corpus, **changes), phases=4, alpha=alpha, device=CPU
    )
    audit_shortcuts(
        tested, root / "audit.json", root / "audit", params=SIZES, crop=crop, train=recipe(),
        scratch=root / "scratch",
    )  # fmt: skip
    return json.loads((root / "audit.json").read_text()), root / "audit"


def rewritten(planted: Planted, root: Path, write: Callable[[Path, np.ndarray], None]) -> Planted:
    """Write the fakes of a set once more, as other files."""
    fakes = root / "fakes"
    (fakes / "fastgan").mkdir(parents=True)
    for path in sorted((planted.fakes / "fastgan").iterdir()):
        write(fakes / "fastgan" / path.name, np.array(Image.open(path)))
    return Planted(planted.cropped, planted.splits, fakes, planted.classifier)


def test_canonical_files_pass_and_the_audit_says_of_which_model_it_is(
    honest: Planted, tmp_path: Path
) -> None:
    """Files and encoders are the same, permuted labels teach nothing; results are reproducible."""
    (tmp_path / "again").mkdir()

    metrics, plots = audit(honest, tmp_path)
    again, _ = audit(honest, tmp_path / "again")

    assert metrics == again
    assert tuple(metrics["gates"]) == GATES
    gates = metrics["gates"]
    assert gates["file_features"] == {
        "passed": True, "value": 0.5, "low": 0.5, "high": 0.5, "bound": 0.5
    }  # fmt: skip
    assert gates["encoder_swap"]["value"] == 0
    assert gates["permuted_labels"]["passed"]
    assert metrics["passed"] == all(gate["passed"] for gate in gates.values())
    assert metrics["model_sha256"] == sha256_of(honest.classifier / MODEL_FILE)
    assert {p.name for p in plots.iterdir()} == {
        "gates.csv", "gates.png", "gates.md", "file_features.csv", "pixel_features.csv"
    }  # fmt: skip
    listed = pd.read_csv(plots / "gates.csv")
    assert listed["passed"].tolist() == [gate["passed"] for gate in gates.values()]
    pixels = pd.read_csv(plots / "pixel_features.csv").set_index("feature")
    assert pixels.loc["bits_per_pixel", "auroc"] > 0.9  # doubled images compress better


def test_fakes_as_jpeg_files_are_seen(honest: Planted, tmp_path: Path) -> None:
    """Another format, whatever the name says, is a red gate, and does not stop the audit."""
    planted = rewritten(
        honest, tmp_path, lambda path, grey: Image.fromarray(grey).save(path, "JPEG", quality=80)
    )

    metrics, plots = audit(planted, tmp_path)

    gate = metrics["gates"]["file_features"]
    assert not gate["passed"]
    assert gate["low"] > 0.9
    features = pd.read_csv(plots / "file_features.csv").set_index("feature")
    assert (features.loc["format", "real"], features.loc["format", "fake"]) == ("PNG", "JPEG")
    assert "**RED**" in (plots / "gates.md").read_text()


def test_fakes_with_unequal_channels_are_seen(honest: Planted, tmp_path: Path) -> None:
    """A tint that grey hides is a red gate."""

    def tinted(path: Path, grey: np.ndarray) -> None:
        Image.fromarray(np.stack([grey, grey, grey // 8 * 8], axis=2)).save(path)

    metrics, plots = audit(rewritten(honest, tmp_path, tinted), tmp_path)

    assert not metrics["gates"]["file_features"]["passed"]
    features = pd.read_csv(plots / "file_features.csv").set_index("feature")
    assert features.loc["channel_difference", "auroc_low"] > 0.9
    assert features.loc["mode", "fake"] == "RGB"


def test_metadata_in_one_class_is_seen(honest: Planted, tmp_path: Path) -> None:
    """A resolution tag on half of the fakes tells them by itself."""

    def tagged(path: Path, grey: np.ndarray) -> None:
        dpi = {"dpi": (72, 72)} if int(path.stem) % 2 else {}
        Image.fromarray(grey).save(path, **dpi)

    metrics, _ = audit(rewritten(honest, tmp_path, tagged), tmp_path)

    gate = metrics["gates"]["file_features"]
    assert not gate["passed"]
    assert gate["value"] == pytest.approx(0.75)


@pytest.mark.parametrize(
    ("real", "fake"),
    [(resampled, same), (same, lambda image: jpeg(image, 90))],
    ids=["reals resampled", "fakes once JPEG"],
)
def test_processing_of_one_class_is_seen(real: Change, fake: Change, tmp_path: Path) -> None:
    """A detector that learned the processing takes it for a class; the files look alike."""
    metrics, plots = audit(plant(tmp_path / "data", real, fake), tmp_path)

    gate = metrics["gates"]["one_sided_processing"]
    assert not gate["passed"]
    assert gate["low"] > gate["bound"]
    assert metrics["gates"]["file_features"]["passed"]
    table = pd.read_csv(plots / "gates.csv").set_index("name")
    assert "alone" in table.loc["one_sided_processing", "remark"]


class Roughness(NPRNetwork):
    """Scores by the mean square of NPR: rough images are fakes."""

    def __init__(self) -> None:
        torch.nn.Module.__init__(self)
        self.channels = 1
        self.sign = 1.0

    def score_residuals(self, residuals: torch.Tensor) -> torch.Tensor:
        """Return the score."""
        return self.sign * residuals.square().mean(dim=(1, 2, 3)).log()


def in_memory(reals: list[np.ndarray], fakes: list[np.ndarray], root: Path) -> LabelledImages:
    """Images with files of their own, each a group of its own."""
    images = [*reals, *fakes]
    paths = [root / f"{index}.png" for index in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        write_grey_png(path, image)
    table = pd.DataFrame(
        {
            "file": [path.name for path in paths],
            "class": ["real"] * len(reals) + ["fake"] * len(fakes),
            "group": [f"g{index}" for index in range(len(images))],
            "path": paths,
        }
    )
    return LabelledImages(table, torch.from_numpy(np.stack(images)[:, None]))


class Checkerboard(NPRNetwork):
    """Scores by the amplitude of a checkerboard, as far as it stands out of noise.

    Processing only ever weakens it, and where it is gone all images are alike.
    """

    def __init__(self) -> None:
        torch.nn.Module.__init__(self)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the score."""
        rows, columns = (torch.arange(side) for side in images.shape[-2:])
        board = 1 - 2 * ((rows[:, None] + columns) % 2)
        return ((images * board).mean(dim=(1, 2, 3)).abs() - 0.006).clamp(min=0)


def test_bias_is_told_from_fragility(tmp_path: Path) -> None:
    """A trace that processing wipes out costs as much in both classes as in one.

    Smoothness as such costs more in one: smoothed fakes pass, beside rougher reals.
    """
    rng = np.random.default_rng(0)
    reals = [scene(rng) for _ in range(60)]
    board = 1 - 2 * (np.indices((SIZE_PX, SIZE_PX)).sum(axis=0) % 2)
    fakes = [(scene(rng) + 2.0 * board).round().clip(0, 255).astype(np.uint8) for _ in reals]
    marked = in_memory(reals, fakes, tmp_path)
    rough = [(i + rng.normal(0, 6, i.shape)).clip(0, 255).astype(np.uint8) for i in reals]
    noisy = in_memory(reals, rough, tmp_path)

    fragile = processing_gate(Scorer(Checkerboard(), 1, CPU), marked, 200, 0)
    biased = processing_gate(Scorer(Roughness(), 1, CPU), noisy, 200, 0)

    score, is_fake = Scorer(Checkerboard(), 1, CPU), marked.is_fake.numpy()
    left = [auroc(score(images), is_fake) for _, images in processed(marked.images, 0)]
    assert min(left) < auroc(score(marked.images), is_fake) - 0.1
    assert fragile.passed
    assert not biased.passed
    assert biased.value is not None
    assert biased.value > 0.2
    assert "fakes alone" in biased.remark


def test_swapped_encoders_show_a_compression_of_one_class(tmp_path: Path) -> None:
    """Where fakes are JPEG files, reals stored like them lose what told them apart."""
    rng = np.random.default_rng(0)
    network = Roughness()
    network.sign = -1.0  # compressed images are smooth, and here smooth ones are fakes
    reals, fakes = ([scene(rng) for _ in range(20)] for _ in range(2))
    test = in_memory(reals, fakes, tmp_path)
    for path in test.table["path"][20:]:
        Image.open(path).save(path.with_suffix(".jpg"), quality=20)
        path.with_suffix(".jpg").rename(path)
    images = [np.array(Image.open(path)) for path in test.table["path"]]
    stored = LabelledImages(test.table, torch.from_numpy(np.stack(images)[:, None]))

    (tmp_path / "lossless").mkdir()
    unchanged = in_memory(reals, fakes, tmp_path / "lossless")
    lossless = swap_gate(Scorer(network, 1, CPU), unchanged, 200, 0)
    gate = swap_gate(Scorer(network, 1, CPU), stored, 200, 0)

    assert lossless.passed
    assert lossless.value == 0
    assert not gate.passed
    assert gate.value is not None
    assert gate.value < -0.2


def test_both_encoder_paths_keep_every_grey_level(tmp_path: Path) -> None:
    """All 256 levels survive the steps of a fake, those of a real, and a lossless file."""
    image = np.arange(256, dtype=np.uint8).reshape(16, 16)
    write_grey_png(tmp_path / "example.png", image)

    for path in (as_fake, as_real):
        np.testing.assert_array_equal(path(image, tmp_path), image)
    np.testing.assert_array_equal(stored_like(image, tmp_path / "example.png", tmp_path), image)


def test_the_noise_control_keeps_what_it_should_and_nothing_else() -> None:
    """Noise keeps mean and spread, not the picture."""
    rng = np.random.default_rng(0)
    image = np.kron(rng.integers(80, 160, (16, 16)), np.ones((4, 4))).astype(np.uint8)

    noise = noise_like(image, rng)

    assert noise.mean() == pytest.approx(image.mean(), abs=2)
    assert noise.std() == pytest.approx(image.std(), rel=0.1)
    assert abs(np.corrcoef(noise.ravel(), image.ravel())[0, 1]) < 0.2


def test_permuted_labels_are_balanced_and_belong_to_groups() -> None:
    """Half of each class and split is fake; a group in two splits has one label."""
    table = pd.DataFrame(
        {
            "class": ["real"] * 12 + ["fake"] * 8,
            "split": ["train"] * 8 + ["test"] * 4 + ["train"] * 4 + ["test"] * 4,
            "group": [f"r{i // 2}" for i in range(12)] + [f"f{i}" for i in range(8)],
        }
    )

    labels = permuted_labels(table, np.random.default_rng(0))
    others = [permuted_labels(table, np.random.default_rng(seed)) for seed in range(1, 6)]

    drawn = table.assign(label=table["group"].map(labels))
    assert (drawn.groupby(["class", "split"])["label"].mean() == 0.5).all()
    assert any(other != labels for other in others)


def test_chance_is_centred_and_wide_where_groups_are_few() -> None:
    """Labels that belong to 2 x 4 groups spread far more than those of 2 x 40 images."""
    rng = np.random.default_rng(0)
    scores = np.repeat(rng.normal(size=8), 10).astype(np.float32)
    table = pd.DataFrame({"class": ["real"] * 40 + ["fake"] * 40, "split": "test"})

    few = chance_aurocs(table.assign(group=[f"g{i // 10}" for i in range(80)]), scores, rng)
    many = chance_aurocs(table.assign(group=[f"g{i}" for i in range(80)]), scores, rng)

    assert few.mean() == pytest.approx(0.5, abs=0.02)
    assert many.mean() == pytest.approx(0.5, abs=0.02)
    assert few.std() > 2 * many.std()


def test_a_group_in_two_splits_is_found_out_by_permuted_labels(tmp_path: Path) -> None:
    """A network that remembers a group's pattern knows its label; on clean splits it does not."""
    rng = np.random.default_rng(0)
    row, column = np.indices((16, 16))
    rows = []
    for group in range(8):
        angle = np.pi * group / 8
        wave = 30 * np.sin(2 * (row * np.sin(angle) + column * np.cos(angle)))
        for index in range(24):
            path = tmp_path / f"{group}_{index}.png"
            noise = 120 + wave + rng.normal(0, 5, (16, 16))
            write_grey_png(path, noise.clip(0, 255).astype(np.uint8))
            rows.append(
                {"file": path.name, "class": ("real", "fake")[group % 2], "generator": "",
                 "split": ("train", "test", "validation")[index % 3], "group": f"g{group}",
                 "path": path}
            )  # fmt: skip
    table = pd.DataFrame(rows).assign(
        generator=lambda t: np.where(t["class"] == "fake", "fastgan", "")
    )
    clean = table.assign(group=table["group"] + table["split"])
    params = recipe(epochs=60, flip=False, random_phase=False)

    leaky, honest = (
        permutation_gate(listed, 0, params, 2, 0, tmp_path / name, CPU)
        for name, listed in (("leaky", table), ("clean", clean))
    )

    assert not leaky.passed
    assert leaky.value is not None
    assert leaky.value > 0.8
    assert honest.passed


def test_a_model_of_other_splits_or_another_protocol_is_refused(
    honest: Planted, tmp_path: Path
) -> None:
    """Test images that were learned from would pass every gate."""
    moved = pd.read_csv(honest.splits).replace({"split": {"train": "test", "test": "train"}})
    moved.to_csv(tmp_path / "splits.csv", index=False)
    planted = Planted(honest.cropped, tmp_path / "splits.csv", honest.fakes, honest.classifier)

    with pytest.raises(ValueError, match="not the images and splits"):
        audit(planted, tmp_path)
    with pytest.raises(ValueError, match="protocol clean, found thesis"):
        audit(honest, tmp_path, protocol="thesis")


def test_an_alpha_that_the_calibration_cannot_resolve_is_a_red_gate(
    honest: Planted, tmp_path: Path
) -> None:
    """Verdicts that can never be anything but inconclusive prove nothing."""
    metrics, plots = audit(honest, tmp_path, alpha=0.001)

    gate = metrics["gates"]["controls_inconclusive"]
    assert not gate["passed"]
    assert gate["value"] is None
    assert "not tested" in (plots / "gates.md").read_text()
    _, red = check_release(tmp_path / "audit.json", honest.classifier)
    assert any(line.startswith("calibration: alpha 0.001 needs 999") for line in red)


def test_reals_that_only_they_are_resampled_cannot_be_swapped(
    honest: Planted, tmp_path: Path
) -> None:
    """Where the geometry resamples the reals, the swap is no test, and no pass."""
    squashed = CROP.model_copy(update={"geometry": "squash"})

    metrics, _ = audit(honest, tmp_path, crop=squashed)

    assert metrics["gates"]["encoder_swap"]["passed"] is False
    assert metrics["gates"]["encoder_swap"]["value"] is None


def test_controls_that_get_a_verdict_are_red(honest: Planted, tmp_path: Path) -> None:
    """A training domain without limits lets noise through, and the gate says so."""
    folder = tmp_path / "classifier"
    shutil.copytree(honest.classifier, folder)
    domain = Domain.load(folder / DOMAIN_FILE)
    replace(domain, limits=(1e9, 1e9)).save(folder / DOMAIN_FILE)
    tested = [
        DetectorUnderTest.load(path, honest.corpus, phases=4, alpha=0.2, device=CPU)
        for path in (folder, honest.classifier)
    ]

    wide, own = (control_gate(one, one.test, 20) for one in tested)

    assert not wide.passed
    assert wide.value is not None
    assert own.value is not None
    assert wide.value < own.value
