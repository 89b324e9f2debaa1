"""What the local page does with the files of one submission."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class PageJob:
    """Screens files; loads its model once and keeps it. Is pickled before that."""

    load: Callable[[], Any]
    """Loads the screener."""
    arguments: tuple[str, ...]
    """Options of `semforensics screen` that decide alike."""
    _screener: Any = field(default=None, init=False, repr=False)

    def warm(self) -> None:
        """Load the model."""
        self._screener = self.load()

    def __call__(
        self, paths: Sequence[Path], out: Path, scratch: Path, names: Mapping[Path, str]
    ) -> None:
        """Write the report on files.

        Args:
            paths: Stored files.
            out: Folder to write the report to.
            scratch: Folder for unfinished work.
            names: Stored file → the name that the report shows.
        """
        # Imported here: the page itself needs neither torch nor the decoders.
        from semforensics.screening.submission import Options, screen_submission

        if self._screener is None:
            self.warm()
        command = self.command([names[path] for path in paths])
        screen_submission(paths, out, self._screener, Options(scratch, command, names=names))

    def command(self, names: Sequence[str]) -> str:
        """Return the command that does the same with the same files."""
        from semforensics.screening.submission import repeating_command

        return repeating_command(["screen", *self.arguments, "--", *names])
