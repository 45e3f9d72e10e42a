"""Values of the options of the command line, listed without torch, so that help and completion are fast.

A test checks that these lists are equal to the registries of the packages. A teacher may be any network of timm, and a
target any TOML file, so the lists of these two are suggestions; all others are complete.
"""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

RunOrBundle = Annotated[
    Path,
    typer.Argument(
        metavar="RUN|BUNDLE",
        help="Directory that edgead train or edgead build wrote.",
        show_default=False,
    ),
]
"""Model of the commands that take a run or a bundle."""

BundleDirectory = Annotated[
    Path, typer.Argument(metavar="BUNDLE", help="Directory that edgead build wrote.", show_default=False)
]
"""Model of the commands that take a bundle only."""

BitDepth = Annotated[
    int | None,
    typer.Option(
        metavar="10|12|14",
        help="Depth of the camera's values in image files of 16 bits; the bundle reads its images alike.",
        show_default="16, or the file's own",
    ),
]
"""Option `--bit-depth` of the commands that make a run."""

On = Annotated[
    str | None,
    typer.Option(
        metavar="ray[:ADDRESS]",
        help="Ray cluster to run on: ray for Ray on this machine, ray:auto, or ray:HOST:PORT; ?cpus=N gives each "
        "training N cores.",
        show_default="this machine, one after the other",
    ),
]
"""Option `--on` of the commands with many trainings."""


class Choice(str, Enum):
    """One of a fixed set of words; `str` gives the word itself."""

    def __str__(self) -> str:
        return str(self.value)


class Method(Choice):
    """Distillation methods of `edgead train`."""

    RD = "rd"
    RD_PLUS = "rd++"
    STFPM = "stfpm"
    STFPM_SLIM = "stfpm-slim"
    STFPM_SHARED = "stfpm-shared"
    STFPM_ENSEMBLE = "stfpm-ensemble"
    RSTPM = "rstpm"
    RSTPM_PLUS = "rstpm+"
    UNINFORMED_STUDENTS = "uninformed-students"
    EFFICIENTAD = "efficientad"
    LINEAR = "linear"


class Variant(Choice):
    """Variants of methods: rstpm has all of them, every other method only the first."""

    STANDARD = "standard"
    MULTIPLIED = "multiplied"
    ADDED = "added"
    NO_ATTENTION = "no-attention"
    DIRECT = "direct"
    DIRECT_SPLIT = "direct-split"
    DEEP = "deep"


class Preset(Choice):
    """Sets of hyperparameters for training."""

    EDGE = "edge"
    PAPER = "paper"


class Fit(Choice):
    """Ways of an image to the model's size."""

    STRETCH = "stretch"
    PAD = "pad"
    CROP = "crop"
    TURN = "turn"


class Fusion(Choice):
    """Ways to join the scales of a map."""

    ADD = "add"
    MULTIPLY = "multiply"


class Layout(Choice):
    """Folder layouts of datasets."""

    AUTO = "auto"
    MVTEC = "mvtec"
    BTAD = "btad"
    VISA = "visa"
    FOLDER = "folder"


class Alignment(Choice):
    """Alignments of the parts in their images."""

    AUTO = "auto"
    ALIGNED = "aligned"
    UNALIGNED = "unaligned"


class Accelerator(Choice):
    """Devices for training."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


class TrainingPrecision(Choice):
    """Precisions of training."""

    FULL = "32-true"
    FLOAT16 = "16-mixed"
    BFLOAT16 = "bf16-mixed"


class Backend(Choice):
    """Libraries that run a bundle."""

    ONNXRUNTIME = "onnxruntime"
    OPENVINO = "openvino"
    OPENVINO_GPU = "openvino-gpu"
    OPENVINO_NPU = "openvino-npu"
    TENSORRT = "tensorrt"
    TENSORRT_RTX = "tensorrt-rtx"


class Precision(Choice):
    """Precisions of a build."""

    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"
    AUTO = "auto"


class Head(Choice):
    """Implementations of the anomaly map of an engine."""

    AUTO = "auto"
    PLUGIN = "plugin"
    STANDARD = "standard"


class CalibrateOn(Choice):
    """Images for the INT8 calibration."""

    TRAIN = "train"
    NOISE = "noise"
    DEFECTS = "defects"
    MIXED = "mixed"


class Algorithm(Choice):
    """Algorithms that choose the clipping limits for INT8."""

    MINMAX = "minmax"
    ENTROPY = "entropy"
    PERCENTILE = "percentile"
    MSE = "mse"


class Quantize(Choice):
    """Networks of a model that become INT8."""

    ALL = "all"
    STUDENT = "student"


class Save(Choice):
    """Images that a prediction saves."""

    OVERLAY = "overlay"
    MAP = "map"
    MASK = "mask"
    HEATMAP = "heatmap"


class Kind(Choice):
    """Kinds of synthetic parts."""

    WASHER = "washer"
    PCB = "pcb"
    FABRIC = "fabric"
    TABLET = "tablet"


class WithholdStill(Choice):
    """Images of a camera that stand still and get no verdict."""

    FROZEN = "frozen"
    ALWAYS = "always"
    NEVER = "never"


TARGETS = (
    "cpu",
    "datacenter",
    "intel",
    "intel-gpu",
    "intel-npu",
    "jetson-orin",
    "jetson-thor",
    "rtx-desktop",
)
TEACHERS = (
    "tf_efficientnet_lite0",
    "tf_efficientnet_lite1",
    "tf_efficientnet_lite2",
    "resnet18",
    "resnet34",
    "resnet50",
    "wide_resnet50_2",
)


def listed(values: tuple[str, ...]) -> str:
    """Join words with commas, for a sentence."""
    return ", ".join(values)


def complete_target(incomplete: str) -> list[str]:
    """Return the targets that begin with the typed text."""
    return [name for name in TARGETS if name.startswith(incomplete)]


def complete_teacher(incomplete: str) -> list[str]:
    """Return the common teachers that begin with the typed text."""
    return [name for name in TEACHERS if name.startswith(incomplete)]


def complete_methods(incomplete: str) -> list[str]:
    """Return completions of a comma-separated list of methods; the last method is incomplete."""
    return _complete_list(incomplete, Method)


def complete_save(incomplete: str) -> list[str]:
    """Return completions of a comma-separated list of images to save; the last one is incomplete."""
    return _complete_list(incomplete, Save)


def _complete_list(incomplete: str, choices: type[Choice]) -> list[str]:
    before, comma, last = incomplete.rpartition(",")
    return [f"{before}{comma}{choice}" for choice in choices if choice.value.startswith(last)]


def value_of(choice: Choice | None) -> str | None:
    """Return the word of a choice, or None if the option was not given."""
    return None if choice is None else str(choice)
