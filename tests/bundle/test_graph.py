"""The check of a graph: what edgead exports passes, everything else is refused before a runtime sees it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import AttributeProto, GraphProto, ModelProto, TensorProto, helper, numpy_helper

from edgead.bundle.graph import MAX_ATTRIBUTE, MAX_NODES, check_graph
from edgead.errors import BundleError
from edgead.export.head.model_file import file_from_graph
from edgead.export.precision.float16 import float16_from_float32
from tests.helpers.brightness_bundle import brightness_model
from tests.helpers.int8_graph import int8_graph
from tests.helpers.toy_graph import toy_file, toy_graph, toy_images


def int8() -> bytes:
    return file_from_graph(int8_graph(toy_graph(), toy_images(2)))


@pytest.mark.parametrize(
    "content",
    [
        toy_file(),
        file_from_graph(float16_from_float32(toy_graph())),
        int8(),
        brightness_model().SerializeToString(),
    ],
    ids=["fp32", "fp16", "int8", "by-hand"],
)
def test_what_edgead_exports_passes(content: bytes) -> None:
    check_graph(content, "model.onnx")


def model_with(
    *nodes: onnx.NodeProto, opset: int = 18, domain: str = "", **more: list[TensorProto]
) -> ModelProto:
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N"]) for name in ("x", "y")]
    graph = helper.make_graph(list(nodes), "g", value[:1], value[1:], **more)
    opsets = [helper.make_opsetid("", opset)] + [helper.make_opsetid(domain, 1)] * bool(domain)
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def branch() -> GraphProto:
    out = helper.make_tensor_value_info("b", TensorProto.FLOAT, ["N"])
    return helper.make_graph([helper.make_node("Identity", ["x"], ["b"])], "branch", [], [out])


def loop() -> ModelProto:
    """Ends after 2**63 - 1 steps."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["going"], ["goes_on"]),
            helper.make_node("Identity", ["v_in"], ["v_out"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v_in", TensorProto.FLOAT, ["N"]),
        ],
        [
            helper.make_tensor_value_info("goes_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v_out", TensorProto.FLOAT, ["N"]),
        ],
    )
    weights = [
        numpy_helper.from_array(np.int64(2**63 - 1), "steps"),
        numpy_helper.from_array(np.bool_(True), "go"),
    ]
    model = model_with(helper.make_node("Loop", ["steps", "go", "x"], ["y"], body=body), initializer=weights)
    onnx.checker.check_model(model, full_check=True)
    return model


def subgraph_of_a_harmless_operator() -> ModelProto:
    return model_with(helper.make_node("Identity", ["x"], ["y"], body=branch()))


def function_that_calls_itself() -> ModelProto:
    model = model_with(helper.make_node("Again", ["x"], ["y"], domain="mine"), domain="mine")
    model.functions.append(
        helper.make_function(
            "mine",
            "Again",
            ["x"],
            ["y"],
            [helper.make_node("Again", ["x"], ["y"], domain="mine")],
            [helper.make_opsetid("", 18), helper.make_opsetid("mine", 1)],
        )
    )
    return model


def external(tensor: TensorProto) -> TensorProto:
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../../etc/passwd"
    return tensor


def weight(name: str = "w", *shape: int) -> TensorProto:
    return numpy_helper.from_array(np.zeros(shape or (4,), np.float32), name)


def add_weight(*initializer: TensorProto) -> ModelProto:
    return model_with(helper.make_node("Add", ["x", "w"], ["y"]), initializer=list(initializer))


def constant(**attributes: object) -> ModelProto:
    return model_with(
        helper.make_node("Constant", [], ["w"], **attributes), helper.make_node("Add", ["x", "w"], ["y"])
    )


def location_only() -> ModelProto:
    model = add_weight(weight())
    model.graph.initializer[0].data_location = TensorProto.EXTERNAL
    return model


def reshaped(*shape: int) -> ModelProto:
    model = add_weight(weight())
    model.graph.initializer[0].dims[:] = shape
    return model


def external_in_a_branch() -> ModelProto:
    graph = branch()
    graph.initializer.append(external(weight()))
    return model_with(helper.make_node("If", ["x"], ["y"], then_branch=graph, else_branch=graph))


def sparse() -> ModelProto:
    model = add_weight()
    found = model.graph.sparse_initializer.add()
    found.values.CopyFrom(external(weight()))
    found.dims.append(4)
    return model


def sparse_attribute() -> ModelProto:
    found = onnx.SparseTensorProto()
    found.values.CopyFrom(external(weight()))
    found.dims.append(4)
    return constant(sparse_value=found)


def training_info() -> ModelProto:
    model = add_weight(weight())
    model.training_info.add().algorithm.CopyFrom(branch())
    return model


def texts() -> ModelProto:
    return add_weight(helper.make_tensor("w", TensorProto.STRING, [1], [b"x"]))


def huge_attribute() -> ModelProto:
    pads = [MAX_ATTRIBUTE + 1] * 4
    return model_with(
        helper.make_node("Conv", ["x", "w"], ["y"], pads=pads), initializer=[weight("w", 1, 1, 1, 1)]
    )


def many_nodes() -> ModelProto:
    return model_with(*[helper.make_node("Identity", ["x"], ["y"])] * (MAX_NODES + 1))


def reference_to_an_attribute() -> ModelProto:
    model = model_with(helper.make_node("Cast", ["x"], ["y"]))
    model.graph.node[0].attribute.append(
        AttributeProto(name="to", ref_attr_name="to", type=AttributeProto.INT)
    )
    return model


