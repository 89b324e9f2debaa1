"""Commands of the pipeline: the stages of dvc.yaml in the order of their graph."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from semforensics.cli.frame import (
    Detector,
    DeviceRun,
    Gan,
    InDir,
    InFile,
    MayBeDir,
    OutPath,
    Panel,
    Run,
    ScratchRun,
    SharedTrainingRun,
    TrainingRun,
)
from semforensics.core.source import unchanged_source
from semforensics.params import Params, PublishedNetwork, WorldPart

if TYPE_CHECKING:
    import torch

    from semforensics.detector.corpus import Corpus
    from semforensics.detector.world_data import WorldData
    from semforensics.generators.common.reals import RealCrops
    from semforensics.trials.under_test import DetectorUnderTest

PANEL = Panel("Run the pipeline", around=unchanged_source)


@dataclass(frozen=True)
class Reals:
    """Where the real images of a run are."""

    cropped: InDir
    splits: InFile

    def crops(self, p: Params) -> "RealCrops":
        """Return those that a generator may learn from."""
        from semforensics.generators.common.reals import RealCrops

        return RealCrops(self.cropped, self.splits, p.protocol)


@dataclass(frozen=True)
class Images(Reals):
    """Where all images of a run are."""

    fakes: InDir

    def corpus(self, p: Params) -> "Corpus":
        """Return them with how they are divided."""
        from semforensics.detector.corpus import Corpus

        return Corpus(self.cropped, self.splits, self.fakes, p.protocol, p.split, p.seed)


@dataclass(frozen=True)
class WorldImages:
    """Where the images of the detector for any instrument are."""

    cropped: InDir
    splits: InFile
    reconstructed: InDir
    pseudo: InDir
    generators: MayBeDir

    def data(self) -> "WorldData":
        """Return them."""
        from semforensics.detector.world_data import WorldData

        return WorldData(
            self.cropped, self.splits, self.reconstructed, self.pseudo, self.generators
        )


@dataclass(frozen=True)
class Trained:
    """Where a trained classifier is."""

    classifier: InDir


@dataclass(frozen=True)
class Tested(Images, Trained):
    """Where a classifier is, and the images of its run."""

    def load(
        self, p: Params, device: "torch.device", name: str | None = None
    ) -> "DetectorUnderTest":
        """Load them; `name` is the detector that is expected."""
        from semforensics.trials.under_test import DetectorUnderTest

        return DetectorUnderTest.load(
            self.classifier,
            self.corpus(p),
            phases=p.evaluate_classifier.phases,
            alpha=p.evaluate_classifier.alpha,
            device=device,
            name=name,
        )


@PANEL.command
def list_folder(
    folder: InDir,
    listing: OutPath,
    run: Run,
    manifest: Annotated[
        Path | None,
        typer.Option(
            envvar="SEMFORENSICS_MANIFEST",
            exists=True,
            dir_okay=False,
            help="CSV of file, group, ...; without it, each MANIFEST.csv in the folder is read.",
        ),
    ] = None,
) -> str:
    """List a folder of micrographs with their hashes, so that the pipeline notices new ones."""
    from semforensics.acquire.folder import list_folder

    p = run.params
    return list_folder(
        folder,
        listing,
        p.acquire.folder,
        max_left_out=p.crop.max_left_out,
        manifest=manifest,
    )


@PANEL.command
def acquire(
    listing: InFile,
    raw: OutPath,
    catalogue: OutPath,
    run: ScratchRun,
    folder: Annotated[
        Path | None,
        typer.Option(envvar="SEMFORENSICS_FOLDER", help="Where the micrographs of `folder` lie."),
    ] = None,
) -> str:
    """Bring raw micrographs into one folder, with a catalogue."""
    from semforensics.acquire.acquire import acquire

    p = run.params
    count = acquire(
        p.acquire,
        raw,
        catalogue,
        seed=p.seed,
        listing=listing,
        folder=folder,
        scratch=run.scratch / "acquire",
    )
    return f"{count} {p.acquire.source} micrographs in {raw}"


@PANEL.command
def crop(
    raw: InDir, catalogue: InFile, cropped: OutPath, crops: OutPath, left_out: OutPath, run: Run
) -> str:
    """Cut raw micrographs into square crops, without their info bars."""
    from semforensics.micrographs.crop import crop

    return crop(raw, catalogue, cropped, crops, left_out, run.params.crop)


@PANEL.command
def split(crops: InFile, splits: OutPath, run: Run) -> str:
    """Assign every crop to train, test or validation."""
    from semforensics.micrographs.split import split

    p = run.params
    return split(crops, splits, p.split, p.protocol, p.seed)


@PANEL.command
def fetch_backbones(pretrained: OutPath, run: ScratchRun) -> str:
    """Fetch the ImageNet trunks of LPIPS and check them by hash."""
    from semforensics.perceptual.weights import fetch_backbones

    nets = run.params.fetch_backbones.nets
    names = fetch_backbones(nets, pretrained, run.scratch / "fetch_backbones")
    return f"{', '.join(names)} in {pretrained}"


@PANEL.command
def train_gan(
    gan: Gan,
    reals: Reals,
    pretrained: InDir,
    checkpoints: OutPath,
    plots: OutPath,
    run: SharedTrainingRun,
) -> str:
    """Train one GAN on the cropped micrographs.

    An iteration is one step of both networks on one batch. StyleGAN2-ADA counts its length in kimg,
    thousands of real images shown: kimg = iterations * batch / 1000. So 1000 kimg at batch 16,
    which the thesis prints as 1000 iterations, are 62500 of them.
    """
    from semforensics.generators.train_gan import train_gan

    p = run.params
    return train_gan(
        reals.crops(p),
        pretrained,
        checkpoints,
        plots,
        params=getattr(p.train_gan, gan),
        setup=run.setup(p, "train_gan", gan),
    )


@PANEL.command
def generate_fakes(gan: Gan, checkpoints: InDir, fakes: OutPath, run: DeviceRun) -> str:
    """Draw fakes, one per seed."""
    from semforensics.generators.generate_fakes import generate_fakes

    section = getattr(run.params.generate_fakes, gan)
    return generate_fakes(checkpoints, fakes, section, device=run.device)


@PANEL.command
def measure_distances(
    gan: Gan,
    images: Images,
    pretrained: InDir,
    metrics: OutPath,
    plots: OutPath,
    run: DeviceRun,
    memory_gb: Annotated[
        float,
        typer.Option(
            envvar="SEMFORENSICS_MEMORY_GB",
            min=0,
            help="For the embeddings of LPIPS, in 10^9 bytes; never changes a result.",
        ),
    ] = 4,
) -> str:
    """Measure how near the fakes are to the reals."""
    from semforensics.distances.measure import Sources, measure_distances

    p = run.params
    return measure_distances(
        Sources(gan, images.cropped, images.splits, images.fakes, p.protocol, p.acquire.source),
        pretrained,
        metrics,
        plots,
        params=p.measure_distances,
        seed=p.seed,
        device=run.device,
        memory_gb=memory_gb,
    )


@PANEL.command
def plot(
    gan: Gan,
    cropped: InDir,
    fakes: InDir,
    training: InDir,
    distances: InDir,
    figures: OutPath,
    run: Run,
) -> str:
    """Draw the figures of one GAN: fakes beside reals, losses, spectra, nearest distances."""
    from semforensics.distances.plot import plot

    source = run.params.acquire.source
    count = plot(gan, cropped, fakes, training, distances, figures, data=source)
    return f"{count} figures in {figures}"


@PANEL.command
def train_autoencoders(reals: Reals, autoencoders: OutPath, run: TrainingRun) -> str:
    """Train small encoder-decoders, whose reconstructions of reals are fakes of another kind."""
    from semforensics.generators.autoencoders.training import train_autoencoders

    p = run.params
    return train_autoencoders(
        reals.crops(p),
        autoencoders,
        params=p.train_autoencoders,
        setup=run.setup(p, "train_autoencoders"),
    )


@PANEL.command
def resynthesise(
    cropped: InDir,
    splits: InFile,
    autoencoders: InDir,
    pseudo: OutPath,
    decoders: OutPath,
    unseen: OutPath,
    run: DeviceRun,
) -> str:
    """Make pseudo-fakes to learn from, and images of kinds that no classifier learns from."""
    from semforensics.generators.autoencoders.resynthesise import Outputs, Simulator, resynthesise

    p = run.params
    return resynthesise(
        cropped,
        splits,
        autoencoders,
        Outputs(pseudo, decoders, unseen),
        params=p.resynthesise,
        simulator=Simulator(p.acquire.simulated, p.acquire.source, p.seed),
        device=run.device,
    )


@PANEL.command
def resynthesise_published(
    network: Annotated[PublishedNetwork, typer.Argument()],
    cropped: InDir,
    splits: InFile,
    fakes: OutPath,
    run: TrainingRun,
) -> str:
    """Pass crops through a network that others have published; off where it is not named."""
    from semforensics.generators.published.resynthesise import resynthesise_published

    p = run.params
    return resynthesise_published(
        network,
        cropped,
        splits,
        fakes,
        params=p.resynthesise_published,
        seed=p.seed,
        scratch=run.scratch / "published" / network,
        device=run.device,
    )


@PANEL.command
def train_world(
    part: Annotated[WorldPart, typer.Argument()],
    images: WorldImages,
    network: OutPath,
    run: TrainingRun,
) -> str:
    """Train a detector for any instrument, on all collections but those of a fold."""
    from semforensics.detector.world import train_world

    p = run.params
    return train_world(
        part,
        images.data(),
        network,
        params=p.train_world,
        setup=run.setup(p, f"train_world_{part}"),
    )


@PANEL.command
def calibrate_world(
    images: WorldImages,
    networks: InDir,
    calibration: OutPath,
    run: DeviceRun,
) -> str:
    """Score panels by networks that have not seen them, for p-values."""
    from semforensics.detector.world_calibration import calibrate_world

    p = run.params
    return calibrate_world(
        images.data(),
        networks,
        calibration,
        params=p.calibrate_world,
        known=p.train_world,
        device=run.device,
    )


@PANEL.command
def evaluate_world(
    images: WorldImages, networks: InDir, calibration: InDir, metrics: OutPath, run: DeviceRun
) -> str:
    """Judge the networks, and baselines beside them, on what they have not seen; off with them."""
    from semforensics.trials.world_protocol import evaluate_world

    p = run.params
    return evaluate_world(
        images.data(),
        networks,
        calibration,
        metrics,
        params=p.evaluate_world,
        known=p.train_world,
        seed=p.seed,
        device=run.device,
    )


@PANEL.command
def train_diffusion(reals: Reals, checkpoint: OutPath, run: TrainingRun) -> str:
    """Train a small diffusion model; with 0 steps it is off."""
    from semforensics.generators.diffusion.training import train_diffusion

    p = run.params
    return train_diffusion(
        reals.crops(p), checkpoint, params=p.train_diffusion, setup=run.setup(p, "train_diffusion")
    )


@PANEL.command
def generate_diffusion(
    checkpoint: InDir,
    cropped: InDir,
    splits: InFile,
    fakes: OutPath,
    refined: OutPath,
    run: DeviceRun,
) -> str:
    """Draw fakes of the diffusion model, one per seed, and refine crops by it."""
    from semforensics.generators.diffusion.generate import generate_diffusion

    p = run.params
    return generate_diffusion(
        checkpoint,
        cropped,
        splits,
        fakes,
        refined,
        params=p.generate_diffusion,
        seed=p.seed,
        device=run.device,
    )


@PANEL.command
def train_classifier(
    detector: Detector, images: Images, classifier: OutPath, run: SharedTrainingRun
) -> str:
    """Train one NPR classifier, real against fake."""
    from semforensics.detector.training import train_classifier

    p = run.params
    return train_classifier(
        detector,
        images.corpus(p),
        classifier,
        params=p.train_classifier,
        data=p.acquire.source,
        scratch=run.scratch / "train_classifier" / detector,
        device=run.device,
    )


@PANEL.command
def evaluate_classifier(
    detector: Detector, tested: Tested, metrics: OutPath, plots: OutPath, run: DeviceRun
) -> str:
    """Score the test split: the columns of the thesis's Table 4.3, with intervals."""
    from semforensics.trials.evaluate import evaluate_classifier

    p = run.params
    resamples = p.evaluate_classifier.bootstrap_resamples
    loaded = tested.load(p, run.device, name=detector)
    return evaluate_classifier(loaded, metrics, plots, resamples=resamples)


