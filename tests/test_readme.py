"""README.md and the folder pages: each command, setting, path and snippet that they show is valid."""

from __future__ import annotations

import argparse
import importlib
import itertools
import re
import shlex
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import av
import pytest
from packaging.specifiers import SpecifierSet

from aupipe import config, facs
from aupipe.affwild2.job import PreprocessConfig
from aupipe.annotation.settings import AnnotateConfig
from aupipe.commands import cli, job
from aupipe.config import Section
from aupipe.errors import ConfigError
from aupipe.evaluation.settings import SubmitConfig
from aupipe.images.job import ImagesConfig
from aupipe.models import default_models
from aupipe.pipelines.evaluate import EvaluateConfig
from aupipe.synthesis.render_job import SynthesisConfig
from aupipe.training import recipe

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[1]
TABLES = "aupipe/annotation/README.md"  # tests/annotation/test_dictionary.py runs its snippets
PAGES = ("README.md", "jobs/README.md", "aupipe/recipes/README.md", ".github/CONTRIBUTING.md", TABLES)
TEXTS = {page: (ROOT / page).read_text() for page in PAGES}
SETTINGS: dict[str, tuple[type[Section], ...]] = {
    "annotate": (AnnotateConfig,), "evaluate": (EvaluateConfig,), "synthesize": (SynthesisConfig,),
    "preprocess": (PreprocessConfig, ImagesConfig), "submit": (SubmitConfig,),
}  # fmt: skip
RECIPES = sorted(path.stem for path in (ROOT / "aupipe/recipes").glob("*.yaml"))
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
JOB = re.compile(r"(?:python jobs/(\w+)\.py|(?<![\w./-])aupipe (\w+))(?= )([^\n;|]*)")


def blocks(text: str, language: str) -> list[str]:
    """Return the code blocks of a language, with continued lines joined."""
    return [code.replace("\\\n", " ") for name, code in FENCE.findall(text) if name == language]


def prose(text: str) -> str:
    """Return a page without its code blocks."""
    return FENCE.sub("", text)


def loops(code: str) -> Iterator[str]:
    """Yield the lines of a shell block; those inside of a `for` come once per value."""
    name, values = "", [""]
    for line in code.splitlines():
        found = re.match(r"for (\w+) in ([^;]+); do", line)
        if found:
            name, values = found[1], found[2].split()
            continue
        for value in values:
            yield line.replace(f"${name}", value) if name else line
        if line.rstrip().endswith("done"):
            name, values = "", [""]


COMMANDS = [
    (page, found[1] or found[2], found[3])
    for page, text in TEXTS.items()
    for code in blocks(text, "sh")
    for line in loops(code)
    for found in JOB.finditer(re.sub(r"#.*", "", line))
]


def spans(text: str) -> list[str]:
    """Return the inline code of a page."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"(?<=\S)\n\s*(?=\S)", " ", prose(text)))


INLINE = [(page, span) for page, text in TEXTS.items() for span in spans(text)]
INLINE_SETTINGS = sorted(
    {(page, span[6:]) for page, span in INLINE if re.match(r"--set [a-z].*=(?![A-Z]+$)", span) and "…" not in span}
)


@pytest.fixture
def parse(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`parse(job, argv)` → the options as the job gets them; nothing of the job runs."""
    original, seen = job.run, []

    def run(parser: argparse.ArgumentParser, _body: Any, *rest: Any, **named: Any) -> int:
        return original(parser, lambda args: seen.append((parser, args)) or 0, *rest, **named)

    monkeypatch.setattr(job, "run", run)

    def parsed(name: str, argv: list[str]) -> tuple[argparse.ArgumentParser, argparse.Namespace]:
        assert importlib.import_module(f"aupipe.commands.{name}").main(argv) == 0
        return seen[-1]

    return parsed


def options(parser: argparse.ArgumentParser) -> set[str]:
    """Return the option strings of a parser and of its subcommands."""
    found = set()
    for action in parser._actions:
        found |= set(action.option_strings)
        if isinstance(action, argparse._SubParsersAction):
            found |= set(itertools.chain(*(options(each) for each in action.choices.values())))
    return found


MINIMAL = {
    "annotate": ["--input", "a", "--out", "b"], "evaluate": ["--checkpoint", "a", "--data", "b", "--out", "c"],
    "synthesize": ["--out", "a"], "preprocess": ["--data", "a", "--out", "b"],
    "train": ["--recipe", "a", "--data", "b", "--out", "c"], "tune": ["--recipe", "a", "--data", "b", "--out", "c"],
    "convert": ["a", "--out", "b.safetensors"], "bench": ["fuzz"], "report": ["a"],
    "submit": ["--annotation", "a", "--out", "b"], "results": ["a", "--out", "b"],
}  # fmt: skip


def check_settings(sections: tuple[type[Section], ...], overrides: list[str]) -> None:
    """Raise if none of the sections accepts the settings."""
    for number, section in enumerate(sections, 1):
        try:
            config.load(section, {}, overrides)
            return
        except ConfigError:
            if number == len(sections):
                raise


