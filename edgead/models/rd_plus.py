"""RD++: Reverse Distillation with projections that remove anomalies from the teacher's features before the bottleneck.

Tien et al., "Revisiting Reverse Distillation for Anomaly Detection", CVPR 2023. In RD only the narrow embedding keeps a
defect from the student. RD++ trains a projection for each scale that restores good features where a part has a defect.
It trains with noisy copies: good images with simplex noise.

teacher  as in RD
student  RD's student behind a projection for each scale, in training and in scoring. A projection has four 3x3
         convolutions to a half, a quarter, a half and all of the channels, each with instance normalisation and a leaky
         ReLU
loss     L_KD + 0.2 L_SSOT + 0.002 L_Recon + 0.02 L_Con, each summed over scales. L_KD is the loss of RD. z are the
         features of the noisy copy, p and n the projected features of the noisy copy and of the good image:
         L_SSOT  optimal transport between a batch of p and a shuffled batch of n, each flattened, after a softmax
         L_Recon one minus the cosine of p and n, the mean over positions
         L_Con   amount by which the cosine of z and n, flattened, exceeds 0.5, so that good features do not resemble
                 anomalous ones
map      as in RD, between the teacher's features without projection and the student's
training Adam as in RD; the learning rate of the projections is a fifth of RD's (0.001 and 0.005)

The authors' script computes L_SSOT between a batch of n and the same batch shuffled. Transport does not depend on the
order of a set, so their loss is always 0; with p it is not. Their script also divides the sum of the last three terms
by 1.11 and flattens L_KD (`--loss flattened`).
"""

from __future__ import annotations

from itertools import pairwise
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgead.data.pseudo_anomalies.simplex import noisy_copies, noisy_images
from edgead.models.base import MethodConfig
from edgead.models.components.head import cosine_map
from edgead.models.components.sinkhorn import sinkhorn_divergence
from edgead.models.components.teacher import Teacher
from edgead.models.hyperparameters import Hyperparameters
from edgead.models.rd import ReverseDistillation
from edgead.types import BoolArray, UInt8Array

TRANSPORT_WEIGHT = 0.2
RECONSTRUCTION_WEIGHT = 0.002
CONTRAST_WEIGHT = 0.02
CONTRAST_MARGIN = 0.5
PROJECTION_LEARNING_RATE = 1 / 5


class RevisitedReverseDistillation(ReverseDistillation):
    """RD++ for images of one size; losses and alignment as in RD.

    Args:
        teacher: Teacher with features at strides 4, 8 and 16.
        config: Configuration of the method.
    """

    presets = MappingProxyType(
        {
            "edge": Hyperparameters("hard-positions", 4.0, 100, 16, 5e-3, "one-cycle"),
            # The authors choose from 10 to 300 epochs for each category, on the test images.
            "paper": Hyperparameters("per-position", 4.0, 200, 16, 5e-3, "constant"),
        }
    )

    def __init__(self, teacher: Teacher, config: MethodConfig) -> None:
        super().__init__(teacher, config)
        self.projections = nn.ModuleList(_projection(channels) for channels in teacher.channels)

    def student_features(self, images: Tensor, teacher_features: list[Tensor]) -> list[Tensor]:
        """Compute the features of RD's student behind the projections. See DistillationMethod.student_features."""
        return super().student_features(images, self._projected(teacher_features))

    def forward(self, images: Tensor, teacher_features: list[Tensor]) -> Tensor:
        """Compute the whole loss in training mode, and L_KD in evaluation mode.

        In training mode the noisy copies are drawn from torch's generator. L_KD needs no noisy copies.

        Args:
            images: (N, H, W, 3) uint8 RGB.
            teacher_features: Teacher's features of the images.

        Returns:
            Scalar loss.
        """
        if not self.training:
            return super().forward(images, teacher_features)
        rng = np.random.default_rng(int(torch.randint(2**62, ())))
        copies = torch.from_numpy(noisy_copies(images.cpu().numpy(), rng)).to(images.device)
        noisy_features = self.teacher_features(copies)
        normal, noisy = self._projected(teacher_features), self._projected(noisy_features)
        distillation = self.loss(teacher_features, super().student_features(images, normal))
        return distillation + projection_loss(noisy_features, noisy, normal)

    def disturbed(self, images: UInt8Array, rng: np.random.Generator) -> tuple[UInt8Array, BoolArray]:
        """Create noisy copies. See DistillationMethod.disturbed."""
        return noisy_images(images, rng)

    def optimizer(self, learning_rate: float) -> torch.optim.Optimizer:
        """Create Adam, with a separate group for the projections. See DistillationMethod.optimizer."""
        student = [*self.bottleneck.parameters(), *self.decoder.parameters()]
        projections = list(self.projections.parameters())
        groups: list[dict[str, Any]] = [
            {"params": student},
            {"params": projections, "lr": PROJECTION_LEARNING_RATE * learning_rate},
        ]
        return torch.optim.Adam(groups, lr=learning_rate, betas=(0.5, 0.999))

    def _projected(self, features: list[Tensor]) -> list[Tensor]:
        """Project the teacher's features of every scale; the shapes stay."""
        return [projection(x) for projection, x in zip(self.projections, features, strict=True)]


def projection_loss(copies: list[Tensor], noisy: list[Tensor], normal: list[Tensor]) -> Tensor:
    """Compute 0.2 L_SSOT + 0.002 L_Recon + 0.02 L_Con.

    Args:
        copies: Teacher's features of the noisy copies, (N, C_k, H_k, W_k) for every scale.
        noisy: Projected features of the noisy copies, of the same shapes.
        normal: Projected features of the good images, of the same shapes.

    Returns:
        Scalar.
    """
    # One order for all scales. Transport does not depend on the order; the paper shuffles.
    order = torch.randperm(len(normal[0]))
    losses = []
    for z, p, n in zip(copies, noisy, normal, strict=True):
        transport = sinkhorn_divergence(p.flatten(1).softmax(1), n[order].flatten(1).softmax(1))
        reconstruction = cosine_map(p, n).mean()
        # The cosine of a whole tensor: one position, and all numbers are its channels.
        similarity = 1.0 - cosine_map(z.flatten(1)[..., None, None], n.flatten(1)[..., None, None])
        contrast = (similarity - CONTRAST_MARGIN).clamp_min(0.0).mean()
        losses += [
            TRANSPORT_WEIGHT * transport,
            RECONSTRUCTION_WEIGHT * reconstruction,
            CONTRAST_WEIGHT * contrast,
        ]
    return torch.stack(losses).sum()


def _projection(channels: int) -> nn.Sequential:
    """Create four convolutions that narrow and widen again, from (N, C, H, W) to (N, C, H, W)."""
    widths = (channels, channels // 2, channels // 4, channels // 2, channels)
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.InstanceNorm2d(outputs), nn.LeakyReLU()]
    return nn.Sequential(*layers)
