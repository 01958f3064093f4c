"""README.md of aupipe/annotation: its tables are those of the schema, and its snippets read an annotation."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from aupipe.annotation import dictionary, schema
from harness.drawn_tables import annotation, face

pytestmark = pytest.mark.unit

TEXT = dictionary.PAGE.read_text(encoding="utf-8")
SNIPPETS = re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


def test_the_page_has_every_column_and_reason() -> None:
    assert dictionary.page(TEXT) == TEXT, "fix: python -m aupipe.annotation.dictionary"
    for name in (*schema.VIDEOS.names, *schema.EVENTS.names, "AUxx_intensity", "EXPR_xx_prob", *schema.REASONS):
        assert f"\n| `{name}` | " in TEXT


def test_no_words_are_left_of_columns_that_are_gone() -> None:
    frames = {dictionary._family(name) for name in schema.frames_schema(models=2, classes=8).names}
    assert dictionary._FRAMES.keys() == frames
    assert dictionary._EVENTS.keys() == set(schema.EVENTS.names)
    assert dictionary._VIDEOS.keys() == set(schema.VIDEOS.names)


def test_there_is_a_snippet_per_library() -> None:
    assert [re.search(r"^import (\w+)", code, re.MULTILINE)[1] for code in SNIPPETS] == ["pandas", "polars", "duckdb"]  # type: ignore[index]


@pytest.mark.parametrize("code", SNIPPETS)
def test_snippets_read_an_annotation(
    code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip(re.search(r"^import (\w+)", code, re.MULTILINE)[1])  # type: ignore[index]
    rows = [face(0.9, index < 3, frame=index, time_s=index / 25) | {"video_id": "a.mp4"} for index in range(4)]
    annotation(tmp_path / "annotation", "a.mp4", [*rows, {"video_id": "a.mp4", "frame": 4, "status": "no_face"}])
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert "a.mp4" in printed
    assert printed.count("0.75") == 2
