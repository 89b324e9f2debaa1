"""Build steps beyond pyproject.toml: the released screening models become part of the package.

Its files lie in the DVC store of the repository under their hashes. A wheel takes them from there,
so that `semforensics screen` works without a clone; a source distribution takes the store's files.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

MODELS = [Path(f"data/released/{name}.dvc") for name in ("screening_model", "world_model")]
STORE = Path("store/files/md5")


def released_files() -> Iterator[tuple[str, Path]]:
    """Yield name, below the folder of models, and stored file of all that is released with them.

    Raises:
        FileNotFoundError: The store lacks a file.
        ValueError: A file of the store is not the one that it is named after.
    """
    for model in MODELS:
        for entry in json.loads(released_listing(model).read_text()):
            yield f"{model.stem}/{entry['relpath']}", stored(entry["md5"])


def released_listing(model: Path) -> Path:
    """Return the stored list of a model's files."""
    return stored(re.search(r"md5: (\w+\.dir)", model.read_text())[1])


def stored(md5: str) -> Path:
    """Return a file of the store, once its hash is checked."""
    path = STORE / md5[:2] / md5[2:]
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: missing, and a pointer of {MODELS[0].parent} names it; the released models "
            "cannot be packed. "
            "Build from a complete checkout"
        )
    if hashlib.md5(path.read_bytes()).hexdigest() != md5.removesuffix(".dir"):
        raise ValueError(f"{path}: its content has another MD5 sum; check the file out again")
    return path


class BuildPy(build_py):
    """Copies the models beside the modules; an editable install reads them from the checkout."""

    def run(self) -> None:
        """Build the modules, then add the models."""
        super().run()
        if self.editable_mode:
            return
        for name, path in released_files():
            target = Path(self.build_lib, "semforensics/models", name)
            self.mkpath(str(target.parent))
            shutil.copyfile(path, target)


class SDist(sdist):
    """Adds the files of the store that a wheel is built from."""

    def make_release_tree(self, base_dir: str, files: list[str]) -> None:
        """Copy the sources, then what the models are made of."""
        super().make_release_tree(base_dir, files)
        listings = map(released_listing, MODELS)
        for path in (*MODELS, *listings, *(path for _, path in released_files())):
            target = Path(base_dir, path)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)


setup(cmdclass={"build_py": BuildPy, "sdist": SDist})
