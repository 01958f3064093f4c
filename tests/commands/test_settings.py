"""`--list-settings`: every key that `--set` takes, once, with its type, its default and a line."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Literal

import pytest
import yaml
from pydantic import Field

from aupipe.affwild2.job import PreprocessConfig
from aupipe.annotation.settings import AnnotateConfig
from aupipe.commands import cli
from aupipe.commands.settings import field_comments, list_settings, table, type_text, value_text
from aupipe.config import Section, known_keys, load
from aupipe.evaluation.settings import EvaluateConfig
from aupipe.images.job import ImagesConfig
from aupipe.synthesis.render_job import SynthesisConfig
from aupipe.training.recipe import Recipe

pytestmark = pytest.mark.unit


class Square(Section):
    kind: Literal["square"] = "square"
    side_px: int = 3


class Circle(Section):
    """A circle."""

    kind: Literal["circle"] = "circle"
    # Radius in pixels. Above the field,
    radius_px: float | None = Field(default=None, gt=0)  # and beside it; None: a half.


class Inner(Section):
    """A section. With a second sentence."""

    rate: float = Field(default=0.1, gt=0)  # Behind a field of several lines.
    plain: bool = False


class Outer(Section):
    shape: Annotated[Square | Circle, Field(discriminator="kind")]
    inner: Inner = Inner(rate=0.5)
    maybe: Inner | None = None
    many: tuple[Inner, ...] = (Inner(),)
    stages: dict[str, Inner] = Field(default_factory=dict)
    weights: dict[str, float] = Field(default_factory=lambda: {"AU12": 0.3})  # A "#" in # a comment.


ROWS = {row.key: row for row in list_settings(Outer) if not row.line.startswith("[")}


def test_lines_are_the_comments_above_and_beside_a_field() -> None:
    assert field_comments(Circle) == {"radius_px": "Radius in pixels. Above the field, and beside it; null: a half."}
    assert field_comments(Inner) == {"rate": "Behind a field of several lines."}
    assert ROWS["weights"] == ("weights", "mapping of float", "{AU12: 0.3}", 'A "#" in # a comment.')


def test_nested_sections_have_dotted_keys_and_the_values_of_the_instance() -> None:
    assert ROWS["inner.rate"] == ("inner.rate", "float", "0.5", "Behind a field of several lines.")
    assert ROWS["inner.plain"].type == "true|false"
    assert ROWS["maybe"][1:] == ("Inner or null", "null", "A section.")
    assert ROWS["maybe.rate"].default == "0.1"
    assert ROWS["stages.NAME.rate"].default == "0.1"
    assert ROWS["many"][1:3] == ("list of Inner", "[{rate: 0.1, plain: false}]")
    assert "many.rate" not in ROWS  # A list is replaced as a whole.


def test_every_kind_of_a_section_is_listed_unless_one_is_given() -> None:
    either = [row for row in list_settings(Outer) if row.key.startswith("shape.")]
    kinds = {
        key: [row.line.partition("]")[0] for row in either if row.key == key] for key in {row.key for row in either}
    }
    assert kinds == {
        "shape.kind": ["[square", "[circle"],
        "shape.side_px": ["[square"],
        "shape.radius_px": ["[circle"],
    }
    given = [row.key for row in list_settings(Outer(shape=Circle(radius_px=2)))]
    assert [key for key in given if key.startswith("shape.")] == ["shape.kind", "shape.radius_px"]


def test_types_and_values_are_written_as_yaml_has_them() -> None:
    class Inside(Section):
        a: Literal["x", "y"] | None = None
        b: tuple[tuple[int, ...], ...] = ((1, 2),)
        c: dict[str, dict[str, bool]] = Field(default_factory=dict)
        d: Literal["auto"] | bool = "auto"

    types = [type_text(field.annotation) for field in Inside.model_fields.values()]
    assert types == ["x|y or null", "list of list of int", "mapping of mapping of true|false", "auto or true|false"]
    for value in (None, True, 0.5, 20_000_000_000, "auto", "not stated", "", [1, "x"], {"a": [1.5, None]}):
        assert yaml.safe_load(value_text(value)) == value
        assert "\n" not in value_text(value)
    assert value_text(...) == "required"


def test_one_aligned_table() -> None:
    header, *lines = table([Inner, Inner]).splitlines()
    assert header.split() == ["KEY", "TYPE", "DEFAULT"]
    assert [line[: header.index("TYPE")].strip() for line in lines] == ["rate", "plain"]
    assert [line[header.index("TYPE") : header.index("DEFAULT")].strip() for line in lines] == ["float", "true|false"]
    assert table([]) == "This job has no settings."


def listed(job: str, *options: str, capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    assert importlib.import_module(f"aupipe.commands.{job}").main([*options, "--list-settings"]) == 0
    lines = capsys.readouterr().out.splitlines()
    return {line.split()[0]: line for line in lines[1:]} if len(lines) > 1 else {"": lines[0]}


def test_annotate_lists_every_key_and_every_default_can_be_set(capsys: pytest.CaptureFixture[str]) -> None:
    keys = listed("annotate", capsys=capsys)
    sections = {key.rpartition(".")[0] for key in known_keys(AnnotateConfig)} - {""}
    assert list(keys) == [key for key in known_keys(AnnotateConfig) if key not in sections]
    rows = [f"{row.key}={row.default}" for row in list_settings(AnnotateConfig)]
    assert load(AnnotateConfig, {}, rows) == AnnotateConfig()


def test_train_lists_the_recipe_that_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    any_recipe = listed("train", capsys=capsys)
    assert "stages.NAME.optimizer.groups" in any_recipe
    assert "ablation" in any_recipe
    keys = listed("train", "--recipe", "multilabel_transformer", "--quick", "--set", "seed=7", capsys=capsys)
    assert keys["seed"].split()[:3] == ["seed", "int", "7"]
    assert "stages.train.tasks.au.loss.kind" in keys
    assert "model.width" in keys
    assert "model.branches" not in keys  # A key of another model.
    assert listed("tune", "--recipe", "multilabel_transformer", "--quick", capsys=capsys).keys() == keys.keys()


def test_preprocess_lists_the_settings_of_its_kind_of_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    both, images = listed("preprocess", capsys=capsys), listed("preprocess", "--source", "images", capsys=capsys)
    assert "data.license" in both
    assert "data.edition" in both
    assert "data.license" in images
    assert "data.edition" not in images


@pytest.mark.parametrize("job", ["convert", "bench", "report"])
def test_a_job_without_settings_prints_so(job: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert listed(job, capsys=capsys) == {"": "This job has no settings."}


@pytest.mark.parametrize("job", sorted(set(cli.JOBS) - {"train", "tune"}))
def test_the_list_imports_neither_torch_nor_ray(job: str) -> None:
    """The settings of recipes are defined beside networks, so those two jobs import torch."""
    program = f"import sys; from aupipe.commands.{job} import main; main(['--list-settings']); "
    program += "print(sorted({'torch', 'ray'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("\n[]\n")


def test_every_setting_has_a_line() -> None:
    """A setting without a comment would have an empty line in the list."""
    listed_sections = [
        AnnotateConfig, PreprocessConfig, ImagesConfig, SynthesisConfig, EvaluateConfig, Recipe,
    ]  # fmt: skip
    empty = {
        row.key
        for section in listed_sections
        for row in list_settings(section)
        if not row.line.rpartition("]")[2].strip() and "Config" not in row.type and not row.type[0].isupper()
    }
    assert not empty
