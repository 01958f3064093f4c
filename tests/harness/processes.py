"""Jobs as processes: their command lines, the processes of a session, their memory, and their end.

A session contains a process that was started with `start_new_session=True`, and all of its descendants.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path


def command(job: str, *arguments: str) -> list[str]:
    """Return the command line of a job, such as `annotate`, with these arguments."""
    return [sys.executable, "-c", f"import sys; from aupipe.commands.{job} import main; sys.exit(main())", *arguments]


def run(command: list[str], limit_s: float) -> tuple[int | None, float]:
    """Run a command whose messages go to standard error.

    Returns:
        The exit code, which is None if the command had to be ended after `limit_s`, and the seconds that it took.
    """
    start = time.monotonic()
    job = subprocess.Popen(command, stdout=sys.stderr, start_new_session=True)
    try:
        code = job.wait(limit_s)
    except subprocess.TimeoutExpired:
        code = None
    finally:
        if job.poll() is None:
            end(job.pid)
    return code, round(time.monotonic() - start, 1)


def of_session(session: int) -> dict[int, str]:
    """Return the title of each process by number. Ray writes the task of a worker into its title."""
    found = {}
    for process in pids():
        try:
            if os.getsid(process) == session and (title := command_line(process)):
                found[process] = title
        except ProcessLookupError:
            continue  # the process ended meanwhile
    return found


def pids() -> list[int]:
    """Return the numbers of all processes of this machine."""
    return [int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdigit()]


def command_line(process: int) -> str:
    """Return the command line or title of a process; it is empty for a process that has ended."""
    try:
        data = Path(f"/proc/{process}/cmdline").read_bytes()
    except (ProcessLookupError, FileNotFoundError):
        return ""
    return data.replace(b"\0", b" ").decode(errors="replace").strip()


def memory_kb(process: int) -> dict[str, int]:
    """Return the memory of a process in KiB; it is 0 for a process that has ended.

    `pss` is the proportional set size, which includes a share of shared memory. `own` is the anonymous memory: memory
    that the process allocated, and pages of files that it changed. The unique set size (USS) is not used, because it
    would also count pages of libraries once the last other process that used them has ended, and pages of Ray's object
    store that no other process has read yet, so that each run would give another number.
    """
    try:
        text = Path(f"/proc/{process}/smaps_rollup").read_text()
    except (ProcessLookupError, FileNotFoundError, PermissionError):
        return {"pss": 0, "own": 0}
    sizes = {name: int(size) for name, size in re.findall(r"^(\w+):\s+(\d+) kB", text, re.M)}
    return {"pss": sizes.get("Pss", 0), "own": sizes.get("Anonymous", 0)}


def kill(processes: list[int]) -> None:
    """Kill these processes; those that have ended are skipped."""
    for process in processes:
        try:
            os.kill(process, signal.SIGKILL)
        except ProcessLookupError:
            continue


def end(session: int) -> None:
    """Kill all processes of a session, including those that are started meanwhile."""
    while found := of_session(session):
        kill(list(found))
