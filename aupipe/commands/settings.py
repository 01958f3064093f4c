"""`--list-settings`: every `--set` key of a job with its type, its default and one line of explanation.

The line is the comment at the field in the source of its section, so it is written only once.
"""

from __future__ import annotations

import ast
import inspect
import io
import re
import tokenize
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

import yaml
from pydantic.fields import FieldInfo

from aupipe.config import Section, sections_in

_KIND_LINE = "The kind of this section; its other keys depend on it."
_HEADER = ("KEY", "TYPE", "DEFAULT", "")
_WIDEST = (56, 34, 24)  # In characters. A longer cell shifts the rest of its row and does not widen the column.


class Setting(NamedTuple):
    """One row of the list: a dotted key, its type and default as `--set` takes them, and its explanation."""

    key: str
    type: str
    default: str
    line: str


class Ablation(Section):
    """The key that `--set` has for recipes besides those of the recipe."""

    ablation: str | None = None  # Name of one of the recipe's `ablations`, which is merged into the recipe.


def table(sections: Sequence[Section | type[Section]]) -> str:
    """Return the settings of a job as one aligned table. Rows that several sections share are listed once."""
    rows = list(dict.fromkeys(row for section in sections for row in list_settings(section)))
    if not rows:
        return "This job has no settings."
    lines = [_HEADER, *rows]
    widths = [min(max(len(row[n]) for row in lines), widest) for n, widest in enumerate(_WIDEST)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]).rstrip()
        for row in lines
    )


def list_settings(section: Section | type[Section], prefix: str = "", note: str = "") -> Iterator[Setting]:
    """Yield the settings of a section, nested ones by dotted keys.

    Args:
        section: an instance, whose values are listed as defaults; or a class, for its own defaults.
        prefix: of every key, with its final dot.
        note: put before every explanation: the kind of section that has the key, where a field may hold several.
    """
    section_type = section if isinstance(section, type) else type(section)
    lines = field_comments(section_type)
    for name, field in section_type.model_fields.items():
        value = _default(field) if isinstance(section, type) else getattr(section, name)
        kinds = list(dict.fromkeys(sections_in(field.annotation)))
        line = lines.get(name) or (_KIND_LINE if is_discriminator(name, field) else _first(kinds))
        row = Setting(prefix + name, type_text(field.annotation), value_text(value), (note + line).strip())
        if not kinds or _is_sequence(field.annotation):
            yield row
        elif isinstance(value, Section):
            yield from list_settings(value, f"{prefix}{name}.", note)
        elif isinstance(value, Mapping) and value:
            for key, inner in value.items():
                yield from _inside(inner, kinds, f"{prefix}{name}.{key}.", note)
        else:
            if value is not ...:
                yield row
            below = f"{prefix}{name}." + "".join(f"{place}." for place in _places(field.annotation))
            yield from _inside(None, kinds, below, note)


def _inside(value: Any, kinds: Sequence[type[Section]], prefix: str, note: str) -> Iterator[Setting]:
    """Yield the settings below a key: those of its value, otherwise those of every kind of section it may hold."""
    if isinstance(value, Section):
        yield from list_settings(value, prefix, note)
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _inside(inner, kinds, f"{prefix}{key}.", note)
    else:
        for kind in kinds:
            yield from list_settings(kind, prefix, f"{note}[{_kind_name(kind)}] " if len(kinds) > 1 else note)


def _kind_name(kind: type[Section]) -> str:
    """Return the value of a section's discriminator (`kind` or `name`), otherwise the name of its class."""
    for tag in ("kind", "name"):
        field = kind.model_fields.get(tag)
        if field and is_discriminator(tag, field):
            return str(get_args(field.annotation)[0])
    return kind.__name__


def is_discriminator(name: str, field: FieldInfo) -> bool:
    """Return whether a field selects which of several kinds of section is meant."""
    return name in ("kind", "name") and get_origin(field.annotation) is Literal and len(get_args(field.annotation)) == 1


def _default(field: FieldInfo) -> Any:
    """Return the default of a field, or `...` if it is required."""
    return ... if field.is_required() else field.get_default(call_default_factory=True)


def _is_sequence(annotation: Any) -> bool:
    """Return whether a field holds a sequence of sections, which `--set` replaces as a whole."""
    return get_origin(annotation) in (tuple, list) or any(map(_is_sequence, get_args(annotation)))


def _places(annotation: Any) -> list[str]:
    """Return a placeholder for each level of mapping between a field and its sections."""
    if get_origin(annotation) is dict:
        return ["NAME", *_places(get_args(annotation)[1])]
    return []


def value_text(value: Any) -> str:
    """Return a value as YAML on one line, as `--set` reads it; `required` for a field without a default."""
    if value is ...:
        return "required"
    plain = value.model_dump(mode="json") if isinstance(value, Section) else _plain(value)
    text: str = yaml.safe_dump(plain, default_flow_style=True, width=10**6, allow_unicode=True, sort_keys=False)
    return text.removesuffix("...\n").strip()


def _plain(value: Any) -> Any:
    """Return a value in the types that YAML has."""
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(inner) for inner in value]
    return value.model_dump(mode="json") if isinstance(value, Section) else value


def type_text(annotation: Any) -> str:
    """Return a type in the words of YAML: `int`, `float or null`, `mean|vote`, `list of int`, `mapping of float`."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return type_text(inner[0])
    if origin is Literal:
        return "|".join(map(str, inner))
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(type_text(one) for one in inner))
    if origin in (tuple, list):
        return f"list of {type_text(inner[0])}"
    if origin is dict:
        return f"mapping of {type_text(inner[1])}"
    names = {NoneType: "null", bool: "true|false", Any: "any"}
    if annotation in names:
        return names[annotation]
    return _kind_name(annotation) if issubclass(annotation, Section) else str(annotation.__name__)


@cache
def field_comments(section: type[Section]) -> Mapping[str, str]:
    """Return the comment of each field of a section: the lines above it and the end of its own lines, joined.

    Python's `None` becomes `null`, which is the word that `--set` reads.
    """
    found: dict[str, str] = {}
    for base in reversed(section.__mro__):
        if issubclass(base, Section):
            found |= _own_comments(base)
    return found


def _own_comments(section: type[Section]) -> dict[str, str]:
    lines = inspect.getsource(section).splitlines(keepends=True)
    comments = {
        token.start[0]: token.string.lstrip("# ")
        for token in tokenize.generate_tokens(io.StringIO("".join(lines)).readline)
        if token.type == tokenize.COMMENT
    }
    alone = {number for number in comments if lines[number - 1].lstrip().startswith("#")}
    (body,) = (node.body for node in ast.parse("".join(lines)).body if isinstance(node, ast.ClassDef))
    found = {}
    for node in body:
        if not (isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)):
            continue
        above = node.lineno - 1
        while above in alone:
            above -= 1
        own = range(node.lineno, (node.end_lineno or node.lineno) + 1)
        text = " ".join(comments[number] for number in (*range(above + 1, node.lineno), *own) if number in comments)
        if text:
            found[node.target.id] = re.sub(r"\bNone\b", "null", text)
    return found


def _first(kinds: Sequence[type[Section]]) -> str:
    """Return the first sentence of the docstring of the one section that a field may hold."""
    text = inspect.cleandoc(kinds[0].__doc__ or "") if len(kinds) == 1 else ""
    return re.split(r"(?<=\.)\s", text.replace("\n", " "), maxsplit=1)[0]
