"""LPIPS against the public program: tensors made by `lpips` 0.1.4 with ImageNet trunks."""

from pathlib import Path

import pytest
import torch

from semforensics.perceptual.lpips import LPIPS


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
    import semforensics.torchvision_compat  # noqa: F401, I001 - before lpips, which needs it
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
