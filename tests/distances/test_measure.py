import json
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file

from semforensics.distances.measure import Sources, halve_by_group, measure_distances
from semforensics.params import MeasureDistancesParams
from semforensics.perceptual.lpips import LPIPS

SIDE = 32
SIDES = ("train",) * 8 + ("test",) * 7 + ("validation",)
TABLES = ("per_real", "per_fake", "memorisation", "suspicious")


def save(path: Path, image: np.ndarray) -> None:
    """Write a grey PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


def scenes(count: int, seed: int) -> np.ndarray:
    """Images of a few bright discs on a dark ground, with noise: different, but of one kind."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    images = []
    for _ in range(count):
        levels = rng.normal(70, 4, (SIDE, SIDE))
        for y, x, radius in zip(*rng.uniform(4, 28, (2, 4)), rng.uniform(3, 6, 4), strict=True):
            levels[np.hypot(rows - y, columns - x) < radius] += 90
        images.append(levels.clip(0, 255).astype(np.uint8))
    return np.stack(images)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory) -> Path:
    """Weights of LPIPS-Alex that are random, but of the right size."""
    rng = torch.Generator().manual_seed(0)
    state = {}
    for name, tensor in LPIPS("alex").state_dict().items():
        if name.startswith("lin."):
            state[name] = torch.rand(tensor.shape, generator=rng)
        elif tensor.ndim == 4:
            scale = (2 / tensor[0].numel()) ** 0.5
            value = torch.randn(tensor.shape, generator=rng) * scale
            state[name.replace("trunk.", "features.")] = value
        else:
            state[name.replace("trunk.", "features.")] = torch.zeros_like(tensor)
    folder = tmp_path_factory.mktemp("pretrained")
    save_file(state, folder / "alex.safetensors")
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """16 reals on three sides, 12 fakes of the same kind, of which three are copies.

    Fake 1 is the training real 2, fake 4 the training real 5 mirrored, fake 7 the training real 3
    with fresh noise; fake 10 is the test real 8.
    """
    reals, fakes = scenes(len(SIDES), seed=0), scenes(12, seed=1)
    fakes[1] = reals[2]
    fakes[4] = reals[5, :, ::-1]
    noise = np.random.default_rng(2).normal(0, 6, (SIDE, SIDE))
    fakes[7] = (reals[3] + noise).round().clip(0, 255).astype(np.uint8)
    fakes[10] = reals[8]
    for index, image in enumerate(reals):
        save(tmp_path / f"cropped/real_{index:02d}.png", image)
    for seed, image in enumerate(fakes):
        save(tmp_path / f"fakes/{seed:06d}.png", image)
    table = pd.DataFrame(
        {
            "file": [f"real_{i:02d}.png" for i in range(len(SIDES))],
            "micrograph": [f"m{i}.tif" for i in range(len(SIDES))],
            "group": [f"g{i}" for i in range(len(SIDES))],
            "label": "",
            "magnification_k": "",
            "kv": "",
            "top_px": 0,
            "left_px": 0,
            "split": SIDES,
        }
    )
    table.sample(frac=1, random_state=1).to_csv(tmp_path / "splits.csv", index=False)
    return tmp_path


def measure(
    folder: Path,
    pretrained: Path,
    protocol: str = "clean",
    net: str = "alex",
    memory_gb: float = 1.0,
) -> tuple[dict, dict[str, pd.DataFrame]]:
    """Run the stage's function; give its metrics and tables."""
    splits, fakes = folder / "splits.csv", folder / "fakes"
    measure_distances(
        Sources("fastgan", folder / "cropped", splits, fakes, protocol, "simulated"),
        pretrained,
        folder / "metrics/fastgan.json",
        folder / "plots",
        params=MeasureDistancesParams(net=net, precision="float32"),
        seed=0,
        device=torch.device("cpu"),
        memory_gb=memory_gb,
    )
    metrics = json.loads((folder / "metrics/fastgan.json").read_text())
    tables = {name: pd.read_csv(folder / f"plots/fastgan_{name}.csv") for name in TABLES}
    return metrics, tables


