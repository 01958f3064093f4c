"""Tests of external data are skipped with a reason where the data is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.external_data import VARIABLE, external

pytestmark = pytest.mark.unit


def test_a_file_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    (tmp_path / "a.csv").touch()
    assert external("a.csv") == tmp_path / "a.csv"


@pytest.mark.parametrize(("folder", "reason"), [("", "names no folder"), ("/nowhere", "without it: /nowhere")])
def test_a_missing_file_skips_the_test(folder: str, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, folder)
    with pytest.raises(pytest.skip.Exception, match=f"a.csv is not part of the repository.*{reason}"):
        external("a.csv")
