"""Linear reconstruction: the principal components of the teacher's joint features are the student.

A linear autoencoder with squared error has one minimum: its bottleneck holds the first principal components, and the
decoder is the transpose of the encoder (Baldi & Hornik, "Neural networks and principal component analysis", Neural
Networks 2, 1989). So this student needs no training by gradients. The components that vary little between good images
are left out of the bottleneck, and they are the ones that show defects (Rippel, Mertens & Merhof, "Modeling the
distribution of normal data in pre-trained deep features for anomaly detection", ICPR 2020). The feature reconstruction
error of principal components is a score of Ahuja et al., "Probabilistic modeling of deep features for
out-of-distribution and adversarial detection", arXiv:1909.11786, and of its code, DFM.

The teacher's features are rotated to the components once. In these coordinates a reconstruction needs no decoder: a
component that the bottleneck holds is kept, and each other one gets its mean. The mean is that of the position, so a
part that always lies the same way is compared with the usual part at each position.

teacher  features of all stages at strides 4, 8 and 16, joined at stride 8: the first are pooled, the last are enlarged
         bilinearly. Each stage is divided by its spread, the root of the mean variance of its channels. A convolution
         turns them into components, and divides each one by the fourth root of its variance
student  the components that explain a share of the variance, and the means of the others at each position
loss     squared error, the mean over components; about 1 on the training images for a student that keeps none
map      cosine map of both vectors of components

The fourth root is half the way from variances (a plain reconstruction error, where the first components that are left
out outweigh the others) to the Mahalanobis distance, where all components count alike and the last are mostly noise.
"""

from __future__ import annotations

from collections.abc import Iterable
from types import MappingProxyType

import torch
from torch import Tensor, nn

from edgead.models.base import MethodConfig
from edgead.models.closed_form import ClosedFormMethod
from edgead.models.components.moments import Moments
from edgead.models.components.stages import StagesTeacher, create_stages_teacher
from edgead.models.hyperparameters import Hyperparameters

GRID_STRIDE = 8
# Constant features have spreads below this.
SMALLEST_SPREAD = 1e-4
# Least variance of a component, in units of the mean variance. It limits the factors to 10.
SMALLEST_VARIANCE = 1e-4


