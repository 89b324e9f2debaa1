"""Cut-outs: training images smaller than the crops they come from."""

import torch
from jaxtyping import Float
from torch import Tensor


def cut_out(
    images: Float[Tensor, "batch 1 side side"], size_px: int, rng: torch.Generator
) -> Float[Tensor, "batch 1 size_px size_px"]:
    """Cut a square of native pixels out of each image, each at a place of its own."""
    places = images.shape[-1] - size_px + 1
    tops, lefts = torch.randint(places, (2, len(images)), generator=rng).tolist()
    cuts = [
        image[:, top : top + size_px, left : left + size_px]
        for image, top, left in zip(images, tops, lefts, strict=True)
    ]
    return torch.stack(cuts)
