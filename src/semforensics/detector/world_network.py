"""A network for micrographs of any instrument: residuals beside the image, published first weights.

The trunk is the stem and the first eleven blocks of EfficientNet-Lite0 (Tan and Le, ICML 2019,
arXiv:1905.11946), which begin with the weights of ImageNet and are trained on: features of a
published network outlive resampling and JPEG. The stem also sees two residuals, NPR
(`semforensics.detector.npr`), in which up-sampling shows, and a 5x5 high-pass filter (Fridrich and
Kodovsky, "Rich Models for Steganalysis of Digital Images", IEEE TIFS 7, 2012), in which noise
shows; each with a low and a high gain, so that faint and strong ones are told apart.

Every block adds to the evidence by the means of its channels over the image. A mean can be taken
over any part of an image, so one pass gives the logits of all windows (`logit_map`).

Content moves this evidence, too, and a micrograph of a new material may lie far above or below all
others. Shrunk to a quarter, an image has the same content and hardly a trace left. So a share of
what the shrunken image has is subtracted: each panel brings its own reference.
"""

from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from semforensics.detector.npr import npr
from semforensics.detector.trunk import STAGES, STEM, LiteTrunk, SameConv

ARCHITECTURE = "world_2"
"""As files call it; another number where the same weights would give other scores."""
CELL_PX = 16
"""Side of a cell of the logit map: the stride of the last block."""

_KERNEL = (
    (-1, 2, -2, 2, -1),
    (2, -6, 8, -6, 2),
    (-2, 8, -12, 8, -2),
    (2, -6, 8, -6, 2),
    (-1, 2, -2, 2, -1),
)
CONTENT_SHARE = 0.4
"""Of the evidence of the shrunken image, that is subtracted. Chosen on calibration panels, by how
well families of fakes that a training left out are told from reals that it left out."""
_SHRINKING = 4  # at a half, the traces of super-resolvers are still there
_GAINS = (8.0, 64.0)  # of residuals on -1 … 1: a sixteenth and a 128th of the grey levels
_INPUTS = 1 + 2 * len(_GAINS)
_HEAD_FACTOR = 4.0
_FIRST_SPREAD = 0.02  # of the stem's weights on residuals, which nobody has published


Level = tuple[float, float]
"""Mean and standard deviation of the scores of reals."""


