"""What the options of the command line may be, known without torch, so that help and completion answer at once.

The registries of the packages decide; a test holds these lists equal to them. A teacher may be any network that timm
knows, and a target any TOML file, so these two are suggestions and the rest are choices.
"""

from __future__ import annotations

from enum import Enum


class Choice(str, Enum):
    """One of a fixed set of words; its text is the word itself."""

    def __str__(self) -> str:
        return str(self.value)


class Method(Choice):
    """Methods that `edgead train` knows."""

    RD = "rd"
    RD_PLUS = "rd++"
    STFPM = "stfpm"
    STFPM_SLIM = "stfpm-slim"
    STFPM_ENSEMBLE = "stfpm-ensemble"
    RSTPM = "rstpm"
    RSTPM_PLUS = "rstpm+"
    UNINFORMED_STUDENTS = "uninformed-students"


class Variant(Choice):
    """Variants of methods; all methods have the first, and rstpm has all."""

    STANDARD = "standard"
    MULTIPLIED = "multiplied"
    ADDED = "added"
    NO_ATTENTION = "no-attention"
    DIRECT = "direct"
    DIRECT_SPLIT = "direct-split"
    DEEP = "deep"


class Preset(Choice):
    """Hyperparameters to train with."""

    EDGE = "edge"
    PAPER = "paper"


class Layout(Choice):
    """Folder layouts of datasets."""

    AUTO = "auto"
    MVTEC = "mvtec"
    BTAD = "btad"
    VISA = "visa"
    FOLDER = "folder"


class Alignment(Choice):
    """How the parts lie in their images."""

    AUTO = "auto"
    ALIGNED = "aligned"
    UNALIGNED = "unaligned"


class Accelerator(Choice):
    """Where to train."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


class TrainingPrecision(Choice):
    """Precisions to train in."""

    FULL = "32-true"
    FLOAT16 = "16-mixed"
    BFLOAT16 = "bf16-mixed"


class Backend(Choice):
    """Libraries that run a bundle."""

    ONNXRUNTIME = "onnxruntime"
    TENSORRT = "tensorrt"
    TENSORRT_RTX = "tensorrt-rtx"


class Precision(Choice):
    """Precisions to build in."""

    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"
    AUTO = "auto"


class Head(Choice):
    """What computes the anomaly map of an engine."""

    AUTO = "auto"
    PLUGIN = "plugin"
    STANDARD = "standard"


class CalibrateOn(Choice):
    """Images that INT8 is calibrated on."""

    TRAIN = "train"
    NOISE = "noise"
    CUTPASTE = "cutpaste"
    MIXED = "mixed"


class Algorithm(Choice):
    """How a clipping limit is chosen for INT8."""

    MINMAX = "minmax"
    ENTROPY = "entropy"
    PERCENTILE = "percentile"
    MSE = "mse"


class Quantize(Choice):
    """Which side of a model becomes INT8."""

    ALL = "all"
    STUDENT = "student"


class Kind(Choice):
    """Parts that the demo draws."""

    WASHER = "washer"
    PCB = "pcb"
    FABRIC = "fabric"
    TABLET = "tablet"


TARGETS = ("cpu", "datacenter", "jetson-orin", "jetson-thor", "rtx-desktop")
TEACHERS = (
    "tf_efficientnet_lite0",
    "tf_efficientnet_lite1",
    "tf_efficientnet_lite2",
    "resnet18",
    "resnet34",
    "resnet50",
    "wide_resnet50_2",
)
WEIGHTS = ("package", "hub", "random")


def listed(values: tuple[str, ...]) -> str:
    """The words as a sentence has them."""
    return ", ".join(values)


def complete_target(incomplete: str) -> list[str]:
    """Targets that begin with what was typed."""
    return [name for name in TARGETS if name.startswith(incomplete)]


def complete_teacher(incomplete: str) -> list[str]:
    """Common teachers that begin with what was typed."""
    return [name for name in TEACHERS if name.startswith(incomplete)]


def complete_methods(incomplete: str) -> list[str]:
    """Methods joined by commas, of which the last one is being typed."""
    before, comma, last = incomplete.rpartition(",")
    return [f"{before}{comma}{method}" for method in Method if method.value.startswith(last)]


def value_of(choice: Choice | None) -> str | None:
    """The word, None where the option was not given."""
    return None if choice is None else str(choice)
