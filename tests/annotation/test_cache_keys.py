"""Keys of what is committed, and the signature by which a file counts as unchanged."""

from __future__ import annotations

from pathlib import Path

import pytest

from aupipe.annotation.settings import ContentHash, content_hash
from aupipe.annotation.stat_signatures import stat_signature

pytestmark = pytest.mark.unit


def test_the_signature_of_a_sequence_depends_on_every_image(tmp_path: Path) -> None:
    uri = f"{tmp_path}/"
    assert stat_signature(uri) == stat_signature(f"{tmp_path}/gone/") == ""
    for name in ("1.png", "2.png"):
        (tmp_path / name).write_bytes(b"a")
    before = stat_signature(uri)
    assert before == stat_signature(uri) != ""
    (tmp_path / "1.png").write_bytes(b"longer")
    changed = stat_signature(uri)
    (tmp_path / "3.png").write_bytes(b"a")
    assert len({before, changed, stat_signature(uri)}) == 3


def test_a_hash_with_constant_parts_is_the_hash_of_all_parts() -> None:
    constant = ({"b": 1, "a": (2.5, None)}, "é", [1])
    for varying in (("x",), ("3", 'quoted "é"\n')):
        assert ContentHash(*constant)(*varying) == content_hash(*varying, *constant), varying
