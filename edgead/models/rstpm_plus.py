"""RSTPM+: the two pairs of RSTPM, and a network that learns from pseudo-anomalies which of their maps are reliable.

Yamada, Kamiya & Hotta, "Reconstructed Student-Teacher and Discriminative Networks for Anomaly Detection", 2022, and the
reproduction study of it (sections 3.1, 3.4 to 3.6 and 4.2). The pairs see good parts only, so their maps may be large
where a part is good. The network also sees the maps of parts with known anomalous positions.

pairs    as in RSTPM, trained first (stage 0), then frozen: weights, and statistics of batch normalisation
network  a U-Net. Its inputs are the maps of the two pairs added, O1+O6, O2+O5 and O3+O4, resized to one size and
         stacked as channels. Its output is O7, the probability that a position is anomalous. The study only says that
         the network is like a U-Net. DRAEM's (Zavrtanik et al., ICCV 2021) works at the size of the images, with 64 to
         512 channels. This one works at stride 4, the finest stride of the maps, with 16 to 128 channels: 0.30 GFLOP at
         256 px, while the pairs of an EfficientNet-Lite0 need 2.05
loss     of the network (stage 1): focal loss (Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, gamma 2,
         equal weights of both classes, as in DRAEM) plus L1, each the mean over positions. A position is anomalous
         where any of its pixels is. Half of a batch gets pseudo-anomalies, the other half stays good
training the pairs as in RSTPM; the network with Adam, weight decay 1e-4 and a learning rate of 1e-4 (`edge`: up to
         2e-3). `--learning-rate` sets the learning rate of the pairs and scales the other with it
map      equation 1: (O1+O6) (O2+O5) (O3+O4) O7

O1+O6 is computed as half the squared distance of two concatenated vectors (equation 4), not as 2 minus a product,
because half precision would round small maps away. The head computes only cosine maps. With (1, 0) on the teacher side
and (1 - p, sqrt(p (2 - p))), of length 1, on the student side the cosine map is p. The head divides by the actual
length, so a small p keeps its digits in half precision. The head's own float32 cannot represent 1 - p for the smallest
p, so p is 0.001 + 0.999 O7. As in RSTPM, the map is an eighth of equation 1's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor, nn

from edgead.models.base import STANDARD_VARIANT, MethodConfig, Preset
from edgead.models.components.teacher import STRIDES
from edgead.models.components.unet import UNet
from edgead.models.hyperparameters import Hyperparameters
from edgead.models.rstpm import ReconstructedPyramidMatching, TwoTeachers

WIDTHS = (16, 32, 64, 128)
FOCUS = 2.0
LEAST_PROBABILITY = 1e-3

# Output of the untrained network at every position, so that the many good positions do not dominate the first steps
# (Lin et al., section 3.3). The value is a little more than the share of anomalous positions, which is about the best
# constant output: from there the loss falls only if the network uses its input.
PRIOR = 0.06

# Learning rate of the network divided by the learning rate of the pairs. With the study's 1e-4 the network hardly
# changes in the few hundred steps of `edge`.
LEARNING_RATES: Mapping[Preset, float] = MappingProxyType({"edge": 2e-3 / 0.02, "paper": 1e-4 / 0.4})


class DiscriminatedPyramidMatching(ReconstructedPyramidMatching):
    """RSTPM with a discriminative network; stage 0 trains the pairs, stage 1 the network.

    Args:
        teacher: Both teachers.
        config: Configuration of the method.
    """

    uses_textures = True
    variants = (STANDARD_VARIANT,)
    presets = MappingProxyType(
        {
            # The pairs as in RSTPM; a step of the network takes less than half the time of a step of the pairs.
            "edge": Hyperparameters("per-position", 4.0, 200, 16, 0.02, "one-cycle", stages=(0.5, 0.5)),
            "paper": Hyperparameters(
                "per-position", 0.0, 400, 32, 0.4, "constant", optimizer="sgd", stages=(0.25, 0.75)
            ),
        }
    )

    def __init__(self, teacher: TwoTeachers, config: MethodConfig) -> None:
        super().__init__(teacher, config)
        self.discriminator = UNet(len(STRIDES), WIDTHS)
        nn.init.normal_(self.discriminator.output.weight, std=0.01)
        assert self.discriminator.output.bias is not None
        nn.init.constant_(self.discriminator.output.bias, -math.log((1.0 - PRIOR) / PRIOR))
        self.discriminator.requires_grad_(False)
        self.learning_rate_share = LEARNING_RATES[config.preset]

    def enter_stage(self, stage: int) -> None:
        """Freeze the network in stage 0, the pairs in stage 1. See DistillationMethod.enter_stage."""
        super().enter_stage(stage)
        for pair in (self.student, self.decoder):
            pair.requires_grad_(stage == 0)
        self.discriminator.requires_grad_(stage == 1)
        self.train(self.training)

    def train(self, mode: bool = True) -> DiscriminatedPyramidMatching:
        """Set the mode; in stage 1 the pairs stay in evaluation mode, so that their statistics do not change.

        Args:
            mode: Whether to set training mode.

        Returns:
            The method.
        """
        super().train(mode)
        if self.stage == 1:
            self.student.eval()
            self.decoder.eval()
        return self

    def optimizer(self, learning_rate: float) -> torch.optim.Optimizer:
        """Create the optimiser: as in RSTPM for the pairs, Adam with weight decay 1e-4 (section 4.2) for the network.

        Args:
            learning_rate: Learning rate of the pairs.

        Returns:
            Optimiser of the stage under way.
        """
        if self.stage == 0:
            return super().optimizer(learning_rate)
        return torch.optim.Adam(
            self.trained(), lr=self.learning_rate_share * learning_rate, weight_decay=1e-4
        )

    def forward(self, images: Tensor, teacher_features: list[Tensor]) -> Tensor:
        """Compute the loss of the pairs in stage 0, of the network in stage 1.

        In training mode the first half of a batch gets pseudo-anomalies, drawn from torch's generator. In evaluation
        mode every image counts twice: unchanged, and with a pseudo-anomaly that is the same each time.

        Args:
            images: (N, H, W, 3) uint8 RGB.
            teacher_features: Features of TwoTeachers for the images.

        Returns:
            Scalar loss.
        """
        if self.stage == 0:
            return super().forward(images, teacher_features)
        count = len(images)
        if self.training:
            changed, kept = slice((count + 1) // 2), slice((count + 1) // 2, count)
        else:
            changed, kept = slice(count), slice(count)
        disturbed, masks = self.disturbed_batch(images[changed])
        shown = torch.cat([disturbed, images[kept]])
        features = [
            torch.cat([new, given[kept]])
            for new, given in zip(self.teacher_features(disturbed), teacher_features, strict=True)
        ]
        wrong = torch.zeros(len(shown), 1, *shown.shape[1:3], device=shown.device)
        wrong[: len(masks), 0] = masks.to(wrong)
        logits = self.discriminator(self._maps(shown, features))
        return mask_loss(logits, nn.functional.max_pool2d(wrong, STRIDES[0]) > 0.0)

    def head_features(
        self, teacher_features: list[Tensor], student_features: list[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Compute the three pairs of RSTPM, and a fourth pair (N, 2, H / 4, W / 4) with the cosine map O7.

        Args:
            teacher_features: Features of TwoTeachers.
            student_features: Features of both students.

        Returns:
            Teacher side and student side, four tensors each.
        """
        teacher_side, student_side = super().head_features(teacher_features, student_features)
        logits = self.discriminator(summed_maps(teacher_side, student_side))
        p = LEAST_PROBABILITY + (1.0 - LEAST_PROBABILITY) * torch.sigmoid(logits)
        # Computed from the teacher's numbers, so that this side depends on no student in the graph, and by arithmetic,
        # so that its size is known in the graph.
        zero = 0.0 * teacher_side[0][:, :1]
        good = torch.cat([1.0 + zero, zero], dim=1)
        found = torch.cat([1.0 - p, (p * (2.0 - p)).sqrt()], dim=1)
        return [*teacher_side, good], [*student_side, found]

    @torch.no_grad()
    def _maps(self, images: Tensor, teacher_features: list[Tensor]) -> Tensor:
        """Compute the input of the network for images: (N, 3, H / 4, W / 4)."""
        students = self.student_features(images, teacher_features)
        # In mixed precision squares of half features would overflow.
        teacher_features, students = (
            [x.to(torch.promote_types(x.dtype, torch.float32)) for x in features]
            for features in (teacher_features, students)
        )
        return summed_maps(*super().head_features(teacher_features, students))


