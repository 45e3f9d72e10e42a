"""RSTPM+: what its network gets, what each stage trains, and that the exported graph gives equation 1."""

from __future__ import annotations

import math

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import ModelProto
from torch import nn
from torchvision.ops import sigmoid_focal_loss

from edgead.data.pseudo_anomalies.textures import ProceduralTextures, Textures
from edgead.export.from_torch import onnx_from_method
from edgead.export.graph_sections import CONVOLUTIONS, sections_of
from edgead.export.head.cut import features_of
from edgead.export.precision.float16 import float16_from_float32
from edgead.imaging.anomaly_map import bilinear_matrix, gaussian_matrix
from edgead.imaging.preprocess import ModelSize
from edgead.models import METHODS, create_method, hyperparameters_of
from edgead.models.base import MethodConfig, Preset
from edgead.models.components.head import cosine_map
from edgead.models.components.teacher import Backbone
from edgead.models.components.unet import UNet
from edgead.models.rstpm_plus import DiscriminatedPyramidMatching, mask_loss, summed_maps
from edgead.types import BoolArray, Float64Array, UInt8Array
from tests.helpers.training_parts import good_parts

SIZE = ModelSize(64, 64)
PARTS = good_parts(6)
IMAGES = torch.from_numpy(PARTS)


def made(
    teacher: str = "test_resnet",
    size: ModelSize = SIZE,
    preset: Preset = "edge",
    weights: str = "random",
    textures: Textures | None = None,
) -> DiscriminatedPyramidMatching:
    torch.manual_seed(3)
    frozen = METHODS["rstpm+"].create_teacher(teacher, weights)
    config = MethodConfig(size, "per-position", preset=preset, textures=textures or ProceduralTextures())
    method = METHODS["rstpm+"](frozen, config)
    assert isinstance(method, DiscriminatedPyramidMatching)
    # Statistics that are not the identity, as training leaves them.
    for module in method.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return method


def test_the_loss_by_hand():
    # Anomalous and 3/4 sure of it; good and 1/5 sure that it is not.
    logits = torch.tensor([math.log(3.0), -math.log(4.0)])
    focal = (0.25**2 * -math.log(0.75), 0.2**2 * -math.log(0.8))
    l1 = (0.25, 0.2)
    expected = (sum(focal) + sum(l1)) / 2
    assert float(mask_loss(logits, torch.tensor([True, False]))) == pytest.approx(expected, abs=1e-7)


def test_the_loss_of_a_peer():
    torch.manual_seed(0)
    logits, wrong = 4 * torch.randn(2, 1, 8, 8), torch.rand(2, 1, 8, 8) < 0.2
    focal = sigmoid_focal_loss(logits, wrong.float(), alpha=-1, gamma=2.0, reduction="mean")
    expected = focal + nn.functional.l1_loss(logits.sigmoid(), wrong.float())
    torch.testing.assert_close(mask_loss(logits, wrong), expected)


def test_the_loss_of_who_is_sure_and_wrong_is_finite():
    logits = torch.tensor([-200.0, 200.0], dtype=torch.float16)
    assert float(mask_loss(logits, torch.tensor([True, False]))) == 201.0
    assert float(mask_loss(logits, torch.tensor([False, True]))) == 0.0


def test_the_gradient_of_the_loss():
    torch.manual_seed(1)
    logits = torch.randn(2, 1, 3, 3, dtype=torch.float64).requires_grad_()
    wrong = torch.rand(2, 1, 3, 3) < 0.5
    assert torch.autograd.gradcheck(lambda x: mask_loss(x, wrong), (logits,))


def test_the_gradient_of_a_whole_stage():
    """Of all that stage 1 trains, against central differences along a random direction."""
    method = made().double().eval()
    method.enter_stage(1)
    features = method.teacher_features(IMAGES)
    # Far from the kinks of the rectifiers, and from the small start of the last layer.
    nn.init.normal_(method.discriminator.output.weight)
    method(IMAGES, features).backward()
    torch.manual_seed(2)
    steps = [torch.randn_like(p) for p in method.trained()]
    slope = sum(float((p.grad * s).sum()) for p, s in zip(method.trained(), steps, strict=True))

    def at(distance: float) -> float:
        with torch.no_grad():
            for p, s in zip(method.trained(), steps, strict=True):
                p += distance * s
            value = float(method(IMAGES, features))
            for p, s in zip(method.trained(), steps, strict=True):
                p -= distance * s
        return value

    assert abs(slope) > 1e-3
    assert (at(1e-7) - at(-1e-7)) / 2e-7 == pytest.approx(slope, rel=1e-4)


