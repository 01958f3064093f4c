"""Configuration: overrides are merged into YAML, and every error names its key."""

from __future__ import annotations

from typing import Annotated, Literal

import pytest
from pydantic import Field, model_validator

from aupipe.config import Section, load, merge, parse_override, validate
from aupipe.errors import ConfigError

pytestmark = pytest.mark.unit


class Inner(Section):
    rate: float = Field(default=0.1, gt=0)
    name: str = "a"


class Outer(Section):
    inner: Inner = Inner()
    count: int = 1
    entries: dict[str, Inner] = Field(default={})
    steps: tuple[Inner, ...] = (Inner(), Inner(rate=0.2))


def test_overrides_replace_values_of_the_yaml() -> None:
    got = load(Outer, {"inner": {"rate": 0.5}, "count": 3}, ["inner.name=b", "count=4", "inner.rate=3e-4"])
    assert got == Outer(inner=Inner(rate=3e-4, name="b"), count=4)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("inner.rte=1", "unknown setting 'inner.rte'; the nearest known one is 'inner.rate'"),
        ("inner.rate=-1", "setting 'inner.rate': should be greater than 0 (got -1)"),
        ("entries.some.rte=1", "unknown setting 'entries.some.rte'; the nearest known one is 'entries.some.rate'"),
        ("inner.rate=.inf", "setting 'inner.rate': should be a finite number"),
        ("inner.rate=.nan", "setting 'inner.rate': should be a finite number"),
        ("count=many", "setting 'count': should be a valid integer"),
        ("count", "not of the form key=value"),
        ("count=[1", "not YAML"),
        ("inner={rate: 0.1, name: b, rate: 0.2}", "the key 'rate' is given twice"),
        ("count=true", "setting 'count': should be a number (got true or false)"),
        ("entries.some.rate=true", "setting 'entries.some.rate': should be a number"),
        ("steps=[{}, {rate: true}]", "setting 'steps.1.rate': should be a number"),
        ("entries.two words.rte=1", "unknown setting 'entries.two words.rte'"),
    ],
)
def test_an_error_names_its_key(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(Outer, {}, [override])
    assert message in str(caught.value)


def test_an_element_of_a_list_is_set_by_its_number() -> None:
    given = {"steps": [{"rate": 0.5}, {"rate": 0.6, "name": "b"}]}
    got = load(Outer, given, ["steps.1.rate=3e-4", "steps.0.name=c"])
    assert got.steps == (Inner(rate=0.5, name="c"), Inner(rate=3e-4, name="b"))
    for override in ("steps.2.rate=1", "steps.-1.rate=1", "steps.first.rate=1"):
        with pytest.raises(ConfigError, match="setting 'steps': should be a valid tuple"):
            load(Outer, given, [override])
    with pytest.raises(ConfigError, match=r"'steps\.1\.rte'; the nearest known one is 'steps\.1\.rate'"):
        load(Outer, given, ["steps.1.rte=1"])


def test_merge_and_parse() -> None:
    assert parse_override("a.b=[1, x]") == {"a": {"b": [1, "x"]}}
    assert merge({"a": {"b": 1, "c": 2}}, {"a": {"b": 3}, "d": 4}) == {"a": {"b": 3, "c": 2}, "d": 4}


class Circle(Section):
    kind: Literal["circle"]
    radius: float


class Square(Section):
    kind: Literal["square"]
    side: float
    radio: Literal["auto"] | bool = "auto"


class Drawing(Section):
    shapes: dict[str, Annotated[Circle | Square, Field(discriminator="kind")]] = Field(default={})
    front: Annotated[Circle | Square, Field(discriminator="kind")]

    @model_validator(mode="after")
    def _closed(self) -> Drawing:
        if "open" in self.shapes:
            raise ValueError("a shape is open")
        return self


SQUARE = {"kind": "square", "side": 1}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"front": SQUARE | {"radius": 1}}, "unknown setting 'front.radius'; the nearest known one is 'front.radio'"),
        ({"front": SQUARE | {"radio": "x"}}, "setting 'front.radio': should be"),
        ({"front": {"kind": "square"}}, "setting 'front' has no side"),
        ({"front": {"kind": "oval", "side": 1}}, "setting 'front': tag 'oval' found using 'kind' does not match"),
        ({}, "there is no front"),
        (
            {"front": SQUARE, "shapes": {"first-one": SQUARE, "frist-one": {"kind": "circle"}}},
            "setting 'shapes.frist-one' has no radius; the nearest known one is 'shapes.first-one'",
        ),
        ({"front": SQUARE, "shapes": {"square": {"kind": "circle", "sid": 1}}}, "unknown setting 'shapes.square.sid'"),
    ],
)
def test_an_error_names_the_keys_of_its_kind_of_section(given: dict, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(Drawing, given)
    assert message in str(caught.value)


def test_an_error_of_the_whole_configuration_has_no_key() -> None:
    with pytest.raises(ConfigError) as caught:
        load(Drawing, {"front": SQUARE, "shapes": {"open": SQUARE}})
    assert str(caught.value) == "a shape is open"
    with pytest.raises(ConfigError) as caught:
        validate(Circle | Square, {"kind": "circle", "radius": True}, "front")
    assert str(caught.value) == "setting 'front.radius': should be a number (got true or false)"


@pytest.mark.parametrize(
    "overrides",
    [
        ["front.kind=circle", "front.radius=2"],
        ["front.radius=2", "front.kind=circle"],
        ["front={kind: circle, radius: 2}"],
        ["shapes.a.kind=circle", "shapes.a.radius=2", "front={kind: circle, radius: 2}"],
    ],
)
def test_another_kind_drops_the_keys_that_it_lacks(overrides: list[str]) -> None:
    drawn = load(Drawing, {"front": SQUARE, "shapes": {"a": SQUARE}}, overrides)
    assert drawn.front == Circle(kind="circle", radius=2)
    assert drawn.shapes["a"].kind == ("circle" if "shapes.a.kind=circle" in overrides else "square")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["front={kind: circle, radius: 2, side: 3}"], "unknown setting 'front.side'"),
        (["front.kind=circle", "front.radius=2", "front.side=3"], "unknown setting 'front.side'"),
        (["front.side=3", "front.kind=circle", "front.radius=2"], "unknown setting 'front.side'"),
        (["front.kind=circle"], "setting 'front' has no radius"),
        (["front.kind=oval"], "tag 'oval' found"),
        (["front.kind=[1]"], "setting 'front'"),
    ],
)
def test_keys_that_are_given_with_another_kind_are_checked(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(Drawing, {"front": SQUARE}, overrides)
    assert message in str(caught.value)
