"""Unfinished work of a screening on disk, so that a run that was killed can continue.

Everything is keyed by what it follows from: the bytes of the file, the location in it, the settings
and the model. Files are written whole or not at all. They hold what is confidential, pixels too:
whoever makes a store removes it when the report is written.
"""

import hashlib
import io
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from semforensics.core.errors import InputError
from semforensics.core.files import atomic_file, read_json, sha256_of, write_json
from semforensics.screening.read.intake import find_side_car
from semforensics.screening.records import Grey, GreyOfAnySize, Picture, Refusal

_OWN_FOLDER = ".semforensics-unfinished"
"""Inside the folder that the user names: so that nothing of the user's is ever removed."""


@dataclass(frozen=True)
class InputRecord:
    """What is known of one input once it is done."""

    pictures: tuple[str, ...]
    """Keys of its pictures, in order."""
    refusals: tuple[Refusal, ...]


@dataclass(frozen=True)
class Judged:
    """A picture that has been judged."""

    key: str
    fragment: dict[str, Any]
    """What the report says of it."""
    panels: list[GreyOfAnySize]
    """To compare with others."""


Found = Refusal | Judged | str
"""What is found of a picture; a text is the key of one that was judged before."""


@dataclass(frozen=True)
class Store:
    """A folder of fragments, panels and records; `stamp` names settings, model and version."""

    folder: Path
    stamp: str

    @classmethod
    def open(cls, folder: Path, made_with: Mapping[str, Any]) -> "Store":
        """Use a folder for what is made with these settings; what it holds already is kept.

        Args:
            folder: Made when it is locked, with a folder of the store's own in it.
            made_with: Whatever changes a result; can be JSON.
        """
        return cls(folder / _OWN_FOLDER, _digest(made_with))

    @contextmanager
    def locked(self) -> Iterator["Store"]:
        """Keep other runs out of the folder, until the block ends or this process dies.

        Raises:
            InputError: Another run is at work in it.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.folder / "lock")  # the system's: it ends with the process
        try:
            lock.acquire(blocking=False)
        except Timeout as error:
            raise InputError(
                f"{self.folder}: another screening is at work there; wait for it, or give this"
                " one another folder"
            ) from error
        try:
            yield self
        finally:
            lock.release()
            self._remove_empty_folders()  # Windows removes no file that is open, such as the lock

    def picture_key(self, picture: Picture) -> str:
        """Name a picture by its bytes, its location, what is known of it, and the settings."""
        known = (picture.is_lossy, picture.is_resampled, picture.notes, picture.grey.shape)
        where = (picture.path, picture.location, picture.sha256)
        return _digest((self.stamp, where, known, asdict(picture.provenance)))

    def input_key(self, path: Path, name: str) -> str:
        """Name an input file by its bytes, its name and the text beside it, and the settings."""
        text = find_side_car(path)
        beside = text and _sha256_or_why(text)
        return _digest((self.stamp, _sha256_or_why(path), str(path), name, beside))

    def has_picture(self, key: str) -> bool:
        """Say whether a picture has been judged."""
        return self._fragment(key).is_file()

    def keep(self, key: str, found: Iterable[Found]) -> None:
        """Keep what is found of an input, picture by picture, and note that the input is done."""
        pictures, refusals = [], []
        for one in found:
            if isinstance(one, Refusal):
                refusals.append(one)
                continue
            if isinstance(one, Judged):
                for index, panel in enumerate(one.panels):
                    with atomic_file(self._panel(one.key, index)) as temporary:
                        temporary.write_bytes(_npy(panel))
                write_json(self._fragment(one.key), one.fragment)  # last: all is there
            pictures.append(one.key if isinstance(one, Judged) else one)
        write_json(self._record(key), asdict(InputRecord(tuple(pictures), tuple(refusals))))

    def read_fragment(self, key: str) -> dict[str, Any]:
        """Return the fragment of a picture that has been judged."""
        return read_json(self._fragment(key))

    def read_panel(self, key: str, index: int) -> Grey:
        """Return the grey levels of a panel of a picture that has been judged."""
        return np.asarray(np.load(self._panel(key, index)), dtype=np.uint8)

    def read_record(self, key: str) -> InputRecord | None:
        """Return what is known of an input; None where it is not done."""
        if not self._record(key).is_file():
            return None
        values = read_json(self._record(key))
        refusals = tuple(Refusal(**refusal) for refusal in values["refusals"])
        return InputRecord(tuple(values["pictures"]), refusals)

    def remove(self) -> None:
        """Delete what stores have written; whatever else lies in the user's folder stays."""
        shutil.rmtree(self.folder, ignore_errors=True)  # the lock too: nobody waits for it
        self._remove_empty_folders()

    def _remove_empty_folders(self) -> None:
        with suppress(OSError):  # not empty, or gone already
            self.folder.rmdir()
        with suppress(OSError):
            self.folder.parent.rmdir()

    def _fragment(self, key: str) -> Path:
        return self.folder / "pictures" / f"{key}.json"

    def _panel(self, key: str, index: int) -> Path:
        return self.folder / "panels" / f"{key}_{index}.npy"

    def _record(self, key: str) -> Path:
        return self.folder / "inputs" / f"{key}.json"


def _sha256_or_why(path: Path) -> str:
    """Return the SHA-256 of a file, or why there is none: its reader refuses it by name."""
    if not path.is_file():  # a pipe would never end
        return "not a file"
    try:
        return sha256_of(path)
    except OSError as error:
        return str(error)


def _npy(panel: GreyOfAnySize) -> bytes:
    """Return a file of NumPy; `np.save` into one does not say that the disk is full."""
    buffer = io.BytesIO()
    np.save(buffer, panel)
    return buffer.getvalue()


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()