def directions(degrees: list[float]) -> torch.Tensor:
    angles = torch.deg2rad(torch.tensor(degrees))
    return torch.stack([angles.cos(), angles.sin()]).reshape(1, 2, 1, -1)


def test_the_maps_that_the_network_sees_by_hand():
    """Pair 1 is apart by 60, 90 and 0 degrees, pair 2 by 90, 180 and 60; each map is as large as it should be."""
    north = directions([0.0])
    sides = [
        ([north, north], [directions([a]), directions([b])])
        for a, b in ((60.0, 90.0), (90.0, 180.0), (0.0, 60.0))
    ]
    teacher = [torch.cat(t, dim=1).expand(1, 4, 8 >> k, 8 >> k) for k, (t, _) in enumerate(sides)]
    student = [torch.cat(s, dim=1).expand(1, 4, 8 >> k, 8 >> k) for k, (_, s) in enumerate(sides)]
    maps = summed_maps(teacher, student)
    expected = torch.tensor([0.5 + 1.0, 1.0 + 2.0, 0.0 + 0.5])[None, :, None, None].expand(1, 3, 8, 8)
    torch.testing.assert_close(maps, expected)


def test_maps_are_enlarged_with_their_corners_kept():
    student = [torch.zeros(1, 1, 8, 8), torch.rand(1, 1, 4, 4), torch.rand(1, 1, 2, 2)]
    maps = summed_maps([torch.zeros_like(x) for x in student], student)[0].numpy()
    for k, x in enumerate(student):
        matrix = bilinear_matrix(8, x.shape[2], True)
        np.testing.assert_allclose(maps[k], matrix @ (0.5 * x[0, 0].numpy() ** 2) @ matrix.T, atol=1e-6)


def test_the_layers_of_the_network():
    net = UNet(3, (4, 8, 16))
    convolutions = [(3, 4), (4, 4), (4, 8), (8, 8), (8, 16), (16, 16), (16, 8), (8, 8), (8, 4), (4, 4)]
    weights = sum(9 * i * o + 2 * o for i, o in convolutions)
    enlarging = sum(4 * i * o + o for i, o in ((16, 8), (8, 4)))
    assert sum(p.numel() for p in net.parameters()) == weights + enlarging + 4 + 1
    out = net(torch.randn(2, 3, 12, 20))
    assert out.shape == (2, 1, 12, 20)
    out.square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in net.parameters())


@pytest.mark.parametrize("blocked", ["coarse", "fine"])
def test_the_network_sees_fine_and_coarse_at_once(blocked: str):
    """With the coarse way blocked a position sees what is near and no more, with the fine one what is far too."""
    net = UNet(1, (4, 8, 16)).eval()
    x = torch.zeros(1, 1, 16, 16)
    far = x.clone()
    far[..., 15, 15] = 9.0
    near = x.clone()
    near[..., 1, 1] = 9.0
    if blocked == "coarse":
        for parameter in net.enlarge.parameters():
            nn.init.zeros_(parameter)
    else:
        for up, width in zip(net.up, (4, 8), strict=True):
            up[0][0].weight.data[:, width:] = 0.0
    with torch.no_grad():
        corner, of_near, of_far = (float(net(image)[0, 0, 0, 0]) for image in (x, near, far))
    assert of_near != corner
    assert (of_far == corner) == (blocked == "coarse")


def test_the_network_starts_at_its_prior():
    method = made().eval()
    method.enter_stage(1)
    with torch.no_grad():
        p = torch.sigmoid(method.discriminator(torch.rand(2, 3, 16, 16)))
    assert 0.05 < float(p.min()) < float(p.max()) < 0.07


