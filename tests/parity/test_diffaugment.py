"""The augmentations against the public DiffAugment (shared/parity/SOURCE.md)."""

from pathlib import Path

import pytest
import torch

from semforensics.generators.fastgan import diffaugment


@pytest.mark.parametrize("index", range(8))
def test_augmentations_are_the_references(shared: Path, index: int) -> None:
    """With the reference's random numbers every operation gives its images, in 1 and 3 channels."""
    record = torch.load(shared / "parity/diffaugment_ops.pt", weights_only=True)[index]
    operation = getattr(diffaugment, record["op"])
    draws = record["u"] if "u" in record else torch.stack([record["dy"], record["dx"]])

    ours = operation(record["x"], draws)

    # Relative to a scale of about 1; sums over 1320 pixels in another order.
    torch.testing.assert_close(ours, record["y"], rtol=1e-4, atol=1e-5)
