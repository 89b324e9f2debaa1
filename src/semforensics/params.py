"""params.yaml as one typed, frozen object.

Sections are named as the stages that read them. There are no defaults: a default in code is a
number that DVC cannot see.
"""

from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from semforensics.core.errors import InputError
from semforensics.core.types import Split as Split

Protocol = Literal["clean", "thesis"]
Precision = Literal["float32", "bfloat16"]
Trunk = Literal["alex", "vgg"]
GanName = Literal["fastgan", "stylegan2_ada"]
PublishedNetwork = Literal["taesd", "taesdxl", "taesd3", "waifu2x", "realcugan", "realesrgan"]
"""Published ones, of Stable Diffusion 1, XL and 3."""
Change = Literal["none", "scale", "noise", "mix"]
"""Of a reconstruction: nothing, another scale, a noisy latent, a share of another's latent."""
WorldPart = Literal["fold_0", "fold_1", "fold_2"]
"""Trainings of the detector for any instrument, each without some collections."""
DetectorName = Literal["fastgan", "stylegan2_ada", "both", "both_pseudo"]
"""Each is named after the fakes that it learns from."""


class Section(BaseModel):
    """A frozen part of params.yaml that refuses unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


S = TypeVar("S", bound=Section)


class SimulatedParams(Section):
    """The simulated micrograph set."""

    num_areas: int = Field(ge=3)
    """Independent areas; each is one sample+area group."""
    magnifications_k: tuple[Literal[50, 100, 200], ...] = Field(min_length=1)
    """Nested views of every area, in thousands."""
    width_px: int = Field(ge=128)
    """Frame width; 1280 on the instrument that is imitated."""
    height_px: int = Field(ge=128)
    """Frame height including the info bar; 1024 on the instrument that is imitated."""
    ordered_share: float = Field(ge=0, le=1)
    """Share of areas whose particles are strung along steps and defect lines."""
    compression: Literal["none", "deflate"]
    """Of the TIFF files; the instrument's are uncompressed. Lossless either way."""

    @model_validator(mode="after")
    def _refuse_repeated_magnifications(self) -> Self:
        """Two views at one magnification would be the same image twice."""
        if len(set(self.magnifications_k)) < len(self.magnifications_k):
            raise ValueError(f"magnifications_k repeats itself: {self.magnifications_k}")
        return self


class BoikoParams(Section):
    """The figshare records of Boiko et al. 2020."""

    records: tuple[Literal[11783661, 11783667], ...] = Field(min_length=1)
    """11783661: Dataset 1 (ordered, 750 images); 11783667: Dataset 2 (disordered, 250)."""


class FolderParams(Section):
    """A folder of the user's own micrographs; its path comes from outside the parameters."""

    include: tuple[str, ...] = Field(min_length=1)
    """Glob patterns below the folder; a picture is read if it matches one of them."""
    exclude: tuple[str, ...]
    """Glob patterns of pictures that are left out though `include` matches."""
    measure: tuple[str, ...]
    """Glob patterns of pictures that no training or calibration sees: they are test images."""
    licence: str
    """Licence of the images of which the folder's table says none."""


class AcquireParams(Section):
    """Where micrographs come from."""

    source: Literal["simulated", "boiko", "folder"]
    simulated: SimulatedParams
    boiko: BoikoParams
    folder: FolderParams


