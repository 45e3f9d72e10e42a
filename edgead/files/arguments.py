"""Options of the functions of `import edgead`, and the checks of their types before any work.

Without these checks a value of another type would fail deep inside, with an error that names no option.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, TypeAlias, TypedDict, Union, get_args, get_origin, get_type_hints

from edgead.errors import InputError
from edgead.files.atomic import restore_directory

PathLike: TypeAlias = str | os.PathLike[str]


class TrainOptions(TypedDict, total=False):
    """Options of `train`. The defaults are the same as for the command `edgead train`.

    Attributes:
        method: Distillation method, such as "rd" or "stfpm".
        variant: Variant of the method, such as "deep" for "rstpm"; by default "standard".
        layout: Folder layout of the dataset: "auto", "mvtec", "btad", "visa" or "folder".
        teacher: Name of the teacher in timm.
        teacher_weights: Source of the teacher's weights: "package", "hub", "random" or a file.
        size: Image size of the model in pixels, multiples of 32: 256 or "256x320" (height x width).
        preset: Set of defaults for the next four options and the smoothing: "edge" or "paper".
        epochs: Number of epochs; more of them extend a finished run.
        batch_size: Images per batch and device.
        learning_rate: Peak learning rate.
        loss: Loss of the student, one of the losses that the method offers.
        alignment: Alignment of the parts: "aligned", "unaligned", or "auto" to find out from the images.
        textures: Textures of pseudo-anomalies: "procedural" or a folder of images.
        seed: Seed of the hold-out, the initial weights and the order of images.
        hold_out: Number or share of the good images that are held out for the threshold, such as 30 or 0.3; by default
            "auto", as many as the rate needs with two unusual ones among them, from a tenth to a third; not for a
            dataset with validation images, which are held out. With the method linear, "auto" holds out none and
            cross-fits all images.
        false_alarm_rate: Share of good parts that may be called defective; also the default of a build of the run.
        skip_broken: Whether to skip and count image files that cannot be read.
        bit_depth: Depth of the values of image files with samples of 16 bits: 10, 12 or 14; by default 16, or the
            depth that a file records.
        fit: Way of an image to the model's size: "stretch", "pad", "crop" or "turn".
        roi: Region of interest in pixels of the image: "x,y,width,height", or corners "x,y x,y x,y" of a polygon.
        ignore: Image file that is not black where images are ignored; all images must have its size.
        tile: Size of tiles in pixels, 256 or "256x320" (height x width), to inspect images at their full resolution.
        overlap: Smallest overlap of tiles in pixels; by default 32.
        fusion: How rd and rd++ join their scales: "add", their default, or "multiply".
        early_stop: Number of epochs without a lower held-out loss after which the training ends; by default all epochs.
        tensorboard: Whether to write the losses of each epoch for TensorBoard, into a folder of the run.
        base: Finished run to go on with; it keeps its method, teacher, size and view, and is not changed.
        accelerator: "auto", "cpu" or "cuda".
        devices: Number of processes on this machine.
        nodes: Number of machines, joined by `fabric run` or torchrun.
        training_precision: "32-true", "16-mixed" or "bf16-mixed"; by default 32-true on a CPU, mixed on a GPU.
    """

    method: str
    variant: str
    layout: str
    teacher: str
    teacher_weights: str | os.PathLike[str]
    size: int | str | None
    preset: str
    epochs: int | None
    batch_size: int | None
    learning_rate: float | None
    loss: str | None
    alignment: str
    textures: str | os.PathLike[str]
    seed: int
    hold_out: int | float | str
    false_alarm_rate: float
    skip_broken: bool
    bit_depth: int | None
    fit: str
    roi: str | None
    ignore: str | os.PathLike[str] | None
    tile: int | str | None
    overlap: int | None
    fusion: str | None
    early_stop: int | None
    tensorboard: bool
    base: str | os.PathLike[str] | None
    accelerator: str
    devices: int
    nodes: int
    training_precision: str | None


class PlanOptions(TypedDict, total=False):
    """Options of `build` that choose what is built. The defaults are the same as for `edgead build`.

    Attributes:
        target: Name or TOML file of the target: "cpu", "intel", "intel-gpu", "intel-npu", "rtx-desktop", "jetson-orin",
            "jetson-thor", "datacenter" or a path; by default the target of the backend, or "cpu".
        precision: Precision of the model: "fp32", "fp16", "int8", or "auto" for the fastest one within the target's
            tolerances; by default "fp32", or the precision of the bundle.
        backend: "onnxruntime", "openvino", "openvino-gpu", "openvino-npu", "tensorrt" or "tensorrt-rtx"; by default the
            backend of the target.
        head: Implementation of an engine's anomaly map: "plugin", "standard" or "auto".
        calibrate_on: Calibration images for int8: "train", "noise", "defects" or "mixed".
        algorithm: Calibration algorithm for int8: "minmax", "entropy", "percentile" or "mse".
        quantize: Layers that int8 quantizes: "all" or "student".
        cache: File of the calibration for int8.
        false_alarm_rate: Share of good parts that may be called defective; by default the rate of the run or the
            bundle.
        confidence: Confidence that this share is not exceeded, from 0 to 1; by default 0.95, or the bundle's.
    """

    target: str | os.PathLike[str] | None
    precision: str | None
    backend: str | None
    head: str
    calibrate_on: str | None
    algorithm: str | None
    quantize: str | None
    cache: str | os.PathLike[str] | None
    false_alarm_rate: float | None
    confidence: float | None


class BuildOptions(PlanOptions, total=False):
    """Options of `build`: all of `PlanOptions`, and the images.

    Attributes:
        data: Datasets that a bundle was trained on, one for each part.
    """

    data: PathLike | Sequence[PathLike] | None


class StreamOptions(TypedDict, total=False):
    """Options of `stream`. The defaults are the same as for the command `edgead stream`.

    Attributes:
        watch: Whether to wait for new images in the source folder.
        wait: Time in seconds to wait for a source that is absent at the start; by default 0, infinity for no limit.
        threads: Number of CPU threads of one inference; by default one for each core.
        max_frames: Number of scored frames after which the stream ends.
        max_age: Largest age of a camera's image at its verdict, in seconds; by default 1, or three images of a slower
            camera.
        withhold_still: Images of a camera that stand still and get no verdict: "frozen" for those of a frozen camera,
            "always" for those of a line that stands still, too, or "never".
        trigger: Address of the trigger that announces the parts in front of a camera: "exec:COMMAND", "http:PORT",
            "mqtt://HOST/TOPIC", "modbus://HOST/?coil=1", "file:FOLDER" or "motion:". By default each frame gets a
            verdict.
        trigger_delay: Time from a trigger to the moment at which its part is in front of the camera, in seconds.
        part_frames: Number of frames of a part; by default 1.
        part_rejects: Number of its frames that must be rejected to reject the part; by default 1.
        serve: Address of a page with the state, the images and the controls of the stream: "127.0.0.1:8000", or for
            other machines "0.0.0.0:8000?token=FILE". By default there is none.
        feedback: Folder for images that viewers of the page mark, "FOLDER?max_mb=1000". By default there is none.
        part: Name of the part that the source shows; required if the model has several parts.
        threshold: Decision threshold to use instead of the model's own; a finite number above 0.
        roi: Part of the camera's image that the stream sees, "x,y,width,height" in pixels; by default the whole image.
    """

    watch: bool
    wait: float
    threads: int | None
    max_frames: int | None
    max_age: float | None
    withhold_still: str
    trigger: str | None
    trigger_delay: float
    part_frames: int
    part_rejects: int
    serve: str | None
    feedback: str | None
    part: str | None
    threshold: float | None
    roi: str | None


def checked_options(kind: type[Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Check options by name and type.

    Args:
        kind: TypedDict of the options.
        given: Options by name; None means that an option is not given.

    Returns:
        The options that are not None.

    Raises:
        InputError: If an option is unknown or its value has another type.
    """
    hints = get_type_hints(kind)
    for name, value in given.items():
        if name not in hints:
            raise InputError(f"unknown option {name!r}", hint=f"give one of {', '.join(hints)}")
        checked(name, value, hints[name])
    return {name: value for name, value in given.items() if value is not None}


