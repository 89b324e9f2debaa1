"""The command line: one command per stage, paths and parameters in, one call, one line out."""

import sys
import traceback
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from semforensics.core.allocator import keep_memory
from semforensics.core.errors import InputError
from semforensics.params import read_params

if TYPE_CHECKING:
    import torch


class GanName(StrEnum):
    """The generators of the pipeline."""

    FASTGAN = "fastgan"
    STYLEGAN2_ADA = "stylegan2_ada"


class RowName(StrEnum):
    """The classifiers of the pipeline: each named after the fakes that it learns from."""

    FASTGAN = "fastgan"
    STYLEGAN2_ADA = "stylegan2_ada"
    BOTH = "both"
    BOTH_PSEUDO = "both_pseudo"


class FailOn(StrEnum):
    """What makes a screening end with exit code 1."""

    NEVER = "never"
    AI_SUSPECTED = "ai-suspected"
    INCONCLUSIVE = "inconclusive"
    REFUSED = "refused"


app = typer.Typer(
    help="Find AI-generated scanning-electron micrographs.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


InDir = Annotated[Path, typer.Argument(exists=True, file_okay=False)]
InFile = Annotated[Path, typer.Argument(exists=True, dir_okay=False)]
OutPath = Annotated[Path, typer.Argument()]
ParamsFile = Annotated[Path, typer.Option("--params", exists=True, dir_okay=False)]
Device = Annotated[str, typer.Option(envvar="SEMFORENSICS_DEVICE", help="auto, cpu or cuda.")]
Threads = Annotated[
    int, typer.Option(envvar="SEMFORENSICS_THREADS", help="CPU threads; 0: all cores.")
]
Processes = Annotated[
    int,
    typer.Option(
        envvar="SEMFORENSICS_PROCESSES",
        min=1,
        help="Processes that share each batch, one per GPU, or on the CPU's cores.",
    ),
]
Gan = Annotated[GanName, typer.Argument(help="Which generator.")]
Row = Annotated[RowName, typer.Argument(help="Whose fakes the classifier learns from.")]
Scratch = Annotated[
    Path,
    typer.Option(envvar="SEMFORENSICS_SCRATCH", help="Where unfinished work waits to be resumed."),
]


def main() -> None:
    """Run the command line; what a user can cause ends in one line on stderr and exit code 2."""
    keep_memory()  # before anything imports torch
    try:
        app()
    except (ValueError, OSError) as error:  # OSError: no such file, no permission, a full disk
        typer.secho(f"error: {error}", err=True, fg=typer.colors.RED)
        sys.exit(2)
    except MemoryError:
        typer.secho("error: not enough memory", err=True, fg=typer.colors.RED)
        sys.exit(3)  # not 1, which `screen --fail-on` gives a meaning
    except Exception:
        traceback.print_exc()  # a mistake of the program
        sys.exit(3)


def _train_together(
    train: Callable[["torch.device"], str], processes: int, device: str, threads: int
) -> None:
    """Train in several processes where asked for; the first of them says what came of it."""
    from semforensics.core import distributed
    from semforensics.core.device import choose_device, set_threads

    if processes > 1 and not distributed.is_worker():
        raise typer.Exit(distributed.launch(processes))
    set_threads(threads)
    with distributed.process_group(choose_device(device)) as own_device:
        summary = train(own_device)
        if distributed.is_first():
            typer.echo(summary)


@app.command()
def list_folder(
    folder: InDir,
    listing: OutPath,
    params: ParamsFile = Path("params.yaml"),
    groups: Annotated[
        Path | None,
        typer.Option(
            envvar="SEMFORENSICS_GROUPS",
            exists=True,
            dir_okay=False,
            help="CSV of file and group; without it, groups come from the file names.",
        ),
    ] = None,
) -> None:
    """List a folder of micrographs with their hashes, so that the pipeline notices new ones."""
    from semforensics.acquire.folder import write_listing

    count = write_listing(folder, listing, read_params(params).acquire.folder, groups)
    typer.echo(f"{count} files of {folder} in {listing}")


@app.command()
def acquire(
    listing: InFile,
    raw: OutPath,
    catalogue: OutPath,
    params: ParamsFile = Path("params.yaml"),
    folder: Annotated[
        Path | None,
        typer.Option(envvar="SEMFORENSICS_FOLDER", help="Where the micrographs of `folder` lie."),
    ] = None,
    scratch: Scratch = Path(".scratch"),
) -> None:
    """Bring raw micrographs into one folder, with a catalogue."""
    from semforensics.acquire.acquire import acquire_micrographs

    p = read_params(params)
    count = acquire_micrographs(
        p.acquire,
        raw,
        catalogue,
        seed=p.seed,
        listing=listing,
        folder=folder,
        scratch=scratch / "acquire",
    )
    typer.echo(f"{count} {p.acquire.source} micrographs in {raw}")


@app.command()
def crop(
    raw: InDir,
    catalogue: InFile,
    cropped: OutPath,
    crops: OutPath,
    params: ParamsFile = Path("params.yaml"),
) -> None:
    """Cut raw micrographs into square crops, without their info bars."""
    from semforensics.micrographs.crop import crop_folder

    count = crop_folder(raw, catalogue, cropped, crops, read_params(params).crop)
    typer.echo(f"{count} crops in {cropped}")


@app.command()
def split(crops: InFile, splits: OutPath, params: ParamsFile = Path("params.yaml")) -> None:
    """Assign every crop to train, test or validation."""
    from semforensics.micrographs.split import split_crops

    p = read_params(params)
    typer.echo(split_crops(crops, splits, p.split, p.protocol, p.seed))


@app.command()
def fetch_backbones(
    pretrained: OutPath,
    params: ParamsFile = Path("params.yaml"),
    scratch: Scratch = Path(".scratch"),
) -> None:
    """Fetch the ImageNet trunks of LPIPS and check them by hash."""
    from semforensics.perceptual.weights import fetch_backbones as fetch

    names = fetch(read_params(params).fetch_backbones.nets, pretrained, scratch / "fetch_backbones")
    typer.echo(f"{', '.join(names)} in {pretrained}")


@app.command()
def train_gan(
    gan: Gan,
    cropped: InDir,
    splits: InFile,
    pretrained: InDir,
    checkpoints: OutPath,
    plots: OutPath,
    params: ParamsFile = Path("params.yaml"),
    device: Device = "auto",
    threads: Threads = 0,
    processes: Processes = 1,
    scratch: Scratch = Path(".scratch"),
) -> None:
    """Train one GAN on the cropped micrographs.

    An iteration is one step of both networks on one batch. StyleGAN2-ADA counts its length in kimg,
    thousands of real images shown: kimg = iterations * batch / 1000. So 1000 kimg at batch 16,
    which the thesis prints as 1000 iterations, are 62500 of them.
    """
    p = read_params(params)
    places = (cropped, splits, pretrained, checkpoints, plots)

    def train(device: "torch.device") -> str:
        match gan:
            case GanName.FASTGAN:
                from semforensics.generators.fastgan.training import train_fastgan

                return train_fastgan(
                    *places,
                    params=p.train_gan.fastgan,
                    protocol=p.protocol,
                    seed=p.seed,
                    scratch=scratch / "train_gan" / gan,
                    device=device,
                )
            case GanName.STYLEGAN2_ADA:
                from semforensics.generators.stylegan2_ada.training import train_stylegan2_ada

                return train_stylegan2_ada(
                    *places,
                    params=p.train_gan.stylegan2_ada,
                    protocol=p.protocol,
                    seed=p.seed,
                    scratch=scratch / "train_gan" / gan,
                    device=device,
                )

    _train_together(train, processes, device, threads)


@app.command()
def generate_fakes(
    gan: Gan,
    checkpoints: InDir,
    fakes: OutPath,
    params: ParamsFile = Path("params.yaml"),
    device: Device = "auto",
    threads: Threads = 0,
) -> None:
    """Draw fakes, one per seed."""
    from semforensics.core.device import choose_device, set_threads
    from semforensics.generators.generate_fakes import generate_folder

    set_threads(threads)
    section = getattr(read_params(params).generate_fakes, gan)
    count = generate_folder(checkpoints, fakes, section, device=choose_device(device))
    typer.echo(f"{count} fakes in {fakes}")


@app.command()
def measure_distances(
    gan: Gan,
    cropped: InDir,
    splits: InFile,
    fakes: InDir,
    pretrained: InDir,
    metrics: OutPath,
    plots: OutPath,
    params: ParamsFile = Path("params.yaml"),
    device: Device = "auto",
    threads: Threads = 0,
) -> None:
    """Measure how near the fakes are to the reals."""
    from semforensics.core.device import choose_device, set_threads
    from semforensics.distances.measure import measure_folder

    p = read_params(params)
    set_threads(threads)
    summary = measure_folder(
        cropped,
        splits,
        fakes,
        pretrained,
        metrics,
        plots,
        gan=gan,
        params=p.measure_distances,
        protocol=p.protocol,
        data=p.acquire.source,
        seed=p.seed,
        device=choose_device(device),
    )
    typer.echo(summary)


@app.command()
def train_classifier(
    row: Row,
    cropped: InDir,
    splits: InFile,
    fakes: InDir,
    classifier: OutPath,
    params: ParamsFile = Path("params.yaml"),
    device: Device = "auto",
    threads: Threads = 0,
    processes: Processes = 1,
    scratch: Scratch = Path(".scratch"),
) -> None:
    """Train one NPR classifier, real against fake."""
    p = read_params(params)

    def train(device: "torch.device") -> str:
        from semforensics.detector.training import train_row

        return train_row(
            row,
            cropped,
            splits,
            fakes,
            classifier,
            params=p.train_classifier,
            shares=p.split,
            protocol=p.protocol,
            data=p.acquire.source,
            seed=p.seed,
            scratch=scratch / "train_classifier" / row,
            device=device,
        )

    _train_together(train, processes, device, threads)


@app.command()
def evaluate_classifier(
    row: Row,
    classifier: InDir,
    cropped: InDir,
    splits: InFile,
    fakes: InDir,
    metrics: OutPath,
    plots: OutPath,
    params: ParamsFile = Path("params.yaml"),
    device: Device = "auto",
    threads: Threads = 0,
) -> None:
    """Score the test side: the columns of the thesis's Table 4.3, with intervals."""
    from semforensics.core.device import choose_device, set_threads
    from semforensics.trials.evaluate import evaluate_row

    p = read_params(params)
    set_threads(threads)
    summary = evaluate_row(
        row,
        classifier,
        cropped,
        splits,
        fakes,
        metrics,
        plots,
        params=p.evaluate_classifier,
        seed=p.seed,
        device=choose_device(device),
    )
    typer.echo(summary)


@app.command()
def train_autoencoders(
    cropped: InDir,
    splits: InFile,
    autoencoders: OutPath,
    params: ParamsFile = Path("params.yaml"),
    device: Device = "auto",
    threads: Threads = 0,
    scratch: Scratch = Path(".scratch"),
) -> None:
    """Train small encoder-decoders, whose reconstructions of reals are fakes of another kind."""
    from semforensics.core.device import choose_device, set_threads
    from semforensics.generators.autoencoders.training import train_autoencoders as train

    p = read_params(params)
    set_threads(threads)
    summary = train(
        cropped,
        splits,
        autoencoders,
        params=p.train_autoencoders,
        protocol=p.protocol,
        seed=p.seed,
        scratch=scratch / "train_autoencoders",
        device=choose_device(device),
    )
    typer.echo(summary)


@app.command()
def resynthesise(
    cropped: InDir,
    splits: InFile,
    autoencoders: InDir,
    pseudo: OutPath,
    unseen: OutPath,
    params: ParamsFile = Path("params.yaml"),
    device: Device = "auto",
    threads: Threads = 0,
) -> None:
    """Make pseudo-fakes to learn from, and images of kinds that no classifier learns from."""
    from semforensics.core.device import choose_device, set_threads
    from semforensics.generators.autoencoders.resynthesise import resynthesise as make

    p = read_params(params)
    set_threads(threads)
    summary = make(
        cropped,
        splits,
        autoencoders,
        pseudo,
        unseen,
        params=p.resynthesise,
        simulated=p.acquire.simulated,
        source=p.acquire.source,
        seed=p.seed,
        device=choose_device(device),
    )
    typer.echo(summary)


@app.command()
def train_diffusion(
    cropped: InDir,
    splits: InFile,
    checkpoint: OutPath,
    params: ParamsFile = Path("params.yaml"),
    device: Device = "auto",
    threads: Threads = 0,
    scratch: Scratch = Path(".scratch"),
) -> None:
    """Train a small diffusion model; with 0 steps it is off."""
    from semforensics.core.device import choose_device, set_threads
    from semforensics.generators.diffusion.training import train_diffusion as train

    p = read_params(params)
    set_threads(threads)
    summary = train(
        cropped,
        splits,
        checkpoint,
        params=p.train_diffusion,
        protocol=p.protocol,
        seed=p.seed,
        scratch=scratch / "train_diffusion",
        device=choose_device(device),
    )
    typer.echo(summary)


@app.command()
def generate_diffusion(
    checkpoint: InDir,
    fakes: OutPath,
    params: ParamsFile = Path("params.yaml"),
    device: Device = "auto",
    threads: Threads = 0,
) -> None:
    """Draw fakes of the diffusion model, one per seed."""
    from semforensics.core.device import choose_device, set_threads
    from semforensics.generators.diffusion.training import generate_diffusion as generate

    p = read_params(params)
    set_threads(threads)
    summary = generate(checkpoint, fakes, params=p.generate_diffusion, device=choose_device(device))
    typer.echo(summary)


@app.command()
def compare_detectors(
    classifiers: InDir,
    cropped: InDir,
    splits: InFile,
    fakes: InDir,
    unseen: InDir,
    metrics: OutPath,
    plots: OutPath,
    params: ParamsFile = Path("params.yaml"),
    device: Device = "auto",
    threads: Threads = 0,
) -> None:
    """Test every detector on every generator, and the baselines beside them."""
    from semforensics.core.device import choose_device, set_threads
    from semforensics.trials.compare import compare_detectors as compare

    p = read_params(params)
    set_threads(threads)
    summary = compare(
        classifiers,
        cropped,
        splits,
        fakes,
        unseen,
        metrics,
        plots,
        params=p.compare_detectors,
        train=p.train_classifier,
        shares=p.split,
        protocol=p.protocol,
        phases=p.evaluate_classifier.phases,
        under_trained=p.generate_diffusion.under_trained,
        seed=p.seed,
        device=choose_device(device),
    )
    typer.echo(summary)


@app.command()
def measure_robustness(
    classifier: InDir,
    cropped: InDir,
    splits: InFile,
    fakes: InDir,
    metrics: OutPath,
    plots: OutPath,
    params: ParamsFile = Path("params.yaml"),
    device: Device = "auto",
    threads: Threads = 0,
) -> None:
    """Score the test side again after every kind of processing, of one class and of both."""
    from semforensics.core.device import choose_device, set_threads
    from semforensics.trials.robustness import measure_robustness as measure

    p = read_params(params)
    set_threads(threads)
    summary = measure(
        classifier,
        cropped,
        splits,
        fakes,
        metrics,
        plots,
        params=p.measure_robustness,
        phases=p.evaluate_classifier.phases,
        alpha=p.evaluate_classifier.alpha,
        seed=p.seed,
        device=choose_device(device),
    )
    typer.echo(summary)


@app.command()
def list_benign(folder: InDir, listing: OutPath, params: ParamsFile = Path("params.yaml")) -> None:
    """List the micrographs from outside on which false alarms are counted, with their hashes."""
    from semforensics.trials.false_alarms import write_benign_listing

    sets = read_params(params).count_false_alarms.sets
    count = write_benign_listing(folder, listing, sets)
    typer.echo(f"{count} files of {folder} in {listing}")


@app.command()
def count_false_alarms(
    classifier: InDir,
    cropped: InDir,
    splits: InFile,
    fakes: InDir,
    listing: InFile,
    metrics: OutPath,
    plots: OutPath,
    params: ParamsFile = Path("params.yaml"),
    folder: Annotated[
        Path | None,
        typer.Option(envvar="SEMFORENSICS_BENIGN", help="Where the listed micrographs lie."),
    ] = None,
    device: Device = "auto",
    threads: Threads = 0,
) -> None:
    """Count false alarms on benignly processed and on foreign micrographs."""
    from semforensics.core.device import choose_device, set_threads
    from semforensics.trials.false_alarms import measure_false_alarms

    p = read_params(params)
    set_threads(threads)
    summary = measure_false_alarms(
        classifier,
        cropped,
        splits,
        fakes,
        listing,
        folder,
        metrics,
        plots,
        params=p.count_false_alarms,
        crop=p.crop,
        phases=p.evaluate_classifier.phases,
        alpha=p.evaluate_classifier.alpha,
        seed=p.seed,
        device=choose_device(device),
    )
    typer.echo(summary)


@app.command()
def audit_shortcuts(
    classifier: InDir,
    cropped: InDir,
    splits: InFile,
    fakes: InDir,
    metrics: OutPath,
    plots: OutPath,
    params: ParamsFile = Path("params.yaml"),
    device: Device = "auto",
    threads: Threads = 0,
    scratch: Scratch = Path(".scratch"),
) -> None:
    """Look for shortcuts that a detector could take; red gates do not stop the pipeline."""
    from semforensics.core.device import choose_device, set_threads
    from semforensics.trials.audit import audit_shortcuts as audit

    p = read_params(params)
    set_threads(threads)
    summary = audit(
        classifier,
        cropped,
        splits,
        fakes,
        metrics,
        plots,
        params=p.audit_shortcuts,
        crop=p.crop,
        train=p.train_classifier,
        shares=p.split,
        protocol=p.protocol,
        phases=p.evaluate_classifier.phases,
        alpha=p.evaluate_classifier.alpha,
        seed=p.seed,
        scratch=scratch / "audit_shortcuts",
        device=choose_device(device),
    )
    typer.echo(summary)


@app.command()
def check_release(
    audit: Annotated[Path, typer.Argument(help="As audit-shortcuts wrote it.")] = Path(
        "metrics/audit.json"
    ),
    classifier: Annotated[Path, typer.Argument(help="Folder of the audited model.")] = Path(
        "data/classifiers/both"
    ),
) -> None:
    """Say what stands for and against releasing a model; exit 1 if anything stands against it."""
    from semforensics.publish.release import check_release as check

    green, red = check(audit, classifier)
    for line in green:
        typer.secho(f"green  {line}", fg=typer.colors.GREEN)
    for line in red:
        typer.secho(f"red    {line}", fg=typer.colors.RED)
    if red:
        raise typer.Exit(1)


@app.command()
def compare_protocols(clean: str, thesis: str, table: OutPath) -> None:
    """Put the results of two experiments, one per protocol, into one table.

    CLEAN and THESIS are Git revisions or names of experiments.
    """
    from semforensics.publish.protocols import write_protocols_table

    typer.echo(f"{write_protocols_table(clean, thesis, table)} lines in {table}")


@app.command()
def tabulate(metrics: InDir, table: OutPath) -> None:
    """Put all classifiers' numbers into one table, the thesis's Table 4.3 beside them."""
    from semforensics.trials.tabulate import write_table

    typer.echo(f"{write_table(metrics, table)} lines in {table}")


@app.command()
def package_model(
    classifier: InDir,
    cropped: InDir,
    splits: InFile,
    folder: OutPath,
    params: ParamsFile = Path("params.yaml"),
) -> None:
    """Put classifier, calibration and references into the file that `screen` loads."""
    from semforensics.publish.model import package_model as package

    p = read_params(params)
    summary = package(
        classifier,
        cropped,
        splits,
        folder,
        params=p.package_model,
        phases=p.evaluate_classifier.phases,
        data=p.acquire.source,
    )
    typer.echo(summary)


@app.command()
def package_dataset(
    cropped: InDir,
    splits: InFile,
    catalogue: InFile,
    fakes: InDir,
    checkpoints: InDir,
    folder: OutPath,
    params: ParamsFile = Path("params.yaml"),
) -> None:
    """Put crops and fakes into a dataset for others, with a manifest and a description."""
    from semforensics.publish.dataset import package_dataset as package

    p = read_params(params)
    summary = package(
        cropped,
        splits,
        catalogue,
        fakes,
        checkpoints,
        folder,
        params=p.package_dataset,
        generators=[gan.value for gan in GanName],
        snapshots={
            "fastgan": p.generate_fakes.fastgan.snapshot,
            "stylegan2_ada": p.generate_fakes.stylegan2_ada.snapshot,
        },
        shares=p.split,
        protocol=p.protocol,
        seed=p.seed,
    )
    typer.echo(summary)


@app.command()
def headline(metrics: InDir, headline: OutPath) -> None:
    """Gather the few numbers that `dvc metrics` shows of the classifier and the generators."""
    from semforensics.trials.headline import write_headline

    typer.echo(f"{write_headline(metrics, headline)} entries in {headline}")


@app.command()
def headline_trials(metrics: InDir, trials: OutPath) -> None:
    """Gather the few numbers that `dvc metrics` shows of the detector's trials."""
    from semforensics.trials.headline import write_trials

    typer.echo(f"{write_trials(metrics, trials)} entries in {trials}")


@app.command()
def explain(
    row: Row,
    classifier: InDir,
    cropped: InDir,
    splits: InFile,
    fakes: InDir,
    plots: OutPath,
    params: ParamsFile = Path("params.yaml"),
    device: Device = "auto",
    threads: Threads = 0,
) -> None:
    """Draw Grad-CAM maps of test reals and test fakes on one scale."""
    from semforensics.core.device import choose_device, set_threads
    from semforensics.trials.explain import explain_row

    set_threads(threads)
    p = read_params(params)
    summary = explain_row(
        row,
        classifier,
        cropped,
        splits,
        fakes,
        plots,
        params=p.explain,
        resamples=p.evaluate_classifier.bootstrap_resamples,
        seed=p.seed,
        device=choose_device(device),
    )
    typer.echo(summary)


@app.command()
def plot(
    gan: Gan,
    cropped: InDir,
    fakes: InDir,
    training: InDir,
    distances: InDir,
    figures: OutPath,
    params: ParamsFile = Path("params.yaml"),
) -> None:
    """Draw the figures of one GAN: fakes beside reals, losses, spectra, nearest distances."""
    from semforensics.distances.plot import plot_gan

    source = read_params(params).acquire.source
    count = plot_gan(gan, cropped, fakes, training, distances, figures, data=source)
    typer.echo(f"{count} figures in {figures}")


@app.command()
def render_plots(
    folder: OutPath,
    revisions: Annotated[
        list[str] | None, typer.Argument(help="To compare; the workspace alone if left out.")
    ] = None,
) -> None:
    """Draw the plots of dvc.yaml as PNG files, without a browser or a network."""
    from semforensics.publish.dvc_plots import render_plots as render

    typer.echo(f"{len(render(Path(), revisions or [], folder))} plots in {folder}")


@app.command()
def check_lock() -> None:
    """Check that dvc.lock belongs to code and parameters; end with 1 if stages would run."""
    from semforensics.publish.review import stale_stages

    stages = stale_stages(Path())
    for stage in stages:
        typer.secho(f"stale: {stage}", fg=typer.colors.RED)
    if stages:
        raise typer.Exit(1)
    typer.echo("dvc.lock belongs to code and parameters")


@app.command()
def pull_request_report(
    base: str,
    head: str,
    out: OutPath,
) -> None:
    """Write what a change does to metrics, parameters and plots: out/report.md and pictures."""
    from semforensics.publish.review import write_report

    count = write_report(base, head, out, Path())
    typer.echo(f"{count} warnings in {out / 'report.md'}")


@app.command()
def screen(
    paths: Annotated[
        list[Path],
        typer.Argument(help="Images, folders, PDFs and ZIP archives.", metavar="PATH"),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the report.")] = Path("report"),
    model: Annotated[
        str | None, typer.Option(help="Model file or DVC artifact; without it, the released one.")
    ] = None,
    alpha: Annotated[
        float, typer.Option(min=0, max=1, help="Share of reals that may be suspected.")
    ] = 0.05,
    prevalence: Annotated[
        float, typer.Option(min=0, max=1, help="Share of generated panels that you expect.")
    ] = 0.5,
    pooling: Annotated[
        str, typer.Option(help="How the tiles of a panel become one score: mean, median or max.")
    ] = "mean",
    maps: Annotated[bool, typer.Option(help="Draw the evidence beside each verdict.")] = True,
    workers: Annotated[
        int, typer.Option(min=0, help="Processes; 0: one for a few inputs, else one per core.")
    ] = 0,
    fail_on: Annotated[
        FailOn,
        typer.Option(help="End with 1 from this on; each includes those before it."),
    ] = FailOn.NEVER,
    info_bar: Annotated[
        str, typer.Option(help="Rows to cut off the bottom of every panel, or auto.")
    ] = "auto",
    scratch: Annotated[
        Path | None,
        typer.Option(help="Unfinished work, removed in the end; without it, inside of --out."),
    ] = None,
    device: Device = "cpu",
    threads: Threads = 0,
) -> None:
    """Judge micrographs from outside and write report.html, report.json and report.csv.

    Everything stays on this machine. A run that was killed goes on where it stopped when the same
    is asked for again.

    Exit code 0: done. 1: done, and what --fail-on names was found. 2: bad input or option, no
    report. 3: out of memory, or a mistake of this program; no report.
    """
    from semforensics.core.device import choose_device, set_threads
    from semforensics.screening.judge.screener import Screener
    from semforensics.screening.submission import (
        inputs_outside,
        repeating_command,
        screen_submission,
    )

    if info_bar != "auto" and not info_bar.isdecimal():
        raise InputError(f"--info-bar {info_bar!r}: expected auto or a number of rows")
    inputs_outside(paths, out)  # a path that does not exist is told before the model is loaded
    where = choose_device(device)
    set_threads(threads)
    screener = Screener.load(
        model,
        alpha=alpha,
        prevalence=prevalence,
        pooling=pooling,
        device=where,
        evidence=maps,
    )
    totals = screen_submission(
        paths,
        out,
        screener,
        workers=workers or (0 if where.type == "cpu" else 1),  # one process fills a GPU
        scratch=scratch or out / ".unfinished",
        command=repeating_command(sys.argv[1:]),
        info_bar=None if info_bar == "auto" else int(info_bar),
    )
    for line in totals.lines():
        typer.echo(line)
    typer.echo(f"report: {out / 'report.html'}")
    if totals.meets(fail_on.value):
        raise typer.Exit(1)


@app.command()
def serve(
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8765,
    model: Annotated[
        str | None, typer.Option(help="Model file or DVC artifact; without it, the released one.")
    ] = None,
    alpha: Annotated[
        float, typer.Option(min=0, max=1, help="Share of reals that may be suspected.")
    ] = 0.05,
    prevalence: Annotated[
        float, typer.Option(min=0, max=1, help="Share of generated panels that you expect.")
    ] = 0.5,
    pooling: Annotated[
        str, typer.Option(help="How the tiles of a panel become one score.")
    ] = "mean",
    maps: Annotated[bool, typer.Option(help="Draw the evidence beside each verdict.")] = True,
    device: Device = "cpu",
    threads: Threads = 0,
) -> None:
    """Open a page on this computer alone: drop files, read the report; nothing is kept."""
    from semforensics.core.device import choose_device
    from semforensics.screening.judge.screener import Screener
    from semforensics.screening.page import serve_page
    from semforensics.screening.page_job import PageJob
    from semforensics.screening.write.markup import SIMULATED, is_simulated

    # Tried here: options that can never work are told before anybody waits for a page.
    tried = Screener.load(
        model,
        alpha=alpha,
        prevalence=prevalence,
        pooling=pooling,
        device=choose_device(device),
        evidence=maps,
    )
    job = PageJob(model, alpha, prevalence, pooling, maps, device, threads)
    serve_page(
        job,
        port=port,
        notice=SIMULATED if is_simulated(tried.describe()) else "",
        announce=lambda url: typer.echo(f"{url} answers on this computer alone; Ctrl-C ends it"),
    )
