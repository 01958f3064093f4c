"""Docstrings are written as `house` style asks: an imperative verb or a noun phrase first."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import aupipe

pytestmark = pytest.mark.unit

ROOT = Path(aupipe.__file__).parent
FORBIDDEN = re.compile(r"(What|Of|How|Where|Whose|Whether)\b")
OLD_NAMES = re.compile(r"\b(books|asked_ahead|reaching|worn|hears)\b")


def docstrings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text:
                yield getattr(node, "lineno", 1), text


def test_no_docstring_begins_with_a_question_word() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}: {text.splitlines()[0]}"
        for path in sorted(ROOT.rglob("*.py"))
        for line, text in docstrings(ast.parse(path.read_text()))
        if FORBIDDEN.match(text)
    ]
    assert found == []


def test_no_old_name_is_an_identifier() -> None:
    found = []
    for path in sorted(ROOT.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [getattr(node, field, None) for field in ("id", "attr", "arg", "name")]
            found += [f"{path.relative_to(ROOT)}: {name}" for name in names if name and OLD_NAMES.fullmatch(str(name))]
    assert found == []