@PANEL.command
def explain(
    detector: Detector, classifier: InDir, images: Images, plots: OutPath, run: DeviceRun
) -> str:
    """Draw Grad-CAM maps of test reals and test fakes on one scale."""
    from semforensics.trials.explain import explain

    p = run.params
    return explain(
        detector,
        classifier,
        images.corpus(p),
        plots,
        params=p.explain,
        resamples=p.evaluate_classifier.bootstrap_resamples,
        device=run.device,
    )


@PANEL.command
def tabulate(metrics: InDir, table: OutPath) -> str:
    """Put all classifiers' numbers into one table, the thesis's Table 4.3 beside them."""
    from semforensics.trials.tabulate import tabulate

    return f"{tabulate(metrics, table)} lines in {table}"


@PANEL.command
def headline(metrics: InDir, headline: OutPath) -> str:
    """Gather the few numbers that `dvc metrics` shows of the classifier and the generators."""
    from semforensics.trials import headline as stage

    return f"{stage.headline(metrics, headline)} entries in {headline}"


@PANEL.command
def compare_detectors(
    classifiers: InDir,
    images: Images,
    unseen: InDir,
    metrics: OutPath,
    plots: OutPath,
    run: DeviceRun,
) -> str:
    """Test every detector on every generator, and the baselines beside them."""
    from semforensics.trials.columns import Unseen
    from semforensics.trials.compare import compare_detectors

    p = run.params
    return compare_detectors(
        classifiers,
        images.corpus(p),
        Unseen(unseen, p.generate_diffusion.under_trained),
        metrics,
        plots,
        params=p.compare_detectors,
        phases=p.evaluate_classifier.phases,
        device=run.device,
    )


