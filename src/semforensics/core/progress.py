"""Progress on a terminal; nothing is shown where output goes to a file."""

from collections.abc import Iterable
from typing import TypeVar

from rich import progress
from rich.console import Console

T = TypeVar("T")


def track(items: Iterable[T], title: str, total: int | None = None) -> Iterable[T]:
    """Go through items behind a progress bar on stderr; `total` where they do not know it."""
    console = Console(stderr=True)
    return progress.track(items, title, total, console=console, disable=not console.is_terminal)
