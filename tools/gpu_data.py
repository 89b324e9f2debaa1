"""Make the archive of crops that `tools/gpu_campaign.py` learns from.

    python tools/gpu_data.py data crops.tar                   # the crops of a run of the pipeline
    python tools/gpu_data.py ~/micrographs crops.tar          # a folder of micrographs, cut anew

Only crops of the training split are taken, and none of what `use` in a MANIFEST.csv or
`acquire.folder.measure` keeps for measuring. Collections take turns until the archive is full, so
that a large one does not crowd out the others; which crop of a collection comes first is drawn by
a hash of its name. The archive holds the crops, the LPIPS weights and `about.json`, which says how
many crops of which collections it holds; the trained generator repeats that in its description.
"""

import argparse
import hashlib
import io
import json
import sys
import tarfile
from itertools import zip_longest
from pathlib import Path
from tempfile import TemporaryDirectory

from semforensics.acquire.acquire import acquire
from semforensics.acquire.folder import list_folder
from semforensics.core.errors import InputError
from semforensics.core.files import atomic_file
from semforensics.core.tables import read_splits
from semforensics.generators.common.reals import RealCrops
from semforensics.micrographs.crop import crop
from semforensics.micrographs.split import split
from semforensics.params import Params, read_params

ROOT = Path(__file__).parents[1]


def cut_folder(folder: Path, to: Path, size_px: int, params: Params) -> RealCrops:
    """Cut a folder of micrographs into native tiles, and divide them, by the pipeline's stages."""
    for_measuring = params.acquire.folder.measure
    selected = params.acquire.folder.model_copy(
        update={"exclude": (*params.acquire.folder.exclude, *for_measuring), "measure": ()}
    )
    source = params.acquire.model_copy(update={"source": "folder", "folder": selected})
    tiles = params.crop.model_copy(
        update={"geometry": "tiles", "size_px": size_px, "max_tiles": None, "max_left_out": 1.0}
    )
    listing, catalogue, splits = to / "listing.csv", to / "catalogue.csv", to / "splits.csv"
    print(list_folder(folder, listing, selected, max_left_out=1.0))
    acquire(
        source, to / "raw", catalogue, seed=params.seed, listing=listing, folder=folder, scratch=to
    )
    lost = to / "left_out.csv"
    said = crop(to / "raw", catalogue, to / "cropped", to / "crops.csv", lost, tiles)
    print(said.splitlines()[0])
    print(split(to / "crops.csv", splits, params.split, "clean", params.seed))
    return RealCrops(to / "cropped", splits, "clean")


def choose(crops: RealCrops, max_bytes: int) -> dict[str, list[Path]]:
    """Return as many training crops as fit, by collection, which take turns."""
    table = read_splits(crops.splits).set_index("file")
    column = "collection" if "collection" in table else "group"
    waiting: dict[str, list[Path]] = {}
    for path in sorted(crops.files(), key=lambda p: hashlib.sha256(p.name.encode()).digest()):
        waiting.setdefault(str(table.loc[path.name, column]), []).append(path)
    chosen: dict[str, list[Path]] = {name: [] for name in sorted(waiting)}
    for turn in zip_longest(*(waiting[name] for name in chosen)):
        for name, path in zip(chosen, turn, strict=True):
            if path is None:
                continue
            max_bytes -= path.stat().st_size + 1024  # a file of a tar archive ends in blocks of 512
            if max_bytes < 0:
                return chosen
            chosen[name].append(path)
    return chosen


def write_archive(archive: Path, chosen: dict[str, list[Path]], weights: Path) -> str:
    """Write the archive; return a summary."""
    about = {name: len(paths) for name, paths in chosen.items() if paths}
    with atomic_file(archive) as temporary, tarfile.open(temporary, "w") as tar:
        for paths in chosen.values():
            for path in paths:
                tar.add(path, f"crops/{path.name}")
        tar.add(weights, "alex.safetensors")
        text = json.dumps({"crops": about}, indent=2).encode()
        entry = tarfile.TarInfo("about.json")
        entry.size = len(text)
        tar.addfile(entry, io.BytesIO(text))
    size = archive.stat().st_size / 1e6
    return f"{sum(about.values())} crops of {len(about)} collections, {size:.1f} MB in {archive}"


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="data/ of a run, or a folder of micrographs")
    parser.add_argument("archive", type=Path)
    parser.add_argument("--size-px", type=int, default=512, help="of crops from a folder")
    parser.add_argument("--max-mb", type=float, default=60.0, help="of the archive")
    parser.add_argument("--params", type=Path, default=ROOT / "presets/world.yaml")
    parser.add_argument("--weights", type=Path, default=ROOT / "data/pretrained/alex.safetensors")
    arguments = parser.parse_args()
    try:
        if not arguments.weights.is_file():
            raise FileNotFoundError(
                f"{arguments.weights}: no such file; `semforensics fetch-backbones data/pretrained`"
            )
        with TemporaryDirectory() as folder:
            splits = arguments.source / "splits.csv"
            crops = (
                RealCrops(arguments.source / "cropped", splits, "clean")
                if splits.is_file()
                else cut_folder(
                    arguments.source,
                    Path(folder),
                    arguments.size_px,
                    read_params(arguments.params),
                )
            )
            budget = int(arguments.max_mb * 1e6) - arguments.weights.stat().st_size - 20_000
            chosen = choose(crops, budget)
            if not any(chosen.values()):
                raise InputError(f"--max-mb {arguments.max_mb:g}: too little for a single crop")
            print(write_archive(arguments.archive, chosen, arguments.weights))
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
