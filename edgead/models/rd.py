"""Reverse Distillation (RD): an encoder teaches a decoder through a narrow embedding.

Deng & Li, "Anomaly Detection via Reverse Distillation from One-Class Embedding", CVPR 2022. The teacher E computes
features at strides 4, 8 and 16. The one-class bottleneck embedding (OCBE, section 3.2) brings them to stride 16 and
fuses them (MFF), then condenses them to stride 32 (OCE). The student decoder D (section 3.1) reconstructs E's features
from that embedding only. Changes by a defect do not fit through the embedding, so the two sides differ there.

`edgead.models.components.rd_student` has the networks of the embedding and the decoder.
"""

from __future__ import annotations

from collections.abc import Iterable
from types import MappingProxyType
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

from edgead.imaging.anomaly_map import EPSILON
from edgead.models.base import DistillationMethod, MethodConfig
from edgead.models.components.blocks import initialise
from edgead.models.components.head import cosine_map
from edgead.models.components.rd_student import create_student
from edgead.models.components.teacher import STRIDES, Teacher
from edgead.models.hyperparameters import Hyperparameters
from edgead.types import Fusion

# The first is the default.
Loss = Literal["hard-positions", "per-position", "flattened"]
LOSSES: tuple[str, ...] = get_args(Loss)

# Loss `hard-positions`: share of the positions of a map, and weight of their mean. The mean over all has weight 1.
HARD_SHARE = 0.1
HARD_WEIGHT = 0.5

# Aligned parts: length of the usual features that are added to the student's, as a share of the student's own length.
USUAL_SHARE = 0.5


class ReverseDistillation(DistillationMethod):
    """RD for images of one size.

    There are three losses:

    - `per-position`: the mean over positions of the cosine map (equations 1 and 2 of the paper).
    - `flattened`: one cosine over the whole feature tensor of an image, as in the authors' script.
    - `hard-positions`: `per-position` plus half the mean over the tenth of the positions of each image and scale that
      the student reconstructs worst. The score of an image is the maximum of its map, and this loss trains the
      positions that decide it (hard example mining: Shrivastava et al., CVPR 2016; for students: Batzner et al.,
      "EfficientAD", WACV 2024, section 3.2).

    The alignment of the parts decides how small the embedding of the lean student is. For aligned parts the preset
    `edge` also moves the student's features towards the usual ones after the training: the mean features of the good
    images at each position. An embedding that can represent the place without its part lets a missing part through.

    Args:
        teacher: Teacher with features at strides 4, 8 and 16.
        config: Configuration of the method.
    """

    losses = LOSSES
    # Section 3.3: the maps of all scales are added, and smoothed with sigma 4; section 4.1: the training.
    fusion: ClassVar[Fusion] = "add"
    fusions: ClassVar[tuple[Fusion, ...]] = ("add", "multiply")
    presets = MappingProxyType(
        {
            "edge": Hyperparameters("hard-positions", 4.0, 50, 4, 5e-3, "one-cycle"),
            "paper": Hyperparameters("per-position", 4.0, 200, 16, 5e-3, "constant"),
        }
    )

    def __init__(self, teacher: Teacher, config: MethodConfig) -> None:
        super().__init__(teacher, config)
        self.bottleneck, self.decoder = create_student(teacher, config.size, config.alignment)
        initialise(self.bottleneck)
        initialise(self.decoder)
        self.knows_positions = config.alignment == "aligned" and config.preset == "edge"
        if self.knows_positions:
            for channels, stride in zip(teacher.channels, STRIDES, strict=True):
                shape = (1, channels, -(-config.size.height_px // stride), -(-config.size.width_px // stride))
                self.register_buffer(f"usual_{stride}", torch.zeros(shape))

    def student_features(self, images: Tensor, teacher_features: list[Tensor]) -> list[Tensor]:
        """Compute D(OCBE(E(x))); the student sees the images only through the teacher's features.

        Args:
            images: Not used.
            teacher_features: E(x), (N, C_k, H / s_k, W / s_k) at strides 4, 8 and 16.

        Returns:
            Tensors of the shapes of the teacher's features.
        """
        features: list[Tensor] = self.decoder(self.bottleneck(teacher_features))
        if not self.knows_positions or self.training:
            return features
        return [x + self.get_buffer(f"usual_{stride}") for x, stride in zip(features, STRIDES, strict=True)]

    def begin_stage(self, batches: Iterable[tuple[Tensor, list[Tensor]]]) -> None:
        """Forget the usual features of a run that this one goes on with. See DistillationMethod.begin_stage."""
        for buffer in (self.get_buffer(f"usual_{stride}") for stride in STRIDES if self.knows_positions):
            buffer.zero_()

    def finish_stage(self, batches: Iterable[tuple[Tensor, list[Tensor]]]) -> None:
        """Measure the usual features of aligned parts, with one factor for each scale.

        Args:
            batches: Images (N, H, W, 3) uint8 RGB, which are not used, and their teacher features.
        """
        # The mean of different parts is usual for none of them.
        if not self.knows_positions or self.parts > 1:
            return
        buffers = [self.get_buffer(f"usual_{stride}") for stride in STRIDES]
        sums, lengths, count = [torch.zeros_like(x) for x in buffers], [0.0] * len(buffers), 0
        for images, features in batches:
            student = self.student_features(images, features)
            count += len(images)
            for scale, (t, s) in enumerate(zip(features, student, strict=True)):
                sums[scale] += t.sum(0, keepdim=True)
                lengths[scale] += _length(s) * len(images)
        for usual, total, length in zip(buffers, sums, lengths, strict=True):
            # The sum and the mean have the same direction.
            usual += total * (USUAL_SHARE * length / count / max(_length(total), EPSILON))

    def loss(self, teacher_features: list[Tensor], student_features: list[Tensor]) -> Tensor:
        """Sum the cosine distances over the scales; `loss_kind` defines the mean.

        Args:
            teacher_features: (N, C_k, H_k, W_k) for each scale.
            student_features: Tensors of the same shapes.

        Returns:
            Scalar.
        """
        distances = []
        for teacher, student in zip(teacher_features, student_features, strict=True):
            if self.loss_kind == "flattened":
                # The whole image becomes the channels of one position.
                teacher, student = (x.flatten(1)[:, :, None, None] for x in (teacher, student))
            distance = cosine_map(teacher, student).flatten(1)
            distances.append(distance.mean())
            if self.loss_kind == "hard-positions":
                hardest = distance.topk(max(1, int(HARD_SHARE * distance.shape[1])), dim=1).values
                distances.append(HARD_WEIGHT * hardest.mean())
        return torch.stack(distances).sum()


def _length(features: Tensor) -> float:
    """Mean length of the vectors of (N, C, H, W)."""
    return float(torch.linalg.vector_norm(features, dim=1).mean())