def checked(name: str, value: Any, hint: Any) -> None:
    """Check the type of one argument.

    Args:
        name: Name of the argument.
        value: Value that was given.
        hint: Type or union of types. The items of a container are not checked.

    Raises:
        InputError: If the value has another type.
    """
    members = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    kinds = tuple(get_origin(member) or member for member in members)
    # In Python True is an int, and 1 is no float.
    if (isinstance(value, bool) and bool not in kinds) or not (
        isinstance(value, kinds) or (float in kinds and isinstance(value, int))
    ):
        wanted = " or ".join("None" if kind is type(None) else kind.__name__ for kind in kinds)
        raise InputError(
            f"{name} is {str(value)[:80]!r} of type {type(value).__name__}", hint=f"give {wanted}"
        )


def path_of(value: Any, name: str) -> Path:
    """Return the path of an argument: a path, or an opened run or bundle.

    Args:
        value: Path as `str` or `os.PathLike`, or an object with a `path`.
        name: Name of the argument.

    Returns:
        The path, as it was given.

    Raises:
        InputError: If the value is neither.
    """
    path = getattr(value, "path", value)
    if isinstance(path, str | os.PathLike) and not isinstance(fspath := os.fspath(path), bytes) and fspath:
        return Path(path)
    raise InputError(f"{name} is {str(value)[:80]!r} of type {type(value).__name__}", hint="give a path")


def paths_of(value: Any, name: str) -> list[Path]:
    """Return the paths of an argument: one path, or a list of paths.

    Args:
        value: Path, or list of paths.
        name: Name of the argument.

    Returns:
        The paths, one or more.

    Raises:
        InputError: If the value is neither, or an empty list.
    """
    if isinstance(value, list | tuple):
        if not value:
            raise InputError(f"{name} is an empty list", hint="give 1 path or more")
        return [path_of(one, name) for one in value]
    return [path_of(value, name)]


def check_build_source(source: Path, data: Sequence[Path], given: Mapping[str, Any]) -> bool:
    """Check that the options of `build` fit its source, before any work.

    Args:
        source: Directory of a run or a bundle.
        data: Datasets that the user gave.
        given: Other options that the user gave, by the names of `BuildOptions`.

    Returns:
        True for a bundle, False for anything else.

    Raises:
        InputError: If the source is a file, a run comes with datasets, or a bundle comes without datasets and with
            options that need images.
    """
    if source.is_file():
        raise InputError(
            f"{source} is a file", hint="give the directory that edgead train or edgead build wrote"
        )
    restore_directory(source)
    is_bundle = (source / "manifest.json").is_file()
    if data and not is_bundle:
        raise InputError(f"{source} is no bundle", hint="leave out --data, a run knows its own images")
    of_images = sorted(given.keys() - {"backend", "target", "head"})
    if is_bundle and not data and of_images:
        options = " and ".join(f"--{name.replace('_', '-')}" for name in of_images)
        raise InputError(
            f"{source} is a bundle",
            hint=f"give the images that it was trained on, with --data, or leave out {options} to compile it as it is",
        )
    return is_bundle
