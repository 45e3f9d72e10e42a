"""Uninformed students: ensembles learn the descriptors of patches; on a new patch they are wrong or disagree.

Bergmann, Fauser, Sattlegger & Steger, "Uninformed Students: Student-Teacher Anomaly Detection with Discriminative
Latent Embeddings", CVPR 2020, as described in Polidori, "Leveraging Student-Teacher learning framework", Politecnico di
Milano 2022, section 3.2, which numbers the equations below. Patches have 17, 33 and 65 pixels. Each size has one
teacher and three students.

teacher  stage 0: a patch network T learns to describe patches as the pretrained network P does
         L_k   |D(T(p)) - P(p)|^2 (equation 2), the mean over patches; D is a 1x1 convolution that only this loss uses
         L_c   the sum of c_ij^2 over i != j, with c the correlation of the components of T(p) over a batch. The paper
               does not square c_ij, so a negative correlation would count as compact there
         L_m   (triplets of patches) is omitted: it replaces P if there is none
         P(p) are P's features at strides 4, 8 and 16 at the position of the patch. Finer features are averaged and
         coarser ones repeated; each channel has mean 0 and standard deviation 1 over the batch. As in EfficientAD
         (Batzner et al., WACV 2024) P sees the whole image; in the paper P sees only the patch. The features of a
         ResNet are centred like the patches, on the first pixel of a cell; those of TensorFlow's networks, such as
         EfficientNet-Lite, on the last. The paper takes its patches from ImageNet. Here one half of a batch are good
         images and the other half pseudo-anomalous ones, so that T distinguishes more than the content of good parts
students stage 1: three patch networks with T's layers, which differ only in their random start, regress the whitened
         descriptors y = (T(p) - mu) / sigma of good images, with mu and sigma over the training images
         L_s   |S(p) - y|^2 (equation 3), the mean over patches, summed over students and sizes of patches. They share
               no weights, so the sum trains each independently
map      e = |m - y|^2 with m the mean of the students, and their variance v, the mean of |S_i|^2 minus |m|^2
         (equation 4). Each is normalised by its mean and standard deviation over the training images (the paper uses
         held-out images, which set the threshold here) and averaged over the sizes:

             mean over sizes of (e - mean e) / std e + (v - mean v) / std v

         If parts are aligned, some positions of a good part are hard to regress in every image, and would hide a
         defect elsewhere. For aligned parts the preset `edge` therefore uses the mean over sizes of e / mean e +
         v / mean v, with the means at each position over the training images. Each of these means is at least a
         hundredth of the mean over positions, so that a position that is equal in all images does not dominate the map

The paper's networks compute a descriptor for each pixel. Here patches of 17, 33 and 65 pixels are 4, 8 and 16 pixels
apart (4 in EfficientAD), and the head enlarges the maps. P is in no exported graph.

The head computes only cosine maps. It gets the vectors that `edgead.models.components.descriptors` describes.
"""

from __future__ import annotations

from collections.abc import Iterable
from types import MappingProxyType

import torch
from torch import Tensor, nn

from edgead.models.base import DistillationMethod, MethodConfig, Preset
from edgead.models.components.descriptors import (
    compactness,
    half_disturbed,
    lifted,
    pretrained_descriptors,
    squared_distance,
)
from edgead.models.components.patch_networks import PatchSpec, mean_and_std, patch_network, pixels_of
from edgead.models.components.teacher import STRIDES, Teacher
from edgead.models.hyperparameters import Hyperparameters

STUDENTS = 3

# The paper's descriptors have 128 components. Networks of published re-implementations have 128 to 256 channels.
SPECS: MappingProxyType[Preset, PatchSpec] = MappingProxyType(
    {"edge": PatchSpec((16, 32, 64, 64), 64), "paper": PatchSpec((128, 128, 128, 128), 128)}
)

# Radius of the sphere in units of a good descriptor's length: the sphere is nearly flat at good parts.
RADIUS = 16.0
# Limit of a component's distance from the mean of the students. Half precision can hold the square of an eighth of it.
FARTHEST = 128.0
# Added to the variance of a descriptor's component, because the variance of a constant component is 0.
EPSILON = 1e-6
# Minimum of a unit at one position, as a share of the mean unit.
LEAST_SHARE = 0.01
# If all images are equal the unit would be 0, and the map infinite.
SMALLEST_UNIT = 1e-6