def test_copies_point_to_their_twins(folder, pretrained):
    """A copied training real is at distance 0 in both tables, each side naming the other's file."""
    metrics, tables = measure(folder, pretrained)

    per_real, per_fake = tables["per_real"], tables["per_fake"]
    assert list(per_real["file"]) == [f"real_{i:02d}.png" for i in range(8)]
    assert list(per_fake["file"]) == [f"{i:06d}.png" for i in range(12)]
    for name in ("mse", "lpips"):
        assert per_real[f"{name}_min"][2] == per_fake[f"{name}_min"][1] == 0
        assert (per_real[f"{name}_min"] == 0).sum() == (per_fake[f"{name}_min"] == 0).sum() == 1
        assert per_real[f"{name}_nearest"][2] == "000001.png"
        assert per_fake[f"{name}_nearest"][1] == "real_02.png"
        assert metrics[f"{name}_min"] == 0
        assert metrics[f"{name}_mean_of_minima"] == pytest.approx(per_real[f"{name}_min"].mean())
        assert metrics[f"{name}_mean_all_pairs"] == pytest.approx(per_fake[f"{name}_mean"].mean())
    assert (metrics["n_real"], metrics["n_fake"], metrics["reals"]) == (8, 12, "train")
    assert (metrics["lpips_net"], metrics["data"]) == ("alex", "simulated")
    # Noise of 4 grey levels, rounded.
    assert metrics["mse_noise_floor"] == pytest.approx(2 * (16 + 1 / 12), rel=0.25)


def test_planted_copies_are_listed_first(folder, pretrained):
    """A copy, a mirrored one and a noisy one of training reals lead the list of suspicious fakes.

    A copy of a test real is none: the generator has not seen it.
    """
    metrics, tables = measure(folder, pretrained)

    suspicious = tables["suspicious"]
    found = suspicious.set_index("file")
    assert set(suspicious["file"][:3]) == {"000001.png", "000004.png", "000007.png"}
    assert "000010.png" not in found.index
    assert list(found.loc["000001.png", ["by", "mse", "mse_nearest", "mse_flip"]]) == [
        "mse and lpips", 0, "real_02.png", "none",
    ]  # fmt: skip
    assert list(found.loc["000004.png", ["mse", "lpips", "lpips_nearest", "lpips_flip"]]) == [
        0, 0, "real_05.png", "left-right",
    ]  # fmt: skip
    assert list(found.loc["000007.png", ["mse_nearest", "mse_flip"]]) == ["real_03.png", "none"]
    assert found.loc["000007.png", "mse"] == pytest.approx(36, rel=0.2)
    assert (found["mse_relative"].iloc[:3] < 0.1).all()
    assert metrics["suspicious_fakes"] == len(suspicious)


def test_copying_is_told_against_held_out_reals(folder, pretrained):
    """Fakes that are all copies are nearer than held-out reals; an honest set is as near as they.

    Under `thesis` no real is held out, and no number pretends otherwise.
    """
    honest, _ = measure(folder, pretrained)
    for index in range(12):
        copy = folder / f"cropped/real_{index % 8:02d}.png"
        (folder / f"fakes/{index:06d}.png").write_bytes(copy.read_bytes())
    copied, tables = measure(folder, pretrained)
    thesis, thesis_tables = measure(folder, pretrained, protocol="thesis")

    assert len(tables["suspicious"]) == 12
    for name in ("mse", "lpips"):
        assert copied[f"memorisation_{name}_share_fakes_nearer"] == 1
        assert copied[f"memorisation_{name}_p_value"] < 0.001
        assert 0.3 < honest[f"memorisation_{name}_share_fakes_nearer"] < 0.9
        kinds = tables["memorisation"].groupby("kind")[name].median()
        assert copied[f"memorisation_{name}_median_held_out"] == pytest.approx(kinds["real"])
    assert thesis["memorisation"].startswith("not tested")
    assert not [key for key in thesis if key.endswith(("p_value", "held_out", "nearer"))]
    assert (thesis["n_real"], thesis["reals"]) == (16, "all")
    # Each real is compared with the others, never with itself.
    reals = thesis_tables["memorisation"].query("kind == 'real'")
    assert len(reals) == 16
    assert (reals["mse"] > 0).all()
    assert (reals["file"] != reals["mse_nearest"]).all()
    assert thesis["mse_first_percentile_real_to_real"] >= reals["mse"].min()


