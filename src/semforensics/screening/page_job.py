"""What the local page does with the files of one submission."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class PageJob:
    """Screens files; loads its model once and keeps it. Is pickled before that."""

    model: str | None
    alpha: float
    prevalence: float
    pooling: str
    maps: bool
    device: str
    threads: int
    _screener: Any = field(default=None, init=False, repr=False)

    def warm(self) -> None:
        """Load the model."""
        from semforensics.core.device import choose_device, set_threads
        from semforensics.screening.screener import Screener

        set_threads(self.threads)
        self._screener = Screener.load(
            self.model,
            alpha=self.alpha,
            prevalence=self.prevalence,
            pooling=self.pooling,
            device=choose_device(self.device),
            evidence=self.maps,
        )

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
        from semforensics.screening.submission import Options, screen_submission

        if self._screener is None:
            self.warm()
        command = self.command([names[path] for path in paths])
        screen_submission(paths, out, self._screener, Options(scratch, command, names=names))

    def command(self, names: Sequence[str]) -> str:
        """Return the command that does the same with the same files."""
        from semforensics.screening.submission import repeating_command

        options = ["--alpha", f"{self.alpha:g}", "--prevalence", f"{self.prevalence:g}"]
        options += ["--pooling", self.pooling, "--maps" if self.maps else "--no-maps"]
        if self.model is not None:
            options += ["--model", self.model]
        return repeating_command(["screen", *options, "--", *names])
