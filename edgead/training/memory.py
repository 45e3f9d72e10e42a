"""How much memory a training may take, and what it says when there is not enough.

A container may be allowed less than the machine has. Who takes more there is killed without a word, so the limits of
the control groups that this process is in count as much as the machine's free memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from edgead.errors import TrainingError

# Version 2: one tree for all controllers. Version 1: one for memory. Of each where it is mounted, the files with limit
# and usage, and the line of its statistics with the file caches that it would give up before it kills.
_V2 = ("", "memory.max", "memory.current", "inactive_file")
_V1 = ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def free_bytes(device: torch.device, root: Path = Path("/")) -> int:
    """Bytes that can be taken on a device. root: where `proc` and `sys` are.

    Source of the two versions: the Linux kernel's admin-guide, cgroup-v1/memory.rst and cgroup-v2.rst.
    """
    if device.type == "cuda":
        free: int = torch.cuda.mem_get_info(device)[0]
        return free
    # What the kernel can give without swapping; the plain count of free pages leaves out its own caches.
    available = _numbers(root / "proc/meminfo")["MemAvailable:"] * 1024
    return max(0, min([available, *_left_in_groups(root)]))


@contextmanager
def memory_errors(batch_size: int, size: str) -> Iterator[None]:
    """Translate CUDA out-of-memory errors into TrainingError with a hint.

    Args:
        batch_size: Images in one batch, for the message.
        size: Size of the images as the user typed it, for the message.
    """
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        raise TrainingError(
            f"out of GPU memory with --batch-size {batch_size} and --size {size}: give a smaller batch "
            "size, or close other programs on the GPU"
        ) from error


def _left_in_groups(root: Path) -> Iterator[int]:
    """What is left of the limit of each control group around this process that has one."""
    listing = root / "proc/self/cgroup"
    for line in listing.read_text().splitlines() if listing.is_file() else ():
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            mount, limit, usage, cache = _V1
        elif not controllers:
            mount, limit, usage, cache = _V2
        else:
            continue
        # A limit holds for all groups below it. In a container the path may be the outside's; there its own group is
        # what is mounted, the last that is looked at.
        group = Path(path.lstrip("/"))
        for folder in (root / "sys/fs/cgroup" / mount / part for part in (group, *group.parents)):
            if (folder / limit).is_file() and (allowed := (folder / limit).read_text().strip()) != "max":
                used = int((folder / usage).read_text())
                yield int(allowed) - used + _numbers(folder / "memory.stat").get(cache, 0)


def _numbers(file: Path) -> dict[str, int]:
    """The first number of each line, by the word before it."""
    return {words[0]: int(words[1]) for words in map(str.split, file.read_text().splitlines())}
