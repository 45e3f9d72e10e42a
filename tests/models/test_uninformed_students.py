"""Uninformed students: receptive fields, each loss by hand, what the stages train and keep, the map, the graphs."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from scipy.stats import spearmanr
from torch import nn

from edgead.data.pseudo_anomalies.rectangles import synthetic_defects
from edgead.data.synthetic.dataset import DEFECTS, add_defect
from edgead.export.from_torch import onnx_from_method
from edgead.export.graph_sections import CONVOLUTIONS, sections_of
from edgead.export.precision.float16 import float16_from_float32
from edgead.imaging.anomaly_map import anomaly_map, bilinear_matrix, cosine_map
from edgead.imaging.preprocess import ModelSize
from edgead.models import METHODS, create_method
from edgead.models.base import PRESETS
from edgead.models.components.descriptors import (
    compactness,
    lifted,
    pretrained_descriptors,
    squared_distance,
)
from edgead.models.components.patch_networks import pixels_of
from edgead.models.uninformed_students import UninformedStudents
from edgead.training.loop import Trainer, TrainingImages
from edgead.training.session import TorchSession
from tests.helpers.int8_graph import int8_graph
from tests.helpers.training_parts import cpu, good_parts, tiny_config

STRIDES = (4, 8, 16)
SIZE = ModelSize(64, 64)
PARTS = good_parts(24)
TRAIN, HELD_OUT = torch.from_numpy(PARTS[:12]), PARTS[12:]


def made(preset: str = "edge", size: ModelSize = SIZE, alignment: str = "unaligned") -> UninformedStudents:
    torch.manual_seed(0)
    teacher = METHODS["uninformed-students"].create_teacher("test_efficientnet", "random")
    method = create_method("uninformed-students", teacher, size, "per-position", alignment, preset)
    assert isinstance(method, UninformedStudents)
    return method


def train(method: UninformedStudents, stage: int, steps: int) -> list[float]:
    """A stage in short, as the loop trains it; the losses of its steps."""
    features = method.teacher_features(TRAIN)
    method.enter_stage(stage)
    method.train()
    optimizer = method.optimizer(1e-2)
    losses = []
    for step in range(steps):
        chosen = torch.arange(6 * (step % 2), 6 * (step % 2) + 6)
        loss = method(TRAIN[chosen], [x[chosen] for x in features])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    method.eval()
    with torch.no_grad():
        method.finish_stage((TRAIN[i : i + 5], [x[i : i + 5] for x in features]) for i in (0, 5, 10))
    return losses


@pytest.fixture(scope="module", params=["unaligned", "aligned"])
def trained(request) -> UninformedStudents:
    method = made(alignment=request.param)
    train(method, 0, 30)
    train(method, 1, 90)
    return method


# The networks


def test_the_paper_has_wider_networks():
    edge, paper = made(), made("paper")
    assert [y.shape[1:] for y in edge.descriptors(TRAIN[:1])] == [(64, 64 // s, 64 // s) for s in STRIDES]
    assert [y.shape[1:] for y in paper.descriptors(TRAIN[:1])] == [(128, 64 // s, 64 // s) for s in STRIDES]


# The losses


def test_the_squared_distance_is_that_of_vectors():
    one = torch.tensor([[1.0, 2.0], [0.0, 0.0]]).T[None, :, :, None]
    other = torch.tensor([[4.0, 6.0], [1.0, 1.0]]).T[None, :, :, None]
    assert float(squared_distance(one, other)) == pytest.approx((25.0 + 2.0) / 2.0)


def test_compactness_by_hand():
    x, y = torch.tensor([1.0, -1.0, 1.0, -1.0]), torch.tensor([1.0, 1.0, -1.0, -1.0])
    # x and y are not correlated, each with their sum by sqrt(1/2); each pair counts twice. No scale, no mean matters.
    three = torch.stack([x, 7.0 * y, 1e-3 * (x + y) + 5.0])
    assert float(compactness(three.reshape(1, 3, 2, 2))) == pytest.approx(2.0, abs=1e-3)
    assert float(compactness(three[:2].reshape(1, 2, 2, 2))) == pytest.approx(0.0, abs=1e-6)
    # What correlates the other way round is redundant too.
    assert float(compactness(torch.stack([x, -x]).reshape(1, 2, 2, 2))) == pytest.approx(2.0)


def test_compactness_is_over_the_batch_as_numpy_has_it():
    descriptors = torch.randn(3, 5, 4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    descriptors[:, 1] += descriptors[:, 0]
    c = np.corrcoef(descriptors.numpy().transpose(1, 0, 2, 3).reshape(5, -1))
    expected = sum(c[i, j] ** 2 for i in range(5) for j in range(5) if i != j)
    assert float(compactness(descriptors)) == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("loss", ["distance", "compactness", "students"])
def test_gradients_are_those_of_differences(loss):
    generator = torch.Generator().manual_seed(2)
    one, other = (torch.randn(2, 3, 2, 3, dtype=torch.float64, generator=generator) for _ in range(2))
    one.requires_grad_()
    if loss == "distance":
        assert torch.autograd.gradcheck(lambda x: squared_distance(x, other), (one,))
    elif loss == "compactness":
        assert torch.autograd.gradcheck(compactness, (one,))
    else:
        method = made()
        assert torch.autograd.gradcheck(lambda x: method.loss([other] * 3, [x, *[2.0 * x] * 8]), (one,))


def test_the_students_loss_is_the_sum_over_all_nine():
    method = made()
    teachers = [torch.zeros(2, 4, 8, 8), torch.ones(2, 4, 4, 4), torch.full((2, 4, 2, 2), 2.0)]
    students = [torch.full_like(y, float(m)) for m in range(3) for y in teachers]
    # Four components: for each student m and each size 4 (m - y)^2.
    expected = sum(4.0 * (m - y) ** 2 for m in range(3) for y in range(3))
    assert float(method.loss(teachers, students)) == pytest.approx(expected)


def test_finer_features_are_averaged_and_coarser_ones_repeated():
    generator = torch.Generator().manual_seed(3)
    features = [
        torch.randn(2, c, 32 // s, 32 // s, generator=generator)
        for c, s in zip((2, 3, 1), STRIDES, strict=True)
    ]
    got = pretrained_descriptors(features, torch.Size((4, 4))).double().numpy()
    fine, same, coarse = (x.double().numpy() for x in features)
    expected = np.concatenate(
        [
            fine.reshape(2, 2, 4, 2, 4, 2).mean((3, 5)),
            same,
            coarse.repeat(2, axis=2).repeat(2, axis=3),
        ],
        axis=1,
    )
    expected -= expected.mean((0, 2, 3), keepdims=True)
    expected /= expected.std((0, 2, 3), keepdims=True)
    np.testing.assert_allclose(got, expected, rtol=0.0, atol=1e-4)


@pytest.mark.parametrize(
    ("training", "count", "kept", "changed"),
    [(True, 5, slice(2), slice(2, 5)), (True, 1, slice(1), slice(1)), (False, 5, slice(5), slice(0))],
)
def test_the_teachers_see_good_images_and_in_training_pseudo_anomalous_ones(training, count, kept, changed):
    method = made().train(training)
    images, shown = TRAIN[:count], []
    method.disturbed = lambda given, rng: (shown.append(given), (255 - given, given[..., 0] > 0))[1]
    features = method.teacher_features(images)
    with torch.no_grad():
        got = float(method(images, features))
        batch = torch.cat([images[kept], 255 - images[changed]])
        targets = method.teacher_features(batch)
        expected = 0.0
        for patch_teacher, decoder in zip(method.patch_teachers, method.decoders, strict=True):
            descriptors = patch_teacher(pixels_of(batch))
            decoded, target = (
                decoder(descriptors),
                pretrained_descriptors(targets, descriptors.shape[2:]),
            )
            expected += float((decoded - target).square().sum(1).mean() + compactness(descriptors))
    assert got == pytest.approx(expected, rel=1e-5)
    assert [len(one) for one in shown] == ([len(images[changed])] if training else [])
    assert all(np.array_equal(one, images[changed].numpy()) for one in shown)


def test_pseudo_anomalies_are_drawn_from_the_seed_in_training():
    method = made().train()
    features = method.teacher_features(TRAIN[:3])
    with torch.no_grad():
        torch.manual_seed(1)
        one, other = method(TRAIN[:3], features), method(TRAIN[:3], features)
        torch.manual_seed(1)
        assert one != other
        assert one == method(TRAIN[:3], features)


def test_one_image_is_shown_with_a_pseudo_anomaly():
    method = made("paper").train()
    shown = []
    method.disturbed = lambda given, rng: (shown.append(len(given)), (given, given[..., 0] > 0))[1]
    assert torch.isfinite(method(TRAIN[:1], method.teacher_features(TRAIN[:1])))
    assert shown == [1]


# The stages


def test_each_stage_trains_its_own_networks_and_lowers_its_loss():
    method = made()
    for stage, trained_by_it in ((0, ("patch_teachers.", "decoders.")), (1, ("students.",))):
        method.enter_stage(stage)
        before = {key: value.clone() for key, value in method.named_parameters()}
        losses = train(method, stage, 6)
        assert losses[-1] < losses[0]
        for key, value in method.named_parameters():
            assert torch.equal(value, before[key]) != key.startswith(trained_by_it), (stage, key)
        assert {id(p) for p in method.trained()} == {
            id(p) for key, p in method.named_parameters() if key.startswith(trained_by_it)
        }


@pytest.mark.parametrize("preset", PRESETS)
def test_the_loop_trains_both_stages_and_lets_each_keep_what_it_found(preset, tmp_path):
    method = made(preset)
    config = tiny_config(tmp_path, method="uninformed-students", preset=preset, epochs=2, batch_size=2)
    images = TrainingImages(TRAIN[:2], TRAIN[2:3])
    fitted = Trainer(cpu(), method, config.schedule, images, tmp_path / "c.pt").fit()
    assert [row["stage"] for row in fitted.metrics] == [0, 1]
    for whitened in method.descriptors(TRAIN[:2]):
        torch.testing.assert_close(
            whitened.mean((0, 2, 3)), torch.zeros(whitened.shape[1]), atol=1e-3, rtol=0.0
        )
    assert all((unit != 1.0).all() for pair in method.units() for unit in pair)


def test_students_differ_in_their_start_alone():
    method = made()
    seen = pixels_of(TRAIN[:1])
    for k in range(3):
        outputs = [student(seen) for student in method.students[k::3]]
        assert len(outputs) == 3
        assert not torch.allclose(outputs[0], outputs[1])
        assert not torch.allclose(outputs[1], outputs[2])
        layers = [
            [p.shape for p in network.parameters()]
            for network in (method.patch_teachers[k], *method.students[k::3])
        ]
        assert all(shapes == layers[0] for shapes in layers)


def test_descriptors_are_whitened_over_all_training_images():
    method = made()
    train(method, 0, 1)
    whitened = method.descriptors(TRAIN)
    for k, patch_teacher in enumerate(method.patch_teachers):
        with torch.no_grad():
            raw = patch_teacher(pixels_of(TRAIN)).double().numpy()
        mean, std = raw.mean((0, 2, 3)), raw.std((0, 2, 3))
        np.testing.assert_allclose(method.descriptor_mean[k].numpy(), mean, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(method.descriptor_variance[k].numpy(), std**2, rtol=1e-4)
        expected = (raw - mean[:, None, None]) / np.sqrt(std**2 + 1e-6)[:, None, None]
        np.testing.assert_allclose(whitened[k].detach().numpy(), expected, rtol=0.0, atol=1e-3)


def test_a_component_that_is_always_the_same_is_left_out_of_whitening():
    method = made()
    for patch_teacher in method.patch_teachers:
        nn.init.zeros_(patch_teacher[-1].weight)
    with torch.no_grad():
        method.eval().finish_stage([(TRAIN, [])])
    assert all(torch.isfinite(y).all() and y.abs().max() < 1e-3 for y in method.descriptors(TRAIN))


def errors_and_variances(method: UninformedStudents, images: torch.Tensor) -> list[tuple[np.ndarray, ...]]:
    """e and v of every size, (N, H_k, W_k) float64, as the paper writes them."""
    with torch.no_grad():
        descriptors = method.descriptors(images)
        students = [x.double().numpy() for x in method.student_features(images, descriptors)]
    found = []
    for k, y in enumerate(descriptors):
        mine = students[k::3]
        mean = sum(mine) / 3.0
        error = ((mean - y.double().numpy()) ** 2).sum(1)
        variance = sum((s**2).sum(1) for s in mine) / 3.0 - (mean**2).sum(1)
        found.append((error, variance))
    return found


def test_units_are_spreads_or_the_means_at_each_position_over_all_training_images(trained):
    found = errors_and_variances(trained, TRAIN)
    for pair, units in zip(found, trained.units(), strict=True):
        for value, unit in zip(pair, units, strict=True):
            expected = value.mean(0) if trained.by_position else np.full((1, 1), value.std())
            np.testing.assert_allclose(unit.numpy(), expected, rtol=1e-3)


def test_the_sphere_is_larger_where_students_come_close():
    method = made(alignment="aligned")
    with torch.no_grad():
        for i, student in enumerate(method.students):
            student.load_state_dict(method.patch_teachers[i % 3].state_dict())
            student[-1].weight.mul_(1.05)
        method.eval().enter_stage(1)
        method.finish_stage([(TRAIN, [])])
    # e is 0.05^2 |y|^2, so the mean of |y|^2 over that of e is 400 at each position, more than 64 components.
    assert float(method.flatness) == pytest.approx(1.0 / (256.0 * 400.0), rel=1e-3)


def test_a_place_that_is_always_the_same_does_not_rule_the_map():
    images = TRAIN.clone()
    images[:, :32] = 77
    # Not square, so that no height is taken for a width.
    method = made(size=ModelSize(64, 32), alignment="aligned").eval()
    with torch.no_grad():
        for i, student in enumerate(method.students):
            student.load_state_dict(method.patch_teachers[i % 3].state_dict())
            # Right where all is of that colour, wrong elsewhere.
            student[-1].weight.mul_(1.05)
            student[-1].bias.copy_(-0.05 * method.patch_teachers[i % 3](pixels_of(images[:1]))[0, :, 1, 1])
        method.enter_stage(1)
        method.finish_stage([(images[:, :, :32], [])])
    for stride, (error_unit, _) in zip(STRIDES, method.units(), strict=True):
        assert error_unit.shape == (64 // stride, 32 // stride)
        errors = errors_and_variances(method, images[:, :, :32])[STRIDES.index(stride)][0].mean(0)
        # Patches of 65 pixels see farther than the colour goes.
        assert errors[1, 1] < 1e-3 * errors.mean() or stride == 16
        np.testing.assert_allclose(error_unit.numpy(), np.maximum(errors, 0.01 * errors.mean()), rtol=1e-2)


def test_the_paper_has_units_of_all_positions():
    assert [unit.shape for pair in made("paper", alignment="aligned").units() for unit in pair] == [
        (1, 1)
    ] * 6


# The map


def make_images() -> np.ndarray:
    """Two good parts, one with a defect, and noise: (4, 64, 64, 3) uint8."""
    rng = np.random.default_rng(5)
    damaged = add_defect(HELD_OUT[0], DEFECTS[0], rng)[0]
    return np.stack([HELD_OUT[0], HELD_OUT[1], damaged, rng.integers(0, 256, (64, 64, 3), np.uint8)])


def squared_radius(method: UninformedStudents) -> float:
    """256 times the largest mean of |y|^2 / E, or of |y|^2 where that is larger."""
    with torch.no_grad():
        lengths = [(y.double().numpy() ** 2).sum(1) for y in method.descriptors(TRAIN)]
    over = 0 if method.by_position else (0, 1, 2)
    ratios = [
        (length.mean(over) / unit.numpy()).max()
        for length, (unit, _) in zip(lengths, method.units(), strict=True)
    ]
    return 256.0 * max(64.0, *ratios)


def published(method: UninformedStudents, images: np.ndarray) -> list[np.ndarray]:
    """e / E + v / V of every size: where the parts are unaligned, the paper's map of that size except a constant."""
    found = errors_and_variances(method, torch.from_numpy(images))
    return [
        e / error_unit.numpy() + v / variance_unit.numpy()
        for (e, v), (error_unit, variance_unit) in zip(found, method.units(), strict=True)
    ]


