"""The operators that a graph of a bundle may contain.

A graph of a bundle is untrusted. It may only have operators that end after a number of steps that follows from the
sizes of their inputs. So there is no Loop, Scan or If, no function and no custom domain. The list holds what edgead
exports: convolutional networks of timm as teachers, the students of all methods, the head, and the precisions float16
and INT8. Some of these operators can make a large output of a small input, such as Expand and a product of two vectors.
ONNX Runtime's memory is limited for that (`edgead.runtime.onnxruntime`).
"""

from __future__ import annotations

OPSETS = range(18, 22)
"""Versions of the standard domain that edgead exports, or that a conversion of the precision needs."""

_NAMES = """
    Abs Add Cast Ceil Clip Cos CumSum Div Erf Exp Floor Identity Log Max Min Mul Neg Not Pow Reciprocal Sin Sqrt Sub Sum
    ReduceL1 ReduceL2 ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare
    Celu Elu Gelu HardSigmoid HardSwish LeakyRelu LogSoftmax Mish PRelu Relu Selu Sigmoid Softmax Softplus Softsign Tanh
    AveragePool BatchNormalization Conv ConvTranspose Gemm GlobalAveragePool GlobalMaxPool GroupNormalization
    InstanceNormalization LRN LayerNormalization LpNormalization MatMul MaxPool
    Concat Constant DepthToSpace Expand Flatten Gather Pad Reshape Resize Shape Slice SpaceToDepth Split Squeeze
    Transpose Unsqueeze
    DequantizeLinear QuantizeLinear
"""

OPTIONAL_INPUTS = frozenset(("Clip", "Pad", "Resize", "Slice"))
"""Operators that the exporters leave an input out of. ONNX Runtime crashes on some others, such as Max."""

OPERATORS = frozenset(_NAMES.split())
"""Names of the allowed operators, all of the standard domain."""
