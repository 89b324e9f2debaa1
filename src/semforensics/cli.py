"""The command line: one command per stage, paths and parameters in, one call, one line out."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from semforensics.params import Params, read_params

app = typer.Typer(
    help="Find AI-generated scanning-electron micrographs.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


def _params(path: Path) -> Params:
    """Read parameters; a bad file is a usage error."""
    try:
        return read_params(path)
    except (OSError, ValueError) as error:
        raise typer.BadParameter(str(error)) from error


InDir = Annotated[Path, typer.Argument(exists=True, file_okay=False)]
InFile = Annotated[Path, typer.Argument(exists=True, dir_okay=False)]
OutPath = Annotated[Path, typer.Argument()]
ParamsFile = Annotated[Params, typer.Option("--params", parser=lambda p: _params(Path(p)))]
Device = Annotated[str, typer.Option(envvar="SEMFORENSICS_DEVICE", help="auto, cpu or cuda.")]
Threads = Annotated[
    int, typer.Option(envvar="SEMFORENSICS_THREADS", help="CPU threads; 0: all cores.")
]
Scratch = Annotated[
    Path,
    typer.Option(envvar="SEMFORENSICS_SCRATCH", help="Where unfinished work waits to be resumed."),
]


def main() -> None:
    """Run the command line; what a user can cause ends in one line on stderr and exit code 2."""
    try:
        app()
    except (ValueError, FileNotFoundError, FileExistsError) as error:
        typer.secho(f"error: {error}", err=True, fg=typer.colors.RED)
        sys.exit(2)


@app.command()
def list_folder(folder: InDir, listing: OutPath, params: ParamsFile) -> None:
    """List a folder of micrographs with their hashes, so that the pipeline notices new ones."""
    from semforensics.acquire.folder import write_listing

    count = write_listing(folder, listing, params.acquire.folder)
    typer.echo(f"{count} files of {folder} in {listing}")


@app.command()
def acquire(
    listing: InFile,
    raw: OutPath,
    catalogue: OutPath,
    params: ParamsFile,
    folder: Annotated[
        Path | None,
        typer.Option(envvar="SEMFORENSICS_FOLDER", help="Where the micrographs of `folder` lie."),
    ] = None,
    groups: Annotated[
        Path | None,
        typer.Option(envvar="SEMFORENSICS_GROUPS", help="CSV of file and group, for `folder`."),
    ] = None,
    scratch: Scratch = Path(".scratch"),
) -> None:
    """Bring raw micrographs into one folder, with a catalogue."""
    from semforensics.acquire.acquire import acquire_micrographs

    count = acquire_micrographs(
        params.acquire,
        raw,
        catalogue,
        seed=params.seed,
        listing=listing,
        folder=folder,
        groups=groups,
        scratch=scratch / "acquire",
    )
    typer.echo(f"{count} {params.acquire.source} micrographs in {raw}")


@app.command()
def crop(
    raw: InDir, catalogue: InFile, cropped: OutPath, crops: OutPath, params: ParamsFile
) -> None:
    """Cut raw micrographs into square crops, without their info bars."""
    from semforensics.micrographs.crop import crop_folder

    count = crop_folder(raw, catalogue, cropped, crops, params.crop)
    typer.echo(f"{count} crops in {cropped}")


@app.command()
def split(crops: InFile, splits: OutPath, params: ParamsFile) -> None:
    """Assign every crop to train, test or validation."""
    from semforensics.micrographs.split import split_crops

    typer.echo(split_crops(crops, splits, params.split, params.protocol, params.seed))


@app.command()
def fetch_backbones(
    pretrained: OutPath, params: ParamsFile, scratch: Scratch = Path(".scratch")
) -> None:
    """Fetch the ImageNet trunks of LPIPS and check them by hash."""
    from semforensics.perceptual.backbones import fetch_backbones as fetch

    names = fetch(params.fetch_backbones.nets, pretrained, scratch / "fetch_backbones")
    typer.echo(f"{', '.join(names)} in {pretrained}")
