"""A small residual network on what is left of a micrograph when its content is taken away.

Two residuals are its input: NPR (`semforensics.detector.npr`), in which up-sampling shows, and a
5x5 high-pass filter (Fridrich and Kodovsky, "Rich Models for Steganalysis of Digital Images", IEEE
TIFS 7, 2012), in which noise shows. Pixels of a 2x2 cell become channels first, so that the trace
is kept at a quarter of the cost.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from semforensics.detector.networks import BasicBlock
from semforensics.detector.npr import npr

_KERNEL = (
    (-1, 2, -2, 2, -1),
    (2, -6, 8, -6, 2),
    (-2, 8, -12, 8, -2),
    (2, -6, 8, -6, 2),
    (-1, 2, -2, 2, -1),
)
_GAIN = 16.0  # an eighth of the grey levels fills the range of a residual
_LEAST_SPREAD = 0.004  # half a grey level, on -1 … 1


class ResidualNetwork(nn.Module):
    """Residuals, three stages of residual blocks, the mean over positions, one logit.

    Args:
        width: Channels of the first stage; each next one has twice as many.
    """

    kernel: Tensor

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.width = width
        kernel = torch.tensor(_KERNEL, dtype=torch.float32) / 12
        self.register_buffer("kernel", kernel[None, None], persistent=False)
        widths = [width, 2 * width, 4 * width]
        self.stem = nn.Sequential(
            nn.Conv2d(16, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        blocks: list[nn.Module] = []
        inputs = width
        for index, outputs in enumerate(widths):
            blocks += [BasicBlock(inputs, outputs, stride=2 if index else 1)]
            blocks += [BasicBlock(outputs, outputs)]
            inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(inputs, 1)

    def residuals(
        self, images: Float[Tensor, "n 1 height width"]
    ) -> Float[Tensor, "n 16 half_height half_width"]:
        """Return both residuals, as they are and divided by their spread, cell by cell.

        As they are they tell how strong the noise is; divided, they are alike in images of low and
        high contrast.
        """
        parts = [npr(images), F.conv2d(F.pad(images, (2, 2, 2, 2), mode="reflect"), self.kernel)]
        residuals = torch.cat(parts, dim=1)  # [n, 2, height, width]
        spread = residuals.std(dim=(2, 3), keepdim=True) + _LEAST_SPREAD
        both = torch.cat([residuals * _GAIN, residuals / spread], dim=1)
        return F.pixel_unshuffle(both.clamp(-4, 4), 2)

    def forward(self, images: Float[Tensor, "n 1 height width"]) -> Float[Tensor, " n"]:
        """Score grey images in -1 … 1, of even size; a positive logit means fake."""
        features = self.blocks(self.stem(self.residuals(images)))
        logits: Tensor = self.head(features.mean(dim=(2, 3)))
        return logits.squeeze(1)
