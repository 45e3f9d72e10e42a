"""CPU time of the default training of a method, from the time of its steps on one thread.

    OMP_NUM_THREADS=1 ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 python benchmarks/training_time.py
    OMP_NUM_THREADS=1 python benchmarks/training_time.py --methods rd stfpm --alignments aligned unaligned

The two variables hide AVX-512 from the libraries; leave them out for the machine as it is. A step, the held-out loss
and the teacher's features of a batch are measured on random images at 256 pixels with random weights, the step in
float32 and in bfloat16, which take turns. The estimate is the sum in float32 over a training with 300 images, for a
method with one stage. It leaves out the start of Python, the reading of images, the alignment and the scores at the
end. CPU time of one thread changes little when other work runs; two cores need at least half of it as wall time.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from itertools import product
from statistics import median
from typing import get_args

import torch

from edgead.imaging.preprocess import ModelSize
from edgead.models import METHODS, create_method
from edgead.models.base import Alignment
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


def measure(name: str, alignment: Alignment) -> None:
    """Measure the steps of the first stage of a method, and print them with the estimate."""
    torch.manual_seed(0)
    kind = METHODS[name]
    method = create_method(
        name, kind.create_teacher(DEFAULT_TEACHER, "random"), SIZE, kind.losses[0], alignment
    )
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

    def step(bfloat16: bool = False) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            loss = method(images, features)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    both = [(cpu_s(step, 1), cpu_s(lambda: step(True), 1)) for _ in range(15)]
    step_s, other_s = (median(taken) for taken in zip(*both, strict=True))
    print(f"{name}, {alignment}, batches of {defaults.batch_size}, CPU s each")
    print(
        f"step {step_s:.3f} (bfloat16 {other_s:.3f}), held-out loss {watched_s:.3f}, teacher {teacher_s:.3f}"
    )
    if len(defaults.stages) > 1:
        return
    held_out = hold_out_count(IMAGES, "auto", 0.01)
    steps = (IMAGES - held_out) // defaults.batch_size
    watched = -(-held_out // defaults.batch_size)
    epochs = defaults.epochs
    total_s = (
        epochs * steps * step_s
        + (epochs + 1) * watched * watched_s
        + (IMAGES / defaults.batch_size) * teacher_s
    )
    print(f"{epochs} epochs of {steps} steps, {held_out} of {IMAGES} images held out: {total_s:.0f} CPU s")


def main() -> None:
    """Measure the methods one after the other."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--methods",
        nargs="+",
        default=["rd"],
        choices=[name for name, kind in METHODS.items() if not kind.closed_form],
    )
    parser.add_argument("--alignments", nargs="+", default=["unaligned"], choices=get_args(Alignment))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"kernels for {torch.backends.cpu.get_cpu_capability()}")
    for name, alignment in product(arguments.methods, arguments.alignments):
        measure(name, alignment)


if __name__ == "__main__":
    main()
