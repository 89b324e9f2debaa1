"""Geometric augmentation: one resampling of each image, whatever the operations were.

Karras et al., "Training Generative Adversarial Networks with Limited Data", NeurIPS 2020,
arXiv:2006.06676, appendix B.2: an image is reflected at its border, doubled with a wavelet, read at
transformed places and halved again. Ours differs in cost alone: images that stay as they are are
not resampled, since sym6 is orthogonal and doubling, reading every pixel where it is and halving
give the image back up to rounding.
"""

from math import ceil

import torch
from jaxtyping import Float
from torch import Tensor

from semforensics.generators.stylegan2_ada.grid_sample import grid_sample
from semforensics.generators.stylegan2_ada.wavelets import downsampling, map_axes, upsampling

_RIM_PX = 3
"""Pixels beyond the output's edge that halving reads: a quarter of sym6's 12 taps, half of which
lie on either side, in doubled pixels."""
_REACH_PX = 2 * _RIM_PX
"""Pixels beyond the image's edge that an unmoved image's outermost pixels depend on: the rim, and
as much again, which doubling reads."""
_LARGEST_CHUNK = 2**26
"""Numbers that the doubled images of a chunk may hold at most, 256 MB in float32."""


def scale(x: Tensor, y: Tensor) -> Float[Tensor, "*batch 3 3"]:
    """Return the matrices that stretch both axes."""
    return torch.diag_embed(torch.stack([x, y, torch.ones_like(x)], dim=-1))


def translate(x: Tensor, y: Tensor) -> Float[Tensor, "*batch 3 3"]:
    """Return the matrices that move along both axes."""
    matrix = torch.eye(3, dtype=x.dtype).repeat(*x.shape, 1, 1)
    matrix[..., 0, 2], matrix[..., 1, 2] = x, y
    return matrix


def rotate(angle: Tensor) -> Float[Tensor, "*batch 3 3"]:
    """Return the matrices that turn x towards y by an angle in radians."""
    cos, sin = angle.cos(), angle.sin()
    matrix = torch.eye(3, dtype=angle.dtype).repeat(*angle.shape, 1, 1)
    matrix[..., 0, 0], matrix[..., 0, 1] = cos, -sin
    matrix[..., 1, 0], matrix[..., 1, 1] = sin, cos
    return matrix


def margins(
    inverse: Float[Tensor, "batch 3 3"], height: int, width: int
) -> tuple[int, int, int, int]:
    """Return how many pixels outside the images a warp reads: left, top, right, bottom.

    One answer for the batch, as in the public program: the most that any image needs, at most the
    side less one, which is as far as a reflection goes.
    """
    x, y = (width - 1) / 2, (height - 1) / 2
    corners = inverse.new_tensor([[-x, -y, 1], [x, -y, 1], [x, y, 1], [-x, y, 1]])
    read = (inverse @ corners.mT)[:, :2].transpose(0, 1).flatten(1)  # [2, batch * corner]
    edge = inverse.new_tensor([x, y])
    beyond = torch.cat([-read.amin(1) - edge, read.amax(1) - edge]) + _REACH_PX
    most = (width - 1, height - 1, width - 1, height - 1)
    left, top, right, bottom = (
        min(max(ceil(px), 0), limit) for px, limit in zip(beyond.tolist(), most, strict=True)
    )
    return left, top, right, bottom


def warp(
    images: Float[Tensor, "batch channels height width"], inverse: Float[Tensor, "batch 3 3"]
) -> Float[Tensor, "batch channels height width"]:
    """Show each image through a linear map of the plane, reflected beyond its border.

    `inverse` leads from a place in the output to the place in the image that is shown there, in
    pixels from the centre, x before y; float64, on the CPU. Exactly the identity leaves an image
    untouched.
    """
    height, width = images.shape[2:]
    left, top, right, bottom = margins(inverse, height, width)
    moved = (inverse != torch.eye(3, dtype=inverse.dtype)).flatten(1).any(1).nonzero()[:, 0]
    if not moved.numel():
        return images

    up_rows = upsampling(height, top, bottom, like=images)
    up_columns = upsampling(width, left, right, like=images)
    down_rows = downsampling(height, _RIM_PX, like=images)
    down_columns = downsampling(width, _RIM_PX, like=images)
    centre = translate(*inverse.new_tensor([(left - right) / 2, (top - bottom) / 2]))
    padded = (height + top + bottom, width + left + right)

    per_image = images.shape[1] * 4 * padded[0] * padded[1]
    warped = []
    for chunk in torch.split(moved, max(_LARGEST_CHUNK // per_image, 1)):
        doubled = map_axes(images[chunk.to(images.device)], up_rows, up_columns)
        grid = _grid(centre @ inverse[chunk], padded, (height, width), like=images)
        warped.append(map_axes(grid_sample(doubled, grid), down_rows, down_columns))
    if len(moved) == len(images):
        return torch.cat(warped)
    return images.index_copy(0, moved.to(images.device), torch.cat(warped))


def _grid(
    inverse: Tensor, padded: tuple[int, int], size: tuple[int, int], like: Tensor
) -> Float[Tensor, "batch out_height out_width 2"]:
    """Return where the doubled, padded images are read for each doubled pixel of the output."""
    height, width = (2 * (side + 2 * _RIM_PX) for side in size)
    # Doubling puts pixel i at 2 i, so half a doubled pixel before its place: the same on both ends.
    half, two = inverse.new_tensor(0.5), inverse.new_tensor(2)
    inverse = scale(two, two) @ inverse @ scale(half, half)
    inverse = translate(-half, -half) @ inverse @ translate(half, half)
    # From pixels to -1 ... 1 across the doubled image.
    inverse = scale(*(inverse.new_tensor(1 / side) for side in reversed(padded))) @ inverse
    x = (torch.arange(width, dtype=like.dtype, device=like.device) - (width - 1) / 2)[:, None]
    y = (torch.arange(height, dtype=like.dtype, device=like.device) - (height - 1) / 2)[:, None]
    across, down, offset = inverse[:, None, None, :2].to(like).unbind(-1)  # each [batch, 1, 1, 2]
    return (y[:, None] * down + offset) + x * across
