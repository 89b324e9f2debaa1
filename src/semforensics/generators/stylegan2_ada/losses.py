"""StyleGAN2's losses: non-saturating logistic, lazy R1, path length regularisation.

Karras et al., "Analyzing and Improving the Image Quality of StyleGAN", CVPR 2020, arXiv:1912.04958,
section 3.2 and appendix B; R1: Mescheder et al., ICML 2018, arXiv:1801.04406, eq. 9. Weights and
intervals are the caller's.
"""

import functools
import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from semforensics.core.portable import square_root

Scalar = Float[Tensor, ""]
PerImage = Float[Tensor, " batch"]
Images = Float[Tensor, "batch channels height width"]


def generator_loss(logits_fake: PerImage) -> Scalar:
    """Return the generator's loss: small where its fakes are taken for real."""
    return F.softplus(-logits_fake).mean()


def discriminator_loss_real(logits: PerImage) -> Scalar:
    """Return the discriminator's loss on reals: small where their logits are high."""
    return F.softplus(-logits).mean()


def discriminator_loss_fake(logits: PerImage) -> Scalar:
    """Return the discriminator's loss on fakes: small where their logits are low."""
    return F.softplus(logits).mean()


def r1_penalty(logits: PerImage, reals: Images) -> Scalar:
    """Return the mean over the batch of the squared norm of the logit's gradient at the image.

    The weight gamma / 2 is the caller's. The logits were computed from the reals before any
    augmentation.
    """
    (gradients,) = torch.autograd.grad(logits.sum(), reals, create_graph=True)
    penalty: Tensor = gradients.square().sum(dim=(1, 2, 3)).mean()
    return penalty


def draw_path_direction(shape: tuple[int, int, int, int], rng: torch.Generator) -> Images:
    """Draw random images N(0, 1 / pixels) from a CPU generator, for `path_lengths`."""
    return torch.randn(shape, generator=rng) / math.sqrt(shape[2] * shape[3])


def path_lengths(images: Images, ws: Float[Tensor, "batch num_ws w_dim"], y: Images) -> PerImage:
    """Return how far a random direction in the image moves the styles: |Jᵀ y| (eq. 4).

    The images were made from the styles `ws`; the squared norm is the mean over layers. The
    direction `y` is one of `draw_path_direction`.
    """
    (gradients,) = torch.autograd.grad((images * y).sum(), ws, create_graph=True)
    lengths = square_root(gradients.square().sum(dim=2).mean(dim=1))
    return lengths


def updated_path_mean(mean: Scalar, lengths: PerImage, share: float = 0.01) -> Scalar:
    """Move the running mean of path lengths, which starts at 0, the share of the way to these.

    Gradients flow through these lengths, as in the public program; keep it detached.
    """
    return mean.detach().lerp(lengths.mean(), share)


def path_length_penalty(lengths: PerImage, mean: Scalar) -> Scalar:
    """Return the mean squared distance of path lengths from their running mean (eq. 4).

    The running mean includes these lengths.
    """
    return (lengths - mean).square().mean()


@functools.cache
def penalties_bear_bf16(device_type: str) -> bool:
    """Say whether the convolutions of a penalty may run in bfloat16.

    A penalty goes backward twice. On the second way, a weight's gradient is a convolution whose
    kernel is as large as the map and whose channels are the batch. On processors with AMX, oneDNN
    as of torch 2.13 computes such a one wrongly in bfloat16 for 2 to 8 channels: the error is as
    large as the result. So a few are tried, on numbers whose sums bfloat16 holds exactly.
    large as the result. So a few are tried, on numbers whose sums bfloat16 holds exactly. Devices
    other than a CPU are trusted.
    """
    if device_type != "cpu":
        return True
    for batch, side in ((2, 32), (4, 32), (8, 16)):
        pixels = torch.arange(batch * side * side)
        maps, gradients = (
            (pixels % period == 0).float().view(1, batch, side, side) for period in (13, 7)
        )
        exact, rounded = (
            F.conv2d(maps.to(dtype), gradients.to(dtype), padding=1).float()
            for dtype in (torch.float32, torch.bfloat16)
        )
        if not torch.equal(exact, rounded):
            return False
    return True
