"""LPIPS against the public program: tensors made by `lpips` 0.1.4 with ImageNet trunks."""

import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from semforensics.core.images import read_grey, to_unit_range
from semforensics.distances.pairwise import pairwise_lpips
from semforensics.perceptual.lpips import LPIPS, Embedding
from semforensics.perceptual.weights import Source, fetch_archive, state_from_archive

CPU = torch.device("cpu")
PYIQA = (
    "pyiqa==0.1.16 --hash=sha256:42bbcf1c274a8b53f040a3ec5ec304a15b7725afb5a85b81050e9cc7e6d09ed4"
)


@pytest.fixture
def alex(shared: Path) -> tuple[LPIPS, dict]:
    """LPIPS with the ImageNet trunk and heads of the reference, and the reference's outputs."""
    stored = torch.load(shared / "parity" / "lpips.pt", weights_only=True)["alex"]
    lpips = LPIPS("alex")
    # The reference names a layer slice3.6.weight: its slice, then torchvision's index.
    state = {n.partition(".")[2]: t for n, t in stored["trunk_state"].items()}
    lpips.trunk.load_state_dict(state)
    heads = {str(i): stored["lin"][i] for i in range(5)}
    lpips.lin.load_state_dict(heads)
    return lpips, stored


def test_distance_agrees_with_reference(alex):
    """Distances of three colour pairs, as a whole and by layer, are those of `lpips` 0.1.4.

    1e-4 relative: float32 convolutions summed in another order.
    """
    lpips, stored = alex

    a, b = lpips.features(stored["A"]), lpips.features(stored["B"])

    torch.testing.assert_close(lpips.distance(a, b), stored["value"], rtol=1e-4, atol=0)
    layers = torch.stack([stored["per_layer"][i] for i in range(5)], dim=1)
    torch.testing.assert_close(lpips.per_layer(a, b), layers, rtol=1e-4, atol=1e-7)


def test_all_pairs_agree_with_reference(alex):
    """Features of each image once give the reference's matrix of all pairs."""
    lpips, stored = alex

    a, b = lpips.features(stored["A"]), lpips.features(stored["B"])
    rows = [[f[i : i + 1].expand(3, -1, -1, -1) for f in a] for i in range(3)]
    matrix = torch.stack([lpips.distance(row, b) for row in rows])

    torch.testing.assert_close(matrix, stored["matrix"], rtol=1e-4, atol=0)


# lpips builds its trunk by an argument that torchvision has renamed.
@pytest.mark.filterwarnings("ignore:The parameter 'pretrained' is deprecated:UserWarning")
@pytest.mark.filterwarnings("ignore:Arguments other than a weight enum:UserWarning")
@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_distance_agrees_with_package(net):
    """With the same random trunk and the package's own heads, ours is the package's distance."""
    import semforensics.core.torchvision_compat  # noqa: F401, I001 - before lpips, which needs it
    from lpips import LPIPS as PackageLPIPS  # noqa: N811

    with torch.random.fork_rng():
        torch.manual_seed(3)
        package = PackageLPIPS(net=net, pnet_rand=True, verbose=False).eval()
    lpips = LPIPS(net)
    # slice3.6.weight → 6.weight; lin3.model.1.weight of shape [1, channels, 1, 1] → lin.3
    trunk = {n.partition(".")[2]: t for n, t in package.net.state_dict().items()}
    lpips.trunk.load_state_dict(trunk)
    heads = {str(i): getattr(package, f"lin{i}").model[1].weight.flatten() for i in range(5)}
    lpips.lin.load_state_dict(heads)
    rng = torch.Generator().manual_seed(0)
    a, b = torch.rand(2, 2, 3, 48, 40, generator=rng) * 2 - 1

    with torch.no_grad():
        expected = package(a, b).flatten()

    torch.testing.assert_close(lpips(a, b), expected, rtol=1e-4, atol=0)


@pytest.fixture
def archive(root: Path) -> Path:
    """The published trunks, fetched unless they are there; without a network they are not."""
    scratch = root / ".scratch/fetch_backbones"
    scratch.mkdir(parents=True, exist_ok=True)
    try:
        return fetch_archive(Source(), scratch)
    except FileNotFoundError as error:
        pytest.skip(f"the published trunks cannot be fetched: {error}")


def with_weights(net: str, state: dict[str, Tensor]) -> LPIPS:
    """Our LPIPS with the tensors of a weights file."""
    lpips = LPIPS(net)
    lpips.load_state_dict({n.replace("features.", "trunk."): t for n, t in state.items()})
    return lpips


