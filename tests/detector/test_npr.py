"""The NPR transform, its scale and its phases."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from semforensics.detector.npr import GAIN, PHASES, network_input, npr, phase_crop, random_phases


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    """Uniform noise on -1 … 1."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_npr_is_the_difference_to_the_cells_top_left_pixel() -> None:
    """Every pixel loses the value of the top-left pixel of its 2x2 cell."""
    images = noise(2, 1, 6, 8)

    residuals = npr(images)

    for row in range(6):
        for column in range(8):
            corner = images[:, :, row // 2 * 2, column // 2 * 2]
            assert torch.equal(residuals[:, :, row, column], images[:, :, row, column] - corner)


@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 100))
def test_npr_of_a_doubled_image_is_zero(height: int, width: int, seed: int) -> None:
    """NPR of an image doubled by nearest neighbours is 0; shifted by one pixel it is not."""
    doubled = (
        noise(1, 1, height, width, seed=seed).repeat_interleave(2, -1).repeat_interleave(2, -2)
    )

    assert not npr(doubled).any()
    if min(height, width) > 2:
        assert npr(phase_crop(doubled, 1, 1)).any()


@given(st.floats(-1, 1), st.integers(0, 100))
def test_npr_is_blind_to_brightness(shift: float, seed: int) -> None:
    """A constant added to the image does not change its NPR."""
    images = noise(1, 1, 4, 4, seed=seed)

    torch.testing.assert_close(npr(images + shift), npr(images), atol=1e-6, rtol=0)


@pytest.mark.parametrize("size", [(5, 4), (4, 5), (7, 7)])
def test_odd_sizes_are_refused(size: tuple[int, int]) -> None:
    """An image with an odd side is refused with its size."""
    with pytest.raises(ValueError, match=f"{size[1]}x{size[0]} px"):
        npr(noise(1, 1, *size))


def test_the_network_sees_the_reference_normalisation() -> None:
    """Three channels are NPR times 2/3 of the image under the ImageNet mean and deviation."""
    images = noise(2, 1, 8, 8)
    mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)

    expected = npr(((images + 1) / 2 - mean) / std) * 2 / 3

    torch.testing.assert_close(network_input(images, 3), expected, atol=1e-5, rtol=1e-5)
    grey = npr((images + 1) / 2) * GAIN / 0.226
    torch.testing.assert_close(network_input(images, 1), grey, atol=1e-5, rtol=1e-5)


def test_phases_are_equal_crops_that_start_at_the_four_corners_of_a_cell() -> None:
    """Each phase has two rows and columns less and starts at its shift."""
    image = torch.arange(48).view(1, 6, 8)

    crops = [phase_crop(image, *phase) for phase in PHASES]

    assert all(crop.shape == (1, 4, 6) for crop in crops)
    assert [int(crop[0, 0, 0]) for crop in crops] == [0, 1, 8, 9]
    assert int(crops[3][0, -1, -1]) == 4 * 8 + 6


def test_random_phases_draw_all_four_equally_often() -> None:
    """Every image gets one of the four crops, each about as often; the seed decides."""
    image = torch.arange(36).view(1, 1, 6, 6).expand(400, 1, 6, 6)

    crops = random_phases(image, torch.Generator().manual_seed(0))

    starts, counts = crops[:, 0, 0, 0].unique(return_counts=True)
    assert starts.tolist() == [0, 1, 6, 7]
    assert counts.min() > 70
    assert torch.equal(crops, random_phases(image, torch.Generator().manual_seed(0)))