def sequence() -> ModelProto:
    model = model_with(helper.make_node("Identity", ["x"], ["y"]))
    model.graph.input[0].CopyFrom(helper.make_tensor_sequence_value_info("x", TensorProto.FLOAT, ["N"]))
    return model


def length_of_two_lines() -> ModelProto:
    model = model_with(helper.make_node("Identity", ["x"], ["y"]))
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "N\nM"
    return model


def node(operator: str, **options: object) -> Callable[[], ModelProto]:
    return lambda: model_with(
        helper.make_node(operator, ["x"], ["y"], **options), domain=str(options.get("domain", ""))
    )


REFUSED: dict[str, tuple[Callable[[], ModelProto], str]] = {
    "loop": (loop, "Loop"),
    "scan": (node("Scan", body=branch(), num_scan_inputs=1), "Scan"),
    "if": (node("If", then_branch=branch(), else_branch=branch()), "If"),
    "loop without its body": (node("Loop"), "Loop"),
    "sequence map": (node("SequenceMap", body=branch()), "SequenceMap"),
    "subgraph of identity": (subgraph_of_a_harmless_operator, "subgraph"),
    "function": (function_that_calls_itself, "functions"),
    "custom domain": (node("Relu", domain="com.microsoft"), "com.microsoft"),
    "unknown operator": (node("NoSuchOperator"), "NoSuchOperator"),
    "tile": (node("Tile"), "Tile"),
    "constant of shape": (node("ConstantOfShape"), "ConstantOfShape"),
    "range": (node("Range"), "Range"),
    "no name of an input": (lambda: model_with(helper.make_node("Max", ["x", ""], ["y"])), "Max"),
    "overload": (node("Relu", overload="other"), "Relu"),
    "opset 17": (lambda: model_with(helper.make_node("Relu", ["x"], ["y"]), opset=17), "17"),
    "opset 99": (lambda: model_with(helper.make_node("Relu", ["x"], ["y"]), opset=99), "99"),
    "external weight": (lambda: add_weight(external(weight())), "another file"),
    "external by location alone": (location_only, "another file"),
    "external constant": (lambda: constant(value=external(weight())), "another file"),
    "external in a branch": (external_in_a_branch, "If"),
    "external and sparse": (sparse, "sparse"),
    "external in a sparse attribute": (sparse_attribute, "sparse"),
    "training information": (training_info, "training"),
    "texts": (texts, "texts"),
    "more elements than data": (lambda: reshaped(5), "[5]"),
    "fewer elements than data": (lambda: reshaped(3), "[3]"),
    "a terabyte of nothing": (lambda: reshaped(2**20, 2**20), "1048576"),
    "negative length": (lambda: reshaped(-4), "-4"),
    "negative lengths": (lambda: reshaped(-2, -2), "-2"),
    "huge padding": (huge_attribute, str(MAX_ATTRIBUTE)),
    "many nodes": (many_nodes, str(MAX_NODES)),
    "a sequence as input": (sequence, "a type"),
    "a name of another line": (lambda: add_weight(weight("w\nerror: none")), "control"),
    "a length of another line": (length_of_two_lines, "control"),
    "a text of another line": (node("Resize", mode="near\nest"), "control"),
    "a text that is no text": (node("Resize", mode=b"near\xf3est"), "UTF-8"),
    "attribute of a function": (reference_to_an_attribute, "21"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_graphs_are_refused_by_name(name: str) -> None:
    make, named = REFUSED[name]
    with pytest.raises(BundleError) as caught:
        check_graph(make().SerializeToString(), "bundle/model.onnx")
    assert "bundle/model.onnx" in caught.value.what
    assert named in caught.value.what
    assert "edgead build" in (caught.value.hint or "")


def field(number: int, content: bytes) -> bytes:
    """A field of bytes, shorter than 128."""
    return bytes([number << 3 | 2, len(content)]) + content


GRAPH = field(7, b"")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00",
        b"\x80" * 11,
        b"\xff" * 9 + b"\x7f",
        GRAPH,
        toy_file() + GRAPH,
        toy_file() + field(26, b""),
        toy_file() + b"\x0b",
        toy_file()[:-1],
        toy_file()[:900],
        toy_file() + b"\x07",
        # The graph as a number, and the version of the file as a text.
        b"\x38\x01",
        field(1, b"x"),
        # An operator whose name is not UTF-8.
        field(8, b"\x10\x12") + field(7, field(1, field(4, b"\xff"))),
        b"x" * 3000,
        bytes(3000),
        np.random.default_rng(0).bytes(3000),
    ],
    ids=range(17),
)
def test_bytes_that_are_no_such_message_are_refused(content: bytes) -> None:
    with pytest.raises(BundleError):
        check_graph(content, "model.onnx")


def test_two_graphs_in_one_file_are_refused_though_protobuf_merges_them() -> None:
    content = toy_file() + field(7, field(2, b"other"))
    assert onnx.load_from_string(content).graph.name == "other"
    with pytest.raises(BundleError):
        check_graph(content, "model.onnx")


@pytest.mark.parametrize(
    ("data_type", "values"),
    [
        (TensorProto.INT64, [1, -2, 2**62]),
        (TensorProto.INT32, [-1, 0, 300]),
        (TensorProto.FLOAT, [0.5, 1.0, 2.0]),
    ],
)
def test_weights_may_be_numbers_in_place_of_bytes_of_the_right_count(
    data_type: int, values: list[float]
) -> None:
    tensor = helper.make_tensor("w", data_type, [3], values)
    check_graph(add_weight(tensor).SerializeToString(), "model.onnx")
    tensor.dims[:] = [4]
    with pytest.raises(BundleError, match=r"\[4\]"):
        check_graph(add_weight(tensor).SerializeToString(), "model.onnx")
