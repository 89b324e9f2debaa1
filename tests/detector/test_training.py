"""The classifier learns what it should, nothing where there is nothing, and the same every time."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from semforensics.core.checkpoints import load_checkpoint
from semforensics.core.training import Setup
from semforensics.detector import training
from semforensics.detector.calibration import choose_threshold, fit_temperature
from semforensics.detector.corpus import LabelledImages
from semforensics.detector.networks import NPRNetwork, build_network, to_device
from semforensics.detector.scoring import score_images
from semforensics.detector.training import (
    calibrate,
    learning_rate,
    process_reals,
    train_classifier,
    train_network,
    validate,
)
from semforensics.params import TrainClassifierParams
from semforensics.trials.metrics import auroc
from tests.detector.conftest import Folders, labelled, recipe

CPU = torch.device("cpu")


def fresh_network(name: str = "npr_tiny") -> NPRNetwork:
    """Weights of seed 0."""
    torch.manual_seed(0)
    return to_device(build_network(name, 1), CPU)


def train(
    train_set: LabelledImages, scratch: Path, **changes: object
) -> tuple[NPRNetwork, list[dict[str, float]]]:
    """Train fresh weights on images in memory."""
    network = fresh_network()
    losses = train_network(
        network, train_set, labelled(10, 99),
        params=recipe(**changes), setup=Setup(0, scratch, CPU),
    )  # fmt: skip
    return network, losses


def train_folders(
    folders: Folders, output: Path, *, scratch: Path | None = None, **changes: object
) -> str:
    """Train detector fastgan from files."""
    return train_classifier(
        "fastgan", folders.corpus(), output, params=recipe(**changes), data="folder",
        scratch=scratch or output.parent / "scratch", device=CPU,
    )  # fmt: skip


def test_it_tells_doubled_images_from_originals(tmp_path: Path) -> None:
    """In twelve epochs it learns to separate originals from nearest-neighbour doublings."""
    network, losses = train(labelled(48, 0), tmp_path, epochs=12)

    test = labelled(20, 1)
    scores = score_images(network, test.images, phases=4, device=CPU)
    assert auroc(scores, test.is_fake.numpy()) > 0.99
    assert losses[-1]["train_loss"] < losses[0]["train_loss"] / 2
    assert losses[-1]["validation_accuracy"] >= 0.95


def test_without_a_difference_it_learns_nothing(tmp_path: Path) -> None:
    """Trained on permuted labels it scores unseen images about as by chance."""
    images = labelled(48, 0)
    values = []
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(len(images.table))
        permuted = images.table.assign(**{"class": images.table["class"].to_numpy()[order]})
        network, _ = train(LabelledImages(permuted, images.images), tmp_path / str(seed))
        # Originals only, half of them called fake.
        test = labelled(60, 1 + seed)
        scores = score_images(network, test.images[:60], phases=1, device=CPU)
        values.append(auroc(scores, np.arange(60) % 2 == 0))

    assert abs(np.mean(values) - 0.5) < 0.1


def test_loss_falls_on_one_batch(tmp_path: Path) -> None:
    """Twelve images are learned by heart, in bfloat16 too."""
    for precision in ("float32", "bfloat16"):
        _, losses = train(
            labelled(6, 0), tmp_path / precision, epochs=30, lr=0.01, precision=precision,
            random_phase=False, flip=False,
        )  # fmt: skip

        assert losses[-1]["train_loss"] < 0.2 * losses[0]["train_loss"]


def test_the_same_seed_gives_the_same_bytes(folders: Folders, tmp_path: Path) -> None:
    """Two trainings write the same files to the byte; another seed of the recipe does not."""
    train_folders(folders, tmp_path / "one", epochs=2)
    train_folders(folders, tmp_path / "two", epochs=2)
    train_folders(folders, tmp_path / "other", epochs=2, flip=False)

    for name in ("model.safetensors", "losses.csv"):
        one, two, other = ((tmp_path / run / name).read_bytes() for run in ("one", "two", "other"))
        assert one == two
        assert one != other


@pytest.mark.parametrize("killed_in", [3, 6])
def test_a_killed_training_goes_on_to_the_same_bytes(
    folders: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_in: int
) -> None:
    """Two seeds of four epochs, killed in either, are the same bytes as in one go."""
    options = {"epochs": 4, "num_seeds": 2}
    train_folders(folders, tmp_path / "whole", scratch=tmp_path / "a", **options)

    validated = []

    def killed(*args: object) -> dict[str, float]:
        validated.append(args)
        if len(validated) == killed_in:
            raise KeyboardInterrupt
        return validate(*args)

    with monkeypatch.context() as patch:
        patch.setattr(training, "validate", killed)
        with pytest.raises(KeyboardInterrupt):
            train_folders(folders, tmp_path / "parts", scratch=tmp_path / "b", **options)
    assert not (tmp_path / "parts").exists()
    counted = []
    monkeypatch.setattr(training, "validate", lambda *a: counted.append(a) or validate(*a))
    train_folders(folders, tmp_path / "parts", scratch=tmp_path / "b", **options)

    assert len(counted) == 8 - (killed_in - 1)
    names = {path.name for path in (tmp_path / "whole").iterdir()}
    assert names == {
        "model.safetensors", "seed_1.safetensors", "domain.safetensors", "losses.csv",
        "losses_seeds.csv",
    }  # fmt: skip
    for name in names:
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes()
    assert not list((tmp_path / "b").iterdir())


def test_the_second_seed_is_another_training_of_the_same_images(
    folders: Folders, tmp_path: Path
) -> None:
    """Weights and losses differ, images and sides do not; one seed alone gives the same first."""
    train_folders(folders, tmp_path / "two", epochs=2, num_seeds=2)
    train_folders(folders, tmp_path / "one", epochs=2)

    first, first_meta = load_checkpoint(tmp_path / "two/model.safetensors")
    second, second_meta = load_checkpoint(tmp_path / "two/seed_1.safetensors")
    alone, _ = load_checkpoint(tmp_path / "one/model.safetensors")
    assert all(torch.equal(first[name], alone[name]) for name in first)
    assert not torch.equal(first["conv1.weight"], second["conv1.weight"])
    assert first_meta["splits_sha256"] == second_meta["splits_sha256"]
    assert [m["training_seed"] for m in (first_meta, second_meta)] == [0, 1]
    assert [m["seed"] for m in (first_meta, second_meta)] == [0, 0]
    others = pd.read_csv(tmp_path / "two/losses_seeds.csv")
    assert others[["seed", "epoch"]].to_numpy().tolist() == [[1, 1], [1, 2]]
    assert len(pd.read_csv(tmp_path / "one/losses_seeds.csv")) == 0
    losses = pd.read_csv(tmp_path / "two/losses.csv")
    assert losses["train_loss"].iloc[0] != others["train_loss"].iloc[0]


def test_the_validation_side_calibrates() -> None:
    """Threshold, temperature and logits are those of the validation images, with their areas."""
    data, network = labelled(12, 3), fresh_network().eval()

    processed = process_reals(data, ["geometry rotate 90", "resize x0.5 bicubic"], seed=0)
    found = calibrate(network, data, processed, recipe(), CPU)

    assert found.keys() == {"thresholds", "temperature", "calibration"}
    for phases in (1, 4):
        logits = score_images(network, data.images, phases=phases, device=CPU)
        is_fake = data.is_fake.numpy()
        sides = found["calibration"][str(phases)]
        assert sides["real"] == logits[~is_fake].tolist()
        areas = data.table.loc[~is_fake, "group"].tolist()
        assert [sorted(set(areas))[number] for number in sides["groups"]] == areas
        assert sides["generators"] == {"fastgan": sorted(logits[is_fake].tolist())}
        turned = data.images[~data.is_fake].rot90(1, (2, 3))
        expected_logits = score_images(network, turned, phases=phases, device=CPU)
        assert sides["processed"]["geometry rotate 90"] == expected_logits.tolist()
        assert len(sides["processed"]["resize x0.5 bicubic"]) == 12
        assert found["temperature"][str(phases)] == fit_temperature(logits, is_fake)
        expected = choose_threshold(logits[~is_fake], logits[is_fake], 0.05)
        assert found["thresholds"][str(phases)] == expected


@pytest.mark.parametrize("change", ["recipe", "pixels"])
def test_the_state_of_another_training_is_not_used(tmp_path: Path, change: str) -> None:
    """What lies in the scratch folder is taken up only by the same recipe on the same pixels."""
    train(labelled(8, 0), tmp_path / "shared", epochs=2)
    data = labelled(8, 5) if change == "pixels" else labelled(8, 0)
    options = {"epochs": 3, "lr": 0.001 if change == "recipe" else 0.005}

    _, mixed = train(data, tmp_path / "shared", **options)

    _, clean = train(data, tmp_path / "own", **options)
    assert mixed == clean


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("code", "other code"),
        ("torch", f"torch {torch.__version__} (now 9.9.9)"),
        ("numpy", f"numpy {np.__version__} (now 9.9.9)"),
        ("empty", "state.pt is not the state of a training"),
    ],
)
def test_a_state_that_does_not_belong_starts_the_training_anew(
    tmp_path: Path,
    change_source: Callable[[str], None],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    change: str,
    reason: str,
) -> None:
    """Killed before, resumed after a change of code or libraries, or a damaged file: a new one."""
    train(labelled(8, 0), tmp_path / "s", epochs=1)

    match change:
        case "code":
            change_source("detector/augment.py")
        case "torch" | "numpy":
            monkeypatch.setattr({"torch": torch, "numpy": np}[change], "__version__", "9.9.9")
        case "empty":
            (tmp_path / "s/state.pt").write_bytes(b"")
    _, losses = train(labelled(8, 0), tmp_path / "s", epochs=2)

    said = capsys.readouterr().err
    assert f"{reason}: starting anew" in said
    assert "resuming" not in said
    _, whole = train(labelled(8, 0), tmp_path / "whole", epochs=2)
    assert losses == whole


def test_a_state_of_a_gpu_is_read_on_a_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A state whose tensors were saved on a GPU goes on where there is none."""
    with monkeypatch.context() as patch:
        patch.setattr(torch.serialization, "location_tag", lambda _: "cuda:0")
        train(labelled(8, 0), tmp_path / "s", epochs=1)

    _, losses = train(labelled(8, 0), tmp_path / "s", epochs=2)

    assert "resuming at epoch 1" in capsys.readouterr().err
    _, whole = train(labelled(8, 0), tmp_path / "whole", epochs=2)
    assert losses == whole


