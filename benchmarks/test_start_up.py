"""How long a person waits for the first letter of the command line, interpreter included.

Each round is a fresh process. The aim: a median under 0.5 s for ``edgead --help`` on two idle cores.
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
    """What the interpreter takes of it: the part that edgead cannot fix."""
    benchmark.pedantic(
        lambda: subprocess.run([sys.executable, "-c", ""], check=True), rounds=15, warmup_rounds=2
    )
