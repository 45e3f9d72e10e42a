"""STFPM with an ensemble: several students, which also disagree with each other where a part has a defect.

Polidori, "Leveraging Student-Teacher learning framework", Politecnico di Milano 2022, solution 1 (section 4.2).

students three of STFPM's students, which differ only in their random start; each is trained independently
loss     equation 5 for each student. The students share no weights, so the sum over them trains each independently
map      at a scale e + v, with t the teacher's vector, s_1..M the students' vectors, all of length 1, and m the mean of
         the students: e = |t - m|^2 / 2 (equation 8) and v the squared length of their population standard deviation
         (equation 7), as in equation 4; enlarged and multiplied over the scales

The head computes only cosine maps, and this map is one. With q = |m|^2, v = 1 - q and e = (1 + q) / 2 - <t, m>, so

    e + v = 3/2 - <t, m> - q / 2 = 2 (1 - <T, S>),   T = (t, 1, 0) / sqrt(2),   S = (m, (1 + q) / 2, r) / sqrt(2)

where r = sqrt(2 - q - (1 + q)^2 / 4), so S has length 1 too. T depends only on the teacher and S only on the students.
The head does not know the factor 2: with three scales its map is an eighth of the product of e + v.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgead.models.base import MethodConfig
from edgead.models.components.head import unit
from edgead.models.components.teacher import Teacher
from edgead.models.stfpm import FeaturePyramidMatching, untrained_copy

STUDENTS = 3


class FeaturePyramidEnsemble(FeaturePyramidMatching):
    """STFPM with three students.

    Args:
        teacher: Teacher with features at strides 4, 8 and 16.
        config: Configuration of the method.
    """

    def __init__(self, teacher: Teacher, config: MethodConfig) -> None:
        super().__init__(teacher, config)
        self.others = nn.ModuleList(untrained_copy(teacher.name) for _ in range(STUDENTS - 1))

    def student_features(self, images: Tensor, teacher_features: list[Tensor]) -> list[Tensor]:
        """Compute the features of all students.

        Args:
            images: (N, H, W, 3) uint8 RGB.
            teacher_features: Not used.

        Returns:
            K tensors of the teacher's shapes from the first student, then K from the second, and so on.
        """
        return [x for student in (self.student, *self.others) for x in student(images)]

    def loss(self, teacher_features: list[Tensor], student_features: list[Tensor]) -> Tensor:
        """Sum equation 5 over the students. See DistillationMethod.loss."""
        return super().loss(STUDENTS * teacher_features, student_features)

    def head_features(
        self, teacher_features: list[Tensor], student_features: list[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Compute T and S for every scale.

        Args:
            teacher_features: K tensors (N, C_k, H_k, W_k).
            student_features: Features of all students.

        Returns:
            T and S, K tensors (N, C_k + 2, H_k, W_k) each.
        """
        scales = len(teacher_features)
        teacher_side, student_side = [], []
        for k, teacher in enumerate(teacher_features):
            t = unit(teacher)
            m = torch.stack([unit(student) for student in student_features[k::scales]]).mean(0)
            q = (m * m).sum(1, keepdim=True)
            # Rounding may make v = 1 - q negative. As a product: 2 - q - (1 + q)^2 / 4 = v (2 - v / 4).
            v = (1.0 - q).clamp_min(0.0)
            # Computed from the teacher and not from q, so that this side depends on no student in the graph.
            zero = 0.0 * t[:, :1]
            teacher_side.append(torch.cat([t, 1.0 + zero, zero], dim=1))
            student_side.append(torch.cat([m, (1.0 + q) / 2.0, (v * (2.0 - v / 4.0)).sqrt()], dim=1))
        return teacher_side, student_side
