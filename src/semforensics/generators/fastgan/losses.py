"""FastGAN's losses: hinge with a random margin, perceptual reconstruction of reals, lazy R1.

Liu et al. 2021, eqs. 3 to 5; the margin is the public program's. Ours differs: reconstructions are
compared by the mean LPIPS, and an R1 penalty is there to be switched on.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from semforensics.generators.fastgan.networks import Pair, Reconstructions
from semforensics.perceptual.lpips import LPIPS


def draw_margins(count: int, rng: torch.Generator) -> Float[Tensor, " count"]:
    """Draw the hinge's margins, uniform in 0.8 … 1, one for each logit: smoothed labels."""
    return 0.8 + 0.2 * torch.rand(count, generator=rng)


def hinge_real(
    logits: Float[Tensor, " count"], margins: Float[Tensor, " count"]
) -> Float[Tensor, ""]:
    """Return the discriminator's loss on reals: how far their logits stay below the margins."""
    return (margins - logits).relu().mean()


def hinge_fake(
    logits: Float[Tensor, " count"], margins: Float[Tensor, " count"]
) -> Float[Tensor, ""]:
    """Compute the loss on fakes: how far their logits rise above minus the margins."""
    return (margins + logits).relu().mean()


def generator_loss(logits: Float[Tensor, " count"]) -> Float[Tensor, ""]:
    """Return the generator's loss: minus the mean logit of its fakes."""
    return -logits.mean()


def reconstruction_loss(
    lpips: LPIPS,
    reconstructions: Reconstructions,
    whole: Float[Tensor, "batch channels side side"],
    part: Float[Tensor, "batch channels side side"],
) -> Float[Tensor, ""]:
    """Return the sum of the mean LPIPS of the three reconstructions.

    `whole` is what `big` and `small` should show, of the same size, and `part` what `part` should.
    """
    # One pass for the three, and one for the two targets, which take no gradient.
    big, small, quarter = _chunks(lpips.features(torch.cat(reconstructions)), 3)
    with torch.no_grad():
        whole_features, part_features = _chunks(lpips.features(torch.cat([whole, part])), 2)
    distances = (
        lpips.distance(big, whole_features),
        lpips.distance(small, whole_features),
        lpips.distance(quarter, part_features),
    )
    return torch.stack(distances).mean(dim=1).sum()


def r1_penalty(logits: Float[Tensor, " count"], reals: Pair) -> Float[Tensor, ""]:
    """Return half the mean squared norm of the gradient of an image's mean logit (Mescheder 2018).

    The gradient is that at both scales of the reals, which the logits were computed from.
    """
    per_image = logits.numel() // len(reals.big)
    gradients = torch.autograd.grad(logits.sum() / per_image, list(reals), create_graph=True)
    norms = torch.stack([g.square().sum(dim=(1, 2, 3)) for g in gradients]).sum(dim=0)
    return norms.mean() / 2


def _chunks(features: list[Tensor], count: int) -> list[list[Tensor]]:
    """Split the features of a batch made of `count` batches."""
    split = [layer.chunk(count) for layer in features]
    return [[layer[i] for layer in split] for i in range(count)]
