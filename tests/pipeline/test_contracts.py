"""dvc.yaml, params.yaml, the presets and the commands agree with each other and with the code."""

import ast
import shlex
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.repo import Repo
from dvc.stage import PipelineStage

from semforensics.core.source import import_closure, imports_of, module_path
from semforensics.params import read_params

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src"
COMMANDS = SOURCE / "semforensics/cli"
FRAME = COMMANDS / "frame.py"


@cache
def stages() -> dict[str, PipelineStage]:
    """All stages of dvc.yaml with their templates filled in."""
    with Repo(str(ROOT)) as repo:
        return {stage.addressing: stage for stage in repo.index.stages if stage.cmd}


def stage_names() -> list[str]:
    """Names for parametrised tests."""
    return sorted(stages())


def command_body(command: str) -> list[ast.FunctionDef]:
    """The function of the command line behind a command, and the methods of its arguments.

    Those that it calls on arguments of the command line's dataclasses, and that these call in turn.
    """
    frame = classes_of(ast.parse(FRAME.read_text()))
    for path in COMMANDS.glob("*.py"):
        tree = ast.parse(path.read_text())
        classes = frame | classes_of(tree)
        for node in tree.body:
            if isinstance(node, ast.FunctionDef) and node.name == command.replace("-", "_"):
                assert [ast.unparse(d) for d in node.decorator_list] == ["PANEL.command"]
                kinds = {a.arg: ast.unparse(a.annotation) for a in node.args.args}
                return [node, *methods_called(node, kinds, classes)]
    raise AssertionError(f"{COMMANDS} has no command {command}")


def classes_of(tree: ast.Module) -> dict[str, ast.ClassDef]:
    """The classes of a module."""
    return {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}


def methods_called(
    function: ast.FunctionDef, kinds: dict[str, str], classes: dict[str, ast.ClassDef]
) -> list[ast.FunctionDef]:
    """The methods that a function calls on names whose classes are known."""
    found = []
    for node in ast.walk(function):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        kind = kinds.get(getattr(node.func.value, "id", ""))
        if method := find_method(kind, node.func.attr, classes):
            found += [method, *methods_called(method, {"self": kind}, classes)]
    return found


def find_method(
    kind: str | None, name: str, classes: dict[str, ast.ClassDef]
) -> ast.FunctionDef | None:
    """A method of a class or of those that it inherits from."""
    if kind not in classes:
        return None
    for node in classes[kind].body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return node
    found = (find_method(ast.unparse(base), name, classes) for base in classes[kind].bases)
    return next(filter(None, found), None)


def reached_files(stage: PipelineStage) -> set[str]:
    """Every source file that a stage's command can reach, as paths below the checkout."""
    command, argument = shlex.split(stage.cmd)[2:4]
    # A command that trains one of several generators imports only the one it is called for.
    others = {"fastgan", "stylegan2_ada"} - {argument}
    skipped = tuple(f"semforensics.generators.{o}." for o in others if command == "train-gan")
    # The frame of the commands runs around each of them.
    begun = imports_of(ast.parse(FRAME.read_text()))
    begun |= set().union(*map(imports_of, command_body(command)))
    return {str(module_path(module).relative_to(ROOT)) for module in import_closure(begun, skipped)}


def source_deps(stage: PipelineStage) -> dict[str, set[str]]:
    """The rooms (folders or files) of the source that a stage declares, with their modules."""
    rooms = {}
    for dep in stage.deps:
        path = ROOT / dep.def_path
        if not path.is_relative_to(SOURCE) or path == SOURCE / "stage.py":
            continue
        files = [path] if path.is_file() else list(path.rglob("*.py"))
        assert files, f"{stage.addressing}: {dep.def_path} holds no module"
        rooms[dep.def_path] = {str(f.relative_to(ROOT)) for f in files}
    return rooms


def keys_of(value: Any, prefix: str = "") -> set[str]:
    """Dotted names of all leaves of dictionaries; sets and origins have names of the user's own."""
    if not isinstance(value, dict) or prefix.endswith((".sets", ".origins")):
        return {prefix}
    return set().union(*(keys_of(v, f"{prefix}.{k}") for k, v in value.items()))


@pytest.mark.parametrize("name", stage_names())
def test_deps_cover_the_imports(name: str) -> None:
    """A stage declares the rooms of all modules that its command can reach, and no other room."""
    stage = stages()[name]

    rooms, reached = source_deps(stage), reached_files(stage)

    assert sorted(reached - set().union(*rooms.values())) == [], "reached, not declared"
    idle = [room for room, modules in rooms.items() if not modules & reached]
    assert idle == [], "declared, not reached"
    assert "src/stage.py" in {dep.def_path for dep in stage.deps}


@pytest.mark.parametrize("name", stage_names())
def test_commands_exist_and_name_their_paths(name: str) -> None:
    """A stage calls an existing command, and its data deps and outs stand in that command."""
    stage = stages()[name]
    words = shlex.split(stage.cmd)

    assert words[:2] == ["python", "src/stage.py"]
    command_body(words[2])
    data = [d.def_path for d in stage.deps if d.def_path and not d.def_path.startswith("src/")]
    for path in data + [out.def_path for out in stage.outs]:
        if not path.startswith("params"):
            assert any(Path(path).is_relative_to(w) for w in words[3:]), f"{path} not in {words}"


