"""Maps point at the evidence, carry its sign, and share one scale when drawn."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from tests.detector.conftest import SHARES, Folders, recipe

from semforensics.detector.networks import NPRNetwork, build_network
from semforensics.detector.npr import network_input
from semforensics.detector.training import train_row
from semforensics.params import ExplainParams
from semforensics.trials import explain as gradcam
from semforensics.trials.explain import draw_maps, explain_row, grad_cam, spread, upsample
from semforensics.trials.gradcam_controls import STEPS

CPU = torch.device("cpu")


def network(seed: int = 0) -> NPRNetwork:
    """Fresh weights."""
    torch.manual_seed(seed)
    return build_network("npr_tiny", 1).eval()


def residuals(count: int = 3) -> torch.Tensor:
    """What the network sees of uniform noise."""
    rng = torch.Generator().manual_seed(0)
    return network_input(torch.rand((count, 1, 32, 32), generator=rng) * 2 - 1, 1)


def test_a_map_is_the_relu_of_the_gradient_weighted_sum() -> None:
    """At the last block the gradient of the logit is known, and so is the map."""
    net, images = network(), residuals()

    maps = grad_cam(net, net.last_block, images, 1)

    features = net.layer2(net.layer1(net.stem(images)))  # [3, 16, 4, 4]
    weights = net.fc1.weight.view(1, 16, 1, 1) / 16  # the mean over 4 x 4 positions
    expected = torch.relu((weights * features).sum(dim=1))
    torch.testing.assert_close(maps, expected)
    assert maps.shape == (3, 4, 4)


def test_the_signs_explain_opposite_classes() -> None:
    """Where there is evidence for a fake there is none for a real."""
    net, images = network(), residuals()

    for layer in (net.last_block, net.last_conv):
        fake, real = (grad_cam(net, layer, images, sign) for sign in (1, -1))

        assert not ((fake > 0) & (real > 0)).any()
        assert fake.any() or real.any()


def test_companions_do_not_change_a_map() -> None:
    """A map is the same for an image alone and in a batch."""
    net, images = network(), residuals()

    together = grad_cam(net, net.last_conv, images, 1)

    alone = torch.cat([grad_cam(net, net.last_conv, image[None], 1) for image in images])
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=1e-5)


def test_other_weights_give_another_map() -> None:
    """Randomising the weights changes the map (Adebayo et al. 2018)."""
    images = residuals()

    maps = [
        torch.stack([grad_cam(net, net.last_conv, images, sign) for sign in (1, -1)])
        for net in (network(0), network(1))
    ]

    correlation = torch.corrcoef(torch.stack([m.flatten() for m in maps]))[0, 1]
    assert abs(correlation) < 0.9


def test_the_network_is_left_as_it_was() -> None:
    """Explaining leaves no hook and no gradient behind."""
    net = network()

    grad_cam(net, net.last_conv, residuals(), 1)

    assert not net.last_conv._forward_hooks
    assert all(p.grad is None for p in net.parameters())


def test_upsampling_keeps_the_mean_of_a_constant_and_the_place_of_a_peak() -> None:
    """Half-pixel centres: a peak at cell 1 of 4 lies around pixel 12 of 32."""
    maps = torch.zeros(2, 4, 4)
    maps[0] = 3
    maps[1, 1, 1] = 1

    larger = upsample(maps, 32, 32)

    assert (larger[0] == 3).all()
    rows, columns = (larger[1] > 0.9 * larger[1].max()).nonzero().float().mean(dim=0)
    assert rows == columns == 11.5


@pytest.mark.parametrize(
    ("count", "wanted", "expected"),
    [(9, 3, [0, 4, 8]), (2, 5, [0, 1]), (1, 1, [0]), (100, 2, [0, 99])],
)
def test_shown_images_are_spread_evenly(count: int, wanted: int, expected: list[int]) -> None:
    """The images shown are spread over all, ends included, or are all of them."""
    assert spread(count, wanted) == expected


def test_figures_show_each_image_beside_its_overlay_on_the_given_scale() -> None:
    """Every map is drawn from 0 to the shared maximum, beside its image, under a labelled bar."""
    images = np.full((5, 8, 8), 100, dtype=np.uint8)
    maps = np.linspace(0, 1, 5 * 64, dtype=np.float32).reshape(5, 8, 8)

    figure = draw_maps(images, maps, "real", 4.0, "note with 2 of 5 zero")

    drawn = [image for axis in figure.axes for image in axis.get_images()]
    heats = [image for image in drawn if image.get_alpha()]
    assert len(drawn) == 15
    assert [image.get_clim() for image in heats] == [(0, 4.0)] * 5
    assert figure.axes[-1].get_ylabel() == "evidence for real, in logits"
    title = figure.get_suptitle()
    assert "-logit" in title
    assert "2 of 5 zero" in title


def test_a_row_is_explained_with_both_classes_on_one_scale(
    folders: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A readable grid per class, the same bytes each time; no map leaves the scale of both."""
    drawn = []
    monkeypatch.setattr(gradcam, "draw_maps", lambda *a: drawn.append(a) or draw_maps(*a))
    train_row(
        "fastgan", folders.cropped, folders.splits, folders.fakes, tmp_path / "model",
        params=recipe(epochs=2), shares=SHARES, protocol="clean", data="folder", seed=0,
        scratch=tmp_path / "scratch", device=CPU,
    )  # fmt: skip

    summaries = [
        explain_row(
            "fastgan", tmp_path / "model", folders.cropped, folders.splits, folders.fakes,
            tmp_path / name, params=ExplainParams(num_images=2), resamples=100, seed=0, device=CPU,
        )
        for name in ("one", "two")
    ]  # fmt: skip

    figures = ("real.png", "fake.png", "compactness.png", "randomised.png")
    tables = {"compactness.csv", "summary.json"}
    assert {p.name for p in (tmp_path / "one").iterdir()} == {*figures, *tables}
    for name in tables:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    for name in figures:
        with Image.open(tmp_path / "one" / name) as image:
            assert np.asarray(image).std() > 10
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert "of 18 real maps" in summaries[0]
    assert "of 18 fake maps" in summaries[0]
    scales = {scale_max for _, _, _, scale_max, _ in drawn}
    assert len(scales) == 1
    assert max(maps.max() for _, maps, _, _, _ in drawn) <= scales.pop()
    table = pd.read_csv(tmp_path / "one" / "compactness.csv")
    assert table.groupby(["evidence", "class"]).size().to_dict() == {
        ("own_class", "real"): 18, ("own_class", "fake"): 18,
        ("towards_fake", "real"): 18, ("towards_fake", "fake"): 18,
    }  # fmt: skip
    summary = json.loads((tmp_path / "one" / "summary.json").read_text())
    for direction in ("own_class", "towards_fake"):
        numbers, listed = summary[direction], table[table["evidence"] == direction]
        for image_class in ("real", "fake"):
            values = listed.loc[listed["class"] == image_class, "half_mass_share"]
            assert numbers[f"zero_{image_class}"] == values.isna().sum()
            if values.notna().any():
                assert numbers[image_class] == pytest.approx(values.mean(), abs=1e-6)
    assert [s["fresh_from_logit_to"] for s in summary["randomised"]["steps"]] == list(STEPS)
