"""Configuration: frozen pydantic sections, read from YAML and overridden by `--set a.b=value`.

Unknown keys are errors that name the nearest known key. A number is not written as true or false. The comment beside a
field is also its line in `--list-settings` (`aupipe.commands.settings`), so it must be readable without the code.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Literal, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from aupipe.errors import ConfigError, one_line


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
    for item in sorted(overrides, key=sets_no_kind):
        merged = merge(merged, parse_override(item), [section])
    found: SectionT = validate(section, merged)
    return found


def validate(kind: Any, given: Mapping[str, Any], key: str = "") -> Any:
    """Return the section that `given` describes.

    Args:
        kind: a section, or a union of sections.
        key: dotted key of `given` in the configuration, for messages.

    Raises:
        ConfigError: as `load`.
    """
    try:
        found = TypeAdapter(kind).validate_python(given)
    except ValidationError as error:
        raise ConfigError(_explain([*sections_in(kind)], error, given, f"{key}." if key else "")) from None
    if bools := [*_numbers_from_bools(found, given, key)]:
        raise ConfigError(f"setting {bools[0]!r}: should be a number (got true or false)")
    return found


def check_unused(section: Section, keys: Sequence[str], subject: str, where: str) -> None:
    """Check that settings which have no effect have their default values.

    Args:
        keys: dotted.
        subject, where: the begin and the end of the message of an error.

    Raises:
        ConfigError: one of them has another value.
    """
    default = type(section)()
    for key in keys:
        if attrgetter(key)(section) != attrgetter(key)(default):
            raise ConfigError(f"{subject}{key} has no effect {where}")


def sets_no_kind(item: str) -> bool:
    """Return False for a kind, which comes first in an order by this: keys that the new kind lacks are then named."""
    return not item.partition("=")[0].endswith(".kind")


def parse_override(item: str) -> dict[str, Any]:
    """Return `a.b=value` as the nested mapping {a: {b: value}}."""
    dotted, equals, text = item.partition("=")
    if not equals or not all(dotted.split(".")):
        raise ConfigError(f"--set {item!r} is not of the form key=value, as in --set detector.min_score=0.7")
    value = parse_yaml(text, f"--set {item!r}: the value is")
    for key in reversed(dotted.split(".")):
        value = {key: value}
    return value


class _UniqueKeys(yaml.SafeLoader):
    """A loader for which a duplicate key is an error. PyYAML alone would drop what the first one holds."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        given = set[str]()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in given:
                    raise yaml.MarkedYAMLError(
                        problem=f"the key {key.value!r} is given twice", problem_mark=key.start_mark
                    )
                given.add(key.value)
        return node


def parse_yaml(text: str, subject: str) -> Any:
    """Return the content of a YAML text.

    Args:
        subject: begins the message of an error, with its verb: "FILE:" or "the value is".

    Raises:
        ConfigError: the text is not YAML, or has a key twice.
    """
    try:
        return yaml.load(text, _UniqueKeys)  # it derives from SafeLoader
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date that does not exist
        raise ConfigError(f"{subject} not YAML ({one_line(error)})") from None


def merge(
    base: Mapping[str, Any], top: Mapping[str, Any], sections: Sequence[type[Section]] = ()
) -> dict[str, Any]:  # fmt: skip
    """Return `base` updated by `top`: mappings are merged, every other value is replaced.

    Mappings with numbers as keys update the elements of a list: groups.0.lr is the rate of the first group.

    Args:
        sections: those that `base` may be. If `top` changes a `kind` in them, keys that the new kind lacks are dropped.
    """
    result = of_kind(base, top.get("kind"), sections)
    for key, value in top.items():
        result[key] = _merged(result.get(key), value, inner_sections(sections, key))
    return result


def _merged(below: Any, value: Any, sections: Sequence[type[Section]]) -> Any:
    if not isinstance(value, Mapping):
        return value
    if isinstance(below, Mapping):
        return merge(below, value, sections)
    places = {str(number) for number in range(len(below))} if isinstance(below, list | tuple) else set[str]()
    if value and value.keys() <= places:
        return [_merged(each, value.get(str(number), each), sections) for number, each in enumerate(below)]
    return value


def of_kind(given: Mapping[str, Any], kind: Any, sections: Sequence[type[Section]]) -> dict[str, Any]:
    """Return `given` without keys that sections of another kind lack; unchanged if no section is of that kind."""
    chosen = [one for one in sections if kind in _kinds(one)] if kind != given.get("kind") else []
    return {key: value for key, value in given.items() if not chosen or any(key in one.model_fields for one in chosen)}


def inner_sections(sections: Sequence[type[Section]], key: int | str) -> Sequence[type[Section]]:
    """Return the sections below a key: those of a field, or the same ones for an entry of a mapping or a list."""
    fields = [one.model_fields[key] for one in sections if isinstance(key, str) and key in one.model_fields]
    return [inner for field in fields for inner in sections_in(field.annotation)] if fields else sections


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


