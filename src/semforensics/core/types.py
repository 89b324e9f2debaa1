"""Names that several rooms share."""

from typing import Literal

Split = Literal["train", "test", "validation"]

Flip = Literal["none", "left-right", "up-down", "both"]
FLIPS: dict[Flip, tuple[int, ...]] = {
    "none": (),
    "left-right": (-1,),
    "up-down": (-2,),
    "both": (-2, -1),
}
"""The axes that each reverses; reversing twice restores the image."""
