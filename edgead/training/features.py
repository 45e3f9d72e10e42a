"""Teacher features of the fixed training set, computed once if memory allows.

The teacher is frozen and the images do not change, so every epoch would compute the same features again. The features
are cached on the training device if they take at most half of its free memory, and on a CPU at most `HOST_BYTES`, so
that the memory does not grow with the number of images. Otherwise the teacher computes them for each batch.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from edgead.data.stored_images import Images
from edgead.models.base import DistillationMethod
from edgead.training.memory import free_bytes

MEMORY_SHARE = 0.5

HOST_BYTES = 2**31
"""Largest size of the features that are cached in the memory of the host."""

TEACHER_BATCH = 16


class TeacherFeatures:
    """Batches of images and teacher features, by image number.

    Args:
        method: The method with the teacher, on the training device.
        images: Images, (N, H, W, 3) uint8 RGB, on the host or in their files.
        device: The training device.

    Attributes:
        count: Number of images, N.
        bytes: Size of the features of all images, in bytes.
        cached: Whether the features are held in memory.
    """

    def __init__(self, method: DistillationMethod, images: Images | Tensor, device: torch.device) -> None:
        self._method = method
        self._images = images
        self._device = device
        self.count = len(images)
        first = method.teacher_features(host_tensor(images, slice(1)).to(device))
        self.bytes = sum(x.numel() * x.element_size() for x in first) * len(images)
        free = MEMORY_SHARE * free_bytes(device)
        self.cached = self.bytes <= (free if device.type == "cuda" else min(free, HOST_BYTES))
        self._features = self._compute(first) if self.cached else []

    def batch(self, numbers: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return images and their teacher features on the training device.

        Args:
            numbers: Numbers of the images, (B,) int64, on the host.

        Returns:
            Images, (B, H, W, 3) uint8 RGB, and feature tensors, (B, C_k, H_k, W_k).
        """
        images = host_tensor(self._images, numbers).to(self._device)
        if not self.cached:
            return images, self._method.teacher_features(images)
        chosen = numbers.to(self._device)
        return images, [_channels_last(x[chosen]) for x in self._features]

    def batches(self, size: int) -> Iterator[tuple[Tensor, list[Tensor]]]:
        """Iterate over all images once, in order.

        Args:
            size: Largest number of images in a batch.

        Yields:
            Batches as `batch` returns them.
        """
        for numbers in torch.split(torch.arange(self.count), size):
            yield self.batch(numbers)

    def _compute(self, first: list[Tensor]) -> list[Tensor]:
        features = [
            torch.empty(
                (self.count, *x.shape[1:]), dtype=x.dtype, device=x.device, memory_format=torch.channels_last
            )
            for x in first
        ]
        once = without_gradients(TEACHER_BATCH, self._device)
        for start in range(0, self.count, once):
            part = slice(start, start + once)
            found = self._method.teacher_features(host_tensor(self._images, part).to(self._device))
            for kept, x in zip(features, found, strict=True):
                kept[part] = x
        return features


def without_gradients(batch_size: int, device: torch.device) -> int:
    """Return the number of images that a network takes at once where no gradients are needed: one on a CPU.

    The C library maps fresh memory for each large activation of a batch, and the page faults double the time. Measured
    on Lite0 at 256 px: 22 ms an image, and 41 ms in batches of 8.

    Args:
        batch_size: Number of images on another device.
        device: Device of the network.
    """
    return 1 if device.type == "cpu" else batch_size


def host_tensor(images: Images | Tensor, numbers: slice | Tensor) -> Tensor:
    """Return some of the images as a tensor on the host.

    Args:
        images: (N, H, W, 3) uint8 RGB.
        numbers: Their numbers.
    """
    if isinstance(images, Tensor):
        return images[numbers]
    return torch.from_numpy(images[numbers if isinstance(numbers, slice) else numbers.numpy()])


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)
