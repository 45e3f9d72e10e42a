"""The memory that a training may take, and the error when there is not enough.

A container may have less memory than the machine. The kernel kills a process that takes more, without an error message.
So the limits of this process's control groups count as well as the machine's free memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from edgead.errors import TrainingError

# Version 2 has one tree for all controllers, version 1 has one for memory. For each version: the folder where it is
# mounted, the files with the limit and the usage, and the line of memory.stat with the file caches that the kernel
# drops before it kills a process.
_V2 = ("", "memory.max", "memory.current", "inactive_file")
_V1 = ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def free_bytes(device: torch.device, root: Path = Path("/")) -> int:
    """Return the memory that is free on a device.

    Source of the two versions of control groups: the Linux kernel's admin-guide, cgroup-v1/memory.rst and
    cgroup-v2.rst.

    Args:
        device: A CPU or CUDA device.
        root: Folder of `proc` and `sys`.

    Returns:
        Free memory in bytes, 0 or more.
    """
    if device.type == "cuda":
        free: int = torch.cuda.mem_get_info(device)[0]
        return free
    # MemAvailable counts the memory that the kernel can give without swapping. MemFree leaves out its file caches.
    available = _numbers(root / "proc/meminfo")["MemAvailable:"] * 1024
    return max(0, min([available, *_left_in_groups(root)]))


@contextmanager
def memory_errors(batch_size: int, size: str) -> Iterator[None]:
    """Translate CUDA out-of-memory errors into TrainingError with a hint.

    Args:
        batch_size: Number of images in a batch, for the message.
        size: Size of the images as the user typed it, for the message.

    Raises:
        TrainingError: The block ran out of GPU memory.
    """
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        raise TrainingError(
            f"out of GPU memory with --batch-size {batch_size} and --size {size}",
            hint="give a smaller --batch-size, or close other programs on the GPU",
        ) from error


def _left_in_groups(root: Path) -> Iterator[int]:
    """Remaining bytes of each control group of this process that has a limit."""
    listing = root / "proc/self/cgroup"
    for line in listing.read_text().splitlines() if listing.is_file() else ():
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            mount, limit, usage, cache = _V1
        elif not controllers:
            mount, limit, usage, cache = _V2
        else:
            continue
        # A limit holds for all groups below it, so all parents are read. In a container the path may be valid only on
        # the host; then the container's own group is the mounted folder, the last of the parents.
        group = Path(path.lstrip("/"))
        for folder in (root / "sys/fs/cgroup" / mount / part for part in (group, *group.parents)):
            if (folder / limit).is_file() and (allowed := (folder / limit).read_text().strip()) != "max":
                used = int((folder / usage).read_text())
                yield int(allowed) - used + _numbers(folder / "memory.stat").get(cache, 0)


def _numbers(file: Path) -> dict[str, int]:
    """Read the first number of each line, by the word before it."""
    return {words[0]: int(words[1]) for words in map(str.split, file.read_text().splitlines())}
