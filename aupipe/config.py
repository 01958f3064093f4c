"""Configuration: frozen pydantic sections, filled from YAML and then `--set a.b=value`. Unknown keys are errors."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from aupipe.errors import ConfigError


class Section(BaseModel):
    """Base of every configuration section. Sections are immutable, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class Resources(Section):
    """Resources that a job requests from the cluster."""

    gpu: Literal["auto"] | bool = "auto"  # auto: a GPU if a node has one now; true for a cluster that scales from zero
    device: str = "cuda"  # torch device of GPU workers at inference; cpu simulates them on nodes without a GPU
    # Whether tasks run only on nodes with the matching label pool=decode, infer or train; auto: if a node has it now.
    pools: Literal["auto"] | bool = "auto"


class Inference(Section):
    """Sliding-window inference of a temporal model over a track."""

    # Fraction of a window that the next one shares. 0: the papers' blocks. None: as when its thresholds were fitted.
    overlap: float | None = Field(default=None, ge=0, lt=1)


SectionT = TypeVar("SectionT", bound=Section)


def load(section: type[SectionT], data: Mapping[str, Any], overrides: Sequence[str] = ()) -> SectionT:
    """Return the section described by `data` after `overrides` are applied.

    Args:
        data: nested keys, as read from YAML.
        overrides: `a.b=value` strings; the value is parsed as YAML.

    Raises:
        ConfigError: a key or value is invalid. The message names every such key, with the nearest known one.
    """
    merged = merge({}, data)
    for item in overrides:
        merged = merge(merged, parse_override(item))
    try:
        return section.model_validate(merged)
    except ValidationError as error:
        raise ConfigError(_explain(section, error)) from None


def parse_override(item: str) -> dict[str, Any]:
    """Return `a.b=value` as the nested mapping {a: {b: value}}."""
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
    """Return `base` overridden by `top`. Mappings are merged recursively, all other values are replaced."""
    result = dict(base)
    for key, value in top.items():
        below = result.get(key)
        result[key] = merge(below, value) if isinstance(value, Mapping) and isinstance(below, Mapping) else value
    return result


def known_keys(section: type[Section], prefix: str = "") -> Iterator[str]:
    """Yield every dotted key of a section."""
    for name, field in section.model_fields.items():
        yield prefix + name
        for inner in _sections(field.annotation):
            yield from known_keys(inner, f"{prefix}{name}.")


def _sections(annotation: Any) -> Iterator[type[Section]]:
    """Yield the sections in a field's type: by itself, in a union, or in a mapping or sequence."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    for inner in get_args(annotation):
        yield from _sections(inner)


def _kinds(section: type[Section]) -> set[str]:
    """Return the discriminator values of all unions, which pydantic adds to an error's `loc` but users do not type."""
    found = set()
    for field in section.model_fields.values():
        inner = list(_sections(field.annotation))
        tags = [f for one in inner for f in (one.model_fields.get("kind"), one.model_fields.get("name")) if f]
        found |= {value for tag in tags for value in get_args(tag.annotation) if isinstance(value, str)}
        found |= {tag for one in inner for tag in _kinds(one)}
    return found


def _explain(section: type[Section], error: ValidationError) -> str:
    """Return one message per problem, with dotted keys, joined by semicolons."""
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
            message = problem["msg"].removeprefix("Value error, ").removeprefix("Input ")
            parts.append(f"setting {key!r}: {message} (got {problem['input']!r})")
    return "; ".join(parts)
