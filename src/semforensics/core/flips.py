"""The ways in which an image is turned when a copy is searched."""

from typing import Literal

Flip = Literal["none", "left-right", "up-down", "both"]
FLIPS: dict[Flip, tuple[int, ...]] = {
    "none": (),
    "left-right": (-1,),
    "up-down": (-2,),
    "both": (-2, -1),
}
"""The axes that each reverses; reversing twice restores the image."""
