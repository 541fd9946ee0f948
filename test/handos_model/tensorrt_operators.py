"""What TensorRT takes of an ONNX graph, without TensorRT."""

from __future__ import annotations

import onnx
from onnx import TensorProto

from handos_model.weights.exported import HANDS

# Supported operators of github.com/onnx/onnx-tensorrt, docs/operators.md at 10.1-GA (commit
# 96e7811), without those that a static graph has no place for (If, Loop, Scan, NonZero, random
# and recurrent ones, NonMaxSuppression). The table of 10.3 was not at hand; minor releases add.
TABLE = (
    'Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BatchNormalization '
    'Cast CastLike Ceil Celu Clip Concat Constant ConstantOfShape Conv ConvTranspose Cos Cosh '
    'CumSum DeformConv DepthToSpace DequantizeLinear Div Dropout Einsum Elu Equal Erf Exp Expand '
    'EyeLike Flatten Floor Gather GatherElements GatherND Gelu Gemm GlobalAveragePool '
    'GlobalLpPool GlobalMaxPool Greater GreaterOrEqual GridSample GroupNormalization HardSigmoid '
    'HardSwish Hardmax Identity InstanceNormalization IsInf IsNaN LayerNormalization LeakyRelu '
    'Less LessOrEqual Log LogSoftmax LRN LpNormalization LpPool MatMul Max MaxPool Mean '
    'MeanVarianceNormalization Min Mish Mod Mul Neg Not OneHot Or Pad ParametricSoftplus Pow '
    'PRelu QuantizeLinear Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp '
    'ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize '
    'ReverseSequence RoiAlign Round ScaledTanh ScatterElements ScatterND Selu Shape Shrink '
    'Sigmoid Sign Sin Sinh Size Slice Softmax Softplus Softsign SpaceToDepth Split Sqrt Squeeze '
    'Sub Sum Tan Tanh ThresholdedRelu Tile TopK Transpose Trilu Unsqueeze Where Xor'
)
TENSORRT_OPERATORS = frozenset(TABLE.split())


def with_hands(model: onnx.ModelProto, hands: int) -> onnx.ModelProto:
    """A decoder with a fixed K, as TensorRT is given it, and the shapes that follow from it.

    ONNX follows less far than runtimes do: shapes that it leaves open are left out.
    """
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    for value in (*fixed.graph.input, *fixed.graph.output):
        for size in value.type.tensor_type.shape.dim:
            if size.HasField('dim_param'):
                assert size.dim_param == HANDS
                size.dim_value = hands
    del fixed.graph.value_info[:]
    fixed = onnx.shape_inference.infer_shapes(fixed, data_prop=True)
    known = [
        value
        for value in fixed.graph.value_info
        if all(size.HasField('dim_value') for size in value.type.tensor_type.shape.dim)
    ]
    del fixed.graph.value_info[:]
    fixed.graph.value_info.extend(known)
    return fixed


def assert_fit_for_tensorrt(model: onnx.ModelProto, extra: frozenset[str] = frozenset()) -> None:
    """Opset, operators and their restrictions in the table, static shapes, no float64."""
    assert {entry.version for entry in model.opset_import if entry.domain == ''} <= {17, 18}
    graph = model.graph
    assert not model.functions
    constants = {item.name: item for item in graph.initializer}
    operators = {node.op_type for node in graph.node}
    assert operators <= TENSORRT_OPERATORS | extra, operators - TENSORRT_OPERATORS
    uint8_inputs = {
        value.name
        for value in graph.input
        if value.type.tensor_type.elem_type == TensorProto.UINT8
    }
    for node in graph.node:
        assert not any(attribute.HasField('g') for attribute in node.attribute), node.name
        if uint8_inputs & set(node.input):
            assert node.op_type == 'Cast'
        if node.op_type == 'TopK':
            assert node.input[1] in constants
            assert onnx.helper.get_node_attr_value(node, 'sorted') == 1
        if node.op_type in ('ReduceMean', 'ReduceMax', 'ReduceSum', 'ReduceMin', 'Squeeze'):
            assert len(node.input) == 1 or node.input[1] in constants, node.name
        if node.op_type == 'LayerNormalization':
            assert len([name for name in node.output if name]) == 1
    values = (*graph.input, *graph.output, *graph.value_info)
    for value in values:
        kind = value.type.tensor_type
        assert kind.elem_type != TensorProto.DOUBLE, value.name
        assert all(d.HasField('dim_value') for d in kind.shape.dim), value.name
    assert all(item.data_type != TensorProto.DOUBLE for item in graph.initializer)
