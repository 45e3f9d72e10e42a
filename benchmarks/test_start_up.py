"""Start-up time of the command line, including the interpreter.

Each round is a new process. The target is a median below 0.5 s for ``edgead --help`` on two idle cores.
"""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "arguments", [("--help",), ("stream", "--help"), ("train", "--help"), ("--version",)], ids=" ".join
)
def test_start_up(benchmark, arguments):
    command = [sys.executable, "-c", "from edgead.cli.main import main; main()", *arguments]

    def run() -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(command, check=True, capture_output=True)

    result = benchmark.pedantic(run, rounds=15, warmup_rounds=2)
    assert b"edgead" in result.stdout


def test_interpreter_alone(benchmark):
    """Measure the share of the interpreter, which edgead cannot reduce."""
    benchmark.pedantic(
        lambda: subprocess.run([sys.executable, "-c", ""], check=True), rounds=15, warmup_rounds=2
    )