class CropParams(Section):
    """How micrographs become square crops."""

    geometry: Literal["tiles", "resize", "squash"]
    """`tiles`: native-resolution tiles. `resize`: isotropic, then the centre square. `squash`: the
    thesis's anisotropic resize to a square."""
    size_px: int = Field(ge=16, multiple_of=2)
    """Side of a crop; a power of two from 64 to 1024 where a GAN is trained on it."""
    info_bar: Literal["auto"] | Annotated[int, Field(ge=0)]
    """`auto`: find it, leave the micrograph out when unsure. A number: rows cut from the bottom."""
    max_flat_share: float | None = Field(gt=0, lt=1)
    """A tile is left out as flat if more of its pixels are within one level of the commonest."""
    max_tiles: int | None = Field(gt=0)
    """Tiles drawn from the largest collection; from another, in proportion to the square root of
    its size. null: all."""
    max_left_out: float = Field(ge=0, le=1)
    """Share of micrographs that may be left out because they cannot be used; above it, an error."""
    max_megapixels: float = Field(gt=0, le=89)
    """Larger images are refused as decompression bombs; above 89 Pillow refuses them by itself."""

    @model_validator(mode="after")
    def _only_tiles_are_chosen(self) -> Self:
        """A picture that is one crop is not chosen."""
        if self.geometry != "tiles" and self.max_flat_share is not None:
            raise ValueError(f"crop: max_flat_share needs tiles, found {self.geometry}")
        return self


class SplitParams(Section):
    """Shares of the three splits, which add up to one, and what is kept together in a split."""

    by: Literal["collection", "group", "micrograph"]
    """Under `clean`, kept in one split. If there are fewer than three, the next finer is taken, and
    a warning says so."""
    train: float = Field(gt=0, lt=1)
    test: float = Field(gt=0, lt=1)
    validation: float = Field(gt=0, lt=1)

    @model_validator(mode="after")
    def _shares_add_up(self) -> Self:
        if abs(self.train + self.test + self.validation - 1) > 1e-9:
            raise ValueError("split: train + test + validation must be 1")
        return self


class FetchBackbonesParams(Section):
    """ImageNet trunks for LPIPS."""

    nets: tuple[Trunk, ...] = Field(min_length=1)


class GANParams(Section):
    """What both GANs are told of their networks' channels and of their snapshots."""

    channels: Literal[1, 3]
    """Of the networks; three repeat the grey one."""
    perceptual_net: Trunk
    """Trunk in whose features snapshots are measured; FastGAN's reconstruction loss, too."""
    precision: Precision
    r1_every: int = Field(gt=0)
    """Steps from one R1 penalty to the next, which counts as many times as much."""
    log_every: int = Field(gt=0)
    """Steps from one row of the loss curves to the next."""
    snapshot_every: int = Field(gt=0)
    """Steps from one sample grid to the next."""
    keep_snapshots: int = Field(ge=0)
    """Generators of the last snapshots that are kept beside the final one."""
    keep_best: bool
    """Keep the best snapshot too: the one of the smallest Fréchet distance from the reals."""


class FastGANParams(GANParams):
    """FastGAN (Liu et al. 2021) and its training."""

    reference: bool
    """Follow the original to the letter instead of the improved defaults."""
    ngf: int = Field(gt=0)
    """Width of the generator."""
    ndf: int = Field(gt=0)
    """Width of the discriminator."""
    nz: int = Field(gt=0)
    """Length of the latent."""
    iterations: int = Field(gt=0)
    batch: int = Field(gt=1)
    flip: bool
    """Mirror each real left to right with probability 1/2."""
    lr: float = Field(gt=0)
    """Of both networks, constant."""
    adam_beta1: float = Field(ge=0, lt=1)
    adam_beta2: float = Field(ge=0, lt=1)
    ema_decay: float = Field(ge=0, lt=1)
    """Of the generator's averaged weights; smaller in the first steps unless `reference`."""
    reconstruction_weight: float = Field(ge=0)
    """Times the mean LPIPS of reconstructions; 8 equals the original's sum over a batch of 8."""
    r1_gamma: float = Field(ge=0)
    """Weight of a lazy R1 penalty; 0 as in the original."""
    tanh: bool
    """Squash the generator's output at every size; the original does so at 1024 only."""
    precise_bn_images: int = Field(gt=0)
    """Fakes over which the batch statistics of the averaged generator are measured."""
    compile: bool
    """torch.compile the networks: faster steps, slower start."""

    @model_validator(mode="after")
    def _reference_is_the_original(self) -> Self:
        original = {
            "channels": 3,
            "flip": True,
            "adam_beta1": 0.5,
            "adam_beta2": 0.999,
            "ema_decay": 0.999,
            "perceptual_net": "vgg",
            "reconstruction_weight": self.batch,  # a sum over the batch
            "r1_gamma": 0,
        }
        wrong = [f"{n} must be {v}" for n, v in original.items() if getattr(self, n) != v]
        if self.reference and wrong:
            raise ValueError(f"train_gan.fastgan.reference: {', '.join(wrong)}")
        return self


