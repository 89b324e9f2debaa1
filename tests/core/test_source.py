"""The source that a module can reach is found from its imports."""

import ast
import sys
from pathlib import Path
from types import ModuleType

import pytest

from semforensics.core import source
from semforensics.core.errors import InputError
from semforensics.core.source import (
    hash_source,
    import_closure,
    imports_of,
    module_path,
    unchanged_source,
)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small package: a imports b, b in a function's body c; d is alone."""
    monkeypatch.setattr(source, "SOURCE", tmp_path)
    folder = tmp_path / "semforensics"
    folder.mkdir()
    (folder / "a.py").write_text("import torch\nfrom semforensics import b\n")
    (folder / "b.py").write_text("def f():\n    from semforensics.c import g\n    return g\n")
    (folder / "c.py").write_text("import semforensics.a\n")
    (folder / "d.py").write_text("")
    hash_source.cache_clear()
    yield folder
    hash_source.cache_clear()


@pytest.mark.usefixtures("package")
def test_imports_are_followed_into_the_bodies_of_functions() -> None:
    """Circles end, and other packages are left out."""
    assert import_closure(["semforensics.a"]) == {f"semforensics.{name}" for name in "abc"}
    assert import_closure(["semforensics.d"]) == {"semforensics.d"}
    assert import_closure(["semforensics.a"], ("semforensics.b",)) == {"semforensics.a"}


@pytest.mark.usefixtures("package")
def test_modules_of_the_package_have_paths() -> None:
    """Other names have none."""
    assert module_path("semforensics.a") == source.SOURCE / "semforensics/a.py"
    assert module_path("semforensics.e") is None
    assert module_path("torch.nn") is None
    assert imports_of(ast.parse("from semforensics import a, e")) == {"semforensics.a"}


def test_the_hash_follows_what_can_be_reached(package: Path) -> None:
    """A change of any reachable file changes it, a change of another does not."""
    first = hash_source("semforensics.a")

    (package / "d.py").write_text("x = 1")
    hash_source.cache_clear()
    assert hash_source("semforensics.a") == first
    (package / "c.py").write_text("import semforensics.a\nx = 1\n")
    assert hash_source("semforensics.a") == first  # as it was when the process began
    hash_source.cache_clear()
    assert hash_source("semforensics.a") != first


def test_a_stage_whose_source_is_edited_meanwhile_fails(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name of the loaded module that changed is said; other files may change."""
    for name in ("semforensics.a", "semforensics.cli.main"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    (package / "cli").mkdir()
    (package / "cli/main.py").write_text("")

    with unchanged_source():
        (package / "d.py").write_text("x = 1")
        (package / "cli/main.py").write_text("x = 1")
    with pytest.raises(InputError, match=r"a\.py: changed while the stage ran"), unchanged_source():
        (package / "a.py").write_text("import torch\n")


def test_a_module_that_is_loaded_after_an_edit_counts(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its code is newer than that of the modules before it."""
    with pytest.raises(InputError, match=r"c\.py: changed"), unchanged_source():
        (package / "c.py").write_text("x = 1\n")
        monkeypatch.setitem(sys.modules, "semforensics.c", ModuleType("semforensics.c"))
