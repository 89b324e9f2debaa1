"""Grad-CAM: where in an image the classifier finds its evidence.

Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
Localization", ICCV 2017, arXiv:1610.02391, equations 1 and 2. With one logit, +logit asks for
evidence of a fake and -logit for evidence of a real. Maps are kept as computed, so that they can be
compared on one scale.
"""

from threading import Lock
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from semforensics.core.images import to_unit_range
from semforensics.detector.networks import NPRNetwork
from semforensics.detector.npr import network_input

ImageClass = Literal["real", "fake"]
SIGNS: dict[ImageClass, int] = {"real": -1, "fake": 1}
"""Of the logit, so that the map is evidence for the class."""

_HOOKED = Lock()  # a hook sees whatever thread uses its module

_BATCH_PX = 2**19  # pixels explained at a time; gradients take more memory than scores


def grad_cam(
    network: NPRNetwork,
    layer: nn.Module,
    residuals: Float[Tensor, "n c h w"],
    sign: int,
) -> Float[Tensor, "n map_height map_width"]:
    """Compute Grad-CAM maps of scores at one layer.

    Args:
        network: In eval mode, so that images do not depend on each other.
        layer: A module of the network whose output is a map: `network.last_conv` or
            `network.last_block`.
        residuals: As `network_input` returns them.
        sign: 1: evidence for a fake, -1: for a real.

    Returns:
        Maps at the layer's own resolution, in units of the logit, 0 or more; all zero where
        there is no evidence for the class.
    """
    outputs: list[Tensor] = []
    with _HOOKED:
        hook = layer.register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
        try:
            logits = network.score_residuals(residuals)
        finally:
            hook.remove()
    (activations,) = outputs  # [n, k, map_height, map_width]
    # The gradient of the logit, not of the probability or the loss, which vanish for sure scores.
    (gradients,) = torch.autograd.grad(sign * logits.sum(), activations)
    weights = gradients.mean(dim=(2, 3), keepdim=True)  # eq. 1
    return F.relu((weights * activations).sum(dim=1)).detach()  # eq. 2


def upsample(
    maps: Float[Tensor, "n map_height map_width"], height: int, width: int
) -> Float[Tensor, "n height width"]:
    """Bring maps to the size of the image, bilinearly with half-pixel centres."""
    larger = F.interpolate(maps[:, None], size=(height, width), mode="bilinear")
    return larger[:, 0]


def explain_images(
    network: NPRNetwork,
    images: UInt8[Tensor, "n 1 height width"],
    sign: int,
    device: torch.device,
) -> Float[Tensor, "n map_height map_width"]:
    """Return the Grad-CAM maps of images at the last convolution, as `grad_cam` does.

    Args:
        network: In eval mode, on `device`.
        images: Grey levels 0 … 255, of even size.
        sign: 1: evidence for a fake, -1: for a real.
        device: Where the network is.
    """
    batch_size = max(1, _BATCH_PX // (images.shape[-2] * images.shape[-1]))
    maps = []
    for batch in torch.split(images, batch_size):
        residuals = network_input(to_unit_range(batch.to(device)), network.channels)
        maps.append(grad_cam(network, network.last_conv, residuals, sign).cpu())
    return torch.cat(maps)