class StyleGAN2Params(GANParams):
    """StyleGAN2-ADA (Karras et al. 2020) and its training.

    What is null follows from `configuration` and the size of the crops.
    """

    configuration: Literal["auto", "stylegan2", "paper256", "paper512", "paper1024", "cifar"]
    """A row of the original's table: what the nulls below mean."""
    z_dim: int = Field(gt=0)
    """Length of the latent."""
    w_dim: int = Field(gt=0)
    """Length of a style."""
    mapping_layers: int | None = Field(gt=0)
    channel_base: int | None = Field(gt=0)
    """A level of side s has `channel_base` / s channels, at most `channel_max`."""
    channel_max: int = Field(gt=0)
    kimg: float | None = Field(gt=0)
    """Length of the training in thousands of real images shown to the discriminator."""
    batch: int | None = Field(gt=1)
    mbstd_group: int | None = Field(gt=0)
    """Images that share one minibatch standard deviation; divides the batch."""
    mirror: bool
    """Add every real mirrored left to right to the training images."""
    lr: float | None = Field(gt=0)
    """Of both networks, before the correction for lazy regularisation."""
    r1_gamma: float | None = Field(ge=0)
    """Weight of the R1 penalty."""
    path_length_every: int = Field(gt=0)
    """Steps from one path-length penalty to the next, which counts as many times as much."""
    ema_kimg: float | None = Field(ge=0)
    """Half-life of the averaged weights, in thousands of images."""
    ema_rampup: float | None = Field(ge=0)
    """The half-life is at most this share of the images shown so far; 0: no such bound."""
    augment: Literal["none", "bg", "bgc", "bgcf", "bgcfn", "bgcfnc"]
    """Groups of augmentations: blit, geometry, colour, filter, noise, cutout."""
    orientation: Literal["free", "fixed"]
    """`free`: images may be turned by any angle. `fixed`: data with an up and a down stay upright;
    they are still mirrored left to right."""
    ada_target: float = Field(gt=-1, lt=1)
    """Mean sign of the reals' logits at which the strength `p` of augmentation stays."""
    ada_kimg: float = Field(gt=0)
    """Thousands of images in which `p` can rise from 0 to 1."""
    ada_every: int = Field(gt=0)
    """Steps from one change of `p` to the next."""
    ada_p_max: float | None = Field(gt=0)
    """Upper bound of `p`; null lifts it, as in the original."""


class TrainGANParams(Section):
    """One section per generator."""

    fastgan: FastGANParams
    stylegan2_ada: StyleGAN2Params


class GenerateParams(Section):
    """How many fakes, from which seed on, of which snapshot."""

    num_images: int = Field(gt=0)
    first_seed: int = Field(ge=0)
    snapshot: Literal["last", "best"]
    """`best`: the one of the smallest Fréchet distance in the training's `snapshots.csv`."""


class GenerateStyleGAN2Params(GenerateParams):
    """The same, and how far styles may be from the mean one."""

    truncation_psi: float = Field(gt=0, le=1)
    """1: styles as they are drawn; below: nearer to their mean, less varied, fewer bad fakes."""


class GenerateFakesParams(Section):
    """One section per generator."""

    fastgan: GenerateParams
    stylegan2_ada: GenerateStyleGAN2Params


class MeasureDistancesParams(Section):
    """Nearest distances between fakes and reals."""

    net: Trunk
    """Trunk of LPIPS, and of the features in which quality is measured."""
    precision: Precision
    """Of the trunk; bfloat16 is faster, and changes LPIPS in the third digit."""