class UninformedStudents(DistillationMethod):
    """Three students for each of three sizes of patches; stage 0 trains their teachers, stage 1 the students.

    Args:
        teacher: Pretrained network P.
        config: Configuration of the method.

    Attributes:
        descriptor_mean: Mean of the descriptors over the training images, (3, descriptor); 0 until stage 0 ends.
        descriptor_variance: Variance of the descriptors, (3, descriptor); 1 until stage 0 ends.
        flatness: 1 / r^2, a scalar.
        by_position: Whether the units differ by position. The buffer `units_s` of stride s has the units of e and v,
            (2, 1, 1), or (2, H / s, W / s) by position; they are 1 until stage 1 ends.
    """

    losses = ("per-position",)
    fusion = "add"
    uses_textures = True
    presets = MappingProxyType(
        {
            # The method learns from patches, and 4 images have thousands: more steps help more than larger batches.
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
        """Return the units E and V for each size of patches: (1, 1), or (H / s, W / s) by position."""
        pairs = (self.get_buffer(f"units_{stride}") for stride in STRIDES)
        return [(error, variance) for error, variance in pairs]

    def enter_stage(self, stage: int) -> None:
        """Enable gradients of the patch teachers and their decoders in stage 0, of the students in stage 1.

        Args:
            stage: Number of the stage, from 0.
        """
        super().enter_stage(stage)
        self.patch_teachers.requires_grad_(stage == 0)
        self.decoders.requires_grad_(stage == 0)
        self.students.requires_grad_(stage == 1)

    def forward(self, images: Tensor, teacher_features: list[Tensor]) -> Tensor:
        """Compute L_k + L_c in stage 0, L_s in stage 1.

        In training mode pseudo-anomalies are drawn from torch's generator; otherwise there are none.

        Args:
            images: (N, H, W, 3) uint8 RGB.
            teacher_features: Features of the pretrained network for the images.

        Returns:
            Scalar loss.
        """
        if self.stage == 0:
            return self._distillation(images, teacher_features)
        with torch.no_grad():
            descriptors = self.descriptors(images)
        return self.loss(descriptors, self.student_features(images, descriptors))

    def descriptors(self, images: Tensor) -> list[Tensor]:
        """Compute whitened descriptors, the targets of the students.

        Args:
            images: (N, H, W, 3) uint8 RGB.

        Returns:
            (N, descriptor, H / s, W / s) for the strides s of 4, 8 and 16.
        """
        described = zip(
            self._raw_descriptors(images), self.descriptor_mean, self.descriptor_variance, strict=True
        )
        # A batch normalisation with fixed statistics, because the exporter folds it into the convolution before it.
        return [nn.functional.batch_norm(y, mean, variance, eps=EPSILON) for y, mean, variance in described]

    def student_features(self, images: Tensor, teacher_features: list[Tensor]) -> list[Tensor]:
        """Compute the outputs of the students.

        Args:
            images: (N, H, W, 3) uint8 RGB.
            teacher_features: Not used.

        Returns:
            Three tensors of the descriptors' shapes from the first students, then three from the second, and so on.
        """
        pixels = pixels_of(images)
        return [student(pixels) for student in self.students]

    def loss(self, teacher_features: list[Tensor], student_features: list[Tensor]) -> Tensor:
        """Compute L_s, equation 3.

        Args:
            teacher_features: Whitened descriptors.
            student_features: Outputs of the students.

        Returns:
            Scalar.
        """
        pairs = zip(STUDENTS * teacher_features, student_features, strict=True)
        return torch.stack([squared_distance(student, teacher) for teacher, student in pairs]).sum()

    def features(self, images: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Compute both sides of a batch without the pretrained network. See DistillationMethod.features."""
        descriptors = self.descriptors(images)
        return self.head_features(descriptors, self.student_features(images, descriptors))

    def head_features(
        self, teacher_features: list[Tensor], student_features: list[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Lift the vectors of descriptors and students to the sphere.

        Args:
            teacher_features: Whitened descriptors.
            student_features: Outputs of the students.

        Returns:
            Teacher side and student side, three tensors (N, descriptor + 2, H / s, W / s) each.
        """
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
            # Computed from the descriptors, so that this side depends on no student in the graph.
            zero = 0.0 * y[:, :1]
            teacher_side.append(lifted(torch.cat([error_scale * y, zero], dim=1)))
            student_side.append(lifted(torch.cat([error_scale * mean, variance_scale * deviation], dim=1)))
        return teacher_side, student_side

    def finish_stage(self, batches: Iterable[tuple[Tensor, list[Tensor]]]) -> None:
        """Store the statistics of the descriptors after stage 0, the units of e and v after stage 1.

        Args:
            batches: Images (N, H, W, 3) uint8 RGB and their teacher features, every training image once.
        """
        if self.stage == 0:
            found = mean_and_std(self._raw_descriptors(images) for images, _ in batches)
            self.descriptor_mean.copy_(torch.stack([mean.flatten() for mean, _ in found]))
            self.descriptor_variance.copy_(torch.stack([std.flatten().square() for _, std in found]))
            return
        found = mean_and_std((self._moments(images) for images, _ in batches), by_position=self.by_position)
        # Largest mean of |y|^2 / E. The mean of |y|^2 is the number of components, because y is whitened.
        largest = float(self.descriptor_mean.shape[1])
        for stride, (mean, std) in zip(STRIDES, found, strict=True):
            units = (mean if self.by_position else std)[1:]
            floor = LEAST_SHARE * units.mean((1, 2), keepdim=True)
            units = torch.maximum(units, floor).clamp_min(SMALLEST_UNIT)
            self.get_buffer(f"units_{stride}").copy_(units)
            largest = max(largest, float((mean[0] / units[0]).max()))
        self.flatness.fill_(1.0 / (RADIUS**2 * largest))

    def optimizer(self, learning_rate: float) -> torch.optim.Optimizer:
        """Create Adam with weight decay 1e-5, as in published re-implementations. See DistillationMethod.optimizer."""
        return torch.optim.Adam(self.trained(), lr=learning_rate, weight_decay=1e-5)

    def _distillation(self, images: Tensor, teacher_features: list[Tensor]) -> Tensor:
        """Compute L_k + L_c of all sizes of patches for a batch, half of which is disturbed in training."""
        shown, features = half_disturbed(self, images, teacher_features)
        losses = []
        raw = self._raw_descriptors(shown)
        for decoder, descriptors in zip(self.decoders, raw, strict=True):
            target = pretrained_descriptors(features, descriptors.shape[2:])
            losses += [squared_distance(decoder(descriptors), target), compactness(descriptors)]
        return torch.stack(losses).sum()

    def _raw_descriptors(self, images: Tensor) -> list[Tensor]:
        """Compute descriptors before whitening: (N, descriptor, H / s, W / s) for each size of patches."""
        pixels = pixels_of(images)
        return [patch_teacher(pixels) for patch_teacher in self.patch_teachers]

    def _moments(self, images: Tensor) -> list[Tensor]:
        """Compute |y|^2, e and v for each size of patches: (N, 3, H / s, W / s)."""
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
