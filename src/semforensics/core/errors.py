"""Errors that a user can cause and mend."""


class InputError(ValueError):
    """Bad input: a file, a parameter or an option that is not as expected.

    The message names the file or parameter, what was found and what was expected. The command line
    prints it without a traceback and ends with exit code 2. Any other exception but an `OSError` is
    a mistake of this program and keeps its traceback.
    """
