"""The free memory of the machine and its containers, and the error when a GPU has too little memory."""

from pathlib import Path

import pytest
import torch

from edgead.errors import TrainingError
from edgead.files.memory import host_bytes
from edgead.models import METHODS
from edgead.runtime.base import memory_limit_bytes
from edgead.training.memory import free_bytes
from edgead.training.training import train_run
from tests.helpers.training_parts import Template, cpu, tiny_config, write_images

CPU = torch.device("cpu")
MIB = 2**20
# The value that stands for no limit in version 1.
ENDLESS = 2**63 - 4096


def machine(root: Path, groups: str, files: dict[str, object], available_mib: int = 1000) -> Path:
    """Write the files of a machine below root: `groups` to /proc/self/cgroup, `files` below /sys/fs/cgroup."""
    texts = {f"sys/fs/cgroup/{name}": f"{content}\n" for name, content in files.items()}
    texts["proc/meminfo"] = (
        f"MemTotal: 9999999 kB\nMemAvailable: {available_mib * 1024} kB\nHugePages_Total: 0\n"
    )
    texts["proc/self/cgroup"] = groups
    for name, text in texts.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def v2(folder: str, limit: object, used: int, cache: int = 0) -> dict[str, object]:
    stat = f"anon {used - cache}\ninactive_file {cache}"
    return {f"{folder}memory.max": limit, f"{folder}memory.current": used, f"{folder}memory.stat": stat}


def v1(folder: str, limit: int, used: int, cache: int = 0) -> dict[str, object]:
    return {
        f"memory/{folder}memory.limit_in_bytes": limit,
        f"memory/{folder}memory.usage_in_bytes": used,
        f"memory/{folder}memory.stat": f"inactive_file 7\ntotal_inactive_file {cache}",
    }


@pytest.mark.parametrize(
    ("groups", "files", "expected_mib"),
    [
        ("", {}, 1000),
        ("0::/\n", {"cgroup.procs": ""}, 1000),
        ("0::/\n", v2("", 300 * MIB, 100 * MIB), 200),
        ("0::/\n", v2("", "max", 100 * MIB), 1000),
        ("0::/\n", v2("", 5000 * MIB, 100 * MIB), 1000),
        # The kernel drops its file caches first.
        ("0::/\n", v2("", 300 * MIB, 290 * MIB, cache=150 * MIB), 160),
        ("0::/a/b\n", v2("a/b/", "max", MIB) | v2("a/", 300 * MIB, 180 * MIB), 120),
        ("0::/a/b\n", v2("a/b/", 90 * MIB, 20 * MIB) | v2("a/", 300 * MIB, 180 * MIB), 70),
        # Inside a container, the path may be valid only on the host.
        ("0::/../other\n", v2("", 300 * MIB, 100 * MIB), 200),
        ("0::/\n", v2("", 100 * MIB, 130 * MIB), 0),
        ("3:cpuset:/\n4:memory:/\n1:name=systemd:/\n", v1("", 300 * MIB, 100 * MIB), 200),
        ("4:cpu,memory:/docker/1f\n0::/\n", v1("", 300 * MIB, 290 * MIB, cache=150 * MIB), 160),
        ("4:memory:/a\n", v1("", ENDLESS, 900 * MIB) | v1("a/", 300 * MIB, 100 * MIB), 200),
        ("4:memory:/\n", v1("", ENDLESS, 900 * MIB), 1000),
    ],
)
def test_the_lowest_limit_counts(
    tmp_path: Path, groups: str, files: dict[str, object], expected_mib: int
) -> None:
    assert free_bytes(CPU, machine(tmp_path, groups, files)) == expected_mib * MIB


@pytest.mark.parametrize(
    ("groups", "files", "expected_kib"),
    [
        ("", {}, 9999999),
        ("4:memory:/\n", v1("", ENDLESS, 900 * MIB), 9999999),
        ("0::/a/b\n", v2("a/b/", "max", MIB) | v2("a/", 300 * MIB, 180 * MIB), 300 * 1024),
        ("4:memory:/a\n", v1("", 500 * MIB, 0) | v1("a/", 300 * MIB, 100 * MIB), 300 * 1024),
    ],
)
def test_a_session_gets_three_fourths_of_the_lowest_limit(
    tmp_path: Path, groups: str, files: dict[str, object], expected_kib: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = machine(tmp_path, groups, files)
    monkeypatch.setattr("edgead.runtime.base.host_bytes", lambda: host_bytes(root))
    assert memory_limit_bytes() == expected_kib * 1024 * 3 // 4


def test_a_system_without_control_groups_has_its_free_memory(tmp_path: Path) -> None:
    root = machine(tmp_path, "", {})
    (root / "proc/self/cgroup").unlink()
    assert free_bytes(CPU, root) == 1000 * MIB


def test_this_machine_has_free_memory() -> None:
    assert MIB < free_bytes(CPU) < 2**50


class Greedy(Template):
    """Raises the error of torch for a GPU with too little memory."""

    def student_features(
        self, images: torch.Tensor, teacher_features: list[torch.Tensor]
    ) -> list[torch.Tensor]:
        if self.training:
            raise torch.cuda.OutOfMemoryError(
                "CUDA out of memory. Tried to allocate 20.00 MiB.\nGPU 0 has ..."
            )
        return super().student_features(images, teacher_features)


def test_too_little_gpu_memory_is_an_error_of_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(METHODS, "greedy", Greedy)
    config = tiny_config(write_images(tmp_path / "data"), method="greedy", batch_size=3)
    with pytest.raises(TrainingError) as caught:
        train_run(config, tmp_path / "run", cpu())
    assert "--batch-size 3" in caught.value.what
    assert "--size 64" in caught.value.what
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value.__cause__, torch.cuda.OutOfMemoryError)
