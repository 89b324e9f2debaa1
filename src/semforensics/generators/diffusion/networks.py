"""The diffusion model's U-Net."""

from pathlib import Path
from typing import Any

from jaxtyping import Float, Int64
from torch import Tensor, nn

import semforensics.core.torchvision_compat  # noqa: F401 - before diffusers, which imports torchvision
from semforensics.core.checkpoints import load_network
from semforensics.core.errors import InputError
from semforensics.params import TrainDiffusionParams

MODEL_FILE = "denoiser.safetensors"
LAYERS_PER_BLOCK = 1
"""Residual blocks at each level on the way down; one more on the way up."""
NORM_GROUPS = 8
HEAD_WIDTH = 8
"""Channels of an attention head; widths are multiples of it."""


class Denoiser(nn.Module):
    """The U-Net: a residual block per level on the way down, attention at the lowest one only."""

    def __init__(self, *, size_px: int, widths: list[int]) -> None:
        super().__init__()
        # Here, since it takes seconds to import, for nothing while the model is off.
        from diffusers import UNet2DModel

        self.arguments = {"size_px": size_px, "widths": widths}
        self.size_px = size_px
        self.multiple = 2 ** (len(widths) - 1)  # of the sides of an image
        plain = len(widths) - 1
        self.unet: Any = UNet2DModel(  # type: ignore[no-untyped-call]
            sample_size=size_px,
            in_channels=1,
            out_channels=1,
            layers_per_block=LAYERS_PER_BLOCK,
            block_out_channels=tuple(widths),
            down_block_types=("DownBlock2D",) * plain + ("AttnDownBlock2D",),
            up_block_types=("AttnUpBlock2D",) + ("UpBlock2D",) * plain,
            norm_num_groups=NORM_GROUPS,
            attention_head_dim=HEAD_WIDTH,
        )

    def forward(
        self, noisy: Float[Tensor, "batch 1 height width"], times: Int64[Tensor, " batch"]
    ) -> Float[Tensor, "batch 1 height width"]:
        """Tell the velocity of noisy images, each at its time.

        Sides are multiples of `multiple`.
        """
        velocity: Tensor = self.unet(noisy, times).sample
        return velocity.float()


def check_widths(params: TrainDiffusionParams) -> None:
    """Refuse widths and sizes that the U-Net cannot take.

    Raises:
        InputError: A width is no multiple of 8, or the size cannot be halved often enough.
    """
    if any(width % NORM_GROUPS for width in params.widths):
        raise InputError(
            f"train_diffusion.widths: {list(params.widths)}, expected multiples of {NORM_GROUPS}"
        )
    halvings = len(params.widths) - 1
    if params.size_px % 2**halvings:
        raise InputError(
            f"train_diffusion.size_px: {params.size_px} cannot be halved {halvings} times, as "
            f"{len(params.widths)} widths ask"
        )


def load_denoiser(folder: Path) -> tuple[Denoiser, dict[str, Any]]:
    """Rebuild a diffusion model from its folder, in eval mode, with what training wrote beside it.

    Raises:
        FileNotFoundError: There is none.
        InputError: The file holds something else.
    """
    return load_network(folder / MODEL_FILE, {"ddpm": Denoiser}, "train-diffusion")
