"""Errors that a user can cause and mend."""

from collections.abc import Sequence

INSTALL_PIPELINE = "pip install 'semforensics[pipeline]'"
"""Brings what the pipeline needs and `semforensics screen` does not."""


class InputError(ValueError):
    """Bad input: a file, a parameter or an option that is not as expected.

    The message names the file or parameter, what was found and what was expected. The command line
    prints it without a traceback and ends with exit code 2. Any other exception but an `OSError` is
    a mistake of this program and keeps its traceback.
    """


def raise_problems(problems: Sequence[str], what: str) -> None:
    """Raise one InputError that lists all problems, if there are any."""
    if problems:
        raise InputError(f"{len(problems)} {what}:\n  " + "\n  ".join(problems))
