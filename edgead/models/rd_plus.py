"""RD++: Reverse Distillation whose bottleneck sees the teacher's features through projections that drop what is wrong.

Tien et al., "Revisiting Reverse Distillation for Anomaly Detection", CVPR 2023. RD trusts its narrow embedding alone to
keep a defect from the student; RD++ trains a projection for each scale to give good features back where a part is not
good, with noisy copies of the good images that simplex noise was laid over.

teacher  as of RD
student  RD's, behind a projection for each scale, also when an image is scored: four 3x3 convolutions, to a half, a
         quarter, a half and all of the channels, each with instance normalisation and a leaky ReLU
loss     L_KD + 0.2 L_SSOT + 0.002 L_Recon + 0.02 L_Con, each summed over scales. L_KD is RD's. With z the features of
         the noisy copy, p and n the projected features of the noisy copy and of the good image:
         L_SSOT  optimal transport between a batch of p and a shuffled batch of n, each flattened and a softmax taken
         L_Recon one minus the cosine of p and n, the mean over positions
         L_Con   how far the cosine of z and n, flattened, is above 0.5: good features are not to look like wrong ones
map      as of RD: the projections do not take part in it
training Adam as of RD, for the projections with a fifth of its learning rate (0.001 beside 0.005)

The authors' script takes L_SSOT between a batch of n and the same batch shuffled. Transport does not see the order of a
set, so that loss is always 0; with p it is not. Their script also divides the sum of the last three by 1.11 and takes
L_KD flattened (`--loss flattened`).
"""

from __future__ import annotations

from itertools import pairwise
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgead.data.pseudo_anomalies.simplex import noisy_copies, noisy_images
from edgead.models.base import Hyperparameters, MethodConfig
from edgead.models.components.head import cosine_map
from edgead.models.components.sinkhorn import sinkhorn_divergence
from edgead.models.components.teacher import Teacher
from edgead.models.rd import ReverseDistillation
from edgead.types import BoolArray, UInt8Array

TRANSPORT_WEIGHT = 0.2
RECONSTRUCTION_WEIGHT = 0.002
CONTRAST_WEIGHT = 0.02
CONTRAST_MARGIN = 0.5
PROJECTION_LEARNING_RATE = 1 / 5


class RevisitedReverseDistillation(ReverseDistillation):
    """RD++ for images of one size; loss and alignment as of RD."""

    presets = MappingProxyType(
        {
            "edge": Hyperparameters("hard-positions", 4.0, 100, 16, 5e-3, "one-cycle"),
            # The authors choose the number of epochs by category, on the test images: from 10 to 300.
            "paper": Hyperparameters("per-position", 4.0, 200, 16, 5e-3, "constant"),
        }
    )

    def __init__(self, teacher: Teacher, config: MethodConfig) -> None:
        super().__init__(teacher, config)
        self.projections = nn.ModuleList(_projection(channels) for channels in teacher.channels)

    def student_features(self, images: Tensor, teacher_features: list[Tensor]) -> list[Tensor]:
        """RD's student, behind the projections."""
        return super().student_features(images, self._projected(teacher_features))

    def forward(self, images: Tensor, teacher_features: list[Tensor]) -> Tensor:
        """In training mode the whole loss, with noisy copies drawn from torch's generator; else L_KD, which needs
        none.
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
        """The noisy copies."""
        return noisy_images(images, rng)

    def optimizer(self, learning_rate: float) -> torch.optim.Optimizer:
        """Adam, with a group of its own for the projections."""
        student = [*self.bottleneck.parameters(), *self.decoder.parameters()]
        projections = list(self.projections.parameters())
        groups: list[dict[str, Any]] = [
            {"params": student},
            {"params": projections, "lr": PROJECTION_LEARNING_RATE * learning_rate},
        ]
        return torch.optim.Adam(groups, lr=learning_rate, betas=(0.5, 0.999))

    def _projected(self, features: list[Tensor]) -> list[Tensor]:
        return [projection(x) for projection, x in zip(self.projections, features, strict=True)]


def projection_loss(copies: list[Tensor], noisy: list[Tensor], normal: list[Tensor]) -> Tensor:
    """0.2 L_SSOT + 0.002 L_Recon + 0.02 L_Con: a scalar.

    copies: the teacher's features of the noisy copies, noisy: those projected, normal: the good images' projected; each
    (N, C_k, H_k, W_k) for every scale.
    """
    # One order for all scales. Transport does not depend on it; it is what the method says.
    order = torch.randperm(len(normal[0]))
    losses = []
    for z, p, n in zip(copies, noisy, normal, strict=True):
        transport = sinkhorn_divergence(p.flatten(1).softmax(1), n[order].flatten(1).softmax(1))
        reconstruction = cosine_map(p, n).mean()
        # The cosine of a whole tensor: one position with all of its numbers as channels.
        similarity = 1.0 - cosine_map(z.flatten(1)[..., None, None], n.flatten(1)[..., None, None])
        contrast = (similarity - CONTRAST_MARGIN).clamp_min(0.0).mean()
        losses += [
            TRANSPORT_WEIGHT * transport,
            RECONSTRUCTION_WEIGHT * reconstruction,
            CONTRAST_WEIGHT * contrast,
        ]
    return torch.stack(losses).sum()


def _projection(channels: int) -> nn.Sequential:
    """Four convolutions that narrow and widen again: (N, C, H, W) to the same."""
    widths = (channels, channels // 2, channels // 4, channels // 2, channels)
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.InstanceNorm2d(outputs), nn.LeakyReLU()]
    return nn.Sequential(*layers)
