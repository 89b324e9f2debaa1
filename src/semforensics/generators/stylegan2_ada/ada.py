"""Adaptive augmentation: as much of it as keeps the discriminator from overfitting.

Karras et al., "Training Generative Adversarial Networks with Limited Data", NeurIPS 2020,
arXiv:2006.06676, section 3: r_t, the mean sign of the logits of reals, rises as the discriminator
overfits, and p follows it. Ours differs: p has an upper bound, beyond which augmentations leak into
the fakes (section 2.2 puts it near 0.8 in practice), and says when it is reached.
"""

from dataclasses import dataclass, field
from math import isnan
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from semforensics.core.errors import InputError


@dataclass
class AdaController:
    """The probability of each augmentation, and the rule that moves it."""

    p: float = 0.0
    target: float = 0.6
    """What r_t is steered to, in -1 … 1."""
    speed_kimg: float = 500.0
    """Thousands of reals in which p can move by 1."""
    interval: int = 4
    """Iterations from one update to the next."""
    p_max: float | None = 0.8
    """Upper bound of p; None lifts it."""
    r: float = 0.0
    """r_t of the last update."""
    signs: Tensor = field(default_factory=lambda: torch.zeros(2, dtype=torch.float64))
    """Sum and count of the signs since the last update; their sum over processes is the whole's."""

    def __post_init__(self) -> None:
        if self.p < 0 or (self.p_max is not None and self.p > self.p_max):
            raise InputError(f"p is {self.p}, expected 0 … {self.p_max}")
        if self.speed_kimg <= 0 or self.interval < 1:
            raise InputError(
                f"speed_kimg is {self.speed_kimg} and interval {self.interval}, expected above 0"
            )

    @property
    def is_at_bound(self) -> bool:
        """Whether p has reached its upper bound: the discriminator may overfit from here on."""
        return self.p_max is not None and self.p >= self.p_max

    @torch.no_grad()
    def observe(self, logits: Float[Tensor, "..."]) -> None:
        """Count the logits of a batch of reals, on any device, without waiting for it."""
        # torch's sign of what is not a number is 0.
        signs = torch.where(logits.isnan(), logits, logits.sign()).double()
        self.signs = self.signs.to(logits.device)
        self.signs += torch.stack([signs.sum(), signs.new_tensor(signs.numel())])

    def update(self, batch: int) -> float:
        """Move p by one step, up where r_t exceeds the target, and start anew; return r_t.

        To be called once every `interval` iterations, with the reals of one iteration over all
        processes.

        Raises:
            InputError: No logits were observed since the last update, or one was not a number.
        """
        total, count = self.signs.tolist()
        if not count:
            raise InputError("no logits of reals were observed since the last update of p")
        if isnan(total):
            raise InputError("the discriminator gave a logit that is not a number")
        self.r = total / count
        direction = (self.r > self.target) - (self.r < self.target)
        step = batch * self.interval / (self.speed_kimg * 1000)
        self.p = max(self.p + direction * step, 0.0)
        if self.p_max is not None:
            self.p = min(self.p, self.p_max)
        self.signs = torch.zeros_like(self.signs)
        return self.r

    def state_dict(self) -> dict[str, Any]:
        """Return what changes in training; the settings are not part of it."""
        return {"p": self.p, "r": self.r, "signs": self.signs.cpu().clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self.p, self.r, self.signs = state["p"], state["r"], state["signs"].clone()
