"""The tests of the kernels can fail: the cases detect each of these mistakes in a copy of the sources.

A mutant runs in its own process, because a poison value that is used as an index may crash it. A crash counts as
detected.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.host_kernels import SOURCES, compile_host

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="no g++: apt-get install g++")

COMMON, COSINE, SMOOTH, LAUNCHER = "arguments.cuh", "cosine_maps.cuh", "fuse_and_smooth.cuh", "anomaly_map.cu"
BARRIER = "__syncthreads();"
# File of every barrier, and its number in the file.
BARRIERS = [
    (file, nth)
    for file in (COSINE, SMOOTH)
    for nth in range((SOURCES / file).read_text(encoding="utf-8").count(BARRIER))
]

# Mistakes: file, original text, and its replacement.
MUTATIONS = {
    "mirrored about the pixel's centre": (SMOOTH, ": 2 * size - 1 - folded", ": 2 * size - 2 - folded"),
    "mirrored once only": (SMOOTH, "position % (2 * size)", "position"),
    "aligned corners swapped": (SMOOTH, "if (align_corners) {", "if (!align_corners) {"),
    "half-pixel corners not clamped": (
        SMOOTH,
        "max((2 * out + 1) * size_in - size_out, 0)",
        "(2 * out + 1) * size_in",
    ),
    "last channels dropped": (COSINE, "(scale.channels + 7) / 8", "scale.channels / 8"),
    "padding not masked": (COSINE, "if (count < 8) {", "if (count < 0) {"),
    "padding masked one short": (COSINE, "count == 1 ? word & 0xffffu : 0u", "0u"),
    "channels beyond the last": (COSINE, "u * groups < scale.channels", "u * groups <= scale.channels"),
    "channels left out": (COSINE, "channel += kUnroll * groups", "channel += (kUnroll + 1) * groups"),
    "a group of channels beyond the last": (
        COSINE,
        "group + u * lanes < groups",
        "group + u * lanes <= groups",
    ),
    "an image's features for another's": (
        COSINE,
        "(n) * scale.channels * positions",
        "(0) * scale.channels",
    ),
    "an image's maps for another's": (SMOOTH, "(n) * scale.height * scale.width", "(0)"),
    "a step of the shuffles lost": (COSINE, "offset >= lanes", "offset > lanes"),
    "a warp's sums lost": (COSINE, "warp < kWarps", "warp < kWarps - 1"),
    "scores not cleared": (COSINE, "    clear_scores(a);\n", ""),
    "no epsilon": (COMMON, "kEpsilon = 1e-8f", "kEpsilon = 1e-30f"),
    "scales added when multiplied": (SMOOTH, "a.multiply ? value[i] * resized", "false ? 0.0f"),
    "a tap lost": (SMOOTH, "reach = 2 * a.radius + 4;", "reach = 2 * a.radius + 3;"),
    "radius not rounded": (LAUNCHER, "4.0 * spec.sigma + 0.5", "4.0 * spec.sigma"),
    "weights not normalised": (LAUNCHER, "1.0 / sum", "1.0"),
    "alignment not looked at": (LAUNCHER, "count % (16 / element) == 0", "true"),
} | {f"barrier {nth + 1} of {file} missing": (file, BARRIER, f"#{nth}") for file, nth in BARRIERS}

RUN_CASES = """
import sys
from pathlib import Path
from tests.helpers.host_kernels import HostKernels
from tests.helpers.kernel_cases import cases_with_layouts, check
kernels = HostKernels(Path(sys.argv[1]))
for case, layout in cases_with_layouts():
    for turns in map(int, sys.argv[2:]):
        check(case, layout, kernels, multiprocessors=case.multiprocessors, turns=turns)
"""


def run_cases(library: Path, *turns: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", RUN_CASES, str(library), *turns],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(Path(__file__).parents[2])},
        timeout=120,
    )


def mutated(text: str, old: str, new: str) -> str:
    assert old in text, f"the sources no longer contain {old!r}"
    if not new.startswith("#"):
        return text.replace(old, new)
    parts = text.split(old)
    nth = int(new[1:]) + 1
    return old.join(parts[:nth]) + old.join(["", *parts[nth:]])[len(old) :]


def test_the_sources_as_they_are_pass(tmp_path):
    result = run_cases(compile_host(tmp_path), "0", "1")
    assert result.returncode == 0, result.stderr


def test_taking_one_barrier_leaves_the_others():
    text = "a();b();c();"
    assert [mutated(text, "();", f"#{i}") for i in range(3)] == ["ab();c();", "a();bc();", "a();b();c"]
    assert len(BARRIERS) >= 5


@pytest.mark.parametrize("mistake", MUTATIONS)
def test_mistake_is_caught(tmp_path, mistake):
    file, old, new = MUTATIONS[mistake]
    sources = tmp_path / "sources"
    shutil.copytree(SOURCES, sources, ignore=shutil.ignore_patterns("__pycache__"))
    text = (sources / file).read_text(encoding="utf-8")
    (sources / file).write_text(mutated(text, old, new), encoding="utf-8")
    # A missing barrier shows only in some orders of the threads, so they run backwards too.
    result = run_cases(compile_host(tmp_path, sources, "-Og"), *(("0", "1") if old == BARRIER else ("0",)))
    # A negative exit code means that a signal ended the process.
    assert result.returncode < 0 or "AssertionError" in result.stderr or "LaunchError" in result.stderr, (
        f"the cases pass although there is this mistake: {mistake}; {result.stderr}"
    )