def test_lifted_vectors_are_points_of_a_sphere_by_their_chord():
    generator = torch.Generator().manual_seed(6)
    x, y = (0.8 * torch.rand(2, 5, 3, 4, dtype=torch.float64, generator=generator) - 0.4 for _ in range(2))
    np.testing.assert_allclose(np.linalg.norm(lifted(x), axis=1), 1.0 + (x**2).sum(1), rtol=1e-12)
    expected = 2.0 * ((x - y) ** 2).sum(1) / ((1.0 + (x**2).sum(1)) * (1.0 + (y**2).sum(1)))
    np.testing.assert_allclose(cosine_map(lifted(x).numpy(), lifted(y).numpy()), expected, rtol=1e-9)
    # Cut at 1 / sqrt(5), so of length 1 at most.
    assert torch.equal(lifted(1e6 * x + y), lifted(x.sign()))


def test_the_cosine_maps_are_the_published_ones_on_a_sphere(trained):
    images = make_images()
    with torch.no_grad():
        teacher, student = trained.features(torch.from_numpy(images))
        descriptors = trained.descriptors(torch.from_numpy(images))
        outputs = trained.student_features(torch.from_numpy(images), descriptors)
    r2 = squared_radius(trained)
    for k, value in enumerate(published(trained, images)):
        got = cosine_map(teacher[k].numpy(), student[k].numpy())
        e_unit, v_unit = (unit.numpy() for unit in trained.units()[k])
        mean = np.mean([x.double().numpy() for x in outputs[k::3]], axis=0)
        variance = np.var([x.double().numpy() for x in outputs[k::3]], axis=0).sum(1)
        x2 = (descriptors[k].double().numpy() ** 2).sum(1) / (r2 * e_unit)
        y2 = ((mean**2).sum(1) / e_unit + variance / v_unit) / r2
        expected = 2.0 / r2 * value / ((1.0 + x2) * (1.0 + y2))
        np.testing.assert_allclose(got, expected, rtol=2e-3, atol=1e-7)
        # On the good parts, the first two, the sphere is flat: the published map except a factor, pixel by pixel.
        np.testing.assert_allclose(got[:2], 2.0 / r2 * value[:2], rtol=0.1)
        assert x2[:2].mean() <= 1.1 / 256.0
        assert spearmanr(got.ravel(), value.ravel()).statistic > 0.99