@dataclass(frozen=True)
class _Place:
    """The location of an error.

    Attributes:
        folder: dotted key of `holder`, with a dot at its end; empty at the top.
        name: last part of the key; empty for the whole configuration.
        holder: the value that holds `name`.
        sections: the sections that `holder` may be.
    """

    folder: str
    name: str
    holder: Any
    sections: Sequence[type[Section]]

    @property
    def key(self) -> str:
        """Dotted key."""
        return f"{self.folder}{self.name}".rstrip(".")

    @property
    def beside(self) -> list[str]:
        """Known keys of the sections."""
        return [self.folder + name for one in self.sections for name in one.model_fields]

    @property
    def other_entries(self) -> list[str]:
        """Keys of the other entries, if `name` is an entry of a mapping instead of a field of a section."""
        if not self.name or self.key in self.beside or not isinstance(self.holder, Mapping):
            return []
        return [f"{self.folder}{name}" for name in self.holder if name != self.name]


def _locate(sections: Sequence[type[Section]], location: Sequence[int | str], given: Any, folder: str) -> _Place:
    """Return the place of an error in `given`, whose own key is `folder`.

    pydantic adds the kind of a section and the member of a union to a location. They are no keys.
    """
    place = _Place(folder, "", given, sections)
    for number, part in enumerate(location, start=1):
        if isinstance(part, int) and isinstance(given, list | tuple):
            is_key, has_value = True, part < len(given)  # a tuple may be too short
        else:
            is_key = has_value = isinstance(given, Mapping) and part in given
        is_last = number == len(location)
        is_kind = isinstance(given, Mapping) and part in (given.get("kind"), given.get("name"))
        if is_kind and not (is_last and is_key) and (chosen := [one for one in sections if part in _kinds(one)]):
            sections = chosen
        elif is_key or any(part in one.model_fields for one in sections):
            place = _Place(f"{place.key}." if place.key else "", str(part), given, sections)
            given = given[part] if has_value else None
            sections = inner_sections(sections, part)
    return place


def _kinds(section: type[Section]) -> list[str]:
    """Return the values of the section's discriminator, which pydantic adds to the location of an error."""
    tags = [section.model_fields[name] for name in ("kind", "name") if name in section.model_fields]
    return [value for tag in tags for value in get_args(tag.annotation) if isinstance(value, str)]


def _nearest(key: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.0)
    return f"; the nearest known one is {near[0]!r}" if near else ""


def _explain(sections: Sequence[type[Section]], error: ValidationError, given: Any, folder: str) -> str:
    """Return one sentence per problem, with dotted keys."""
    found: dict[str, str] = {}
    missing: dict[str, list[str]] = {}
    problems = error.errors()
    for problem in problems:
        inner = len(problem["loc"])
        if problem["type"] == "too_short" and any(
            len(other["loc"]) > inner and other["loc"][:inner] == problem["loc"] for other in problems
        ):  # Elements that are invalid do not count.
            continue
        place = _locate(sections, problem["loc"], given, folder)
        key = place.key
        if problem["type"] == "extra_forbidden":
            every = [] if place.folder else [known for one in sections for known in known_keys(one)]
            found[key] = f"unknown setting {key!r}{_nearest(key, [*place.beside, *every])}"
        elif problem["type"] == "missing":
            above = _locate(sections, problem["loc"][:-1], given, folder)
            missing.setdefault(above.key, []).append(place.name)
            subject = f"setting {above.key!r} has" if above.key else "there is"
            found[above.key] = f"{subject} no {', '.join(missing[above.key])}{_nearest(above.key, above.other_entries)}"
        else:
            message = problem["msg"].removeprefix("Value error, ").removeprefix("Input ")
            # A problem of a whole section has no single value.
            value = "" if isinstance(problem["input"], Mapping) else f" (got {problem['input']!r})"
            found[f"{key} {message}"] = f"setting {key!r}: {message}{value}" if key else message
    return "; ".join(found.values())


def _numbers_from_bools(found: Any, given: Any, key: str) -> Iterator[str]:
    """Yield the keys at which pydantic has converted true or false to a number."""
    if isinstance(given, bool) and type(found) in (int, float):
        yield key
    elif isinstance(given, Mapping):
        for name, value in given.items():
            inner = found.get(name) if isinstance(found, Mapping) else getattr(found, str(name), None)
            yield from _numbers_from_bools(inner, value, f"{key}.{name}" if key else str(name))
    elif isinstance(given, list | tuple) and isinstance(found, list | tuple):
        for number, (inner, value) in enumerate(zip(found, given, strict=False)):
            yield from _numbers_from_bools(inner, value, f"{key}.{number}")