def test_commands_stand_in_the_order_of_the_graph() -> None:
    """The help lists a stage after all stages whose outputs it reads."""
    source = ast.parse((COMMANDS / "pipeline.py").read_text())
    order = [n.name.replace("_", "-") for n in source.body if isinstance(n, ast.FunctionDef)]

    made = {out.fs_path: stage for stage in stages().values() for out in stage.outs}
    for name, stage in stages().items():
        for dep in stage.deps:
            for path, earlier in made.items():
                if dep.fs_path and Path(dep.fs_path).is_relative_to(path):
                    first, then = (shlex.split(s.cmd)[2] for s in (earlier, stage))
                    assert order.index(first) < order.index(then), name


@pytest.mark.parametrize("name", stage_names())
def test_parameters_of_stages_exist(name: str) -> None:
    """A stage names parameters that params.yaml holds, its own section among them."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    declared = [k for d in stages()[name].deps if hasattr(d, "params") for k in d.params]

    for key in declared:
        value = params
        for part in key.split("."):
            assert part in value, f"{key} is not in params.yaml"
            value = value[part]
    section = shlex.split(stages()[name].cmd)[2].replace("-", "_")
    if section in params:
        assert any(key.split(".")[0] == section for key in declared)


def chain_of(node: ast.AST) -> str:
    """A chain of attributes as text, such as `run.params.crop`; empty for anything else."""
    names = list[str]()
    while isinstance(node, ast.Attribute):
        names.insert(0, node.attr)
        node = node.value
    return ".".join([node.id, *names]) if isinstance(node, ast.Name) else ""


def read_keys(bodies: list[ast.FunctionDef], argument: str) -> set[str]:
    """Dotted names of the parameters that a command reads, whole sections included.

    A command names each parameter: only to methods of its arguments, which are read as well, does
    it hand all of them.
    """
    command, *methods = bodies
    return set().union(*(keys_of_body(body, argument, methods) for body in (command, *methods)))


def keys_of_body(
    function: ast.FunctionDef, argument: str, methods: list[ast.FunctionDef]
) -> set[str]:
    """The same for one function."""
    found, inner = set[str](), set[ast.AST]()
    for node in ast.walk(function):  # a chain of attributes is met before its beginnings
        if isinstance(node, ast.Assign) and ast.unparse(node) == "p = run.params":
            inner |= {node.targets[0], *ast.walk(node.value)}
            continue
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") in {
            method.name for method in methods
        }:
            inner |= {a for a in node.args if ast.unparse(a) == "p"}
        suffix = ""
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "getattr":
            node, name = node.args  # getattr(run.params.generate_fakes, gan)
            assert name.id == function.args.args[0].arg
            suffix = f".{argument}"
        if node in inner or not (chain := chain_of(node)):
            continue
        inner |= set(ast.walk(node))
        head, *keys = chain.removeprefix("run.params.").split(".")
        if head == "p" or chain.startswith("run.params."):
            keys = keys if head == "p" else [head, *keys]
            assert keys, f"{function.name} hands all parameters on"
            found.add(".".join(keys) + suffix)
        else:
            assert chain not in ("run", "run.params"), f"{function.name} hands its run on"
    return found


@pytest.mark.parametrize("name", stage_names())
def test_stages_declare_the_parameters_that_their_commands_read(name: str) -> None:
    """No parameter that can change a result is missing from `params`, and none is there in vain."""
    stage = stages()[name]
    command, argument = shlex.split(stage.cmd)[2:4]

    read = read_keys(command_body(command), argument)

    if command == "train-gan":  # a branch for each generator
        read = {key for key in read if not key.startswith("train_gan.") or argument in key}
    # These read both from the metrics, which no change of theirs would touch.
    if command in ("tabulate", "headline", "headline-trials"):
        read |= {"protocol", "acquire.source"}
    declared = {k for d in stage.deps if hasattr(d, "params") for k in d.params}
    missing = {k for k in read if not any(f"{k}.".startswith(f"{d}.") for d in declared)}
    vain = {d for d in declared if not any(f"{k}.".startswith(f"{d}.") for k in read)}
    assert missing == set(), "read, not declared"
    assert vain == set(), "declared, not read"


@pytest.mark.parametrize("path", sorted(ROOT.glob("presets/*.yaml")), ids=lambda p: p.stem)
def test_presets_validate_with_the_same_keys(path: Path) -> None:
    """Every preset is a complete parameter file."""
    read_params(path)

    ours, theirs = (yaml.safe_load(p.read_text()) for p in (ROOT / "params.yaml", path))
    assert keys_of(ours) == keys_of(theirs)


def test_demo_preset_is_the_default() -> None:
    """What stands in params.yaml on the main branch is the demo preset."""
    assert (ROOT / "params.yaml").read_text() == (ROOT / "presets/demo.yaml").read_text()


def test_library_imports_without_dvc() -> None:
    """No module of the package needs DVC, so that it runs where only torch is."""
    for path in SOURCE.rglob("*.py"):
        tree = ast.parse(path.read_text())
        names = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
        names |= {n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
        assert not any(name.split(".")[0] == "dvc" for name in names), path
