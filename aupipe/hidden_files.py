"""Names of hidden and system files and folders: trash, snapshots, thumbnails of a NAS. They are never inputs."""

from __future__ import annotations

# The names are in lower case. Names that begin with a dot are always hidden, for example .Trash-1000, .snapshot,
# .@__thumb and the ._a.mp4 that macOS writes beside a.mp4.
_SYSTEM_NAMES = frozenset(
    {"#recycle", "#snapshot", "@eadir", "@tmp", "@sharesnap", "@sharebin"}  # Synology
    | {"@recycle", "@recycle.bin", "@recently-snapshot", "@__thumb"}  # QNAP
    | {"~snapshot"}  # NetApp
    | {"recycle bin", "network recycle bin", "trashbox"}  # ReadyNAS, older QNAP, Buffalo
    | {f"network recycle bin {number}" for number in range(1, 10)}
    | {"$recycle.bin", "recycler", "recycled", "system volume information", "thumbs.db", "ehthumbs.db", "desktop.ini"}
    | {"lost+found", "lost.dir"}
    | {f"found.{number:03}" for number in range(100)}  # files recovered after a crash of a file system
    | {"__macosx", "network trash folder", "temporary items", "icon\r"}  # macOS
)


def is_hidden(name: str) -> bool:
    """Return whether a plain name is that of a hidden or system file or folder, ignoring case."""
    return name.startswith(".") or name.lower() in _SYSTEM_NAMES
