"""The entry point: all commands, and how each kind of error ends."""

import sys
import traceback
from typing import Annotated

import typer

from semforensics.cli import pipeline, review, screen
from semforensics.core.allocator import keep_memory, search_rarely
from semforensics.core.errors import INSTALL_PIPELINE, InputError
from semforensics.core.portable import make_portable

app = typer.Typer(
    help="Find AI-generated scanning-electron micrographs.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
for panel in (screen.PANEL, pipeline.PANEL, review.PANEL):
    app.add_typer(panel.app)

_settings = {"debug": False}


@app.callback()
def _options(
    debug: Annotated[
        bool,
        typer.Option(
            "--debug", envvar="SEMFORENSICS_DEBUG", help="Show the traceback of every error."
        ),
    ] = False,
) -> None:
    _settings["debug"] = debug


def main() -> None:
    """Run the command line.

    Exit code 2: what a user can cause (bad input, what the system refuses, a library that is not
    installed), in one line on stderr. Exit code 3: too little memory, in one line, too; or a
    mistake of this program, with its traceback. `--debug` shows the traceback of every error.
    """
    make_portable()  # before anything imports torch or numpy
    keep_memory()
    search_rarely()
    _settings["debug"] = False
    try:
        app()
    except (InputError, OSError) as error:  # OSError: no such file, no permission, a full disk
        _fail(str(error), 2)
    except MemoryError:
        _fail("not enough memory", 3)  # not 1, which `screen --fail-on` gives a meaning
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and not str(error.name).startswith(
            "semforensics"
        ):
            _fail(f"{error.name} is not installed; the pipeline needs it: {INSTALL_PIPELINE}", 2)
        traceback.print_exc()
        sys.exit(3)


def _fail(message: str, code: int) -> None:
    if _settings["debug"]:
        traceback.print_exc()
    typer.secho(f"error: {message}", err=True, fg=typer.colors.RED)
    sys.exit(code)