class LinearReconstruction(ClosedFormMethod):
    """Principal components of the teacher's joint features.

    Args:
        teacher: Teacher with the features of all stages at strides 4, 8 and 16.
        config: Configuration of the method.
    """

    losses = ("squared-error",)
    fusion = "add"
    # Shares of the variance that the components explain.
    capacities = (0.5, 0.7, 0.8, 0.9, 0.95, 0.98)
    # No step is taken, so the learning rate and the schedule have no meaning.
    presets = MappingProxyType(
        {
            preset: Hyperparameters("squared-error", 4.0, 1, 16, 1.0, "constant")
            for preset in ("edge", "paper")
        }
    )
    kept: Tensor
    means: Tensor

    def __init__(self, teacher: StagesTeacher, config: MethodConfig) -> None:
        super().__init__(teacher, config)
        self.channels, self.strides = teacher.channels, teacher.strides
        channels = sum(self.channels)
        coarse = sum(
            count for count, stride in zip(self.channels, self.strides, strict=True) if stride > GRID_STRIDE
        )
        # One convolution of the joint features in two parts, because the second is cheaper before the enlargement.
        self.fine = nn.Conv2d(channels - coarse, channels, 1, bias=False).requires_grad_(False)
        self.coarse = nn.Conv2d(coarse, channels, 1, bias=False).requires_grad_(False)
        height, width = config.size.height_px // GRID_STRIDE, config.size.width_px // GRID_STRIDE
        # 1 for each component that the student keeps, and means of the others.
        self.register_buffer("kept", torch.zeros(1, channels, 1, 1))
        self.register_buffer("means", torch.zeros(1, channels, height, width))
        self._all_means = torch.zeros(channels, height, width, dtype=torch.float64)
        # Variances of the components in descending order, before and after the division by their fourth roots.
        self._variances, self._weighted = torch.zeros(2, channels, dtype=torch.float64)

    @classmethod
    def create_teacher(cls, name: str, weights: str) -> nn.Module:
        """Create the frozen side with its weights. See DistillationMethod.create_teacher."""
        return create_stages_teacher(name, weights)

    @torch.no_grad()
    def teacher_features(self, images: Tensor) -> list[Tensor]:
        """Compute the features of the teacher, before any division.

        Args:
            images: (N, H, W, 3) uint8 RGB.

        Returns:
            Features of strides 4 and 8, (N, C_f, H / 8, W / 8), and of stride 16, (N, C_c, H / 16, W / 16).
        """
        return self._grouped(self.teacher(images))

    def student_features(self, images: Tensor, teacher_features: list[Tensor]) -> list[Tensor]:
        """Compute the components of the features, and their reconstruction.

        Args:
            images: Not used.
            teacher_features: Features that `teacher_features` returned.

        Returns:
            Two tensors (N, C, H / 8, W / 8).
        """
        fine, coarse = teacher_features
        components = self.fine(fine) + _enlarged(self.coarse(coarse))
        return [components, self.kept * components + self.means]

    def loss(self, teacher_features: list[Tensor], student_features: list[Tensor]) -> Tensor:
        """Compute the squared error of the reconstruction: the mean over components."""
        return nn.functional.mse_loss(student_features[1], student_features[0])

    def head_features(
        self, teacher_features: list[Tensor], student_features: list[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Return the components and their reconstruction. See DistillationMethod.head_features."""
        components, reconstruction = student_features
        return [components], [reconstruction]

    def features(self, images: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Compute both sides of a batch. See DistillationMethod.features."""
        grouped = self._grouped(self.teacher(images))
        return self.head_features(grouped, self.student_features(images, grouped))

    def moments(self, batches: Iterable[tuple[Tensor, list[Tensor]]]) -> Moments:
        """Collect the moments of the joint features. See ClosedFormMethod.moments."""
        channels, height, width = self._all_means.shape
        found = Moments((channels, height, width), self.means.device)
        for _, features in batches:
            found.add(joined(features))
        return found

    def fit(self, moments: Moments) -> None:
        """Compute the spreads, the principal components and their means. See ClosedFormMethod.fit."""
        # The decomposition is small, and on the CPU it does not depend on a GPU's library.
        mean, covariance = moments.mean().cpu(), moments.covariance().cpu()
        stages = torch.split(covariance.diagonal(), list(self.channels))
        spread = torch.cat([x.mean().clamp_min(0.0).sqrt().expand_as(x) for x in stages])
        scale = 1.0 / spread.clamp_min(SMALLEST_SPREAD)
        variances, vectors = torch.linalg.eigh(covariance * scale * scale[:, None])
        self._variances = variances.flip(0).clamp_min(0.0)
        roots = self._variances.clamp_min(SMALLEST_VARIANCE).sqrt()
        factors = (roots * roots.mean()) ** -0.5
        self._weighted = factors**2 * self._variances
        matrix = factors[:, None] * vectors.flip(1).T * scale
        self._all_means = torch.einsum("kc,chw->khw", matrix, mean)
        for layer, part in zip(
            (self.fine, self.coarse),
            matrix.split([self.fine.in_channels, self.coarse.in_channels], 1),
            strict=True,
        ):
            layer.weight.copy_(part[:, :, None, None])
        self.set_capacity(self.capacities[0])

    def set_capacity(self, capacity: float) -> None:
        """Keep as many components as explain a share of the variance.

        Args:
            capacity: Share of the variance, below 1; 0 keeps none, so that the student is the mean.
        """
        explained = self._variances.cumsum(0)
        # The last component is never kept: all of them would reconstruct every defect.
        count = min(int((explained < capacity * explained[-1]).sum()) + 1, len(explained) - 1)
        kept = torch.arange(len(explained)) < (count if capacity > 0.0 else 0)
        self.kept.copy_(kept[None, :, None, None])
        self.means.copy_(self._all_means.masked_fill(kept[:, None, None], 0.0))

    def training_loss(self) -> float:
        """Return the loss on the images of `fit`: the mean weighted variance of the components left out."""
        return float((self._weighted * (1.0 - self.kept.flatten().cpu())).mean())

    def _grouped(self, stages: list[Tensor]) -> list[Tensor]:
        """Join the features of strides 4 and 8 at stride 8, and those of stride 16."""
        fine: list[Tensor] = []
        coarse: list[Tensor] = []
        for features, stride in zip(stages, self.strides, strict=True):
            if stride < GRID_STRIDE:
                fine.append(nn.functional.avg_pool2d(features, GRID_STRIDE // stride))
            else:
                (coarse if stride > GRID_STRIDE else fine).append(features)
        return [torch.cat(fine, 1), torch.cat(coarse, 1)]


def joined(features: list[Tensor]) -> Tensor:
    """Join features of strides 8 and 16 at stride 8.

    Args:
        features: (N, C_f, H, W) and (N, C_c, H / 2, W / 2).

    Returns:
        (N, C_f + C_c, H, W).
    """
    fine, coarse = features
    return torch.cat([fine, _enlarged(coarse)], dim=1)


def _enlarged(features: Tensor) -> Tensor:
    """Double the height and the width of features (N, C, H, W) bilinearly."""
    return nn.functional.interpolate(features, scale_factor=2.0, mode="bilinear")
