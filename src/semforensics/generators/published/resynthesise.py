"""Pass real crops through published networks: fakes of the same scene, size and format.

A detector that learns from a real and its reconstruction side by side can only learn the decoder's
trace: everything else is the same (Rajan et al., "Aligned Datasets Improve Detection of Latent
Diffusion-Generated Images", ICLR 2025, arXiv:2410.11835). Ours differs: some latents are changed
before they are decoded, and some crops are encoded at another scale, so that a fake is not always a
copy and the decoder's grid not always that of the pixels. A super-resolver counts as an autoencoder
whose latent is the shrunken crop.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from semforensics.core.blocks import Places, assemble, blocks_of, cut_of, largest_square
from semforensics.core.files import atomic_folder
from semforensics.core.images import read_crop, write_grey_png
from semforensics.core.progress import track
from semforensics.core.tables import is_measured, read_splits
from semforensics.generators.common.sampling import write_off
from semforensics.generators.published.drawn import Drawn, draw_scene, redo, write_drawn
from semforensics.generators.published.fetch import fetch_published
from semforensics.generators.published.networks import TinyAutoencoder, load_published
from semforensics.generators.published.super_resolvers import (
    RECIPES,
    SuperResolver,
    load_super_resolver,
)
from semforensics.params import Change, Precision, PublishedNetwork, ResynthesisePublishedParams

Grey = UInt8[np.ndarray, "height width"]
Resynthesiser = TinyAutoencoder | SuperResolver

_SCENES = 0.6
_LEAST_CROPS = 4  # of a block that drawn pictures are cut from


@dataclass(frozen=True)
class Variation:
    """How a reconstruction differs from a plain one."""

    scale: float = 1.0
    """Size at which the crop is encoded and decoded, by its own."""
    noise: float = 0.0
    """Standard deviation of normal noise on the latent, by the latent's own."""
    mix: float = 0.0
    """Share of another crop's latent."""


def draw_variation(change: Change, rng: np.random.Generator) -> Variation:
    """Draw how strongly a crop is changed: scale 0.6 to 1.6, noise 5 to 30 %, mix 20 to 50 %."""
    match change:
        case "scale":
            return Variation(scale=float(np.exp(rng.uniform(np.log(0.6), np.log(1.6)))))
        case "noise":
            return Variation(noise=float(rng.uniform(0.05, 0.3)))
        case "mix":
            return Variation(mix=float(rng.uniform(0.2, 0.5)))
        case "none":
            return Variation()


@torch.inference_mode()
def resynthesise(
    network: Resynthesiser,
    image: Grey,
    variation: Variation,
    rng: np.random.Generator,
    other: UInt8[np.ndarray, "other_height other_width"] | None = None,
) -> Grey:
    """Encode an image, change its latent, and decode it.

    Args:
        network: A published one.
        image: Grey levels 0 … 255, of any size; mirrored at its edges to what the network takes.
        variation: What is changed.
        rng: Of the noise.
        other: Another image, at least as large, where latents are mixed.

    Returns:
        A fake of the same size.
    """
    height, width = image.shape
    latents, (rows, columns) = _encode(network, image, variation.scale)
    if variation.mix > 0 and other is not None:
        theirs, _ = _encode(network, other[:height, :width], variation.scale)
        latents = (1 - variation.mix) * latents + variation.mix * theirs
    if variation.noise > 0:
        drawn = torch.from_numpy(rng.standard_normal(tuple(latents.shape))).to(latents)
        latents = latents + variation.noise * latents.std() * drawn
    decoded = network.decode(latents)[0, 0, :rows, :columns]
    grey = (decoded * 255).round().to(torch.uint8).cpu().numpy()
    return _resized(grey, height, width)


def _encode(
    network: Resynthesiser, image: Grey, scale: float
) -> tuple[Float[Tensor, "1 c h w"], tuple[int, int]]:
    """Encode an image at a scale; return the latent, and the size that was encoded."""
    multiple = network.downsampling
    rows, columns = (max(multiple, round(side * scale)) for side in image.shape)
    levels = torch.from_numpy(_resized(image, rows, columns))[None, None]
    levels = levels.to(next(network.parameters()).device) / 255
    padding = (0, -columns % multiple, 0, -rows % multiple)
    return network.encode(F.pad(levels, padding, mode="reflect")), (rows, columns)


def _resized(image: Grey, rows: int, columns: int) -> UInt8[np.ndarray, "rows columns"]:
    if image.shape == (rows, columns):
        return image
    resized = Image.fromarray(image).resize((columns, rows), Image.Resampling.BICUBIC)
    return np.array(resized)


