"""EfficientAD-S: a student describes patches as a small teacher does, and as an autoencoder of the whole image does.

Batzner, Heckler & König, "EfficientAD: Accurate Visual Anomaly Detection at Millisecond-Level Latencies", WACV 2024,
arXiv:2303.14535. A patch that no good part has is described wrongly by the student (local map). Good patches in a wrong
arrangement are reconstructed wrongly by the autoencoder, and the student, which sees single patches, cannot imitate
that (global map).

teacher  stage 0: a patch description network T learns to describe patches as a pretrained network P does
             L = the mean of (T - P)^2
         P are P's features at strides 8 and 16 of images that are twice as large, so its patches are smaller. Each
         channel has mean 0 and standard deviation 1 over the batch, and neighbouring channels are averaged to as many
         as T has. The authors distil from a WideResNet101 on ImageNet for 60,000 steps. Here one half of a batch are
         good images and the other half pseudo-anomalous ones. With the teacher `pdn_small` and its published weights
         this stage is left out
student  stage 1: a patch description network S with twice the outputs, S1 and S2, and an autoencoder A. T is normalised
         by its mean and standard deviation over the training images
             L = hard((T - S1)^2) + the mean of S1^2 on textures + the mean of (T - A)^2 + the mean of (A - S2)^2
         hard is the mean of the largest thousandth of the elements, over channels and positions of the batch. The
         second term keeps S from describing what good parts do not show; the authors take images of ImageNet there,
         here there are none, so textures take their place, one for four images. The brightness, contrast or saturation
         of each image changes by up to a fifth; in the paper only A, its target and S2 see the changed image
map      (T - S1)^2 and (A - S2)^2, the mean over channels. Each is normalised by its 0.9 and 0.995 quantiles over the
         training images (the paper uses held-out images, which set the threshold here), and both are added:
             ((T - S1)^2 - q_90) / (q_99.5 - q_90) + ((A - S2)^2 - q_90) / (q_99.5 - q_90)

The paper halves and scales this map. The head computes only cosine maps. It gets both pairs of vectors as one pair on
a sphere, see `edgead.models.components.descriptors`, in units of the differences of the quantiles. So its map differs
from the published one by a factor, by the constants q_90, which the threshold includes, and by the curvature of the
sphere, which is small on good parts. P is in no exported graph.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.transforms import v2

from edgead.models.base import DistillationMethod, MethodConfig, Preset
from edgead.models.components.descriptors import (
    half_disturbed,
    hard_mean,
    lifted,
    pretrained_descriptors,
)
from edgead.models.components.feature_autoencoder import FeatureAutoencoder
from edgead.models.components.patch_description import (
    PUBLISHED_SPEC,
    PUBLISHED_TEACHER,
    DescriptionSpec,
    PublishedTeacher,
    description_network,
    imagenet_pixels,
)
from edgead.models.components.patch_networks import mean_and_std
from edgead.models.components.teacher import Teacher, create_teacher
from edgead.models.hyperparameters import Hyperparameters

QUANTILES = (0.9, 0.995)
# Number of images for each texture of a batch.
IMAGES_PER_TEXTURE = 4
# Radius of the sphere in units of the root mean square length of a good vector. The sphere is nearly flat there, and no
# component is cut that is not this many times its root mean square.
RADIUS = 8.0
# Added to the variance of a descriptor's component, because the variance of a constant component is 0.
EPSILON = 1e-6
# If all images are equal the unit would be 0, and the map infinite.
SMALLEST_UNIT = 1e-6


# Patch description networks, and the channels of the autoencoder at fine and coarse strides.
SPECS: MappingProxyType[Preset, tuple[DescriptionSpec, int, int]] = MappingProxyType(
    {"edge": (DescriptionSpec((16, 48, 64), 64), 16, 32), "paper": (PUBLISHED_SPEC, 32, 64)}
)


class EfficientAd(DistillationMethod):
    """EfficientAD with a distilled teacher, or with the published one.

    Args:
        teacher: Pretrained network P, or the published teacher.
        config: Configuration of the method.

    Attributes:
        published: Whether the teacher is the published one, so that there is no distillation.
        descriptor: Number of channels of T, S1, S2 and A, each.
        descriptor_mean: Mean of T over the training images, (descriptor,); 0 until the student's stage begins.
        descriptor_variance: Variance of T, (descriptor,); 1 until then.
        units: Differences of the quantiles of the local and the global map, (2,); 1 until the student's stage ends.
    """

    losses = ("hard",)
    fusion = "add"
    uses_textures = True
    presets = MappingProxyType(
        {
            # As in `uninformed-students`, more steps help more than larger batches.
            "edge": Hyperparameters("hard", 4.0, 50, 4, 2e-3, "one-cycle", stages=(0.3, 0.7)),
            # Steps of the authors for 280 images, for whom the last twentieth has a tenth of the learning rate.
            "paper": Hyperparameters("hard", 0.0, 465, 1, 1e-4, "constant", stages=(0.46, 0.54)),
        }
    )

    descriptor_mean: Tensor
    descriptor_variance: Tensor
    units: Tensor

    def __init__(self, teacher: Teacher | PublishedTeacher, config: MethodConfig) -> None:
        super().__init__(teacher, config)
        patches, fine, coarse = SPECS[config.preset]
        self.published = isinstance(teacher, PublishedTeacher)
        if self.published:
            self.hyperparameters = replace(self.hyperparameters, stages=(1.0,))
            self.descriptor = PUBLISHED_SPEC.descriptor
        else:
            self.descriptor = min(patches.descriptor, sum(teacher.channels[1:]))
            self.patch_teacher = description_network(replace(patches, descriptor=self.descriptor))
        self.student = description_network(replace(patches, descriptor=2 * self.descriptor))
        self.autoencoder = FeatureAutoencoder(config.size, fine, coarse, self.descriptor)
        self.register_buffer("descriptor_mean", torch.zeros(self.descriptor))
        self.register_buffer("descriptor_variance", torch.ones(self.descriptor))
        self.register_buffer("units", torch.ones(len(QUANTILES)))
        self.recolour = v2.RandomChoice(
            [v2.ColorJitter(brightness=0.2), v2.ColorJitter(contrast=0.2), v2.ColorJitter(saturation=0.2)]
        )
        self.enter_stage(0)

    @classmethod
    def create_teacher(cls, name: str, weights: str) -> Teacher | PublishedTeacher:
        """Create P, or the published teacher for the name `pdn_small`. See DistillationMethod.create_teacher."""
        return PublishedTeacher(weights) if name == PUBLISHED_TEACHER else create_teacher(name, weights)

    @property
    def distilling(self) -> bool:
        """Whether the stage under way is the distillation."""
        return self.stage == 0 and not self.published

    def enter_stage(self, stage: int) -> None:
        """Enable gradients of T in the distillation, else of the student and the autoencoder.

        Args:
            stage: Number of the stage, from 0.
        """
        super().enter_stage(stage)
        if not self.published:
            self.patch_teacher.requires_grad_(self.distilling)
        for network in (self.student, self.autoencoder):
            network.requires_grad_(not self.distilling)

    @torch.no_grad()
    def teacher_features(self, images: Tensor) -> list[Tensor]:
        """Compute P's features at strides 8 and 16 of images that are twice as large.

        Args:
            images: (N, H, W, 3) uint8 RGB.

        Returns:
            (N, C_1, H / 4, W / 4) and (N, C_2, H / 8, W / 8); nothing for the published teacher, because every pass
            through the images changes their colours.
        """
        if self.published:
            return []
        pixels = images.float().permute(0, 3, 1, 2)
        enlarged = nn.functional.interpolate(pixels, scale_factor=2.0, mode="bilinear").permute(0, 2, 3, 1)
        features: list[Tensor] = self.teacher(enlarged)[1:]
        return features

    def forward(self, images: Tensor, teacher_features: list[Tensor]) -> Tensor:
        """Compute the loss of the stage.

        In training mode pseudo-anomalies, textures and colours are drawn from torch's generator. In evaluation mode the
        images stay as they are, and the loss has no term with textures.

        Args:
            images: (N, H, W, 3) uint8 RGB.
            teacher_features: Features of the pretrained network for the images.

        Returns:
            Scalar loss.
        """
        if self.distilling:
            shown, features = half_disturbed(self, images, teacher_features)
            found = self.patch_teacher(imagenet_pixels(shown))
            target = pretrained_descriptors(features, found.shape[2:], self.descriptor)
            return nn.functional.mse_loss(found, target)
        if self.training:
            images = torch.stack([self.recolour(image.permute(2, 0, 1)) for image in images])
            images = images.permute(0, 2, 3, 1)
        with torch.no_grad():
            descriptors = [self.descriptors(images)]
        loss = self.loss(descriptors, self.student_features(images, descriptors))
        return loss + self._penalty(images) if self.training else loss

    def descriptors(self, images: Tensor) -> Tensor:
        """Compute normalised descriptors T: (N, descriptor, H / 4, W / 4).

        Args:
            images: (N, H, W, 3) uint8 RGB.
        """
        # A batch normalisation with fixed statistics, because the exporter folds it into the convolution before it.
        return nn.functional.batch_norm(
            self._raw_descriptors(images), self.descriptor_mean, self.descriptor_variance, eps=EPSILON
        )

    def student_features(self, images: Tensor, teacher_features: list[Tensor]) -> list[Tensor]:
        """Compute the outputs of the student and the autoencoder.

        Args:
            images: (N, H, W, 3) uint8 RGB.
            teacher_features: Not used.

        Returns:
            S1 and S2 concatenated, (N, 2 descriptor, H / 4, W / 4), and A, (N, descriptor, H / 4, W / 4).
        """
        pixels = imagenet_pixels(images)
        return [self.student(pixels), self.autoencoder(pixels)]

    def loss(self, teacher_features: list[Tensor], student_features: list[Tensor]) -> Tensor:
        """Compute the loss of stage 1 from T, S and A, without the term of textures. See DistillationMethod.loss."""
        local_error, global_error = _squares(teacher_features, student_features)
        described = nn.functional.mse_loss(student_features[1], teacher_features[0])
        return hard_mean(local_error) + described + global_error.mean()

    def features(self, images: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Compute both sides of a batch without the pretrained network. See DistillationMethod.features."""
        descriptors = [self.descriptors(images)]
        return self.head_features(descriptors, self.student_features(images, descriptors))

    def head_features(
        self, teacher_features: list[Tensor], student_features: list[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Join both pairs of vectors and lift them to the sphere.

        Args:
            teacher_features: T.
            student_features: Result of `student_features`.

        Returns:
            From T and A, and from S1 and S2: one tensor (N, 2 descriptor + 1, H / 4, W / 4) each.
        """
        both, reconstructed = student_features
        # A good vector has about the squared length 1 / unit in each pair.
        flatness = 1.0 / (RADIUS**2 * (1.0 / self.units).sum())
        one, other = (flatness / (self.descriptor * self.units)).sqrt()
        local_part, global_part = both.chunk(2, dim=1)
        teacher_side = torch.cat([one * teacher_features[0], other * reconstructed], dim=1)
        student_side = torch.cat([one * local_part, other * global_part], dim=1)
        return [lifted(teacher_side)], [lifted(student_side)]

    def begin_stage(self, batches: Iterable[tuple[Tensor, list[Tensor]]]) -> None:
        """Store mean and variance of T before the student learns. See DistillationMethod.begin_stage."""
        if not self.distilling:
            ((mean, std),) = mean_and_std([self._raw_descriptors(images)] for images, _ in batches)
            self.descriptor_mean.copy_(mean.flatten())
            self.descriptor_variance.copy_(std.flatten().square())

    def finish_stage(self, batches: Iterable[tuple[Tensor, list[Tensor]]]) -> None:
        """Store the units of both maps after the student has learnt. See DistillationMethod.finish_stage."""
        if self.distilling:
            return
        found = []
        for images, _ in batches:
            descriptors = [self.descriptors(images)]
            squares = _squares(descriptors, self.student_features(images, descriptors))
            found.append(torch.stack([square.mean(1).flatten() for square in squares]))
        # Not by PyTorch, which computes quantiles of at most 16 million numbers.
        low, high = np.quantile(torch.cat(found, dim=1).cpu().numpy(), QUANTILES, axis=1)
        self.units.copy_(torch.from_numpy(high - low).clamp_min(SMALLEST_UNIT))

    def optimizer(self, learning_rate: float) -> torch.optim.Optimizer:
        """Create Adam with weight decay 1e-5, as the authors do. See DistillationMethod.optimizer."""
        return torch.optim.Adam(self.trained(), lr=learning_rate, weight_decay=1e-5)

    def _raw_descriptors(self, images: Tensor) -> Tensor:
        """Compute descriptors before their normalisation: (N, descriptor, H / 4, W / 4)."""
        network: Any = self.teacher.layers if self.published else self.patch_teacher
        descriptors: Tensor = network(imagenet_pixels(images))
        return descriptors

    def _penalty(self, images: Tensor) -> Tensor:
        """Compute the mean of S1^2 on textures of the size of the images."""
        rng = np.random.default_rng(int(torch.randint(2**62, ())))
        height, width = images.shape[1:3]
        count = -(-len(images) // IMAGES_PER_TEXTURE)
        textures = np.stack([self.textures.draw(height, width, rng) for _ in range(count)])
        described = self.student(imagenet_pixels(torch.from_numpy(textures).to(images.device)))
        penalty: Tensor = described[:, : self.descriptor].float().square().mean()
        return penalty


def _squares(teacher_features: list[Tensor], student_features: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Compute (T - S1)^2 and (A - S2)^2 in float32, of the shape of T."""
    (described,), (both, reconstructed) = teacher_features, student_features
    local_part, global_part = both.chunk(2, dim=1)
    return (described - local_part).float().square(), (reconstructed - global_part).float().square()
