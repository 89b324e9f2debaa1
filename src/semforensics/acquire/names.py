"""What the file names of Boiko et al. 2020 say."""

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

_NAME = re.compile(
    r"(?P<image_id>\d+)-(?P<sample>[^-]+)-(?P<area>[^-]+)-(?P<magnification_k>\d+)k"
    # Processed copies carry a word after the label; they belong to their original's group.
    r"-(?P<label>ordered|disordered)(?P<processing>_\w+)?"
)
_NO_AREA = "no_area"


@dataclass(frozen=True)
class BoikoName:
    """What the name of a file of Boiko et al. 2020 says."""

    image_id: int
    sample: str
    area: str | None
    """None where the name says `no_area`."""
    magnification_k: int
    label: str

    @property
    def group(self) -> str:
        """Sample and area; all images of unknown area of one sample are one group."""
        return f"{self.sample}-{self.area or _NO_AREA}"

    def row(self) -> dict[str, Any]:
        """What it tells the catalogue."""
        return {
            "sample": self.sample,
            "area": self.area,
            "magnification_k": self.magnification_k,
            "group": self.group,
            "label": self.label,
        }


def parse_name(file: str) -> BoikoName | None:
    """Read `<id>-<sample>-<area>-<magnification>-<ordered|disordered>.<suffix>`; None if it is not.

    A posix path may lead to the name.
    """
    found = _NAME.fullmatch(PurePosixPath(file).stem)
    if found is None:
        return None
    return BoikoName(
        image_id=int(found["image_id"]),
        sample=found["sample"],
        area=None if found["area"] == _NO_AREA else found["area"],
        magnification_k=int(found["magnification_k"]),
        label=found["label"],
    )


def describe_name(file: str) -> dict[str, Any]:
    """Return what the name of a file tells the catalogue; one of another kind is its own group."""
    name = parse_name(file)
    return {"file": file} | (name.row() if name else {"group": file})
