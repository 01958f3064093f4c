"""The direction of imports, read from the source: no arrow up, no circle, Ray only in `pipelines/`."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import aupipe

pytestmark = pytest.mark.unit

ROOT = Path(aupipe.__file__).parent

# Low to high. A folder imports from its own level and from the levels before it; `ground` is the modules beside them.
LEVELS = (
    ("ground",),
    ("media",),
    ("faces",),
    ("facestore", "models", "affwild2", "images"),
    ("data",),
    ("evaluation",),
    ("annotation", "training"),
    ("tuning",),
    ("synthesis", "report"),
    ("pipelines",),
    ("benchmarks", "commands"),
)
# Folders that never import each other, in either direction.
SIBLINGS = ({"annotation", "training"}, {"annotation", "tuning"})
HEAVY = ("torch", "ray", "cv2", "av", "torchaudio", "torchvision", "timm", "pyarrow", "scipy", "matplotlib")
RAY_FOLDERS = ("pipelines",)
RAY_INTERNALS = "aupipe.pipelines.ray_internals"  # the only module that names private modules of Ray
PRIVATE_RAY = re.compile(r"ray\.(\w+\.)*_(private|internal|common|raylet)\b")


@cache
def tree(module: Path) -> ast.Module:
    return ast.parse(module.read_text())


def name_of(module: Path) -> str:
    parts = module.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in sorted(ROOT.rglob("*.py"))}


def imported(nodes: Iterator[ast.AST] | list[ast.AST]) -> Iterator[str]:
    """Yield what these statements import: a module of aupipe in full, the first part of any other."""
    for node in nodes:
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            if not name.startswith("aupipe"):
                yield name.split(".")[0]
            else:
                yield name if name in MODULES else name.rpartition(".")[0]


def at_import(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the statements that run when a module is imported: no bodies of functions, no `if TYPE_CHECKING`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        yield child
        yield from at_import(child)


def folder(module: str) -> str:
    """Return the folder of a module; `aupipe` itself is the public API, which is above all folders."""
    parts = module.split(".")
    if len(parts) == 1:
        return "aupipe"
    return "ground" if (ROOT / f"{parts[1]}.py").exists() else parts[1]


def level(name: str) -> int:
    return next((number for number, names in enumerate(LEVELS) if name in names), len(LEVELS))


@cache
def all_imports() -> frozenset[tuple[str, str]]:
    """Return (module, imported module) wherever the import is written, function bodies too."""
    return frozenset((name, other) for name, path in MODULES.items() for other in imported(ast.walk(tree(path))))


def broken() -> set[tuple[str, str]]:
    """Return the imports that break a rule of a single import."""
    found = set()
    for name, other in all_imports():
        importer, source = folder(name), folder(other) if other in MODULES else other
        if other == "ray":
            forbidden = importer not in RAY_FOLDERS
        elif other == "aupipe" or other not in MODULES:  # `from aupipe import __version__` runs no other module
            forbidden = False
        else:
            forbidden = level(source) > level(importer) or {importer, source} in SIBLINGS
        if forbidden:
            found.add((name, other))
    for name, path in MODULES.items():
        if name != RAY_INTERNALS and PRIVATE_RAY.search(path.read_text()):
            found.add((name, "private modules of ray"))
    return found


def test_every_module_has_a_level() -> None:
    known = {name for names in LEVELS for name in names}
    assert {folder(name) for name in MODULES} - known - {"aupipe", "recipes", "weights"} == set()


def test_no_arrow_up_and_no_ray_outside_pipelines() -> None:
    assert sorted(broken()) == []


def test_no_circle_between_folders() -> None:
    edges: dict[str, set[str]] = {}
    for name, other in all_imports():
        if other in MODULES and other != "aupipe" and folder(name) != folder(other):
            edges.setdefault(folder(name), set()).add(folder(other))
    left = dict(edges)
    while free := [name for name, sources in left.items() if not sources & left.keys()]:
        for name in free:
            del left[name]
    assert left == {}, "folders that import each other in a circle, and those above them"


def test_no_circle_between_modules() -> None:
    left = {
        name: {other for other in imported(list(at_import(tree(path)))) if other in MODULES and other != name}
        for name, path in MODULES.items()
    }
    while free := [name for name, sources in left.items() if not sources & left.keys()]:
        for name in free:
            del left[name]
    assert left == {}


@pytest.mark.parametrize("start", ["aupipe", *(name for name in MODULES if name.startswith("aupipe.commands."))])
def test_help_and_the_package_import_nothing_heavy(start: str) -> None:
    """Follow the imports that run at import time, parent packages included."""
    todo, seen, found = [start], set(), set()
    while todo:
        name = todo.pop()
        if name in seen or name not in MODULES:
            continue
        seen.add(name)
        todo += [".".join(name.split(".")[:end]) for end in range(1, name.count(".") + 1)]
        others = set(imported(list(at_import(tree(MODULES[name])))))
        found |= {(name, other) for other in others & set(HEAVY)}
        todo += others
    assert sorted(found) == []
