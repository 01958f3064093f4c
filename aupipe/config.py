"""Configuration: frozen pydantic sections, read from YAML and overridden by `--set a.b=value`.

Unknown keys are errors that name the nearest known key. The comment beside a field is also its line in
`--list-settings` (`aupipe.commands.settings`), so it must be readable without the code.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from aupipe.errors import ConfigError


class Section(BaseModel):
    """Base class of every configuration section: immutable; an unknown key or an infinite number is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)


class Resources(Section):
    """The share of the cluster that a job may use."""

    # Use GPUs; auto: if the cluster has one now. Set true on a cluster that adds its GPU nodes on demand.
    gpu: Literal["auto"] | bool = "auto"
    # Torch's name of the GPU for inference; cpu tests the placement on nodes without a GPU.
    device: str = "cuda"
    # Copies of the models at a time in evaluation, prediction and encoding; null: one per GPU, or per CPU without GPUs,
    # that the cluster has now (train.py: at least as many as --workers).
    workers: int | None = Field(default=None, ge=1)
    # Place work on nodes by their labels pool=decode, infer, train; auto: use the labels that a node has now.
    pools: Literal["auto"] | bool = "auto"


Precision = Literal["float32", "bfloat16"]  # of the numbers with which an encoder computes

OVERLAP = 0.5  # default share of a window that the next window repeats


class Inference(Section):
    """Inference of a temporal model over a track."""

    # Overlap of consecutive windows; 0: the papers' disjoint blocks; null: as when the model's thresholds were fitted.
    overlap: float | None = Field(default=None, ge=0, lt=1)


SectionT = TypeVar("SectionT", bound=Section)


def load(section: type[SectionT], data: Mapping[str, Any], overrides: Sequence[str] = ()) -> SectionT:
    """Return the section that `data` describes, with `overrides` applied.

    Args:
        data: nested keys, as read from YAML.
        overrides: `a.b=value` strings; the value is parsed as YAML.

    Raises:
        ConfigError: a key is unknown or a value invalid; names every such key and the nearest known one.
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
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date that does not exist
        raise ConfigError(f"--set {item!r}: the value is not YAML ({error})".replace("\n", " ")) from None
    for key in reversed(dotted.split(".")):
        value = {key: value}
    return value


def merge(base: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` updated by `top`: mappings are merged, every other value is replaced.

    Mappings with numbers as keys update the elements of a list: groups.0.lr is the rate of the first group.
    """
    result = dict(base)
    for key, value in top.items():
        result[key] = _merged(result.get(key), value)
    return result


def _merged(below: Any, value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    if isinstance(below, Mapping):
        return merge(below, value)
    places = {str(number) for number in range(len(below))} if isinstance(below, list | tuple) else set[str]()
    if value and value.keys() <= places:
        return [_merged(each, value.get(str(number), each)) for number, each in enumerate(below)]
    return value


def known_keys(section: type[Section], prefix: str = "") -> Iterator[str]:
    """Yield every dotted key of a section."""
    for name, field in section.model_fields.items():
        yield prefix + name
        for inner in sections_in(field.annotation):
            yield from known_keys(inner, f"{prefix}{name}.")


def sections_in(annotation: Any) -> Iterator[type[Section]]:
    """Yield the section classes in a field's type: alone, in a union, or in a mapping or sequence."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    for inner in get_args(annotation):
        yield from sections_in(inner)


def _kinds(section: type[Section]) -> set[str]:
    """Return the values of all discriminators, which pydantic adds to the location of an error."""
    found = set()
    for field in section.model_fields.values():
        inner = list(sections_in(field.annotation))
        tags = [f for one in inner for f in (one.model_fields.get("kind"), one.model_fields.get("name")) if f]
        found |= {value for tag in tags for value in get_args(tag.annotation) if isinstance(value, str)}
        found |= {tag for one in inner for tag in _kinds(one)}
    return found


def _beside(section: type[Section], place: Sequence[int | str], key: str) -> list[str]:
    """Return the dotted keys of the section that holds an unknown key, which may be an entry of a mapping."""
    sections = [section]
    for part in place[:-1]:
        fields = [one.model_fields[part] for one in sections if isinstance(part, str) and part in one.model_fields]
        # Other parts name an entry of a mapping, an element of a list or a kind of section.
        sections = [inner for field in fields for inner in sections_in(field.annotation)] if fields else sections
    prefix = key.rpartition(".")[0]
    return [f"{prefix}.{name}" if prefix else name for one in sections for name in one.model_fields]


def _explain(section: type[Section], error: ValidationError) -> str:
    """Return one sentence per problem, with dotted keys."""
    keys, kinds = list(known_keys(section)), _kinds(section)
    parts = []
    for problem in error.errors():
        named = [part for part in problem["loc"][:-1] if part not in kinds] + list(problem["loc"][-1:])
        key = ".".join(str(part) for part in named if not isinstance(part, str) or part.isidentifier())
        if problem["type"] == "extra_forbidden":
            near = difflib.get_close_matches(key, [*_beside(section, problem["loc"], key), *keys], n=1, cutoff=0.0)
            parts.append(
                f"unknown setting {key!r}; the nearest known one is {near[0]!r}" if near else f"unknown {key!r}"
            )
        else:
            message = problem["msg"].removeprefix("Value error, ").removeprefix("Input ")
            parts.append(f"setting {key!r}: {message} (got {problem['input']!r})")
    return "; ".join(parts)