def scores(graph, images: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(["anomaly_map", "anomaly_score"], {"images": images})


@pytest.fixture(scope="module")
def graph(trained):
    return onnx_from_method(trained, SIZE)


def test_the_graph_gives_the_published_map(trained, graph):
    images = make_images()
    got, score = scores(graph, images)
    torch_prediction = TorchSession(trained).infer(images)
    np.testing.assert_allclose(got, torch_prediction.anomaly_map, rtol=0.0, atol=1e-4)
    np.testing.assert_allclose(got, torch_prediction.anomaly_map, rtol=0.01, atol=1e-5)
    np.testing.assert_allclose(score, got.max((1, 2, 3)), rtol=1e-6)
    # The published maps enlarged, added and smoothed, for parts on which the sphere is flat; the oracle smooths, from
    # one feature pair whose cosine map is the sum.
    total = sum(
        bilinear_matrix(64, x.shape[1], True) @ x @ bilinear_matrix(64, x.shape[2], True).T
        for x in published(trained, images[:2])
    )
    distance = 2.0 / squared_radius(trained) * total
    angle = np.arccos(1.0 - distance)
    expected, _ = anomaly_map(
        [np.stack([np.ones_like(angle), np.zeros_like(angle)], axis=1)],
        [np.stack([np.cos(angle), np.sin(angle)], axis=1)],
        64,
        64,
        "add",
        trained.head.sigma,
    )
    np.testing.assert_allclose(got[:2], expected, rtol=0.05)


def test_the_graph_holds_patch_teachers_and_students_and_no_pretrained_network(graph):
    sections, nodes = sections_of(graph), list(graph.graph.node)
    counted = [i for i, node in enumerate(nodes) if node.op_type in CONVOLUTIONS]
    # Four, five and six convolutions by size; no batch normalisation is left of the whitening.
    assert len([i for i in counted if i in sections.teacher]) == 15
    assert len([i for i in counted if i in sections.student]) == len(counted) - 15 == 45
    assert not [node for node in nodes if node.op_type == "BatchNormalization"]
    assert [node.op_type for node in nodes if "images" in node.input] == ["Cast"]


def test_half_precision_keeps_the_map(graph):
    exact, found = scores(graph, make_images())[0], scores(float16_from_float32(graph), make_images())[0]
    np.testing.assert_allclose(found, exact, rtol=0.02, atol=0.002 * float(exact.max()))


def test_strange_descriptors_have_large_values_in_half_precision_too(graph):
    """Whatever the image, no overflow, and nothing so far from good parts that it looks near again."""
    strange = onnx.ModelProto()
    strange.CopyFrom(graph)
    last = [weight for weight in strange.graph.initializer if list(weight.dims[2:]) == [1, 1]]
    assert len(last) == 12
    for weight in last:
        weight.CopyFrom(numpy_helper.from_array(1000.0 * numpy_helper.to_array(weight), weight.name))
    found, score = scores(float16_from_float32(strange), make_images())
    assert np.isfinite(found).all()
    assert score.min() > 10.0 * scores(graph, HELD_OUT)[1].max()


def test_int8_keeps_the_scores_of_parts(graph):
    quantised = int8_graph(graph, np.concatenate([PARTS[:6], synthetic_defects(PARTS[6:12])]), "mse")
    images = np.concatenate([HELD_OUT, synthetic_defects(HELD_OUT)])
    exact, found = scores(graph, images)[1], scores(quantised, images)[1]
    np.testing.assert_allclose(found, exact, rtol=0.25)
    assert spearmanr(found, exact).statistic > 0.9


def test_damaged_parts_score_higher_than_good_ones(trained):
    session = TorchSession(trained)
    good = session.infer(HELD_OUT).anomaly_score
    damaged = session.infer(synthetic_defects(HELD_OUT)).anomaly_score
    # A small defect may raise no largest score; which one does not depends on how a processor rounds.
    assert np.sum(damaged > good) >= 10
    assert np.mean(damaged[:, None] > good) > 0.75
    assert damaged.mean() > 1.2 * good.mean()
