"""Processes of a session: what was started with `start_new_session=True`, and all that came of it."""

from __future__ import annotations

import os
import re
import signal
import sys
from pathlib import Path

_ANNOTATE = "import sys; from aupipe.commands.annotate import main; sys.exit(main(sys.argv[1:]))"


def of_session(session: int) -> dict[int, str]:
    """Title (a Ray worker says there what it does) by process number."""
    found = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            if os.getsid(int(folder.name)) == session:
                title = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                if title:  # a process that has ended, but was not waited for, has none
                    found[int(folder.name)] = title
        except (ProcessLookupError, FileNotFoundError):
            continue  # it ended while we looked
    return found


def memory_kb(process: int) -> dict[str, int]:
    """`pss`: with its share of what it shares with others; `own`: anonymous memory. 0 if it ended meanwhile.

    Anonymous is what a process allocated, and pages of files that it changed. Unique memory (USS) would also count
    pages of libraries, once the last other process that used them has ended, and those of Ray's object store that no
    other has read yet, so it is another number in every run.
    """
    try:
        text = Path(f"/proc/{process}/smaps_rollup").read_text()
    except (ProcessLookupError, FileNotFoundError, PermissionError):
        return {"pss": 0, "own": 0}
    sizes = {name: int(size) for name, size in re.findall(r"^(\w+):\s+(\d+) kB", text, re.M)}
    return {"pss": sizes.get("Pss", 0), "own": sizes.get("Anonymous", 0)}


def end(session: int) -> None:
    """End all of a session at once."""
    while found := of_session(session):  # one may have started another meanwhile
        for process in found:
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                continue


def annotate(*arguments: str) -> list[str]:
    """The command line of `annotate.py` with these arguments."""
    return [sys.executable, "-c", _ANNOTATE, *arguments]
