"""The source code that a module can reach: itself and every module of this package it imports.

A training that is resumed after a change of its code would mix the results of two programs. So the
stamp of an unfinished training holds a hash of all source files that it can reach.
"""

import ast
import hashlib
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from semforensics.core.errors import InputError

SOURCE = Path(__file__).parents[2]
"""The folder that holds the package."""
PACKAGE = "semforensics"
WITHOUT_EFFECT = frozenset({"semforensics.params", "semforensics.core.allocator"})
"""Modules that cannot change a result: the schema of the parameters, whose values are compared
apart from it, and where the C library keeps freed memory."""


def module_path(module: str) -> Path | None:
    """Return the source file of a module of this package; None for a package or any other name."""
    path = SOURCE / Path(*module.split(".")).with_suffix(".py")
    return path if module.startswith(f"{PACKAGE}.") and path.is_file() else None


def imports_of(tree: ast.AST) -> set[str]:
    """Return the modules of this package that the import statements below a node name.

    Imports in the bodies of functions count too.
    """
    found = set[str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {name for name in found if module_path(name)}


def import_closure(modules: Iterable[str], skipped: tuple[str, ...] = ()) -> set[str]:
    """Return some modules of this package and all others that they can reach by imports.

    Modules whose names begin with one of `skipped` are not followed.
    """
    waiting, reached = set(modules), set[str]()
    while waiting:
        module = waiting.pop()
        path = module_path(module)
        if path is None or module in reached | WITHOUT_EFFECT or module.startswith(skipped):
            continue
        reached.add(module)
        waiting |= imports_of(ast.parse(path.read_text()))
    return reached


@cache
def hash_source(module: str) -> str:
    """Return a SHA-256 of the source files that a module can reach, and of their names.

    Read once in a process: what is changed while it runs is not what it runs.
    """
    digest = hashlib.sha256()
    for name in sorted(import_closure([module])):
        path = module_path(name)
        assert path is not None
        digest.update(f"{name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


@contextmanager
def unchanged_source() -> Iterator[None]:
    """Refuse what a block made if a module that it loaded was edited meanwhile.

    DVC hashes the source of a stage when the stage ends, so it would record the new code with the
    output of the old one.

    Raises:
        InputError: The file of a loaded module is not what it was when the block began. Modules
            that cannot change a result are left out, and those of the command line.
    """
    files = (SOURCE / PACKAGE).rglob("*.py")
    before = {path: hashlib.sha256(path.read_bytes()).digest() for path in files}
    yield
    for name in sorted(sys.modules.keys() - WITHOUT_EFFECT):
        path = None if name.startswith(f"{PACKAGE}.cli.") else module_path(name)
        if path and before.get(path) != hashlib.sha256(path.read_bytes()).digest():
            raise InputError(
                f"{path}: changed while the stage ran, so its output may mix the old and the new"
                " code; run it again"
            )
