"""Warps show images where the map says; parity with the public ones is in tests/parity."""

from math import pi

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from semforensics.generators.stylegan2_ada import geometry
from semforensics.generators.stylegan2_ada.geometry import margins, rotate, scale, translate, warp

EYE = torch.eye(3, dtype=torch.float64)


def maps(x: list[float], y: list[float]) -> Tensor:
    """Translations by so many pixels."""
    return translate(torch.tensor(x, dtype=torch.float64), torch.tensor(y, dtype=torch.float64))


def wave(x: Tensor, y: Tensor, height: int, width: int) -> Tensor:
    """A smooth, lopsided picture of the plane that equals its own reflection at an image's ends."""
    u, v = pi * (x / (width - 1) + 0.5), pi * (y / (height - 1) + 0.5)
    return u.cos() + 0.5 * (2 * v).cos() - 0.7 * v.cos() + 0.4 * u.cos() * (2 * v).cos()


def pixels(height: int, width: int) -> tuple[Tensor, Tensor]:
    """Places of an image's pixels from its centre, x and y."""
    y = torch.arange(height, dtype=torch.float64) - (height - 1) / 2
    x = torch.arange(width, dtype=torch.float64) - (width - 1) / 2
    return x.expand(height, width), y[:, None].expand(height, width)


@given(x=st.integers(-9, 9), y=st.integers(-9, 9))
def test_whole_pixels_move_exactly(x: int, y: int) -> None:
    """A translation by whole pixels shows the reflected image there, and changes no grey level."""
    images = torch.randn(2, 3, 10, 12, generator=torch.Generator().manual_seed(0)).double()
    reflected = F.pad(images, (9, 9, 9, 9), mode="reflect")

    warped = warp(images, maps([x, 0.0], [y, 0.0]))

    expected = reflected[:1, :, 9 + y : 19 + y, 9 + x : 21 + x]
    # The outermost pixels also read what lies beyond the reflection, which may be 0.
    torch.testing.assert_close(warped[:1, :, 3:-3, 3:-3], expected[:, :, 3:-3, 3:-3])
    assert torch.equal(warped[1], images[1])


def test_resampling_without_a_move_changes_nothing() -> None:
    """The identity may be left out: a move by next to nothing gives the image itself."""
    images = torch.randn(2, 1, 16, 20, generator=torch.Generator().manual_seed(0)).double()

    warped = warp(images, maps([1e-12, 0.0], [0.0, 0.0]))

    assert not torch.equal(warped, images)
    torch.testing.assert_close(warped, images, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    "inverse",
    [
        rotate(torch.tensor([pi / 2, pi, -pi / 2], dtype=torch.float64)),
        rotate(torch.tensor([0.3, 2.0, -1.0], dtype=torch.float64)),
        maps([3.3, -2.6, 0.5], [0.0, 1.7, -6.2]),
        scale(*torch.tensor([[-1.0, 1.6, 0.6], [1.0, 1.6, 0.8]], dtype=torch.float64)),
        rotate(torch.tensor([0.3, 2.0, -1.0], dtype=torch.float64))
        @ maps([3.3, -2.6, 0.5], [0.0, 1.7, -6.2])
        @ scale(*torch.tensor([[1.1, -0.9, 1.3], [1.0, 1.4, 0.8]], dtype=torch.float64)),
    ],
    ids=["quarter turns", "turns", "moves", "mirror and scales", "all together"],
)
def test_a_warp_shows_the_place_that_the_map_gives(inverse: Tensor) -> None:
    """Each pixel shows the picture at its mapped place, beyond the image its reflection.

    To 0.15 px: sym6's centre of mass lies 0.05 px off the middle on either axis, on the way up and
    on the way down, and what is turned or mirrored in between does not cancel.
    """
    height, width = 40, 48
    x, y = pixels(height, width)
    images = wave(x, y, height, width).expand(3, 1, -1, -1)
    places = inverse @ torch.stack([x, y, torch.ones_like(x)]).flatten(1)  # [3, xy1, pixels]
    expected = wave(places[:, 0], places[:, 1], height, width).view(3, 1, height, width)

    warped = warp(images, inverse)

    slope = torch.hypot(*torch.gradient(images[0, 0])).max()
    assert float((warped - expected).abs().max() / slope) < 0.15


def test_margins_are_those_of_the_image_that_reads_farthest() -> None:
    """Per side, 6 pixels more than any image's corners; at most a reflection; at least none."""
    moves = maps([5.0, -2.5, 0.0], [0.0, 100.0, -30.0])

    assert margins(moves, 20, 40) == (9, 19, 11, 19)
    assert margins(EYE[None], 20, 40) == (6, 6, 6, 6)
    half = torch.tensor([0.5], dtype=torch.float64)
    assert margins(scale(half, half), 64, 64) == (0, 0, 0, 0)


def test_chunks_do_not_change_a_warp(monkeypatch: pytest.MonkeyPatch) -> None:
    """One image at a time gives the same images and gradients as all at once."""
    images = torch.randn(4, 1, 16, 16, generator=torch.Generator().manual_seed(0)).requires_grad_()
    inverse = rotate(torch.tensor([0.1, 0.0, 0.3, 2.0], dtype=torch.float64))

    results = []
    for largest in (2**26, 1):
        monkeypatch.setattr(geometry, "_LARGEST_CHUNK", largest)
        warped = warp(images, inverse)
        results.append((warped, *torch.autograd.grad(warped.square().sum(), images)))

    torch.testing.assert_close(*results)