@PANEL.command
def measure_robustness(tested: Tested, metrics: OutPath, plots: OutPath, run: DeviceRun) -> str:
    """Score the test split again after every kind of processing, of one class and of both."""
    from semforensics.trials.robustness import measure_robustness

    p = run.params
    detector = tested.load(p, run.device)
    return measure_robustness(detector, metrics, plots, params=p.measure_robustness)


@PANEL.command
def list_benign(folder: InDir, listing: OutPath, run: Run) -> str:
    """List the micrographs from outside on which false alarms are counted, with their hashes."""
    from semforensics.trials.benign import list_benign

    sets = run.params.count_false_alarms.sets
    return f"{list_benign(folder, listing, sets)} files of {folder} in {listing}"


@dataclass(frozen=True)
class BenignRun(DeviceRun):
    """A run that reads micrographs from outside."""

    folder: Annotated[
        Path | None,
        typer.Option(envvar="SEMFORENSICS_BENIGN", help="Where the listed micrographs lie."),
    ] = None


@PANEL.command
def count_false_alarms(
    tested: Tested, listing: InFile, metrics: OutPath, plots: OutPath, run: BenignRun
) -> str:
    """Count false alarms on benignly processed and on foreign micrographs."""
    from semforensics.trials.false_alarms import count_false_alarms

    p = run.params
    return count_false_alarms(
        tested.load(p, run.device),
        listing,
        run.folder,
        metrics,
        plots,
        params=p.count_false_alarms,
        crop=p.crop,
    )


