"""Tensors of other libraries in our modules: the same numbers as in their networks, or a refusal."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import nn

from edgead.errors import InputError
from edgead.imaging.preprocess import ModelSize
from edgead.models import IMPORTED, METHODS, create_method, hyperparameters_of
from edgead.models.base import DistillationMethod
from edgead.models.components.teacher import Teacher, create_teacher
from edgead.models.imported import ANOMALIB_RD, ANOMALIB_STFPM, RD4AD, Names, load_imported
from edgead.training.session import TorchSession
from tests.helpers.other_libraries import (
    enlarged_maps,
    pixels,
    random_state,
    resnet18,
    shapes_of,
    student_of_rd,
)

SIZE = ModelSize(96, 64)
RD18, STFPM18 = "anomalib ReverseDistillation resnet18", "anomalib Stfpm resnet18"
# How far smoothing with sigma 4 looks.
REACH_PX = 16


def imported(method: str, state: dict[str, torch.Tensor], names: Names) -> DistillationMethod:
    made = create_method(
        method, create_teacher("resnet18", "random"), SIZE, losses(method), preset="paper"
    ).eval()
    load_imported(made, state, names)
    return made


def losses(method: str) -> str:
    return "per-position" if method.startswith("stfpm") else "flattened"


@pytest.fixture(scope="module")
def images():
    shape = (2, SIZE.height_px, SIZE.width_px, 3)
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


def assert_features(method, images, teacher, student):
    with torch.no_grad():
        found = method.features(images)
    for one, other in zip((*found[0], *found[1]), (*teacher, *student), strict=True):
        assert one.shape == other.shape
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5 * float(other.abs().max()))


@pytest.mark.parametrize(("method", "fuse"), [("rd-anomalib", "sum"), ("rd-anomalib-multiply", "prod")])
def test_reverse_distillation_of_anomalib(images, method, fuse):
    state = random_state(RD18)
    made = imported(method, state, ANOMALIB_RD)
    teacher = resnet18(pixels(images), state, "model.encoder.feature_extractor.")
    student = student_of_rd(teacher, state, "model.bottleneck.", "model.decoder.")
    assert_features(made, images, teacher, student)
    maps = enlarged_maps(teacher, student, (SIZE.height_px, SIZE.width_px), align_corners=True)
    fused = getattr(np, fuse)(maps.numpy().astype(np.float64), axis=0)
    # anomalib pads like SciPy's "mirror", which differs from ours as far as the smoothing reaches.
    expected = gaussian_filter(fused, (0, 0, 4, 4), mode="mirror")
    inside = (..., slice(REACH_PX, -REACH_PX), slice(REACH_PX, -REACH_PX))
    found = TorchSession(made).infer(images.numpy()).anomaly_map
    np.testing.assert_allclose(found[inside], expected[inside], rtol=0, atol=1e-5)
    assert np.abs(found - expected).max() > 1e-4


def test_stfpm_of_anomalib(images):
    state = random_state(STFPM18)
    made = imported("stfpm-anomalib", state, ANOMALIB_STFPM)
    teacher = resnet18(pixels(images), state, "model.teacher_model.feature_extractor.")
    student = resnet18(pixels(images), state, "model.student_model.feature_extractor.")
    assert_features(made, images, teacher, student)
    maps = enlarged_maps(teacher, student, (SIZE.height_px, SIZE.width_px), align_corners=False).prod(0)
    found = TorchSession(made).infer(images.numpy())
    np.testing.assert_allclose(found.anomaly_map, maps.numpy(), rtol=0, atol=1e-5)
    np.testing.assert_allclose(found.anomaly_score, maps.amax((1, 2, 3)).numpy(), rtol=0, atol=1e-5)


def test_rd4ad(images):
    prefixes = {"model.bottleneck.": "bn.", "model.decoder.": "decoder."}
    theirs = random_state(RD18)
    state = {
        key.replace(old, new): tensor
        for key, tensor in theirs.items()
        for old, new in prefixes.items()
        if key.startswith(old)
    }
    made = imported("rd", state, RD4AD)
    with torch.no_grad():
        teacher = made.teacher(images)
    student = student_of_rd(teacher, state, "bn.", "decoder.")
    assert_features(made, images, teacher, student)
    maps = enlarged_maps(teacher, student, (SIZE.height_px, SIZE.width_px), align_corners=True).sum(0)
    expected = gaussian_filter(maps.numpy().astype(np.float64), (0, 0, 4, 4))
    found = TorchSession(made).infer(images.numpy()).anomaly_map
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("method", "backbone", "title", "names"),
    [
        *(
            ("rd-anomalib", name, f"anomalib ReverseDistillation {name}, its bottleneck", ANOMALIB_RD)
            for name in ("resnet34", "resnet50", "wide_resnet50_2")
        ),
        ("rd", "wide_resnet50_2", "RD4AD wide_resnet50_2", RD4AD),
    ],
)
@pytest.mark.filterwarnings("ignore:for .*copying from a non-meta parameter")
def test_wider_and_deeper_students_have_their_shapes(method, backbone, title, names):
    """Every tensor except the teacher's and, for anomalib, the decoder's, which both libraries share."""
    # A teacher with shapes only, because only its name and channels are read.
    teacher = Teacher.__new__(Teacher)
    nn.Module.__init__(teacher)
    teacher.name = teacher.architecture = backbone
    teacher.channels = (64, 128, 256) if backbone == "resnet34" else (256, 512, 1024)
    with torch.device("meta"):
        made = create_method(method, teacher, SIZE, "flattened", preset="paper")
    state = {name: torch.zeros(()).expand(shape) for name, shape in shapes_of(title).items()}
    if names is RD4AD:
        load_imported(made, state, names)
        return
    with pytest.raises(InputError) as refusal:
        load_imported(made, state, names)
    # All tensors were accepted, and the decoder's first is missing.
    assert "'decoder.stages.0.0.bn1.bias'" in refusal.value.what


def changed(name: str, tensor: torch.Tensor | None) -> dict[str, torch.Tensor]:
    state = random_state(STFPM18)
    state.pop(name, None)
    return state if tensor is None else {**state, name: tensor}


FIRST = "model.student_model.feature_extractor.conv1.weight"
LAYER4 = "model.student_model.feature_extractor.layer4.0.conv1.weight"


@pytest.mark.parametrize(
    ("name", "tensor", "values"),
    [
        (FIRST, None, ("'student.layers.model.conv1.weight'",)),
        (FIRST, torch.zeros(64, 3, 3, 3), (f"'{FIRST}'", "64x3x3x3", "64x3x7x7")),
        (FIRST, torch.full((64, 3, 7, 7), torch.nan), (f"'{FIRST}'",)),
        (FIRST, torch.zeros(64, 3, 7, 7, dtype=torch.complex64), (f"'{FIRST}'", "torch.complex64")),
        (FIRST, torch.zeros(64, 3, 7, 7).to_sparse(), (f"'{FIRST}'", "torch.sparse_coo")),
        (FIRST, "weights", (f"'{FIRST}'", "64x3x7x7")),
        (LAYER4, torch.zeros(1), (f"'{LAYER4}'",)),
        ("model.attention.weight", torch.zeros(1), ("'model.attention.weight'",)),
        ("student.layers.model.conv1.bias", torch.zeros(64), ("'student.layers.model.conv1.bias'",)),
    ],
)
def test_what_does_not_fit_is_refused_by_its_name(name, tensor, values):
    with pytest.raises(InputError) as refusal:
        imported("stfpm-anomalib", changed(name, tensor), ANOMALIB_STFPM)
    assert all(value in refusal.value.what for value in values)
    # Only a tensor of another shape or kind is compared with the expected shape.
    assert ("64x3x7x7" in refusal.value.what) == (len(values) > 1)
    assert "\n" not in str(refusal.value)


def test_nobody_trains_an_imported_method():
    assert not IMPORTED.keys() & METHODS.keys()
    for name in IMPORTED:
        with pytest.raises(InputError) as refusal:
            hyperparameters_of(name, "edge")
        assert f"{name!r}" in refusal.value.what
        assert refusal.value.hint.endswith(f"--method {' or '.join(METHODS)}")
