"""The exponential moving average of a generator's weights, and statistics that fit it.

The average covers parameters only. Normalisation statistics of the live network do not belong to
averaged weights, so they are measured for them ("precise BN": Wu and Johnson, "Rethinking 'Batch'
in BatchNorm", arXiv:2105.07576, section 3); then each image is a function of weights, latent and
noise alone.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn


def ramped_decay(step: int) -> float:
    """Return the decay that forgets the random start: 0.1 at step 0, rising to 1."""
    return (1 + step) / (10 + step)


@torch.no_grad()
def update(average: nn.Module, live: nn.Module, decay: float) -> None:
    """Move the parameters of `average` the share `1 - decay` of the way to those of `live`."""
    ours: list[Tensor] = list(average.parameters())
    theirs: list[Tensor] = list(live.parameters())
    torch._foreach_lerp_(ours, theirs, 1 - decay)


@torch.no_grad()
def copy_buffers(average: nn.Module, live: nn.Module) -> None:
    """Copy the buffers of `live` to `average`."""
    for ours, theirs in zip(average.buffers(), live.buffers(), strict=True):
        ours.copy_(theirs)


@torch.no_grad()
def measure_statistics(network: nn.Module, batches: Iterable[tuple[Tensor, list[Tensor]]]) -> None:
    """Set the running statistics of all batch normalisations to those of a network's inputs.

    Only they run in train mode meanwhile; each ends as the mean over the batches of the batch's
    mean and variance. The network is left in eval mode. Batches are of equal size, larger than in
    training: variance between images counts only within a batch.
    """
    network.eval()
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a mean over all batches instead of a moving average
        norm.train()
    for batch in batches:
        network(*batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()