def package_with_trunk(net: str, state: dict[str, Tensor]) -> torch.nn.Module:
    """The package's LPIPS with its own heads and the trunk of a weights file."""
    import semforensics.core.torchvision_compat  # noqa: F401, I001 - before lpips, which needs it
    from lpips import LPIPS as PackageLPIPS  # noqa: N811

    package = PackageLPIPS(net=net, pnet_rand=True, verbose=False).eval()
    # slice3.6.weight → features.6.weight
    names = {n: f"features.{n.partition('.')[2]}" for n in package.net.state_dict()}
    package.net.load_state_dict({n: state[ours] for n, ours in names.items()})
    return package


def crops(image: np.ndarray, count: int, side: int, seed: int) -> list[Tensor]:
    """Cut-outs of an image as three channels, at random places, neighbours overlapping by most."""
    rng = np.random.default_rng(seed)
    colour = np.broadcast_to(image[..., None] if image.ndim == 2 else image, (*image.shape[:2], 3))
    top, left = (int(rng.integers(size - side - count)) for size in colour.shape[:2])
    return [
        torch.from_numpy(colour[top + i : top + i + side, left : left + side].copy()).movedim(-1, 0)
        for i in range(count)
    ]


@pytest.mark.filterwarnings("ignore:The parameter 'pretrained' is deprecated:UserWarning")
@pytest.mark.filterwarnings("ignore:Arguments other than a weight enum:UserWarning")
@pytest.mark.parametrize(("net", "side"), [("alex", 96), ("vgg", 32)])
def test_all_pairs_of_real_images_agree_with_package(archive, shared, net, side):
    """528 pairs of micrographs and photographs: 1e-4 of the package's distance, copies exactly 0.

    The trunks are the published ones, the heads the package's own. Among the pairs are cut-outs
    one pixel apart.
    """
    from sklearn.datasets import load_sample_images

    files = sorted((shared / "sem/boiko-pdc-partial/cropped_890").rglob("*.tif"))[:8]
    sources = [read_grey(path) for path in files] + load_sample_images().images
    cut = [crops(image, 4, side, seed) for seed, image in enumerate(sources)]
    a = torch.stack([crop for four in cut for crop in four[:2]] + [c[0] for c in cut[:2]])
    b = torch.stack([crop for four in cut for crop in (four[0], four[2])] + [c[1] for c in cut[:4]])
    state = state_from_archive(archive, net)
    package = package_with_trunk(net, state)
    embedding = Embedding(with_weights(net, state), precision="float32", device=CPU)

    found = pairwise_lpips(a, b, embedding=embedding, block_size=8, memory_gb=0.2)[0]

    with torch.no_grad():
        rows = [package(to_unit_range(x[None]), to_unit_range(b)).flatten() for x in a]
    expected = torch.stack(rows).double()
    same = torch.tensor([[bool(torch.equal(x, y)) for y in b] for x in a])
    assert found.numel() >= 500
    assert same.sum() >= 10
    assert torch.equal(found == 0, same)
    assert ((found - expected).abs() <= 1e-4 * expected)[~same].all()


@pytest.mark.slow
def test_published_values(archive, tmp_path):
    """LPIPS of five photographs and their distorted copies, as published, to four digits.

    The images lie in the wheel of pyiqa 0.1.16, folder ResultsCalibra, with the distances for
    AlexNet. Those for VGG16 were made by `lpips` 0.1.4 with these trunks.
    """
    (tmp_path / "requirements.txt").write_text(PYIQA)
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes"]
    command += ["-r", str(tmp_path / "requirements.txt"), "-d", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"pip cannot fetch pyiqa 0.1.16: {done.stderr.strip().splitlines()[-1]}")
    images: dict[str, list[Tensor]] = {"ref_dir": [], "dist_dir": []}
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        for folder, found in images.items():
            for name in ("I03", "I04", "I06", "I08", "I19"):
                with wheel.open(f"ResultsCalibra/{folder}/{name}.bmp") as file:
                    levels = np.array(Image.open(file).convert("RGB"))
                found.append(torch.from_numpy(levels).movedim(-1, 0))
    published = {
        "alex": [0.7237, 0.2572, 0.05079, 0.05205, 0.4253],
        "vgg": [0.7614, 0.2090, 0.0544, 0.0475, 0.5971],
    }

    for net, expected in published.items():
        lpips = with_weights(net, state_from_archive(archive, net))
        embedding = Embedding(lpips, precision="float32", device=CPU)
        pairs = zip(images["ref_dir"], images["dist_dir"], strict=True)
        found = [
            float(
                pairwise_lpips(x[None], y[None], embedding=embedding, block_size=1, memory_gb=1.0)
            )
            for x, y in pairs
        ]
        # Half of the last digit that was published, and as much for whoever rounded it.
        digits = [5e-5 if net == "vgg" or value > 0.1 else 5e-6 for value in expected]
        for value, there, tolerance in zip(found, expected, digits, strict=True):
            assert abs(value - there) <= 1.1 * tolerance, (net, found)
