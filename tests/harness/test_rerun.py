"""`bench.py rerun`: a finished archive is not decoded again."""

from __future__ import annotations

import pytest

from harness import rerun

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


def test_a_finished_archive_is_not_decoded_again(checkpoint: str) -> None:
    first, *others = rerun.measure(checkpoint, 60)
    assert first["frames_decoded"] == 180
    assert [line["frames_decoded"] for line in others] == [0, 0]
    assert others[0]["seconds"] < first["seconds"]
