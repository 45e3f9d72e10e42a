"""Linear reconstruction: the principal components of the teacher's joint features are the student.

A linear autoencoder with squared error has one minimum: its bottleneck holds the first principal components, and the
decoder is the transpose of the encoder (Baldi & Hornik, "Neural networks and principal component analysis", Neural
Networks 2, 1989). So this student needs no training by gradients. The components that vary little between good images
are left out of the bottleneck, and they are the ones that show defects (Rippel, Mertens & Merhof, "Modeling the
distribution of normal data in pre-trained deep features for anomaly detection", ICPR 2020). The feature reconstruction
error of principal components is a score of Ahuja et al., "Probabilistic modeling of deep features for
out-of-distribution and adversarial detection", arXiv:1909.11786, and of its code, DFM.

teacher  features at strides 4, 8 and 16, joined at stride 8: the first are pooled, the last are enlarged bilinearly.
         Each scale is divided by its spread, the root of the mean variance of its channels
student  two 1x1 convolutions: from the joint features to the components, and back
loss     squared error of the joint features, the mean over channels; on the training images it is the share of the
         variance that the components leave unexplained
map      cosine map of the joint features
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from edgead.models.base import MethodConfig
from edgead.models.closed_form import ClosedFormMethod
from edgead.models.components.moments import Moments
from edgead.models.components.teacher import Teacher
from edgead.models.hyperparameters import Hyperparameters

# Constant features have spreads below this.
SMALLEST_SPREAD = 1e-6


class LinearReconstruction(ClosedFormMethod):
    """Principal components of the teacher's joint features.

    Args:
        teacher: Teacher with features at strides 4, 8 and 16.
        config: Configuration of the method.
    """

    losses = ("squared-error",)
    fusion = "add"
    # Shares of the variance that the components explain.
    capacities = (0.7, 0.9, 0.95, 0.98, 0.99)
    # No step is taken, so the learning rate and the schedule have no meaning.
    presets = MappingProxyType(
        {
            preset: Hyperparameters("squared-error", 4.0, 1, 16, 1.0, "constant")
            for preset in ("edge", "paper")
        }
    )
    scale: Tensor

    def __init__(self, teacher: Teacher, config: MethodConfig) -> None:
        super().__init__(teacher, config)
        self.channels = teacher.channels
        self.register_buffer("scale", torch.ones(1, sum(teacher.channels), 1, 1))
        # Components of all capacities, as rows in descending order, and the variances that they explain.
        channels = sum(teacher.channels)
        self._components = torch.zeros(channels, channels, dtype=torch.float64)
        self._variances, self._mean = torch.zeros(2, channels, dtype=torch.float64)
        self._set_components(self._components[:1], self._mean)

    @torch.no_grad()
    def teacher_features(self, images: Tensor) -> list[Tensor]:
        """Compute the joint features: one tensor (N, sum of C_k, H / 8, W / 8), before the division by the spreads.

        Args:
            images: (N, H, W, 3) uint8 RGB.
        """
        return [joined(self.teacher(images))]

    def student_features(self, images: Tensor, teacher_features: list[Tensor]) -> list[Tensor]:
        """Reconstruct the joint features, divided by the spreads, from their components.

        Args:
            images: Not used.
            teacher_features: The joint features.

        Returns:
            One tensor of their shape.
        """
        return [self.decoder(self.encoder(teacher_features[0]))]

    def loss(self, teacher_features: list[Tensor], student_features: list[Tensor]) -> Tensor:
        """Compute the squared error of the joint features, divided by the spreads: the mean over channels."""
        return nn.functional.mse_loss(student_features[0], self.scale * teacher_features[0])

    def head_features(
        self, teacher_features: list[Tensor], student_features: list[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Divide the joint features by the spreads. See DistillationMethod.head_features."""
        return [self.scale * teacher_features[0]], student_features

    def features(self, images: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Compute both sides of a batch. See DistillationMethod.features."""
        joint = [joined(self.teacher(images))]
        return self.head_features(joint, self.student_features(images, joint))

    def moments(self, batches: Iterable[tuple[Tensor, list[Tensor]]]) -> Moments:
        """Collect the moments of the joint features. See ClosedFormMethod.moments."""
        found = Moments(self.scale.shape[1], self.scale.device)
        for _, (joint,) in batches:
            found.add(joint)
        return found

    def fit(self, moments: Moments) -> None:
        """Compute the spreads, the mean and the principal components. See ClosedFormMethod.fit."""
        # The decomposition is small, and on the CPU it does not depend on a GPU's library.
        mean, covariance = moments.mean().cpu(), moments.covariance().cpu()
        scales = torch.split(covariance.diagonal(), list(self.channels))
        spread = torch.cat([x.mean().clamp_min(0.0).sqrt().expand_as(x) for x in scales])
        scale = 1.0 / spread.clamp_min(SMALLEST_SPREAD)
        variances, vectors = torch.linalg.eigh(covariance * scale * scale[:, None])
        self.scale.copy_(scale[None, :, None, None])
        self._mean = scale * mean
        self._variances, self._components = variances.flip(0).clamp_min(0.0), vectors.flip(1).T
        self.set_capacity(self.capacities[0])

    def set_capacity(self, capacity: float) -> None:
        """Keep as many components as explain a share of the variance.

        Args:
            capacity: Share of the variance, below 1; 0 keeps none, so that the student is the mean.
        """
        explained = self._variances.cumsum(0)
        # The last component is never kept: all of them would reconstruct every defect.
        count = min(int((explained < capacity * explained[-1]).sum()) + 1, len(explained) - 1)
        kept = self._components[:count] if capacity > 0.0 else torch.zeros_like(self._components[:1])
        self._set_components(kept, self._mean)

    def training_loss(self) -> float:
        """Return the share of the variance that the components leave unexplained."""
        unexplained = self._variances[self.encoder.out_channels :].sum()
        # Constant features have no variance.
        return float(unexplained / self._variances.sum().clamp_min(SMALLEST_SPREAD**2))

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Load tensors with their own number of components. See nn.Module.load_state_dict."""
        weight = state_dict.get("encoder.weight")
        if weight is not None and weight.ndim == 4:
            self._set_components(self._mean.new_zeros(weight.shape[0], len(self._mean)), self._mean)
        return super().load_state_dict(state_dict, strict, assign)

    def _set_components(self, components: Tensor, mean: Tensor) -> None:
        """Create the two convolutions from components (K, C) and the mean (C,) of the divided features."""
        count, channels = components.shape
        self.encoder, self.decoder = nn.Conv2d(channels, count, 1), nn.Conv2d(count, channels, 1)
        scale = self.scale.flatten().cpu()
        # The encoder reads features before the division by the spreads.
        _fill(self.encoder, components * scale, -components @ mean)
        _fill(self.decoder, components.T, mean)
        for layer in (self.encoder, self.decoder):
            layer.requires_grad_(False).to(self.scale.device)


def _fill(layer: nn.Conv2d, weight: Tensor, bias: Tensor) -> None:
    """Set the weight (C_out, C_in) and the bias (C_out,) of a 1x1 convolution."""
    assert layer.bias is not None
    layer.weight.data.copy_(weight[:, :, None, None])
    layer.bias.data.copy_(bias)


def joined(features: list[Tensor]) -> Tensor:
    """Join features of strides 4, 8 and 16 at stride 8.

    Args:
        features: (N, C_k, H_k, W_k), fine to coarse.

    Returns:
        (N, sum of C_k, H_2, W_2).
    """
    fine, middle, coarse = features
    pooled = nn.functional.avg_pool2d(fine, 2)
    enlarged = nn.functional.interpolate(coarse, scale_factor=2.0, mode="bilinear")
    return torch.cat([pooled, middle, enlarged], dim=1)
