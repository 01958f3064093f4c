"""SIGTERM interrupts jobs as Ctrl-C does, also while Ray runs."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time

import pytest

from aupipe.interrupts import sigterm_interrupts

_SLEEPS = """
import argparse, sys, time
from aupipe.commands import job
from aupipe.pipelines.session import session

def body(args):
    with session(num_cpus=1):
        print("ready", flush=True)
        time.sleep(120)
    return job.DONE

parser = job.make_parser("sleep.py", "Sleep.", "")
sys.exit(job.run(parser, body, []))
"""


@pytest.mark.unit
def test_sigterm_interrupts_as_ctrl_c() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), sigterm_interrupts():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.unit
def test_other_threads_are_left_alone() -> None:
    done = []

    def body() -> None:
        with sigterm_interrupts():
            done.append(True)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert done == [True]


@pytest.mark.unit
def test_a_signal_that_is_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with sigterm_interrupts():
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.ray
def test_a_job_on_ray_says_how_to_resume() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", _SLEEPS], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    start = time.monotonic()
    process.terminate()
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, time.monotonic() - start < 30) == (130, True)
    assert "sleep.py: interrupted; re-run the same command to resume" in errors
    assert "***" not in errors  # the crash report of Ray
