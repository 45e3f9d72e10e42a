"""STFPM with an ensemble: where several students disagree with each other, too, a part is not good.

Polidori, "Leveraging Student-Teacher learning framework", Politecnico di Milano 2022, solution 1 (section 4.2).

students three of STFPM, different in their random start alone; each is trained as if it were alone
loss     equation 5 for each student. The students share no weights, so the sum over them trains each alone
map      at a scale e + v, with t the teacher's vector, s_1..M the students', all of length 1, and m the students' mean:
         e = |t - m|^2 / 2 (equation 8) and v the squared length of their standard deviation (equation 7), that of a
         population, as in equation 4; enlarged and multiplied over the scales

The head knows cosine maps only, and this map is one. With q = |m|^2, v = 1 - q and e = (1 + q) / 2 - <t, m>, so

    e + v = 3/2 - <t, m> - q / 2 = 2 (1 - <T, S>),   T = (t, 1, 0) / sqrt(2),   S = (m, (1 + q) / 2, r) / sqrt(2)

where r = sqrt(2 - q - (1 + q)^2 / 4) gives S length 1 too. T is the teacher's alone and S the students'. The head does
not know the factor 2: with three scales its map is an eighth of the product of e + v.
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
    """STFPM with three students."""

    def __init__(self, teacher: Teacher, config: MethodConfig) -> None:
        super().__init__(teacher, config)
        self.others = nn.ModuleList(untrained_copy(teacher.name) for _ in range(STUDENTS - 1))

    def student_features(self, images: Tensor, teacher_features: list[Tensor]) -> list[Tensor]:
        """K tensors of the teacher's shapes from the first student, then K from the second, and so on."""
        return [x for student in (self.student, *self.others) for x in student(images)]

    def loss(self, teacher_features: list[Tensor], student_features: list[Tensor]) -> Tensor:
        """Equation 5 of each student against the teacher, summed."""
        return super().loss(STUDENTS * teacher_features, student_features)

    def head_features(
        self, teacher_features: list[Tensor], student_features: list[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """T and S of every scale, each (N, C_k + 2, H_k, W_k)."""
        scales = len(teacher_features)
        teacher_side, student_side = [], []
        for k, teacher in enumerate(teacher_features):
            t = unit(teacher)
            m = torch.stack([unit(student) for student in student_features[k::scales]]).mean(0)
            q = (m * m).sum(1, keepdim=True)
            # As a product of v = 1 - q, which rounding may leave below 0: 2 - q - (1 + q)^2 / 4 = v (2 - v / 4).
            v = (1.0 - q).clamp_min(0.0)
            # Of the teacher and not of q, so that the graph lets this side depend on no student.
            zero = 0.0 * t[:, :1]
            teacher_side.append(torch.cat([t, 1.0 + zero, zero], dim=1))
            student_side.append(torch.cat([m, (1.0 + q) / 2.0, (v * (2.0 - v / 4.0)).sqrt()], dim=1))
        return teacher_side, student_side
