"""Uninformed students: ensembles that learn the descriptors of patches, and are wrong or divided where one is new.

Bergmann, Fauser, Sattlegger & Steger, "Uninformed Students: Student-Teacher Anomaly Detection with Discriminative
Latent Embeddings", CVPR 2020, as told by Polidori, "Leveraging Student-Teacher learning framework", Politecnico di
Milano 2022, section 3.2, whose equations are meant below. Patches have 17, 33 and 65 pixels, and each size has a
teacher and three students of its own.

teacher  stage 0: a patch network T learns to describe patches as the pretrained network P does
         L_k   |D(T(p)) - P(p)|^2 (equation 2), the mean over patches, with D a 1x1 convolution that is used here alone
         L_c   the sum of c_ij^2 over i != j, with c the correlation of the components of T(p) over a batch. In the
               paper c_ij is not squared, so that what is correlated the other way round would count as compact
         L_m   (triplets of patches) is left out: it is for where there is no P
         P(p) are P's features at strides 4, 8 and 16 at the place of the patch, finer ones averaged and coarser ones
         repeated, each channel of mean 0 and standard deviation 1 over the batch. As in EfficientAD (Batzner et al.,
         WACV 2024) P sees the whole image, in the paper the patch alone. P of a ResNet is centred where the patches
         are, on the first pixel of a cell; P of TensorFlow's networks, EfficientNet-Lite among them, on the last.
         The paper's patches are ImageNet's. Here one half of a batch are good images and the other half
         pseudo-anomalous ones, so that T can tell apart more than good parts have
students stage 1: three patch networks of T's layers, different in their random start alone, regress the whitened
         descriptors y = (T(p) - mu) / sigma of good images, with mu and sigma over the training images
         L_s   |S(p) - y|^2 (equation 3), the mean over patches, summed over students and sizes of patches. They share
               no weights, so the sum trains each alone
map      e = |m - y|^2 with m the students' mean, and their variance v, the mean of |S_i|^2 minus |m|^2 (equation 4).
         Each is normalised by its mean and standard deviation over the training images (in the paper over held-out
         ones, which here set the threshold) and averaged over the sizes:

             mean over sizes of (e - mean e) / std e + (v - mean v) / std v

         Where parts are aligned, some places of a good part are hard to regress in every image, and would
         outshine a defect elsewhere. So there, but in the preset `paper`, it is the mean over sizes of e / mean e +
         v / mean v, with the means at each position over the training images, none less than a hundredth of the
         mean over positions: a place that is the same in every image is not to rule the map

The paper's networks give a descriptor for each pixel; here patches of 17, 33 and 65 pixels stand 4, 8 and 16 pixels
apart, as those of EfficientAD stand 4 apart, and the head enlarges the maps. P is in no exported graph.

The head knows cosine maps only. It gets vectors lifted to a sphere (the inverse stereographic projection): with E and V
the units of e and v, which are std e and std v, or the means at each position,

    x = (y, 0) / (r sqrt(E))     z = (m / sqrt(E), sqrt(v / V)) / r     lift(x) = (2 x, |x|^2 - 1)

half the squared chord between the lifted two, which is one minus their cosine, is

    2 / r^2  (e / E + v / V)  /  ((1 + |x|^2) (1 + |z|^2))

lift(x) is the teacher's alone, lift(z) the students'. The sum over sizes is the map above times 6 / r^2, except a
constant of mean e and mean v, which a threshold takes up, and for the factors below the line. r is so large that |x|^2
is 1/256 or less in the mean over the good images, at each position where E is of one, so the factors are near 1 on
good parts. The components of x and z, n of each, are cut at 1 / sqrt(n), which is beyond 15 times the root mean square
of a descriptor's components, that of the position where E is of one, and beyond 250 V, so no factor is larger than 2.
Where nothing is cut, two values of one size of patches are in the order of e / E + v / V if one is larger by more than
the factors differ, and so always if it is four times the other. Half precision rounds x and z by a share of themselves,
so small values suffer no more than large ones.
"""

