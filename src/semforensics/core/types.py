"""Names that tables and parameters share."""

from typing import Literal

Split = Literal["train", "test", "validation"]
