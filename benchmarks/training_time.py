"""CPU time of the default training of `rd`, from the time of its steps on one thread.

    OMP_NUM_THREADS=1 ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 python benchmarks/training_time.py

The two variables hide AVX-512 from the libraries; leave them out for the machine as it is. A step of 4 images, the
held-out loss of 4 images and the teacher's features of 4 images are measured on random images at 256 pixels, in
float32, with random weights. The estimate is their sum over a training with 300 images. It leaves out the start of
Python, the reading of images, the alignment and the scores at the end. CPU time of one thread changes little when other
work runs; two cores need at least half of it as wall time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import torch

from edgead.imaging.preprocess import ModelSize
from edgead.models import METHODS, create_method
from edgead.models.components.teacher import DEFAULT_TEACHER
from edgead.scoring.hold_out import hold_out_count

SIZE = ModelSize(256, 256)
IMAGES = 300


def cpu_s(work: Callable[[], object], times: int) -> float:
    """Measure the median CPU time of some work, in s."""
    found = []
    for _ in range(times):
        started_at = time.process_time()
        work()
        found.append(time.process_time() - started_at)
    return median(found)


def main() -> None:
    """Measure the steps and print the estimate."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    teacher = METHODS["rd"].create_teacher(DEFAULT_TEACHER, "random")
    method = create_method("rd", teacher, SIZE, METHODS["rd"].losses[0], "unaligned")
    method.to(memory_format=torch.channels_last)
    defaults = method.hyperparameters
    images = torch.randint(0, 256, (defaults.batch_size, SIZE.height_px, SIZE.width_px, 3), dtype=torch.uint8)
    method.eval()
    with torch.no_grad():
        features = method.teacher_features(images)
        teacher_s = cpu_s(lambda: method.teacher_features(images), 5)
        watched_s = cpu_s(lambda: float(method(images, features)), 9)
    method.train()
    method.enter_stage(0)
    optimizer = method.optimizer(defaults.learning_rate)

    def step() -> None:
        loss = method(images, features)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    step_s = cpu_s(step, 15)
    held_out = hold_out_count(IMAGES, "auto", 0.01)
    steps = (IMAGES - held_out) // defaults.batch_size
    watched = -(-held_out // defaults.batch_size)
    epochs = defaults.epochs
    total_s = (
        epochs * steps * step_s
        + (epochs + 1) * watched * watched_s
        + (IMAGES / defaults.batch_size) * teacher_s
    )
    print(
        f"kernels for {torch.backends.cpu.get_cpu_capability()}; batches of {defaults.batch_size}, CPU s each"
    )
    print(f"step {step_s:.3f}, held-out loss {watched_s:.3f}, features of the teacher {teacher_s:.3f}")
    print(f"{epochs} epochs of {steps} steps, {held_out} of {IMAGES} images held out: {total_s:.0f} CPU s")


if __name__ == "__main__":
    main()
