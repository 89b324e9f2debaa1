"""The source is built of rooms: imports between them go one way, and functions stay small."""

import sys
from graphlib import TopologicalSorter
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

LAYERS = (
    ("core",),
    ("params",),
    ("figures", "acquire", "micrographs", "perceptual"),
    ("generators", "distances"),
    ("detector",),
    ("trials", "screening"),
    ("publish",),
    ("cli",),
)
"""Rooms from the ground up. A room imports from the layers below its own, not from a neighbour."""

INNER_LAYERS = {
    "generators": (
        ("common",),
        ("autoencoders", "diffusion", "fastgan", "stylegan2_ada", "published"),
    ),
    "screening": (("records",), ("read",), ("split",), ("judge",), ("write",)),
}
"""The same within a room of rooms; its loose modules lie above them."""


@pytest.fixture(scope="module")
def structure() -> ModuleType:
    """The tool that measures the source."""
    spec = spec_from_file_location("structure", Path(__file__).parents[1] / "tools/structure.py")
    module = module_from_spec(spec)
    sys.modules["structure"] = module  # where its dataclass looks for its module
    spec.loader.exec_module(module)
    return module


def level(room: str, layers: tuple[tuple[str, ...], ...], default: int | None = None) -> int:
    """The number of the layer that a room is in."""
    found = [i for i, names in enumerate(layers) if room in names]
    assert found or default is not None, f"{room}: a room without a layer"
    return found[0] if found else default


def is_allowed(room: str, other: str) -> bool:
    """Whether one room may import from another."""
    (top, _, inner), (other_top, _, other_inner) = room.partition("."), other.partition(".")
    if top == "figures":
        return other_top == "core"  # arrays in, a figure out
    if top != other_top:
        return level(other_top, LAYERS) < level(top, LAYERS)
    layers = INNER_LAYERS[top]
    here, there = (level(r, layers, default=len(layers)) for r in (inner, other_inner))
    return there < here or there == here == len(layers)


def test_imports_between_rooms_go_one_way(structure: ModuleType) -> None:
    """No room imports from a neighbour or from above, and there is no circle."""
    graph = structure.imports_between_rooms()
    del graph["__init__"]

    upward = {f"{room} -> {o}" for room in graph for o in graph[room] if not is_allowed(room, o)}

    assert upward == set()
    TopologicalSorter(graph).prepare()  # raises CycleError


def test_the_rule_sees_upward_imports_neighbours_and_circles(structure: ModuleType) -> None:
    """Of each kind, one that is allowed and one that is not."""
    assert is_allowed("trials", "detector")
    assert not is_allowed("detector", "trials")
    assert not is_allowed("screening.judge", "trials")
    assert not is_allowed("figures", "params")
    assert is_allowed("screening.judge", "screening.read")
    assert not is_allowed("screening.read", "screening.judge")
    assert not is_allowed("generators.fastgan", "generators.stylegan2_ada")
    assert is_allowed("generators.train_gan", "generators.fastgan")
    assert structure.room_of("screening.judge.model") == "screening.judge"
    assert structure.room_of("screening.judge.__init__") == "screening.judge"
    assert structure.room_of("screening.submission") == "screening.submission"
    assert structure.room_of("core.files") == "core"


def test_the_tool_prints_what_it_measures(
    structure: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lines and imports of each room, docstrings, and the largest functions."""
    structure.main(3)

    text = capsys.readouterr().out
    assert "functions with the most arguments" in text
    assert "functions with docstrings: " in text
    for room in structure.lines_of_rooms():
        assert f"  {room} " in text


def test_functions_are_small(structure: ModuleType) -> None:
    """No function has more than 100 lines or 8 arguments."""
    large = [f for f in structure.functions() if f.lines > 100 or f.arguments > 8]

    assert large == []
