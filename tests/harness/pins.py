"""The exact versions for images of nodes: `PYTHONPATH=tests python -m harness.pins > jobs/constraints.txt`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import distribution

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

HEADER = "# Versions that pip resolved for pyproject.toml on Python 3.11; written by `python -m harness.pins`.\n"


def requirements(project: Sequence[str]) -> list[Requirement]:
    """Return the given requirements and those of the installed packages that they need, directly or indirectly."""
    found: list[Requirement] = []
    seen: set[tuple[str, frozenset[str]]] = set()

    def add(requirement: Requirement) -> None:
        found.append(requirement)
        key = canonicalize_name(requirement.name), frozenset(requirement.extras)
        if key not in seen:
            seen.add(key)
            for needed in _needed(requirement):
                add(needed)

    for text in project:
        add(Requirement(text))
    return found


def _needed(requirement: Requirement) -> Iterator[Requirement]:
    for text in distribution(requirement.name).requires or []:
        needed = Requirement(text)
        extras = ("", *requirement.extras)
        if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras):
            yield needed


def constraints(project: Sequence[str]) -> str:
    """Return a constraints file with the installed versions of all packages that the requirements need.

    boto3, which only the autoscaler on AWS needs, has the version of botocore: pip would otherwise find no solution.
    """
    versions = {str(canonicalize_name(each.name)): distribution(each.name).version for each in requirements(project)}
    versions["boto3"] = versions["botocore"]
    return HEADER + "".join(f"{name}=={version.partition('+')[0]}\n" for name, version in sorted(versions.items()))


def main() -> None:
    """Print the constraints file of this project."""
    import tomllib

    with open("pyproject.toml", "rb") as file:
        sys.stdout.write(constraints(tomllib.load(file)["project"]["dependencies"]))


if __name__ == "__main__":
    main()
