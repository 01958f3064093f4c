"""Configuration: frozen pydantic sections, YAML below, `--set a.b=value` on top. Unknown keys are refused by name."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from aupipe.errors import ConfigError


class Section(BaseModel):
    """Base of every configuration section: immutable, and a key that it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class Resources(Section):
    """What a job may take of the cluster."""

    gpu: Literal["auto"] | bool = "auto"  # auto: a GPU if the cluster has one now; say true where it scales from zero
    device: str = "cuda"  # torch's name of a GPU, where models only judge; cpu rehearses on nodes that have none
    # Nodes with the labels pool=decode, infer, train do what these say; auto: a label that a node has now, likewise.
    pools: Literal["auto"] | bool = "auto"


class Inference(Section):
    """How a model that looks over time is run over a track."""

    # Part of a window that the next one shares; 0: the papers' blocks; None: as the model's thresholds were fitted.
    overlap: float | None = Field(default=None, ge=0, lt=1)


SectionT = TypeVar("SectionT", bound=Section)


def load(section: type[SectionT], data: Mapping[str, Any], overrides: Sequence[str] = ()) -> SectionT:
    """The section that `data` with `overrides` applied describes.

    Args:
        data: nested keys, as read from YAML.
        overrides: `a.b=value` strings; the value is parsed as YAML.

    Raises:
        ConfigError: naming every bad key, with the nearest known one.
    """
    merged = merge({}, data)
    for item in overrides:
        merged = merge(merged, parse_override(item))
    try:
        return section.model_validate(merged)
    except ValidationError as error:
        raise ConfigError(_explain(section, error)) from None


def parse_override(item: str) -> dict[str, Any]:
    """`a.b=value` as the nested mapping {a: {b: value}}."""
    dotted, equals, text = item.partition("=")
    if not equals or not all(dotted.split(".")):
        raise ConfigError(f"--set {item!r} is not of the form key=value, as in --set detector.min_score=0.7")
    try:
        value: Any = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {item!r}: the value is not YAML ({error})".replace("\n", " ")) from None
    for key in reversed(dotted.split(".")):
        value = {key: value}
    return value


def merge(base: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `top` laid over it; mappings are merged, all else is replaced."""
    result = dict(base)
    for key, value in top.items():
        below = result.get(key)
        result[key] = merge(below, value) if isinstance(value, Mapping) and isinstance(below, Mapping) else value
    return result


def known_keys(section: type[Section], prefix: str = "") -> Iterator[str]:
    """Every dotted key that a section takes."""
    for name, field in section.model_fields.items():
        yield prefix + name
        for inner in _sections(field.annotation):
            yield from known_keys(inner, f"{prefix}{name}.")


def _sections(annotation: Any) -> Iterator[type[Section]]:
    """The sections that a field may hold: alone, as one of several kinds, or in a mapping or sequence."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    for inner in get_args(annotation):
        yield from _sections(inner)


def _kinds(section: type[Section]) -> set[str]:
    """What tells the kinds of all fields apart; pydantic puts it into the place of an error, no user types it there."""
    found = set()
    for field in section.model_fields.values():
        inner = list(_sections(field.annotation))
        tags = [f for one in inner for f in (one.model_fields.get("kind"), one.model_fields.get("name")) if f]
        found |= {value for tag in tags for value in get_args(tag.annotation) if isinstance(value, str)}
        found |= {tag for one in inner for tag in _kinds(one)}
    return found


def _explain(section: type[Section], error: ValidationError) -> str:
    """One sentence a problem, with dotted keys."""
    keys, kinds = list(known_keys(section)), _kinds(section)
    parts = []
    for problem in error.errors():
        named = [part for part in problem["loc"][:-1] if part not in kinds] + list(problem["loc"][-1:])
        key = ".".join(str(part) for part in named if not isinstance(part, str) or part.isidentifier())
        if problem["type"] == "extra_forbidden":
            near = difflib.get_close_matches(key, keys, n=1, cutoff=0.0)
            parts.append(
                f"unknown setting {key!r}; the nearest known one is {near[0]!r}" if near else f"unknown {key!r}"
            )
        else:
            said = problem["msg"].removeprefix("Value error, ").removeprefix("Input ")
            parts.append(f"setting {key!r}: {said} (got {problem['input']!r})")
    return "; ".join(parts)