@pytest.mark.parametrize("logit", [-12.0, -5.0, 0.0, 9.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_the_fourth_map_is_the_probability(logit: float, dtype: torch.dtype):
    method = made().eval()
    nn.init.zeros_(method.discriminator.output.weight)
    nn.init.constant_(method.discriminator.output.bias, logit)
    with torch.no_grad():
        teacher, student = method.features(IMAGES)
        found = cosine_map(teacher[3].to(dtype), student[3].to(dtype))
    expected = 0.001 + 0.999 / (1.0 + math.exp(-logit))
    assert found.shape == (6, 16, 16)
    torch.testing.assert_close(found, torch.full_like(found, expected), rtol=2e-3, atol=0.0)
    torch.testing.assert_close(student[3].norm(dim=1), torch.ones(6, 16, 16))


def stepped(method: DiscriminatedPyramidMatching) -> None:
    optimizer = method.optimizer(method.hyperparameters.learning_rate / 20)
    loss = method(IMAGES, method.teacher_features(IMAGES))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


@pytest.mark.parametrize("stage", [0, 1])
def test_a_stage_changes_its_own_part_alone(stage: int):
    """Weights, and statistics of batch normalisation."""
    method = made().train()
    method.enter_stage(1 - stage)
    method.train()
    method.enter_stage(stage)
    before = {key: value.clone() for key, value in method.state_dict().items()}
    stepped(method)
    names = {"student", "decoder"} if stage == 0 else {"discriminator"}
    assert {key.partition(".")[0] for key in before} == {"teacher", "student", "decoder", "discriminator"}
    for key, value in method.state_dict().items():
        assert torch.equal(value, before[key]) == (key.partition(".")[0] not in names), key
    for key, parameter in method.named_parameters():
        trained = key.partition(".")[0] in names
        assert parameter.requires_grad == trained
        assert (parameter.grad is not None) == trained, key


@pytest.mark.parametrize("preset", ["edge", "paper"])
def test_the_pairs_have_the_epochs_of_rstpm(preset: Preset):
    plus, pairs = hyperparameters_of("rstpm+", preset), hyperparameters_of("rstpm", preset)
    assert plus.stages[0] * plus.epochs == pairs.epochs
    assert plus.stages[1] * plus.epochs == (100 if preset == "edge" else 300)
    same = ("loss", "sigma", "batch_size", "learning_rate", "schedule", "optimizer")
    assert [getattr(plus, name) for name in same] == [getattr(pairs, name) for name in same]


def test_a_method_that_is_made_trains_the_pairs():
    method = made()
    fresh = {id(p) for p in method.trained()}
    method.enter_stage(0)
    assert fresh == {id(p) for p in method.trained()}
    assert fresh == {id(p) for part in (method.student, method.decoder) for p in part.parameters()}


@pytest.mark.parametrize(("preset", "rate"), [("edge", 2e-3), ("paper", 1e-4)])
def test_the_optimizers(preset: Preset, rate: float):
    method = made(preset=preset)
    of_pairs = create_method("rstpm", method.teacher, SIZE, "per-position", preset=preset).optimizer(0.1)
    assert type(method.optimizer(0.1)) is type(of_pairs)
    assert method.optimizer(0.1).defaults == of_pairs.defaults
    method.enter_stage(1)
    optimizer = method.optimizer(method.hyperparameters.learning_rate)
    assert isinstance(optimizer, torch.optim.Adam)
    (group,) = optimizer.param_groups
    assert group["lr"] == pytest.approx(rate)
    assert group["betas"] == (0.9, 0.999)
    assert group["weight_decay"] == 1e-4
    assert {id(p) for p in group["params"]} == {id(p) for p in method.discriminator.parameters()}


class Painted(DiscriminatedPyramidMatching):
    """RSTPM+ whose images are disturbed in one place that a test knows."""

    def disturbed(self, images: UInt8Array, rng: np.random.Generator) -> tuple[UInt8Array, BoolArray]:
        copies, masks = images.copy(), np.zeros(images.shape[:3], bool)
        copies[:, 8:13, 20:22] = (255, 0, 0)
        masks[:, 8:13, 20:22] = True
        return copies, masks


def painted() -> tuple[Painted, torch.Tensor]:
    """In stage 1; and where its network is to find paint, (1, 1, 16, 16)."""
    torch.manual_seed(3)
    teacher = METHODS["rstpm+"].create_teacher("test_resnet", "random")
    method = Painted(teacher, MethodConfig(SIZE, "per-position"))
    method.enter_stage(1)
    # Rows 8 to 12 touch cells 2 and 3 of 4 pixels, columns 20 and 21 cell 5.
    wrong = torch.zeros(1, 1, 16, 16, dtype=torch.bool)
    wrong[:, :, 2:4, 5] = True
    return method, wrong


def with_paint(images: torch.Tensor) -> torch.Tensor:
    copies = images.clone()
    copies[:, 8:13, 20:22] = torch.tensor([255, 0, 0], dtype=torch.uint8)
    return copies


@torch.no_grad()
def loss_of(method: Painted, shown: torch.Tensor, wrong: torch.Tensor) -> torch.Tensor:
    """With the pairs as they score."""
    training = method.discriminator.training
    teacher, student = method.eval().features(shown)
    method.discriminator.train(training)
    return mask_loss(method.discriminator(summed_maps(teacher[:3], student[:3])), wrong)


@pytest.mark.parametrize(("count", "disturbed"), [(1, 1), (4, 2), (5, 3)])
def test_half_of_a_batch_stays_good(count: int, disturbed: int):
    method, where = painted()
    shown = torch.cat([with_paint(IMAGES[:disturbed]), IMAGES[disturbed:count]])
    wrong = torch.cat([where] * disturbed + [torch.zeros_like(where)] * (count - disturbed))
    method.train()
    found = method(IMAGES[:count], method.teacher_features(IMAGES[:count]))
    torch.testing.assert_close(found.detach(), loss_of(method, shown, wrong))


def test_all_held_out_images_are_watched_good_and_disturbed():
    method, where = painted()
    shown = torch.cat([with_paint(IMAGES[:3]), IMAGES[:3]])
    wrong = torch.cat([where] * 3 + [torch.zeros_like(where)] * 3)
    method.eval()
    with torch.no_grad():
        found = method(IMAGES[:3], method.teacher_features(IMAGES[:3]))
    torch.testing.assert_close(found, loss_of(method, shown, wrong))


class Red:
    """A texture that differs from any image of parts."""

    def __init__(self) -> None:
        self.draws = 0

    def draw(self, height: int, width: int, rng: np.random.Generator) -> UInt8Array:
        self.draws += 1
        return np.broadcast_to(np.array([255, 0, 0], np.uint8), (height, width, 3)).copy()


def test_images_are_disturbed_with_the_textures_that_are_given():
    red = Red()
    copies, masks = made(textures=red).disturbed(PARTS, np.random.default_rng(0))
    assert red.draws >= len(PARTS)
    assert copies.shape == PARTS.shape
    assert masks.any((1, 2)).all()
    np.testing.assert_array_equal(masks, (copies != PARTS).any(3))
    by_default, _ = made().disturbed(PARTS, np.random.default_rng(0))
    assert (by_default != PARTS).any((1, 2, 3)).all()


def test_the_network_learns_where_a_part_is_wrong():
    method = made("tf_efficientnet_lite0", weights="package")
    parts = torch.from_numpy(good_parts(8))
    features = method.teacher_features(parts)
    # Faster than in a training, whose steps are many more.
    for stage, rate, steps in ((0, 0.02, 20), (1, 0.1, 80)):
        method.enter_stage(stage)
        method.train()
        optimizer = method.optimizer(rate)
        scheduler = method.scheduler(optimizer, steps)
        for _ in range(steps):
            loss = method(parts, features)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
    method.eval()
    unseen = good_parts(14)[8:]
    copies, masks = method.disturbed(unseen, np.random.default_rng(7))
    with torch.no_grad():
        found, good = (
            cosine_map(*(side[3] for side in method.features(torch.from_numpy(x)))) for x in (copies, unseen)
        )
    wrong = nn.functional.max_pool2d(torch.from_numpy(masks).float(), 4) > 0
    assert float(found[wrong].mean()) > 1.5 * float(found[~wrong].mean())
    assert float(found[wrong].mean()) > 2.0 * float(good.mean())


GRAPH_SIZE = ModelSize(64, 96)


def make_images() -> UInt8Array:
    """A random image and two drawn ones."""
    noise = np.random.default_rng(1).integers(0, 256, (1, 64, 96, 3), np.uint8)
    return np.concatenate([noise, np.concatenate([PARTS[:2], PARTS[2:4]], axis=2)[:, :, :96]])


@pytest.fixture(scope="module")
def exported() -> tuple[DiscriminatedPyramidMatching, ModelProto]:
    method = made("test_efficientnet", GRAPH_SIZE).eval()
    # A network that is sure here and unsure there.
    nn.init.normal_(method.discriminator.output.weight, std=0.5)
    return method, onnx_from_method(method, GRAPH_SIZE)


def scores(graph: ModelProto, images: UInt8Array) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(["anomaly_map", "anomaly_score"], {"images": images})


def cosine_distance(a: Float64Array, b: Float64Array) -> Float64Array:
    return 1.0 - (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))


def resized(maps: Float64Array, height: int, width: int) -> Float64Array:
    return bilinear_matrix(height, maps.shape[1], True) @ maps @ bilinear_matrix(width, maps.shape[2], True).T


def test_the_graph_gives_equation_1(exported: tuple[DiscriminatedPyramidMatching, ModelProto]):
    method, graph = exported
    images = torch.from_numpy(make_images())
    with torch.no_grad():
        teacher = [x.double().numpy() for x in method.teacher_features(images)[:3]]
        student = [
            x.double().numpy() for x in method.student_features(images, method.teacher_features(images))
        ]
    sums = [
        cosine_distance(t, a) + cosine_distance(t, b)
        for t, a, b in zip(teacher, student[:3], student[3:], strict=True)
    ]
    small = np.stack([resized(x, 16, 24) for x in sums], axis=1)
    with torch.no_grad():
        network = UNet(3, (16, 32, 64, 128)).double().eval()
        network.load_state_dict(method.discriminator.state_dict())
        o7 = torch.sigmoid(network(torch.from_numpy(small)))[:, 0].numpy()
    assert o7.max() > 2 * o7.min()
    factors = [*sums, 0.001 + 0.999 * o7]
    product = np.prod([resized(x, 64, 96) for x in factors], axis=0) / 8.0
    expected = gaussian_matrix(64, 4.0) @ product @ gaussian_matrix(96, 4.0).T
    anomaly_map, anomaly_score = scores(graph, make_images())
    assert expected.max() > 0.01
    np.testing.assert_allclose(anomaly_map[:, 0], expected, rtol=0.0, atol=1e-5)
    np.testing.assert_allclose(anomaly_score, expected.max((1, 2)), rtol=0.0, atol=1e-5)


def test_the_network_is_of_the_students_side(exported: tuple[DiscriminatedPyramidMatching, ModelProto]):
    method, graph = exported
    sections = sections_of(graph)
    counted = [i for i, node in enumerate(graph.graph.node) if node.op_type in CONVOLUTIONS]

    def convolutions(module: nn.Module) -> int:
        return sum(isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) for layer in module.modules())

    in_teacher = [i for i in counted if i in sections.teacher]
    assert len(in_teacher) == convolutions(Backbone("test_efficientnet", trimmed=True))
    ours = sum(convolutions(part) for part in (method.student, method.decoder, method.discriminator))
    assert len([i for i in counted if i in sections.student]) == len(counted) - len(in_teacher) >= ours


def test_the_kernels_get_four_pairs(exported: tuple[DiscriminatedPyramidMatching, ModelProto]):
    """All of known sizes, which only then can follow an engine, in either precision."""
    _, graph = exported
    scales = ((16, 24), (8, 12), (4, 6))
    sizes = (
        *((2 * c, *hw) for c, hw in zip(Backbone("test_efficientnet").channels, scales, strict=True)),
        (2, 16, 24),
    )
    for model, dtype in ((graph, "float32"), (float16_from_float32(graph), "float16")):
        _, record = features_of(model)
        assert (record.dtype, record.shapes) == (dtype, sizes)


def test_half_precision_keeps_the_map(exported: tuple[DiscriminatedPyramidMatching, ModelProto]):
    _, graph = exported
    expected, found = scores(graph, make_images())[0], scores(float16_from_float32(graph), make_images())[0]
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found, expected, rtol=0.0, atol=0.02 * float(expected.max()))