def resynthesise_published(
    name: PublishedNetwork,
    cropped: Path,
    splits: Path,
    fakes: Path,
    *,
    params: ResynthesisePublishedParams,
    seed: int,
    scratch: Path,
    device: torch.device,
) -> str:
    """Write one fake of every crop by a published network, under the crop's name.

    Crops that are for measuring only have none. A fake has the split, group and collection of its
    original. Neighbouring crops of a micrograph are reconstructed together, so no seam tells a
    fake. Each block of them draws from its own generator, so order never matters. Drawn pictures
    and their fakes are beside them (`draw_pictures`).

    Args:
        name: Which network.
        cropped: Folder of canonical crops.
        splits: Their table. Latents are mixed with those of another block of the same
            `collection`, or of the same group where the table has no such column.
        fakes: Folder to write; `off.json` alone where this network is not wanted.
        params: Which networks, where from, how often what is changed, how many drawn pictures.
        seed: Of the draws.
        scratch: The weights stay here, so that a second run needs no network.
        device: Where to compute.

    Returns:
        One line: how many, and where.

    Raises:
        FileNotFoundError: Weights or a crop are missing.
        InputError: Weights are not those that were pinned, or a crop is no crop.
    """
    if name not in params.networks:
        with atomic_folder(fakes) as folder:
            write_off(folder, f"{name} is not wanted")
        return f"off: {name} is not wanted; {fakes}"
    table = read_splits(splits)
    table = table[~is_measured(table)]
    size_px = len(read_crop(cropped / table["file"].iloc[0]))
    kin = "collection" if "collection" in table else "group"
    blocks = [
        (str(of), places) for of, part in table.groupby(kin) for places in blocks_of(part, size_px)
    ]
    network = _load(name, params.source, scratch, params.precision).to(device)
    with atomic_folder(fakes) as folder:
        for collection, places in track(blocks, name):
            rng = rng_of_file(seed, name, min(places.values()))
            variation = _draw_change(params.changes, rng)
            image, other = assemble(cropped, places), None
            if variation.mix > 0:
                companions = [theirs for kin_name, theirs in blocks if kin_name == collection]
                other = assemble(cropped, companions[rng.integers(len(companions))])
                missing = np.maximum(0, np.subtract(image.shape, other.shape))
                other = np.pad(other, [(0, int(n)) for n in missing], mode="symmetric")
            fake = resynthesise(network, image, variation, rng, other)
            for place, file in places.items():
                write_grey_png(folder / file, cut_of(fake, place, size_px).copy())
        if params.drawn:
            pictures = draw_pictures(name, network, cropped, blocks, params=params, seed=seed)
            write_drawn(folder, pictures)
    also = f", and of {params.drawn} drawn pictures" if params.drawn else ""
    return f"{len(table)} fakes of {name} in {fakes}{also}"


def draw_pictures(
    name: PublishedNetwork,
    network: Resynthesiser,
    cropped: Path,
    blocks: Sequence[tuple[str, Places]],
    *,
    params: ResynthesisePublishedParams,
    seed: int,
) -> Iterator[Drawn]:
    """Draw pictures, and pass each through a network.

    Three in five are scenes; the others are micrographs done anew, as many of each collection.

    Args:
        name: Of the network.
        network: The network itself.
        cropped: Folder of canonical crops.
        blocks: Of them, with their collections.
        params: How many pictures, and what is changed.
        seed: Of all draws.
    """
    roomy: dict[str, list[Places]] = {}
    for collection, places in blocks:
        if len(places) >= _LEAST_CROPS:
            roomy.setdefault(collection, []).append(largest_square(places))
    names = sorted(roomy)
    for index in track(range(params.drawn), f"{name}, drawn"):
        rng = rng_of_file(seed, name, f"drawn {index}")
        if rng.random() < _SCENES or not names:
            (content, picture), collection = draw_scene(rng), ""
        else:
            content, collection = "micrograph", names[rng.integers(len(names))]
            theirs = roomy[collection]
            picture = redo(rng, assemble(cropped, theirs[rng.integers(len(theirs))]))
        fake = resynthesise(network, picture, _draw_change(params.changes, rng), rng)
        yield Drawn(content, collection, picture, fake)


def _draw_change(changes: Mapping[Change, float], rng: np.random.Generator) -> Variation:
    """Draw what is changed, by weights."""
    kinds, weights = zip(*changes.items(), strict=True)
    change = kinds[rng.choice(len(kinds), p=np.array(weights) / sum(weights))]
    return draw_variation(change, rng)


def _load(
    name: PublishedNetwork, source: str, scratch: Path, precision: Precision
) -> Resynthesiser:
    """Fetch a network and build it."""
    if name in RECIPES:
        return load_super_resolver(name, scratch, precision)
    return load_published(fetch_published([name], source, scratch), name, precision)


def rng_of_file(seed: int, name: str, file: str) -> np.random.Generator:
    """Return the generator of a block: by network and its first file."""
    digest = hashlib.sha256(f"{seed}:{name}:{file}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16]))
