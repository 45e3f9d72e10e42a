"""Parts of a graph that were found by eye in the toy graph: the tail that gives the features, and followers."""

from __future__ import annotations

import pytest
from onnx import helper

from edgead.errors import PrecisionError
from edgead.export.graph_sections import computed_tensors, tail, with_followers
from tests.helpers.toy_graph import toy_graph


def test_the_tail_goes_from_the_last_convolutions_to_the_features() -> None:
    # teacher = Relu(conv_t); student = Resize(up), up a transposed convolution.
    assert tail(toy_graph()) == {"conv_t", "teacher", "up", "student"}


def test_an_addition_in_the_tail_takes_both_its_branches_along() -> None:
    model = toy_graph()
    # The student's feature is now a sum: of `up` as before and of another convolution of the residual.
    model.graph.node[-1].input[1] = "both"
    model.graph.node.insert(
        len(model.graph.node) - 1,
        helper.make_node("ConvTranspose", ["residual", "up_w"], ["up_2"], strides=[2, 2]),
    )
    model.graph.node.insert(len(model.graph.node) - 1, helper.make_node("Add", ["student", "up_2"], ["both"]))
    assert tail(model) == {"conv_t", "teacher", "up", "up_2", "student", "both"}


def test_a_graph_without_a_head_has_no_tail() -> None:
    model = toy_graph()
    del model.graph.node[-1]
    with pytest.raises(PrecisionError, match="edgead::AnomalyMap"):
        tail(model)


@pytest.mark.parametrize(
    ("layers", "found"),
    [
        ([], set()),
        (["conv_t"], {"conv_t", "teacher"}),
        (["sum"], {"sum", "residual"}),
        # An addition is no follower: it has a second input.
        (["main"], {"main"}),
        # Nor is a convolution, or a Resize.
        (["down", "up"], {"down", "embedding", "up"}),
    ],
)
def test_followers_are_what_rectifies_these_layers_alone(layers: list[str], found: set[str]) -> None:
    assert with_followers(toy_graph(), layers) == found


def test_followers_of_followers_and_clips_with_constant_limits_are_taken_along() -> None:
    model = toy_graph()
    nodes = model.graph.node
    position = next(i for i, node in enumerate(nodes) if node.output[0] == "teacher")
    # conv_t -> Clip -> LeakyRelu in place of conv_t -> Relu; the limits are constants, the upper one is left out.
    nodes[position].CopyFrom(helper.make_node("Clip", ["conv_t", "one", ""], ["clipped"]))
    nodes.insert(position + 1, helper.make_node("LeakyRelu", ["clipped"], ["teacher"]))
    assert with_followers(model, ["conv_t"]) == {"conv_t", "clipped", "teacher"}


def test_what_teacher_and_student_compute_is_listed_in_order() -> None:
    assert computed_tensors(toy_graph()) == (
        "image",
        "conv_t",
        "teacher",
        "down",
        "embedding",
        "main",
        "sum",
        "residual",
        "up",
        "student",
    )
