"""Names of hidden and system files."""

import pytest

from aupipe.hidden_files import is_hidden

pytestmark = pytest.mark.unit


def test_names_of_trash_snapshots_and_thumbnails_are_hidden_ignoring_case() -> None:
    hidden = (
        ".Trash-1000 .Trashes .snapshot .snapshots #recycle #snapshot $RECYCLE.BIN @eaDir .@__thumb @Recycle "
        "lost+found .Spotlight-V100 ._a.mp4 .DS_Store Thumbs.db __MACOSX desktop.ini ~snapshot RECYCLER @EADIR #Recycle"
    )
    assert [
        name
        for name in [*hidden.split(), "System Volume Information", "Network Recycle Bin 1", "FOUND.002"]
        if not is_hidden(name)
    ] == []
    for name in ("a.mp4", "recycle", "@home", "#1", "$5", "lost", "snapshot", "_a.mp4", "eaDir"):
        assert not is_hidden(name)
