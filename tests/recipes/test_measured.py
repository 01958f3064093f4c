"""The commands of the scores in aupipe/recipes/README.md: each is planned on a small store, and each row has one."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from aupipe.commands import train
from aupipe.training import recipe

pytestmark = pytest.mark.unit

_, SECTION = (Path(recipe.__file__).parents[1] / "recipes/README.md").read_text().split("\n## Measured\n")
CODE = SECTION.partition("```sh\n")[2].partition("```")[0].replace("\\\n", " ")


def train_lines() -> dict[str, list[str]]:
    """Return the arguments of train.py by recipe, once per value of the loop."""
    found, values = {}, [""]
    for line in CODE.splitlines():
        if loop := re.match(r"for recipe in ([^;]+); do", line):
            values = loop[1].split()
        elif command := re.search(r"python jobs/train\.py ([^;]*)", line):
            for value in values:
                argv = shlex.split(command[1].replace("$recipe", value))
                found[argv[argv.index("--recipe") + 1]] = argv
            values = [""]
    return found


LINES = train_lines()


@pytest.mark.parametrize("name", LINES)
def test_each_line_is_planned_from_the_starter_network(
    name: str, make_store: Callable[..., str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    argv = [*LINES[name], "--dry-run"]
    argv[argv.index("--data") + 1] = make_store(train=40, frames=40)
    argv[argv.index("--out") + 1] = str(tmp_path / "run")
    code = train.main(argv)
    printed = capsys.readouterr()
    assert code == 0, printed.err
    assert re.search(r"stage \w+: .* trainable, from starter", printed.out)


def test_each_system_has_a_row_above_the_floor() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (0\.\d+) [^|]+\| 0\.\d+ \| (0\.\d+) \| (0\.\d+) ", SECTION, re.MULTILINE)
    assert [name for name, *_ in rows] == list(LINES)
    assert set(LINES) == set(recipe.known()) - {"starter"}
    for _, score, floor, above in rows:
        assert float(above) == pytest.approx(float(score) - float(floor), abs=0.0015)
        assert float(above) >= 0.1