from __future__ import annotations

from collections.abc import Iterable
from types import MappingProxyType

import torch
from torch import Tensor, nn

from edgead.models.base import DistillationMethod, Hyperparameters, MethodConfig, Preset
from edgead.models.components.patch_networks import PatchSpec, mean_and_std, patch_network, pixels_of
from edgead.models.components.teacher import STRIDES, Teacher

STUDENTS = 3

# The paper's descriptors have 128 components, and networks of published re-implementations 128 to 256 channels.
SPECS: MappingProxyType[Preset, PatchSpec] = MappingProxyType(
    {"edge": PatchSpec((16, 32, 64, 64), 64), "paper": PatchSpec((128, 128, 128, 128), 128)}
)

# How flat the sphere is where good parts lie.
RADIUS = 16.0
# A student's component is cut so far from the students' mean, and an eighth of it squared: half precision holds that.
FARTHEST = 128.0
# Added to the variance of a descriptor's component, so that one which is always the same does no harm.
EPSILON = 1e-6
# A unit at one position is at least this share of the mean unit.
LEAST_SHARE = 0.01
# A unit of zero, of images that are all alike, would make everything else infinite.
SMALLEST_UNIT = 1e-6


class UninformedStudents(DistillationMethod):
    """Three students for each of three sizes of patches; stage 0 trains their teachers, stage 1 the students.

    Of the training images, kept in buffers: mean and variance of the descriptors (3, descriptor), 0 and 1 until stage
    0 has ended; for each stride s the units of e and v, `units_s` (2, 1, 1), or (2, H / s, W / s) where they are
    of each position, and `flatness`, 1 / r^2; units of 1 until stage 1 has ended.
    """

    losses = ("per-position",)
    fusion = "add"
    uses_textures = True
    presets = MappingProxyType(
        {
            # It learns from patches, of which 4 images hold thousands: more steps serve it better than more images.
            "edge": Hyperparameters("per-position", 4.0, 100, 4, 5e-3, "one-cycle", stages=(0.5, 0.5)),
            "paper": Hyperparameters("per-position", 0.0, 200, 1, 1e-4, "constant", stages=(0.5, 0.5)),
        }
    )

    descriptor_mean: Tensor
    descriptor_variance: Tensor
    flatness: Tensor

    def __init__(self, teacher: Teacher, config: MethodConfig) -> None:
        super().__init__(teacher, config)
        spec = SPECS[config.preset]
        self.patch_teachers = nn.ModuleList(patch_network(stride, spec) for stride in STRIDES)
        self.decoders = nn.ModuleList(nn.Conv2d(spec.descriptor, sum(teacher.channels), 1) for _ in STRIDES)
        self.students = nn.ModuleList(
            patch_network(stride, spec) for _ in range(STUDENTS) for stride in STRIDES
        )
        self.register_buffer("descriptor_mean", torch.zeros(len(STRIDES), spec.descriptor))
        self.register_buffer("descriptor_variance", torch.ones(len(STRIDES), spec.descriptor))
        self.by_position = config.alignment == "aligned" and config.preset == "edge"
        for stride in STRIDES:
            height, width = config.size.height_px // stride, config.size.width_px // stride
            self.register_buffer(
                f"units_{stride}", torch.ones(2, *((height, width) if self.by_position else (1, 1)))
            )
        self.register_buffer("flatness", torch.tensor(1.0 / (RADIUS**2 * spec.descriptor)))
        self.enter_stage(0)

    def units(self) -> list[tuple[Tensor, Tensor]]:
        """E and V of each size of patches: (1, 1), or (H / s, W / s) where they are of each position."""
        pairs = (self.get_buffer(f"units_{stride}") for stride in STRIDES)
        return [(error, variance) for error, variance in pairs]

    def enter_stage(self, stage: int) -> None:
        """Let gradients into the patch teachers and their decoders in stage 0, into the students in stage 1."""
        super().enter_stage(stage)
        self.patch_teachers.requires_grad_(stage == 0)
        self.decoders.requires_grad_(stage == 0)
        self.students.requires_grad_(stage == 1)

    def forward(self, images: Tensor, teacher_features: list[Tensor]) -> Tensor:
        """L_k + L_c in stage 0, L_s in stage 1.

        In training mode pseudo-anomalies are drawn from torch's generator; else they are the same each time.
        """
        if self.stage == 0:
            return self._distillation(images, teacher_features)
        with torch.no_grad():
            descriptors = self.descriptors(images)
        return self.loss(descriptors, self.student_features(images, descriptors))

    def descriptors(self, images: Tensor) -> list[Tensor]:
        """What the students regress: whitened, (N, descriptor, H / s, W / s) for the strides s of 4, 8 and 16."""
        described = zip(
            self._raw_descriptors(images), self.descriptor_mean, self.descriptor_variance, strict=True
        )
        # As a batch normalisation that does not move, which the exporter folds into the convolution before it.
        return [nn.functional.batch_norm(y, mean, variance, eps=EPSILON) for y, mean, variance in described]

    def student_features(self, images: Tensor, teacher_features: list[Tensor]) -> list[Tensor]:
        """Three tensors of the descriptors' shapes from the first students, then three from the second, and so on."""
        pixels = pixels_of(images)
        return [student(pixels) for student in self.students]

    def loss(self, teacher_features: list[Tensor], student_features: list[Tensor]) -> Tensor:
        """L_s, equation 3, of whitened descriptors and what `student_features` gives."""
        pairs = zip(STUDENTS * teacher_features, student_features, strict=True)
        return torch.stack([squared_distance(student, teacher) for teacher, student in pairs]).sum()

    def features(self, images: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Both sides for a batch (N, H, W, 3) uint8 RGB, without the pretrained network."""
        descriptors = self.descriptors(images)
        return self.head_features(descriptors, self.student_features(images, descriptors))

    def head_features(
        self, teacher_features: list[Tensor], student_features: list[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Lifted vectors of whitened descriptors and students: three pairs (N, descriptor + 2, H / s, W / s)."""
        teacher_side, student_side = [], []
        for k, (y, (error_unit, variance_unit)) in enumerate(
            zip(teacher_features, self.units(), strict=True)
        ):
            error_scale = (self.flatness / error_unit).sqrt()
            variance_scale = (self.flatness / variance_unit).sqrt()
            students = torch.stack(student_features[k :: len(STRIDES)])
            mean = students.mean(0)
            apart = (students - mean).clamp(-FARTHEST, FARTHEST) / 8.0
            deviation = 8.0 * (apart * apart).mean(0).sum(1, keepdim=True).sqrt()
            # Of the descriptors, so that the graph lets this side depend on no student.
            zero = 0.0 * y[:, :1]
            teacher_side.append(lifted(torch.cat([error_scale * y, zero], dim=1)))
            student_side.append(lifted(torch.cat([error_scale * mean, variance_scale * deviation], dim=1)))
        return teacher_side, student_side

    def finish_stage(self, batches: Iterable[tuple[Tensor, list[Tensor]]]) -> None:
        """Whiten the descriptors after stage 0; keep the units of e and v after stage 1."""
        if self.stage == 0:
            found = mean_and_std(self._raw_descriptors(images) for images, _ in batches)
            self.descriptor_mean.copy_(torch.stack([mean.flatten() for mean, _ in found]))
            self.descriptor_variance.copy_(torch.stack([std.flatten().square() for _, std in found]))
            return
        found = mean_and_std((self._moments(images) for images, _ in batches), by_position=self.by_position)
        # The largest mean of |y|^2 / E; whitened, |y|^2 itself is as long as there are components.
        largest = float(self.descriptor_mean.shape[1])
        for stride, (mean, std) in zip(STRIDES, found, strict=True):
            units = (mean if self.by_position else std)[1:]
            floor = LEAST_SHARE * units.mean((1, 2), keepdim=True)
            units = torch.maximum(units, floor).clamp_min(SMALLEST_UNIT)
            self.get_buffer(f"units_{stride}").copy_(units)
            largest = max(largest, float((mean[0] / units[0]).max()))
        self.flatness.fill_(1.0 / (RADIUS**2 * largest))

    def optimizer(self, learning_rate: float) -> torch.optim.Optimizer:
        """Adam with weight decay 1e-5, as published re-implementations have it."""
        return torch.optim.Adam(self.trained(), lr=learning_rate, weight_decay=1e-5)

    def _distillation(self, images: Tensor, teacher_features: list[Tensor]) -> Tensor:
        """L_k + L_c of all sizes of patches, for a batch whose second half is disturbed.

        One image, and in evaluation mode every image, counts twice: as it is, and disturbed.
        """
        count = len(images)
        if self.training and count > 1:
            kept, changed = slice(count // 2), slice(count // 2, count)
        else:
            kept, changed = slice(count), slice(count)
        disturbed, _ = self.disturbed_batch(images[changed])
        features = [
            torch.cat([given[kept], new])
            for given, new in zip(teacher_features, self.teacher_features(disturbed), strict=True)
        ]
        losses = []
        raw = self._raw_descriptors(torch.cat([images[kept], disturbed]))
        for decoder, descriptors in zip(self.decoders, raw, strict=True):
            target = pretrained_descriptors(features, descriptors.shape[2:])
            losses += [squared_distance(decoder(descriptors), target), compactness(descriptors)]
        return torch.stack(losses).sum()

    def _raw_descriptors(self, images: Tensor) -> list[Tensor]:
        pixels = pixels_of(images)
        return [patch_teacher(pixels) for patch_teacher in self.patch_teachers]

    def _moments(self, images: Tensor) -> list[Tensor]:
        """|y|^2, e and v of each size of patches: (N, 3, H / s, W / s)."""
        descriptors = self.descriptors(images)
        students = self.student_features(images, descriptors)
        found = []
        for k, y in enumerate(descriptors):
            of_size = torch.stack(students[k :: len(STRIDES)])
            mean = of_size.mean(0)
            variance = (of_size - mean).square().mean(0).sum(1)
            error = (mean - y).square().sum(1)
            found.append(torch.stack([y.square().sum(1), error, variance], dim=1))
        return found


def squared_distance(one: Tensor, other: Tensor) -> Tensor:
    """Squared distance of vectors, the mean over images and positions: two (N, C, H, W) tensors to a scalar."""
    return one.shape[1] * nn.functional.mse_loss(one, other)


def compactness(descriptors: Tensor) -> Tensor:
    """L_c: the sum of the squared correlations of each component with each other one: (N, C, H, W) to a scalar."""
    # Not by a mean epsilon of the usual size, or components could hide from this by being small.
    standard = nn.functional.batch_norm(descriptors, None, None, training=True, eps=1e-10)
    vectors = standard.transpose(0, 1).flatten(1)
    correlations = (vectors / vectors.shape[1]) @ vectors.T
    # A component's correlation with itself is 1.
    return correlations.square().sum() - correlations.diagonal().square().sum()


def pretrained_descriptors(features: list[Tensor], size: torch.Size) -> Tensor:
    """P(p): tensors (N, C_k, H_k, W_k) to (N, sum C_k, *size), each channel of mean 0 and standard deviation 1."""
    joined = torch.cat([nn.functional.adaptive_avg_pool2d(x, (size[0], size[1])) for x in features], dim=1)
    return nn.functional.batch_norm(joined, None, None, training=True)


def lifted(x: Tensor) -> Tensor:
    """(2 x, |x|^2 - 1), of length |x|^2 + 1: (N, C, H, W) to (N, C + 1, H, W).

    Components are cut at 1 / sqrt(C): what is longer than 1 would come near the pole, and so near to all that is long.
    """
    limit = x.shape[1] ** -0.5
    x = x.clamp(-limit, limit)
    return torch.cat([2.0 * x, (x * x).sum(1, keepdim=True) - 1.0], dim=1)