class TrainClassifierParams(Section):
    """The NPR classifier (Tan et al. 2024) and its training."""

    network: Literal["npr_tiny", "npr_resnet50"]
    channels: Literal[1, 3]
    epochs: int = Field(gt=0)
    batch: int = Field(gt=1)
    lr: float = Field(gt=0)
    lr_decay: float = Field(gt=0, le=1)
    """Factor on the learning rate every `lr_decay_every` epochs; 1 keeps it."""
    lr_decay_every: int = Field(gt=0)
    flip: bool
    """Random horizontal flips of the training images."""
    random_phase: bool
    """Draw the phase of the 2x2 grid anew for every training image; costs two rows and columns."""
    precision: Precision
    """Of the training; scores are always float32."""
    max_false_positive_rate: float = Field(gt=0, lt=1)
    """The threshold is the one of highest true-positive rate on validation within this bound."""
    num_seeds: int = Field(gt=0)
    """Trainings from different seeds. The first is the model, all of them show the spread."""
    turn: bool
    """Random quarter turns of the training images: micrographs of particles have no up or down,
    but the noise of their lines has a direction."""
    tone_chance: float = Field(ge=0, le=1)
    """Of a gamma curve over a training image, real or fake; as all chances below."""
    gamma_max: float = Field(ge=1)
    """Its logarithm is uniform between those of 1 / this and this."""
    median_chance: float = Field(ge=0, le=1)
    """Of a median of 3x3 pixels."""
    noise_chance: float = Field(ge=0, le=1)
    """Of more noise, normal."""
    noise_sigma_max: float = Field(ge=0)
    """Its standard deviation is uniform from 0 to this, in grey levels."""
    blur_chance: float = Field(ge=0, le=1)
    """Of a Gaussian blur."""
    blur_sigma_max: float = Field(ge=0)
    """Its sigma is uniform from 0 to this, in pixels."""
    jpeg_chance: float = Field(ge=0, le=1)
    """Of a JPEG round trip."""
    jpeg_quality_min: int = Field(ge=1, le=100)
    """Its quality is uniform from this to 100."""
    calibrate_on: tuple[str, ...]
    """Benign processing that a real may have undergone: cells of the robustness grid by axis and
    level. A real is excluded only if it would be unusual after each of them as well."""
    domain_quantile: float = Field(gt=0, lt=1)
    """Share of the validation split within each limit of the training domain; images without
    structure are outside even so."""


class TrainWorldParams(Section):
    """A detector for micrographs of any instrument, in folds that leave collections out."""

    steps: int = Field(ge=0)
    """Of each of the three trainings; 0: off."""
    published_trunk: bool
    """Begin with the published weights of EfficientNet-Lite0, else at random."""
    generators: tuple[str, ...]
    """Finished GANs of data/released/real_subset."""
    beside: str
    """The collection that they learned from: their images stand beside reals of it."""
    pairs: int = Field(ge=2)
    """Of a real and a fake, in a batch."""
    crop_px: int = Field(ge=32, multiple_of=2)
    """Side of what a network sees in training, after the processing."""
    smoothed_reals: float = Field(ge=0, le=0.5)
    """Share of the pairs whose real is smoothed first."""
    noisy_fakes: float = Field(ge=0, le=0.5)
    """Share of the pairs whose fake gets noise of up to the strength that it lost."""
    drawn_pairs: float = Field(ge=0, lt=1)
    """Share of the pairs that are drawn pictures, where `resynthesise_published` made some."""
    lr: float = Field(gt=0)
    weight_decay: float = Field(ge=0)
    ema_decay: float = Field(ge=0, lt=1)
    precision: Precision


class CalibrateWorldParams(Section):
    """Panels from which the detector of `train_world` gets its p-values."""

    published: tuple[str, ...]
    """Collections for measuring, every second group of which calibrates."""