def test_memory_changes_no_byte(folder, pretrained):
    """All files are the same however much is kept at a time."""
    names = ["metrics/fastgan.json", *(f"plots/fastgan_{name}.csv" for name in TABLES)]

    measure(folder, pretrained, memory_gb=5e-5)
    before = [(folder / name).read_bytes() for name in names]
    measure(folder, pretrained, memory_gb=1.0)

    assert [(folder / name).read_bytes() for name in names] == before


@given(st.lists(st.sampled_from("abcdefgh"), min_size=2, max_size=40), st.integers(0, 9))
def test_halves_are_of_whole_groups(groups, seed):
    """No group is in both halves, and they differ by no more images than the largest group has."""
    first = halve_by_group(groups, seed)

    names = np.array(groups)
    assert not set(names[first]) & set(names[~first])
    assert abs(int(first.sum()) - int((~first).sum())) <= max(Counter(groups).values())
    np.testing.assert_array_equal(first, halve_by_group(groups, seed))


def test_neighbours_are_not_in_both_halves(folder, pretrained):
    """Under `thesis` two groups of reals are the two halves; one group alone has no floor."""
    table = pd.read_csv(folder / "splits.csv")
    table["group"] = np.where(table["file"] < "real_08.png", "g0", "g1")
    table.to_csv(folder / "splits.csv", index=False)
    metrics, _ = measure(folder, pretrained, protocol="thesis")
    table.assign(group="g0").to_csv(folder / "splits.csv", index=False)

    assert metrics["n_real"] == 16
    with pytest.raises(ValueError, match="as many in each half of the groups"):
        measure(folder, pretrained, protocol="thesis")


def test_quality_has_a_floor_beside_every_number(folder, pretrained):
    """Every number of the fakes as a set has the same of real against real beside it."""
    for protocol in ("clean", "thesis"):
        metrics, _ = measure(folder, pretrained, protocol=protocol)

        floors = {key.removesuffix("_floor") for key in metrics if key.endswith("_floor")}
        floors.discard("mse_noise")
        assert floors == {
            *(
                f"{n}_alex_conv5_mean"
                for n in ("kid", "precision", "recall", "density", "coverage")
            ),
            "kid_alex_conv5_mean_sd",
            "spectrum_distance_db",
            "particle_size_distance_px",
        }
        assert floors <= set(metrics)


def test_images_that_do_not_compare_are_refused(folder, pretrained):
    """An empty folder, a fake of another size, reals of other sizes, missing weights: by name."""
    small = np.zeros((30, 32), np.uint8)
    save(folder / "fakes/000003.png", small)
    with pytest.raises(ValueError, match=r"fakes/000003\.png: 32x30 px, expected 32x32"):
        measure(folder, pretrained)

    for fake in (folder / "fakes").iterdir():
        save(fake, small.T)
    with pytest.raises(ValueError, match=r"images of 30x32 px, those of .*cropped have 32x32"):
        measure(folder, pretrained)

    for fake in (folder / "fakes").iterdir():
        fake.unlink()
    with pytest.raises(ValueError, match="no PNG files, expected the fakes of fastgan"):
        measure(folder, pretrained)
    save(folder / "fakes/000000.png", scenes(1, seed=3)[0])
    with pytest.raises(ValueError, match=r"8 reals .* 7 others, 1 fakes: need 2 of each"):
        measure(folder, pretrained)
    with pytest.raises(FileNotFoundError, match=r"vgg\.safetensors"):
        measure(folder, pretrained, net="vgg")
    assert not (folder / "metrics").exists()
    assert not (folder / "plots").exists()
