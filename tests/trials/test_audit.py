"""The audit sees every shortcut that is planted, and none where there is none."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from tests.detector.conftest import SIZE_PX, Folders, recipe

from semforensics.core.errors import InputError
from semforensics.core.files import sha256_of
from semforensics.core.images import read_crop, to_uint8, to_unit_range, write_grey_png
from semforensics.core.processing import jpeg
from semforensics.detector.corpus import LabelledImages, load_images
from semforensics.detector.domain import DOMAIN_FILE, Domain
from semforensics.detector.npr import network_input
from semforensics.detector.perturbations import resize
from semforensics.detector.scoring import MODEL_FILE
from semforensics.micrographs.crop import cut_micrograph
from semforensics.params import AuditShortcutsParams, CropParams
from semforensics.publish.release import GATES, check_release
from semforensics.trials.audit import (
    audit_shortcuts,
    chance_aurocs,
    control_gate,
    noise_like,
    permutation_gate,
    permuted_labels,
    processed,
    processing_gate,
)
from semforensics.trials.metrics import auroc

CPU = torch.device("cpu")
SIZES = AuditShortcutsParams(
    permuted_epochs=1, num_permutations=2, num_controls=6, max_images=40, bootstrap_resamples=200
)
Change = Callable[[np.ndarray], np.ndarray]


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


def plant(root: Path, real: Change, fake: Change) -> Folders:
    """Write 80 reals of 20 groups and 80 fakes, all scenes that are changed by class; train."""
    rng = np.random.default_rng(0)
    planted = Folders(root / "cropped", root / "splits.csv", root / "fakes")
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
    planted.train()
    return planted


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """Fakes are told by their up-sampling alone."""
    return plant(tmp_path_factory.mktemp("honest"), same, doubled)


def audit(
    planted: Folders, root: Path, *, alpha: float = 0.2, **changes: object
) -> tuple[dict, Path]:
    """Run the audit; return its metrics and its plots."""
    audit_shortcuts(
        planted.under_test(alpha=alpha, **changes), root / "audit.json", root / "audit",
        params=SIZES, geometry="tiles", train=recipe(), scratch=root / "scratch",
    )  # fmt: skip
    return json.loads((root / "audit.json").read_text()), root / "audit"


def rewritten(planted: Folders, root: Path, write: Callable[[Path, np.ndarray], None]) -> Folders:
    """Write the fakes of a set once more, as other files."""
    fakes = root / "fakes"
    (fakes / "fastgan").mkdir(parents=True)
    for path in sorted((planted.fakes / "fastgan").iterdir()):
        write(fakes / "fastgan" / path.name, np.array(Image.open(path)))
    return replace(planted, fakes=fakes)


def test_an_audit_holds_all_gates_and_says_of_which_model_it_is(
    honest: Folders, tmp_path: Path
) -> None:
    """Permuted labels teach nothing; results are reproducible."""
    (tmp_path / "again").mkdir()

    metrics, plots = audit(honest, tmp_path)
    again, _ = audit(honest, tmp_path / "again")

    assert metrics == again
    assert tuple(metrics["gates"]) == GATES
    gates = metrics["gates"]
    assert gates["permuted_labels"]["passed"]
    assert metrics["passed"] == all(gate["passed"] for gate in gates.values())
    assert metrics["geometry"] == "tiles"
    assert metrics["model_sha256"] == sha256_of(honest.model / MODEL_FILE)
    assert {p.name for p in plots.iterdir()} == {
        "gates.csv", "gates.png", "gates.md", "pixel_features.csv"
    }  # fmt: skip
    listed = pd.read_csv(plots / "gates.csv")
    assert listed["passed"].tolist() == [gate["passed"] for gate in gates.values()]
    pixels = pd.read_csv(plots / "pixel_features.csv").set_index("feature")
    assert pixels.loc["bits_per_pixel", "auroc"] > 0.9  # doubled images compress better


def as_jpeg(path: Path, grey: np.ndarray) -> None:
    """Write another format than the name says."""
    Image.fromarray(grey).save(path, "JPEG", quality=80)


def tinted(path: Path, grey: np.ndarray) -> None:
    """Write a tint that a conversion to grey would hide."""
    Image.fromarray(np.stack([grey, grey, grey // 8 * 8], axis=2)).save(path)


@pytest.mark.parametrize(
    ("write", "found"), [(as_jpeg, "JPEG of mode L"), (tinted, "PNG of mode RGB")]
)
def test_files_that_would_tell_a_class_are_refused(
    honest: Folders, tmp_path: Path, write: Callable[[Path, np.ndarray], None], found: str
) -> None:
    """A detector reads canonical files only: no format or colour can stand for a class."""
    with pytest.raises(InputError, match=rf"000\d+\.png: {found}; expected an 8-bit grey PNG"):
        audit(rewritten(honest, tmp_path, write), tmp_path)


def test_metadata_never_reaches_a_detector(tmp_path: Path) -> None:
    """A file with a resolution and a comment is read as the same pixels."""
    grey = scene(np.random.default_rng(0))
    write_grey_png(tmp_path / "plain.png", grey)
    info = PngInfo()
    info.add_text("Software", "generator")
    Image.fromarray(grey).save(tmp_path / "tagged.png", dpi=(72, 72), pnginfo=info)

    images = load_images(pd.DataFrame({"path": sorted(tmp_path.iterdir())})).images

    np.testing.assert_array_equal(images[0], images[1])


def test_a_crop_and_a_fake_of_one_picture_are_the_same_bytes(tmp_path: Path) -> None:
    """The last steps of both classes keep all 256 grey levels and share one encoder."""
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    write_grey_png(tmp_path / "fake.png", to_uint8(to_unit_range(torch.from_numpy(grey))).numpy())
    Image.fromarray(grey).save(tmp_path / "micrograph.tif")
    params = CropParams(
        geometry="tiles",
        size_px=16,
        info_bar=0,
        max_flat_share=None,
        max_tiles=None,
        max_left_out=0,
        max_megapixels=1,
    )

    (tile,), _ = cut_micrograph(tmp_path / "micrograph.tif", params)
    write_grey_png(tmp_path / "real.png", tile.grey)

    np.testing.assert_array_equal(read_crop(tmp_path / "real.png"), grey)
    assert (tmp_path / "real.png").read_bytes() == (tmp_path / "fake.png").read_bytes()


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
    table = pd.read_csv(plots / "gates.csv").set_index("name")
    assert "alone" in table.loc["one_sided_processing", "remark"]


def roughness(images: torch.Tensor) -> np.ndarray:
    """Score by the mean square of NPR: rough images are fakes."""
    residuals = network_input(to_unit_range(images), 1)
    return residuals.square().mean(dim=(1, 2, 3)).log().numpy()


def checkerboard(images: torch.Tensor) -> np.ndarray:
    """Score by the amplitude of a checkerboard, as far as it stands out of noise.

    Processing only ever weakens it, and where it is gone all images are alike.
    """
    rows, columns = (torch.arange(side) for side in images.shape[-2:])
    board = 1 - 2 * ((rows[:, None] + columns) % 2)
    amplitude = (to_unit_range(images) * board).mean(dim=(1, 2, 3)).abs()
    return (amplitude - 0.006).clamp(min=0).numpy()


def in_memory(reals: list[np.ndarray], fakes: list[np.ndarray]) -> LabelledImages:
    """Images, each a group of its own."""
    images = [*reals, *fakes]
    table = pd.DataFrame(
        {
            "class": ["real"] * len(reals) + ["fake"] * len(fakes),
            "group": [f"g{index}" for index in range(len(images))],
        }
    )
    return LabelledImages(table, torch.from_numpy(np.stack(images)[:, None]))


def test_bias_is_told_from_fragility() -> None:
    """A trace that processing wipes out costs as much in both classes as in one.

    Smoothness as such costs more in one: smoothed fakes pass, beside rougher reals.
    """
    rng = np.random.default_rng(0)
    reals = [scene(rng) for _ in range(60)]
    board = 1 - 2 * (np.indices((SIZE_PX, SIZE_PX)).sum(axis=0) % 2)
    fakes = [(scene(rng) + 2.0 * board).round().clip(0, 255).astype(np.uint8) for _ in reals]
    marked = in_memory(reals, fakes)
    rough = [(i + rng.normal(0, 6, i.shape)).clip(0, 255).astype(np.uint8) for i in reals]
    noisy = in_memory(reals, rough)

    fragile = processing_gate(checkerboard, marked, 200, 0)
    biased = processing_gate(roughness, noisy, 200, 0)

    is_fake = marked.is_fake.numpy()
    left = [auroc(checkerboard(images), is_fake) for _, images in processed(marked.images, 0)]
    assert min(left) < auroc(checkerboard(marked.images), is_fake) - 0.1
    assert fragile.passed
    assert not biased.passed
    assert biased.value is not None
    assert biased.value > 0.2
    assert "fakes alone" in biased.remark


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
    params = recipe(epochs=25, flip=False, random_phase=False)

    leaky, honest = (
        permutation_gate(listed, 0, params, 2, 0, tmp_path / name, CPU)
        for name, listed in (("leaky", table), ("clean", clean))
    )

    assert not leaky.passed
    assert leaky.value is not None
    assert leaky.value > 0.8
    assert honest.passed


def test_a_model_of_other_splits_or_another_protocol_is_refused(
    honest: Folders, tmp_path: Path
) -> None:
    """Test images that were learned from would pass every gate."""
    moved = pd.read_csv(honest.splits).replace({"split": {"train": "test", "test": "train"}})
    moved.to_csv(tmp_path / "splits.csv", index=False)
    planted = replace(honest, splits=tmp_path / "splits.csv")

    with pytest.raises(ValueError, match="not the images and splits"):
        audit(planted, tmp_path)
    with pytest.raises(ValueError, match="protocol clean, found thesis"):
        audit(honest, tmp_path, protocol="thesis")


def test_an_alpha_that_the_calibration_cannot_resolve_is_a_red_gate(
    honest: Folders, tmp_path: Path
) -> None:
    """Verdicts that can never be anything but inconclusive prove nothing."""
    metrics, plots = audit(honest, tmp_path, alpha=0.001)

    gate = metrics["gates"]["controls_inconclusive"]
    assert not gate["passed"]
    assert gate["value"] is None
    assert "not tested" in (plots / "gates.md").read_text()
    _, red = check_release(tmp_path / "audit.json", honest.model)
    assert any(line.startswith("calibration: alpha 0.001 needs 999") for line in red)


def test_controls_that_get_a_verdict_are_red(honest: Folders, tmp_path: Path) -> None:
    """A training domain without limits lets noise through, and the gate says so."""
    folder = tmp_path / "classifier"
    shutil.copytree(honest.model, folder)
    domain = Domain.load(folder / DOMAIN_FILE)
    replace(domain, limits=(1e9, 1e9)).save(folder / DOMAIN_FILE)
    tested = [honest.under_test(path) for path in (folder, honest.model)]

    wide, own = (control_gate(one, 20) for one in tested)

    assert not wide.passed
    assert wide.value is not None
    assert own.value is not None
    assert wide.value < own.value