class EvaluateWorldParams(Section):
    """The networks of `train_world` beside baselines, on what their trainings left out."""

    pairs: int = Field(ge=20)
    """That the baselines of each fold learn from."""
    bootstrap_resamples: int = Field(ge=100)


class EvaluateClassifierParams(Section):
    """How test scores become numbers with intervals."""

    phases: Literal[1, 4]
    """Phases of the 2x2 grid averaged at test time."""
    bootstrap_resamples: int = Field(ge=100)
    alpha: float = Field(gt=0, lt=0.5)
    """Of the three-state verdict: chance that a true class is rejected by its conformal p-value."""


class TrainAutoencodersParams(Section):
    """Small encoder-decoders that reconstruct micrographs."""

    num_decoders: int = Field(ge=0)
    """Those that are drawn at random, for the detector for any instrument to learn from."""
    steps: int = Field(gt=0)
    batch: int = Field(gt=0)
    width: int = Field(gt=0)
    """Channels at full resolution; twice as many at each halving."""
    lr: float = Field(gt=0)


class ResynthesiseParams(Section):
    """Images from outside the trainings of the classifiers."""

    num_simulated: int = Field(ge=0)
    """Images of the simulator, as many as asked; none where the reals themselves are simulated."""
    denoise_strength: float = Field(gt=0)
    """Of non-local means, in units of the noise's standard deviation."""
    resize_factor: float = Field(gt=0)
    """By which reals are shrunk (or enlarged) and brought back to their size."""


class ResynthesisePublishedParams(Section):
    """Fakes of all crops by autoencoders and super-resolvers that others have published."""

    networks: tuple[PublishedNetwork, ...]
    """None: off."""
    source: str
    """Address or folder of the autoencoders' weights; super-resolvers come from the package index.
    Each file is checked by its hash."""
    changes: dict[Change, float] = Field(min_length=1)
    """How often each kind of change is drawn, by its weight."""
    drawn: int = Field(ge=0)
    """Pictures that are drawn for each network, beside the crops."""
    precision: Precision

    @model_validator(mode="after")
    def _refuse_weights_without_sum(self) -> Self:
        """Something must be drawn."""
        if min(self.changes.values()) < 0 or sum(self.changes.values()) <= 0:
            raise ValueError(f"changes: weights {self.changes}, expected a positive sum")
        return self


class TrainDiffusionParams(Section):
    """An unconditional DDPM (Ho et al. 2020) through `diffusers`."""

    steps: int = Field(ge=0)
    """Of training; 0: the model is off, and so is its column."""
    size_px: int = Field(ge=32, multiple_of=8)
    """Side of its images: random cut-outs of the crops."""
    widths: tuple[int, ...] = Field(min_length=2)
    """Channels at each halving of the U-Net; multiples of 8."""
    batch: int = Field(gt=0)
    lr: float = Field(gt=0)
    ema_decay: float = Field(ge=0, lt=1)
    timesteps: int = Field(gt=0)
    """Of the noising process."""
    precision: Precision
    """Of the training; images are always drawn in float32."""


class GenerateDiffusionParams(Section):
    """How many fakes of the diffusion model, from which seed on."""

    num_images: int = Field(gt=0)
    first_seed: int = Field(ge=0)
    sampling_steps: int = Field(gt=0)
    """Of the sampler (DDIM; Song et al. 2021)."""
    under_trained: bool
    """The model had too little training to count: its column is left out of the headline."""
    refine: bool
    """Whether crops are refined too, for the detector for any instrument to learn from."""


class CompareDetectorsParams(Section):
    """Every detector on every generator, and the baselines beside them."""

    max_images: int = Field(gt=0)
    """Test images of each column, at most."""
    bootstrap_resamples: int = Field(ge=100)


class RobustnessParams(Section):
    """The detector under processing."""

    max_images: int = Field(gt=0)
    """Test images of each class, at most."""


