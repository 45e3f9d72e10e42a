"""The memory that a training may take, and the error when there is not enough."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from edgead.errors import TrainingError
from edgead.files.memory import free_host_bytes


def free_bytes(device: torch.device, root: Path = Path("/")) -> int:
    """Return the memory that is free on a device.

    Args:
        device: A CPU or CUDA device.
        root: Folder of `proc` and `sys`.

    Returns:
        Free memory in bytes, 0 or more.
    """
    if device.type == "cuda":
        free: int = torch.cuda.mem_get_info(device)[0]
        return free
    return free_host_bytes(root)


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