@pytest.mark.parametrize(("page", "name", "rest"), COMMANDS)
def test_commands_are_valid(page: str, name: str, rest: str, parse: Any) -> None:
    argv = shlex.split(rest, comments=True)
    assert name in cli.JOBS
    assert (ROOT / f"jobs/{name}.py").is_file()
    _, args = parse(name, argv)
    if name in SETTINGS:
        check_settings(SETTINGS[name], args.overrides)
    elif name in ("train", "tune") and not args.recipe.endswith(".yaml"):  # a file that tune.py writes is not there
        recipe.read(args.recipe, quick=args.quick, overrides=args.overrides)


def test_pages_have_commands() -> None:
    assert {page for page, *_ in COMMANDS} >= set(PAGES[:3])
    assert {name for _, name, _ in COMMANDS} >= {"annotate", "train", "tune", "evaluate", "preprocess", "synthesize"}
    assert len(INLINE_SETTINGS) > 10


@pytest.mark.parametrize(("page", "setting"), INLINE_SETTINGS)
def test_settings_in_the_text_exist(page: str, setting: str) -> None:
    parts = [part.removeprefix("--set ") for part in setting.split(" --set ")]
    sections = tuple(itertools.chain(*SETTINGS.values()))
    try:
        check_settings(sections, parts)
    except ConfigError:
        for name in RECIPES:
            try:
                recipe.read(name, quick=False, overrides=parts)
                return
            except ConfigError:
                continue
        raise


def test_options_in_the_text_exist(parse: Any) -> None:
    known = {name: options(parse(name, argv)[0]) for name, argv in MINIMAL.items()}
    every = set(itertools.chain(*known.values()))
    for page, span in INLINE:
        named = re.match(r"(\w+)\.py\b", span)
        if named and named[1] not in known:
            continue
        allowed = known[named[1]] if named else every
        if named or span.startswith("--"):
            for option in re.findall(r"(?<!\S)--[a-z][a-z-]*", span):
                assert option in allowed, f"{page}: {span}"


def test_paths_in_the_text_exist() -> None:
    for page, text in TEXTS.items():
        here = (ROOT / page).parent
        for target in re.findall(r"\]\(([^)#]+)\)", text):
            assert "://" in target or (here / target).exists(), f"{page}: {target}"
        for path in re.findall(r"(?<![\w/.:-])((?:aupipe|jobs|tests)/[\w./-]*\w/?|cluster\.yaml)", text):
            assert (ROOT / path).exists() or path == "jobs/JOB.py", f"{page}: {path}"


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(itertools.chain(*(re.findall(r"\bmake ([a-z-]+)", text) for text in TEXTS.values())))
    assert {"demo", "test"} <= named <= targets


def test_the_oldest_python_is_one_that_pyav_installs_on() -> None:
    required = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    oldest = required.removeprefix(">=")
    assert oldest in SpecifierSet(metadata.metadata("av")["Requires-Python"])
    for page in ("README.md", ".github/CONTRIBUTING.md", "Makefile"):
        assert re.findall(r"Python (3\.\d+) or newer", (ROOT / page).read_text()) == [oldest]


def test_length_and_width() -> None:
    assert len(re.findall(r"\S*\w\S*", TEXTS["README.md"])) <= 1500
    for page, text in TEXTS.items():
        wide = [line for line in text.splitlines() if len(line) > 120]
        assert not wide, f"{page}: {wide}"


def test_recipes_and_aus_are_complete() -> None:
    for name in RECIPES:
        assert f"## `{name}`" in TEXTS["aupipe/recipes/README.md"]
        assert name == "starter" or f"| `{name}` |" in TEXTS["README.md"]
    card = (Path(default_models.__file__).parents[1] / "weights/starter/README.md").read_text()
    for au in facs.AUS:
        trust = re.search(rf"^\| {au} \|.*\| (\w+)[^|]*\|$", card, re.MULTILINE)
        assert trust is not None
        assert re.search(rf"\| {au} \| [a-z ]+ \| {trust[1]} \|", TEXTS["README.md"]), au


PYTHON = [(page, code) for page, text in TEXTS.items() if page != TABLES for code in blocks(text, "python")]


@pytest.mark.parametrize(("page", "code"), PYTHON)
def test_python_snippets_compile(page: str, code: str) -> None:
    compile(code, page, "exec")


@pytest.mark.parametrize(("page", "code"), PYTHON)
def test_python_snippets_run(
    page: str, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    people = importlib.import_module("harness.people")
    person = people.Person(1)
    with av.open(str(tmp_path / "clip.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height = 320, 240
        for index in range(6):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(person.draw(index / 25, 320, 240))))
        container.mux(stream.encode(None))
    monkeypatch.chdir(tmp_path)
    exec(compile(code, page, "exec"), {})
    assert "AU12_prob" in capsys.readouterr().out
