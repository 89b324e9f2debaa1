"""Print how the source is built: its rooms, their imports, its longest functions, its docstrings.

Run `python tools/structure.py [NUMBER]` to list that many functions (10).
"""

import ast
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src/semforensics"
NESTED = ("generators", "screening")
"""Rooms that consist of rooms."""

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@dataclass(frozen=True)
class Function:
    """A function or method of the package."""

    name: str
    """Module and qualified name."""
    lines: int
    """From its first decorator to its last line, docstring included."""
    arguments: int
    """Of the call; `self` and `cls` are not counted."""


def modules() -> dict[str, ast.Module]:
    """Parse all modules; the keys are dotted names below the package."""
    names = {path: path.relative_to(SOURCE).with_suffix("").parts for path in SOURCE.rglob("*.py")}
    return {".".join(parts): ast.parse(path.read_text()) for path, parts in sorted(names.items())}


def room_of(module: str) -> str:
    """Return the room of a module: its folder, or the file's name where it lies in none."""
    parts = module.removesuffix(".__init__").split(".")
    return ".".join(parts[: 2 if parts[0] in NESTED else 1])


def imported_modules(tree: ast.AST, known: set[str]) -> set[str]:
    """Return the modules of this package that are imported anywhere in a module."""
    found = set[str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {name.removeprefix("semforensics.") for name in found} & known


def imports_between_rooms() -> dict[str, set[str]]:
    """Return which other rooms each room imports from."""
    trees = modules()
    graph: dict[str, set[str]] = {room_of(name): set() for name in trees}
    for name, tree in trees.items():
        for other in imported_modules(tree, set(trees)):
            if room_of(other) != room_of(name):
                graph[room_of(name)].add(room_of(other))
    return graph


def definitions(tree: ast.Module) -> Iterator[tuple[str, Definition]]:
    """Yield all functions, methods and classes with their qualified names."""

    def below(node: ast.AST, prefix: str) -> Iterator[tuple[str, Definition]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, Definition):
                yield prefix + child.name, child
                yield from below(child, f"{prefix}{child.name}.")
            else:
                yield from below(child, prefix)

    return below(tree, "")


def functions() -> list[Function]:
    """Measure all functions."""
    found = list[Function]()
    for module, tree in modules().items():
        for name, node in definitions(tree):
            if isinstance(node, ast.ClassDef):
                continue
            start = min([node.lineno, *(d.lineno for d in node.decorator_list)])
            a = node.args
            names = [x.arg for x in (*a.posonlyargs, *a.args, *a.kwonlyargs)]
            count = sum(x not in ("self", "cls") for x in names)
            found.append(Function(f"{module}.{name}", (node.end_lineno or 0) - start + 1, count))
    return found


def documented() -> tuple[int, int]:
    """Count the public modules, classes and functions with a docstring, and all of them."""
    flags = list[bool]()
    for tree in modules().values():
        public = [node for name, node in definitions(tree) if "._" not in f".{name}"]
        flags += [ast.get_docstring(node) is not None for node in (tree, *public)]
    return sum(flags), len(flags)


def lines_of_rooms() -> dict[str, int]:
    """Count the lines of Python of each room."""
    counts = Counter[str]()
    for path in SOURCE.rglob("*.py"):
        module = ".".join(path.relative_to(SOURCE).with_suffix("").parts)
        counts[room_of(module)] += len(path.read_text().splitlines())
    return dict(counts)


def main(number: int = 10) -> None:
    """Print everything."""
    lines, graph, found = lines_of_rooms(), imports_between_rooms(), functions()
    print(f"{sum(lines.values())} lines of Python\n\nroom, lines, imports from")
    for room in sorted(graph):
        print(f"  {room:28} {lines[room]:6}  {', '.join(sorted(graph[room]))}")
    count, public = documented()
    share = f"{count} of {public} ({count / public:.1%})"
    print(f"\npublic modules, classes and functions with docstrings: {share}")
    print("\nfunctions with the most lines")
    for function in sorted(found, key=lambda f: -f.lines)[:number]:
        print(f"  {function.lines:6}  {function.name}")
    print("\nfunctions with the most arguments")
    for function in sorted(found, key=lambda f: -f.arguments)[:number]:
        print(f"  {function.arguments:6}  {function.name}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
