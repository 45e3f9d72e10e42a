"""Find out the model of another library's checkpoint: its method, its image size and its options.

anomalib  A checkpoint of Lightning (.ckpt) has the tensors by name, the arguments of the model and the preprocessing.
          A module that `anomalib export` pickled (.pt) has the same in its attributes.
RD4AD     A checkpoint {"bn": ..., "decoder": ...} (.pth) has only the student, for images that RD4AD's scripts prepare.

An option that would change the scores and that edgead does not support is refused with a message that names it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from edgead.errors import InputError
from edgead.imaging.preprocess import ModelSize
from edgead.importers.unpickle import OpaqueObject, read_opaque, tensors_of
from edgead.models.imported import ANOMALIB_RD, ANOMALIB_STFPM, MIRRORED_BACKBONES, RD4AD, Names

LAYERS = ("layer1", "layer2", "layer3")
# Normalisation of ImageNet for pixels from 0 to 1, which all of these backbones use.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Image size of anomalib's default preprocessing and of RD4AD's scripts.
DEFAULT_SIZE = ModelSize(256, 256)

# Other models of anomalib, by a prefix of tensor names that only this model has.
_OTHER_MODELS = {
    "model.gaussian.": "Padim",
    "model.memory_bank": "Patchcore",
    "model.fast_flow_blocks.": "Fastflow",
    "model.reconstructive_subnetwork.": "Draem",
    "model.ae.": "EfficientAd",
}
# RD4AD's checkpoints do not name the ResNet. The shape of the first convolution of the embedding and the number of the
# decoder's last block at stride 8 identify it.
_RD4AD_BACKBONES: dict[tuple[tuple[int, ...], int], str] = {
    ((512, 768, 3, 3), 1): "resnet18",
    ((512, 768, 3, 3), 3): "resnet34",
    ((512, 3072, 1, 1), 3): "resnet50",
    ((1024, 3072, 1, 1), 3): "wide_resnet50_2",
}


@dataclass(frozen=True, slots=True)
class ExternalCheckpoint:
    """A model of another library.

    Attributes:
        source: Name of the library and its name of the model.
        method: Name of the method in edgead, a key of METHODS or IMPORTED.
        backbone: timm's name of the teacher.
        size: Image size of the model.
        tensors: Tensors by the library's names.
        names: Translation of the library's names.
        highest_score: Highest score that the library saw in its validation; None if the checkpoint does not hold it.
    """

    source: str
    method: str
    backbone: str
    size: ModelSize
    tensors: Mapping[str, Any]
    names: Names
    highest_score: float | None


def read_external_checkpoint(file: Path) -> ExternalCheckpoint:
    """Read a checkpoint of another library. Code in the file is not executed.

    Args:
        file: Checkpoint of anomalib (.ckpt, .pt) or of RD4AD (.pth).

    Returns:
        The model.

    Raises:
        InputError: The file is damaged or another kind of file, or the model or one of its options is not supported.
    """
    content = read_opaque(file)
    if isinstance(content, dict):
        if {"bn", "decoder"} <= content.keys():
            return _rd4ad(content, file)
        if isinstance(module := content.get("model"), OpaqueObject):
            return _exported(module, file)
        if isinstance(content.get("state_dict"), dict):
            return _checkpoint(content, file)
    raise InputError(
        f"{file} is neither a checkpoint of anomalib nor of RD4AD",
        hint="give a .ckpt or .pt file of anomalib, or a .pth file of RD4AD with bn and decoder",
    )


def _rd4ad(content: dict[str, Any], file: Path) -> ExternalCheckpoint:
    """Read a checkpoint that the scripts of RD4AD wrote."""
    tensors = {
        f"{part}.{name}": tensor
        for part in ("bn", "decoder")
        if isinstance(content[part], dict)
        for name, tensor in content[part].items()
    }
    first = tensors.get("bn.bn_layer.0.conv1.weight")
    blocks = [
        int(name.split(".")[2])
        for name in tensors
        if name.startswith("decoder.layer2.") and name.split(".")[2].isdecimal()
    ]
    key = (tuple(first.shape) if isinstance(first, Tensor) else (), max(blocks, default=0))
    # At stride 8 a ResNet18 has 2 blocks, the others have 4.
    if (backbone := _RD4AD_BACKBONES.get(key)) is None:
        raise InputError(
            f"{file} holds a student of RD4AD for a backbone that edgead does not support",
            hint=f"give a checkpoint with one of {', '.join(MIRRORED_BACKBONES)}",
        )
    return ExternalCheckpoint("RD4AD", "rd", f"{backbone}.tv_in1k", DEFAULT_SIZE, tensors, RD4AD, None)


def _exported(module: OpaqueObject, file: Path) -> ExternalCheckpoint:
    """Read a pickled Lightning module of anomalib."""
    try:
        tensors = tensors_of(module)
    except ValueError as error:
        raise InputError(
            f"{file} holds {module.name}, which is {error}", hint="give the .ckpt file of the same training"
        ) from error
    if module.name not in ("ReverseDistillation", "Stfpm"):
        raise _other_model(file, module.name)
    parts = module.state.get("_modules", {})
    network = parts.get("model")
    if isinstance(network, OpaqueObject) and network.state.get("tiler") is not None:
        raise _lacks(file, "a tiler")
    processor = parts.get("pre_processor")
    transform = _attribute(processor, "transform") if isinstance(processor, OpaqueObject) else None
    return _anomalib(file, module.name, module.state.get("_hparams"), transform, tensors)


def _checkpoint(content: dict[str, Any], file: Path) -> ExternalCheckpoint:
    """Read a checkpoint of Lightning with a module of anomalib."""
    tensors = {str(name): tensor for name, tensor in content["state_dict"].items()}
    options = content.get("hyper_parameters")
    for beginning, name in _OTHER_MODELS.items():
        if any(key.startswith(beginning) for key in tensors):
            raise _other_model(file, name)
    if any(key.startswith("model.teacher_model.") for key in tensors):
        name = "Stfpm"
    elif any(key.startswith("model.bottleneck.") for key in tensors):
        name = "ReverseDistillation"
    else:
        raise _other_model(file, "an unknown model")
    if "anomalib_pre_processor_config" in content:
        config = content["anomalib_pre_processor_config"]
        transform = config.get("transform") if isinstance(config, dict) else None
    else:
        # Before anomalib 2.7 the preprocessing was an argument of the model, and `True` was the default preprocessing.
        given = options.get("pre_processor") if isinstance(options, dict) else None
        transform = _attribute(given, "transform") if isinstance(given, OpaqueObject) else given
    return _anomalib(file, name, options, transform, tensors)


def _anomalib(
    file: Path, name: str, options: Any, transform: Any, tensors: Mapping[str, Any]
) -> ExternalCheckpoint:
    """Check the options of a model of anomalib and describe it; InputError names an option that is not supported."""
    if not isinstance(options, dict):
        raise InputError(
            f"{file} has no arguments of its model (hyper_parameters)", hint="save the model with anomalib 2"
        )
    backbone, layers = options.get("backbone"), options.get("layers")
    if not isinstance(layers, list | tuple) or tuple(layers) != LAYERS:
        raise _lacks(file, f"layers {layers!r}", f"train it with {', '.join(LAYERS)}")
    if not isinstance(backbone, str):
        raise _lacks(file, f"backbone {backbone!r}", "train it with a backbone that has a name")
    size = DEFAULT_SIZE if transform is True else _size(transform, file)
    highest = tensors.get("post_processor.image_max")
    highest_score = math.nan
    if isinstance(highest, Tensor) and highest.numel() == 1 and highest.is_floating_point():
        highest_score = float(highest)
    if name == "Stfpm":
        method, names = "stfpm-anomalib", ANOMALIB_STFPM
    else:
        if backbone not in MIRRORED_BACKBONES:
            raise _lacks(
                file, f"backbone {backbone!r}", f"train it with one of {', '.join(MIRRORED_BACKBONES)}"
            )
        mode = options.get("anomaly_map_mode")
        # A member of an enumeration is pickled as its class and its value.
        mode = mode.args[0] if isinstance(mode, OpaqueObject) and mode.args else mode
        if mode not in ("add", "multiply"):
            raise _lacks(file, f"anomaly_map_mode {mode!r}", "train it with add or multiply")
        method, names = ("rd-anomalib" if mode == "add" else "rd-anomalib-multiply"), ANOMALIB_RD
    return ExternalCheckpoint(
        f"anomalib {name}",
        method,
        backbone,
        size,
        tensors,
        names,
        highest_score if math.isfinite(highest_score) else None,
    )


def _size(transform: Any, file: Path) -> ModelSize:
    """Return the image size of a preprocessing, which must be a resize and the normalisation of ImageNet."""
    steps = _steps(transform)
    for name, options in steps:
        if name == "Normalize":
            colours = (options.get("mean"), options.get("std"))
            if [tuple(x) if isinstance(x, list) else x for x in colours] != [MEAN, STD]:
                raise _lacks(
                    file,
                    f"a normalisation with mean {colours[0]} and std {colours[1]}",
                    f"train it with mean {MEAN} and std {STD}",
                )
        elif name != "Resize":
            raise _lacks(file, f"the preprocessing step {name}")
    if [name for name, _ in steps] != ["Resize", "Normalize"]:
        raise _lacks(
            file,
            "preprocessing steps other than a Resize and a Normalize",
            "train it with a Resize and then a Normalize",
        )
    size = steps[0][1].get("size")
    if not isinstance(size, list | tuple) or [type(x) for x in size] != [int, int]:
        raise _lacks(file, f"a Resize to {size!r}", "train it with a Resize to a height and a width")
    return ModelSize(*size)


def _steps(transform: Any) -> list[tuple[str, Mapping[str, Any]]]:
    """List name and options of each step of a torchvision preprocessing, from its description or its pickle."""
    if isinstance(transform, OpaqueObject):
        name, options = transform.name, transform.state
    elif isinstance(transform, dict) and isinstance(transform.get("init_args"), dict):
        name, options = str(transform.get("class_path")).rpartition(".")[2], transform["init_args"]
    else:
        return []
    if name != "Compose":
        return [(name, options)]
    steps = options.get("transforms")
    # The libraries never nest one Compose in another, so a nested one is dropped and the caller refuses the rest.
    return (
        [step for part in steps for step in _steps(part) if step[0] != "Compose"]
        if isinstance(steps, list)
        else []
    )


def _attribute(module: OpaqueObject, name: str) -> Any:
    """Return an attribute of a pickled module, which may be a module itself."""
    parts = module.state.get("_modules")
    return parts[name] if isinstance(parts, dict) and name in parts else module.state.get(name)


def _lacks(file: Path, option: str, instead: str = "train it without this option") -> InputError:
    """Create the error for an option that edgead does not support."""
    return InputError(f"{file} has {option}, which edgead does not support", hint=instead)


def _other_model(file: Path, name: str) -> InputError:
    """Create the error for a model of anomalib that edgead cannot import."""
    return InputError(
        f"{file} holds {name} of anomalib, which edgead cannot import",
        hint="give a checkpoint of ReverseDistillation or Stfpm",
    )