def test_the_model_says_where_it_comes_from(folders: Folders, tmp_path: Path) -> None:
    """Beside the weights stand calibration, counts, protocol, parameters and versions."""
    summary = train_folders(folders, tmp_path / "out", epochs=2)

    _, meta = load_checkpoint(tmp_path / "out/model.safetensors")
    for name in ("thresholds", "temperature", "calibration"):
        assert set(meta[name]) == {"1", "4"}
    sides = meta["calibration"]["4"]
    assert [len(sides[name]) for name in ("real", "generators", "processed")] == [6, 1, 0]
    assert meta["calibration_groups"] == 1
    assert meta["detector"] == "fastgan"
    assert meta["protocol"] == "clean"
    assert meta["data"] == "folder"
    assert meta["size_px"] == [32, 32]
    assert (meta["n_train"], meta["n_train_groups"]) == (72, 6)
    assert (meta["n_validation_real"], meta["n_validation_fake"]) == (6, 6)
    assert meta["n_validation_groups"] == 1
    assert TrainClassifierParams(**meta["params"]) == recipe(epochs=2)
    assert meta["versions"]["torch"] == torch.__version__
    losses = pd.read_csv(tmp_path / "out/losses.csv")
    assert losses["epoch"].tolist() == [1, 2]
    assert list(losses.columns[1:]) == ["train_loss", "validation_loss", "validation_accuracy"]
    assert "72 images" in summary