@PANEL.command
def audit_shortcuts(tested: Tested, metrics: OutPath, plots: OutPath, run: TrainingRun) -> str:
    """Look for shortcuts that a detector could take; red gates do not stop the pipeline."""
    from semforensics.trials.audit import audit_shortcuts

    p = run.params
    return audit_shortcuts(
        tested.load(p, run.device),
        metrics,
        plots,
        params=p.audit_shortcuts,
        geometry=p.crop.geometry,
        train=p.train_classifier,
        scratch=run.scratch / "audit_shortcuts",
    )


@PANEL.command
def headline_trials(metrics: InDir, trials: OutPath) -> str:
    """Gather the few numbers that `dvc metrics` shows of the detector's trials."""
    from semforensics.trials.headline import headline_trials

    return f"{headline_trials(metrics, trials)} entries in {trials}"


@PANEL.command
def package_model(
    classifier: InDir,
    cropped: InDir,
    splits: InFile,
    fakes: InDir,
    false_alarms: InFile,
    folder: OutPath,
    run: Run,
) -> str:
    """Put classifier, calibration and references into the file that `screen` loads."""
    from semforensics.detector.corpus import Corpus
    from semforensics.publish.model import package_model

    p = run.params
    return package_model(
        classifier,
        Corpus(cropped, splits, fakes, p.protocol, p.split, p.seed),
        false_alarms,
        folder,
        params=p.package_model,
        phases=p.evaluate_classifier.phases,
        data=p.acquire.source,
    )


@PANEL.command
def package_world(
    images: WorldImages,
    networks: InDir,
    calibration: InDir,
    catalogue: InFile,
    folder: OutPath,
    run: Run,
) -> str:
    """Put the detector for any instrument into the file that `screen` loads; off with it."""
    from semforensics.publish.world_model import package_world

    p = run.params
    return package_world(
        images.data(),
        networks,
        calibration,
        catalogue,
        folder,
        params=p.package_world,
        published=p.calibrate_world.published,
        source=p.acquire.source,
    )


@PANEL.command
def package_dataset(
    cropped: InDir,
    splits: InFile,
    catalogue: InFile,
    fakes: InDir,
    checkpoints: InDir,
    folder: OutPath,
    run: Run,
) -> str:
    """Put crops and fakes into a dataset for others, with a manifest and a description."""
    from semforensics.detector.corpus import Corpus
    from semforensics.publish.dataset import package_dataset

    p = run.params
    return package_dataset(
        Corpus(cropped, splits, fakes, p.protocol, p.split, p.seed),
        catalogue,
        checkpoints,
        folder,
        params=p.package_dataset,
        snapshots={
            "fastgan": p.generate_fakes.fastgan.snapshot,
            "stylegan2_ada": p.generate_fakes.stylegan2_ada.snapshot,
        },
    )