class WorldNetwork(nn.Module):
    """Stem, eleven blocks, and a logit that is linear in the means of all their channels."""

    kernel: Tensor

    def __init__(self) -> None:
        super().__init__()
        trunk = LiteTrunk()
        self.stem, self.blocks = trunk.stem, trunk.blocks
        self.stem[0] = SameConv(_INPUTS, STEM, 3, 2, bias=False)
        kernel = torch.tensor(_KERNEL, dtype=torch.float32) / 12
        self.register_buffer("kernel", kernel[None, None], persistent=False)
        count = sum(channels * repeats for _, channels, repeats, _, _ in STAGES)
        self.norm = nn.BatchNorm1d(count, affine=False)
        self.head = nn.Linear(count, 1)
        nn.init.normal_(self.head.weight, std=0.002)
        nn.init.zeros_(self.head.bias)

    @classmethod
    def from_trunk(cls, trunk: LiteTrunk) -> "WorldNetwork":
        """Begin with published weights; those of residuals and of the logit are drawn at random."""
        network = cls()
        network.blocks.load_state_dict(trunk.blocks.state_dict())
        state = trunk.stem.state_dict()
        weight = torch.empty_like(network.stem.state_dict()["0.weight"]).normal_(std=_FIRST_SPREAD)
        weight[:, :1] = state["0.weight"]
        network.stem.load_state_dict(state | {"0.weight": weight})
        return network

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return parameters by the `factor` of their learning rate: the logit learns faster."""
        head = list(self.head.parameters())
        trunk = [*self.stem.parameters(), *self.blocks.parameters()]
        return [{"params": trunk, "factor": 1.0}, {"params": head, "factor": _HEAD_FACTOR}]

    def train(self, mode: bool = True) -> "WorldNetwork":
        """Switch to training; the published statistics of the batch norms stay as they are.

        Batches are of pairs, and small: their statistics would tell of each other.
        """
        super().train(mode)
        for module in (*self.stem.modules(), *self.blocks.modules()):
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def forward(self, images: Float[Tensor, "n 1 height width"]) -> Float[Tensor, " n"]:
        """Score grey images in -1 … 1; more for what is more likely generated."""
        shrunken = self.evidence(F.avg_pool2d(images, _SHRINKING))
        return self.evidence(images) - CONTENT_SHARE * shrunken

    def evidence(self, images: Float[Tensor, "n 1 height width"]) -> Float[Tensor, " n"]:
        """Score images by themselves: what is trained, with 0 between reals and fakes."""
        means = torch.cat([x.float().mean((2, 3)) for x in self._features(images)], dim=1)
        logits: Tensor = self.head(self.norm(means))
        return logits.squeeze(1)

    def logit_map(
        self, images: Float[Tensor, "n 1 height width"]
    ) -> Float[Tensor, "n rows columns"]:
        """Return the logit of every cell of `CELL_PX`; the mean over an image is its logit.

        Args:
            images: Of a height and width that are multiples of four times `CELL_PX`. In eval
                mode.
        """
        shrunken = self._evidence_map(F.avg_pool2d(images, _SHRINKING))[:, None]
        enlarged = F.interpolate(shrunken, scale_factor=_SHRINKING)[:, 0]
        return self._evidence_map(images) - CONTENT_SHARE * enlarged

    def _evidence_map(
        self, images: Float[Tensor, "n 1 height width"]
    ) -> Float[Tensor, "n rows columns"]:
        """Return the evidence of every cell of an image of one size."""
        state = self.norm.state_dict()
        weight = self.head.weight[0] / (state["running_var"] + self.norm.eps).sqrt()
        total: Tensor = self.head.bias - (weight * state["running_mean"]).sum()
        first = 0
        for x in self._features(images):
            part = weight[first : first + x.shape[1]]
            first += x.shape[1]
            cells = F.conv2d(x.float(), part[None, :, None, None])
            size = CELL_PX * cells.shape[-1] // images.shape[-1]
            total = total + F.avg_pool2d(cells, size).squeeze(1)
        return total

    def _features(self, images: Float[Tensor, "n 1 height width"]) -> list[Tensor]:
        """Return the outputs of all blocks."""
        high_pass = F.conv2d(F.pad(images, (2, 2, 2, 2), mode="reflect"), self.kernel)
        residuals = torch.cat([npr(images), high_pass], dim=1)
        inputs = [images, *(torch.tanh(residuals * gain) for gain in _GAINS)]
        x = F.relu6(self.stem(torch.cat(inputs, dim=1)), inplace=True)
        found = []
        for block in self.blocks:
            x = block(x)
            found.append(x)
        return found


class WorldEnsemble(nn.Module):
    """The mean of networks that learned from different collections.

    Each is standardised first by the scores of reals that it has not seen: networks agree on what
    is more likely generated, but each has its own zero and its own scale.
    """

    centers: Tensor
    scales: Tensor

    def __init__(self, members: int) -> None:
        super().__init__()
        self.networks = nn.ModuleList(WorldNetwork() for _ in range(members))
        self.register_buffer("centers", torch.zeros(members))
        self.register_buffer("scales", torch.ones(members))

    @classmethod
    def of(cls, networks: Sequence[WorldNetwork], levels: Sequence[Level]) -> "WorldEnsemble":
        """Join trained networks; they are copied, and the whole is in eval mode."""
        ensemble = cls(len(networks))
        for member, network in zip(ensemble.networks, networks, strict=True):
            member.load_state_dict(network.state_dict())
        ensemble.centers.copy_(torch.tensor([center for center, _ in levels]))
        ensemble.scales.copy_(torch.tensor([scale for _, scale in levels]))
        return ensemble.eval()

    def forward(self, images: Float[Tensor, "n 1 height width"]) -> Float[Tensor, " n"]:
        """Score grey images in -1 … 1; above 0 is more than the mean of reals."""
        return self._mean([cast(Tensor, network(images)) for network in self.networks])

    def logit_map(
        self, images: Float[Tensor, "n 1 height width"]
    ) -> Float[Tensor, "n rows columns"]:
        """As `WorldNetwork.logit_map`."""
        maps = [cast(WorldNetwork, network).logit_map(images) for network in self.networks]
        return self._mean(maps)

    def _mean(self, logits: Sequence[Tensor]) -> Tensor:
        found = [
            (of_one - center) / scale
            for of_one, center, scale in zip(logits, self.centers, self.scales, strict=True)
        ]
        return torch.stack(found).mean(dim=0)