def summed_maps(teacher_side: list[Tensor], student_side: list[Tensor]) -> Tensor:
    """Add the maps of both pairs at every scale and resize them to the finest scale.

    Args:
        teacher_side: Teacher side of RSTPM's `head_features`: two concatenated vectors of length 1, at strides 4, 8 and
            16, (N, C_k, H_k, W_k).
        student_side: Student side of the same shapes.

    Returns:
        (N, K, H_1, W_1).
    """
    differences = [t - s for t, s in zip(teacher_side, student_side, strict=True)]
    fine, *others = [0.5 * (x * x).sum(1, keepdim=True) for x in differences]
    enlarged = [
        nn.functional.interpolate(x, scale_factor=2**k, mode="bilinear", align_corners=True)
        for k, x in enumerate(others, 1)
    ]
    return torch.cat([fine, *enlarged], dim=1)


def mask_loss(logits: Tensor, wrong: Tensor) -> Tensor:
    """Compute focal loss plus L1, the mean over positions.

    The loss of a position is q^2 (-log(1 - q)) + q, with q the probability of the wrong class.

    Args:
        logits: Logits of the class anomalous, of any shape.
        wrong: Whether a position is anomalous, bool, of the same shape.

    Returns:
        Scalar.
    """
    truth = torch.where(wrong, logits, -logits).to(torch.promote_types(logits.dtype, torch.float32))
    missed = torch.sigmoid(-truth)
    return (missed**FOCUS * nn.functional.softplus(-truth) + missed).mean()
