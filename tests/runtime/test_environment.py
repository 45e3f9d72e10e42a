from __future__ import annotations

import json
import os
import platform
from importlib import metadata

import pytest

from edgead.runtime import environment
from edgead.runtime.environment import described, this_environment

X86 = """processor : 0
model name\t: Example CPU @ 2.40GHz
flags\t\t: fpu sse4_1 avx avx2 fma f16c avx512f avx512_vnni
processor : 1
"""
ARM = """processor\t: 0
Features\t: fp asimd asimdhp asimddp
CPU part\t: 0xd42
"""


@pytest.mark.parametrize(
    ("text", "device", "sets"),
    [
        (X86, "Example CPU @ 2.40GHz", ("sse4_1", "avx", "f16c", "fma", "avx2", "avx512f", "avx512_vnni")),
        (ARM, "0xd42", ("asimd", "asimdhp", "asimddp")),
    ],
)
def test_the_processor_is_read_from_the_kernel(text, device, sets, tmp_path, monkeypatch):
    (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.setattr(environment, "CPU_INFO", tmp_path / "cpuinfo")
    found = this_environment(threads=3)
    assert (found.device, found.instruction_sets, found.threads) == (device, sets, 3)


def test_without_cpuinfo_a_machine_is_still_described(tmp_path, monkeypatch):
    monkeypatch.setattr(environment, "CPU_INFO", tmp_path / "none")
    assert this_environment().instruction_sets == ()


def test_libraries_and_threads_of_this_machine():
    found = this_environment()
    assert found.architecture == platform.machine()
    assert found.threads == len(os.sched_getaffinity(0))
    for name in ("onnxruntime", "numpy"):
        assert found.libraries[name] == metadata.version(name)
    assert "opencv" in found.libraries


def test_a_recorded_environment_is_described_like_the_machine_itself():
    here = this_environment()
    assert described(json.loads(json.dumps(here.to_json()))) == str(here)[:200]


@pytest.mark.parametrize(
    "record",
    [
        {},
        {"device": "x"},
        {**this_environment().to_json(), "libraries": 3},
        {**this_environment().to_json(), "instruction_sets": 3},
        {**this_environment().to_json(), "more": 3},
    ],
)
def test_a_record_of_another_kind_is_an_unknown_machine(record):
    assert described(record) == "an unknown machine"


def test_a_hostile_record_is_bounded_and_printable():
    record = {**this_environment().to_json(), "device": "\x1b[2J\n" + "x" * 10_000}
    text = described(record)
    assert len(text) <= 200
    assert text.isprintable()
