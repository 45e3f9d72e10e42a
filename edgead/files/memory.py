"""The memory that this process may take, and memory that it gives back.

A container may have less memory than the machine. The kernel kills a process that takes more, without an error message.
So the limits of this process's control groups count as well as the machine's free memory.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path

# Version 2 has one tree for all controllers, version 1 has one for memory. For each version: the folder where it is
# mounted, the files with the limit and the usage, and the line of memory.stat with the file caches that the kernel
# drops before it kills a process.
_V2 = ("", "memory.max", "memory.current", "inactive_file")
_V1 = ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def host_bytes(root: Path = Path("/")) -> int:
    """Return the memory of the host that this process may have in all: the machine's, or the limit of a control group.

    Args:
        root: Folder of `proc` and `sys`.

    Returns:
        Memory in bytes.
    """
    total = _numbers(root / "proc/meminfo")["MemTotal:"] * 1024
    return min([total, *(allowed for allowed, _ in _groups(root))])


def free_host_bytes(root: Path = Path("/")) -> int:
    """Return the memory of the host that this process may still take.

    Source of the two versions of control groups: the Linux kernel's admin-guide, cgroup-v1/memory.rst and
    cgroup-v2.rst.

    Args:
        root: Folder of `proc` and `sys`.

    Returns:
        Free memory in bytes, 0 or more.
    """
    # MemAvailable counts the memory that the kernel can give without swapping. MemFree leaves out its file caches.
    available = _numbers(root / "proc/meminfo")["MemAvailable:"] * 1024
    return max(0, min([available, *(allowed - used for allowed, used in _groups(root))]))


def give_back_freed() -> None:
    """Give the memory back to the system that this process has freed and its C library keeps.

    glibc keeps what is freed below the top of its heap: after a model was opened, more than the size of its weights.
    Other C libraries have no such function, and nothing happens.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(ctypes.c_size_t(0))


def _groups(root: Path) -> Iterator[tuple[int, int]]:
    """Limit of each control group of this process that has one, and the bytes that the kernel cannot take back."""
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
                yield int(allowed), used - _numbers(folder / "memory.stat").get(cache, 0)


def _numbers(file: Path) -> dict[str, int]:
    """Read the first number of each line, by the word before it."""
    return {words[0]: int(words[1]) for words in map(str.split, file.read_text().splitlines())}
