"""The imports of workers."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.unit


def test_a_process_that_only_decodes_does_without_torch() -> None:
    script = "import sys, aupipe.annotation.stages\nprint(sorted({'torch', 'timm', 'ray'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