def test_bad_images_leave_an_older_model_untouched(folders: Folders, tmp_path: Path) -> None:
    """Images are checked before the training: an older classifier stays as it was."""
    train_folders(folders, tmp_path / "out", epochs=1)
    before = (tmp_path / "out/model.safetensors").read_bytes()
    shutil.rmtree(folders.fakes)

    with pytest.raises(FileNotFoundError, match="no such folder of fakes"):
        train_folders(folders, tmp_path / "out", epochs=1)

    assert (tmp_path / "out/model.safetensors").read_bytes() == before


def test_learning_rate_decays_in_steps() -> None:
    """Every so many epochs the rate is multiplied by the factor; 1 keeps it."""
    params = recipe(lr=0.1, lr_decay=0.5, lr_decay_every=10)

    assert [learning_rate(params, e) for e in (1, 10, 11, 21)] == [0.1, 0.1, 0.05, 0.025]
    assert learning_rate(recipe(lr=0.1), 99) == 0.1


def test_validation_numbers() -> None:
    """Validation loss is the mean cross-entropy and accuracy counts the sign of the logit."""
    data = labelled(5, 3)
    network = fresh_network()

    numbers = validate(network, data, CPU)

    logits = torch.from_numpy(score_images(network, data.images, phases=1, device=CPU))
    loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, data.is_fake.float())
    assert numbers["validation_loss"] == pytest.approx(loss.item(), rel=1e-5)
    accuracy = ((logits > 0) == data.is_fake).float().mean()
    assert numbers["validation_accuracy"] == pytest.approx(accuracy.item())