class FalseAlarmsParams(Section):
    """False alarms on benignly processed and on foreign micrographs."""

    pooling: Literal["mean", "median", "max"]
    """How the logits of an image's tiles become its own."""
    sets: dict[str, tuple[str, ...]]
    """Micrographs from outside, of one instrument each: a name, and glob patterns below the folder
    given."""


class AuditShortcutsParams(Section):
    """The release gate."""

    permuted_epochs: int = Field(gt=0)
    """Epochs of the training with permuted labels."""
    num_permutations: int = Field(gt=0)
    """Such trainings."""
    num_controls: int = Field(gt=0)
    """Noise-only images, and as many phase-randomised ones."""
    max_images: int = Field(gt=0)
    """Images of each class that are processed, at most."""
    bootstrap_resamples: int = Field(ge=100)


class PackageModelParams(Section):
    """What the model that `screen` loads says of itself."""

    name: str = Field(min_length=1)
    material: str
    instrument: str
    source: str
    """Of the reals, with the attribution that their licence asks for."""
    limits: tuple[str, ...] = Field(min_length=1)
    """Sentences of every report: what the model cannot tell."""


class Origin(Section):
    """Where a collection of micrographs comes from."""

    licence: str = Field(min_length=1)
    source: str = Field(min_length=1)
    """An address, and what to cite."""


class PackageWorldParams(PackageModelParams):
    """What the model for any instrument says of itself."""

    num_references: int = Field(gt=0)
    """Crops of whose spectra it carries the percentiles."""
    origins: dict[str, Origin]
    """By collection, where the tables of the micrographs do not say it."""


class PackageDatasetParams(Section):
    """What the published dataset says of itself."""

    name: str = Field(min_length=1)
    description: str
    attribution: str
    """As the licence of the reals asks for it; how to cite the dataset."""
    creator: str
    url: str
    version: str = Field(pattern=r"^\d+\.\d+\.\d+$")
    date: str = Field(pattern=r"^\d{4}-\d{2}-\d{2}$")


class ExplainParams(Section):
    """Grad-CAM grids."""

    num_images: int = Field(gt=0)
    """Images per class."""


class Params(Section):
    """The whole of params.yaml."""

    seed: int = Field(ge=0)
    protocol: Protocol
    acquire: AcquireParams
    crop: CropParams
    split: SplitParams
    fetch_backbones: FetchBackbonesParams
    train_gan: TrainGANParams
    generate_fakes: GenerateFakesParams
    measure_distances: MeasureDistancesParams
    train_classifier: TrainClassifierParams
    evaluate_classifier: EvaluateClassifierParams
    train_autoencoders: TrainAutoencodersParams
    resynthesise: ResynthesiseParams
    resynthesise_published: ResynthesisePublishedParams
    train_world: TrainWorldParams
    calibrate_world: CalibrateWorldParams
    evaluate_world: EvaluateWorldParams
    train_diffusion: TrainDiffusionParams
    generate_diffusion: GenerateDiffusionParams
    compare_detectors: CompareDetectorsParams
    measure_robustness: RobustnessParams
    count_false_alarms: FalseAlarmsParams
    audit_shortcuts: AuditShortcutsParams
    explain: ExplainParams
    package_model: PackageModelParams
    package_world: PackageWorldParams
    package_dataset: PackageDatasetParams


def in_float32(section: S) -> S:
    """Return parameters whose every `precision` is float32."""
    changes = {
        name: in_float32(value) if isinstance(value, Section) else "float32"
        for name, value in section
        if isinstance(value, Section) or name == "precision"
    }
    return section.model_copy(update=changes)


def read_params(path: Path) -> Params:
    """Read and validate a parameter file.

    Raises:
        InputError: The file is not YAML, or a value is missing, unknown or out of bounds; the
            message names the file and every offending key.
    """
    try:
        return Params.model_validate(yaml.safe_load(path.read_bytes()))
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not a YAML file: {error}") from error
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors()
        )
        raise InputError(f"{path}: {problems}") from error
