"""Runs Python on a processor that this machine does not have, by QEMU's user-mode emulation."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

AVX2_WITHOUT_VNNI = "Haswell"


def run_on(cpu: str, script: str, *arguments: str) -> Any:
    """Run a script in a process of its own on a named CPU of QEMU's, and return the JSON that it prints last.

    The test is skipped where QEMU is missing, or this machine is no x86-64.
    """
    if platform.machine() != "x86_64":
        pytest.skip(f"QEMU runs programs of this machine, which is {platform.machine()}, not x86_64")
    emulator = shutil.which("qemu-x86_64")
    if emulator is None:
        pytest.skip("QEMU's user-mode emulation is not here: sudo apt-get install qemu-user")
    done = subprocess.run(
        [emulator, "-cpu", cpu, sys.executable, "-c", script, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])
