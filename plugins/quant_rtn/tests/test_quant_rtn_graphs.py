"""`quantize-weights` on small graphs, which onnxruntime runs and which are compared with the float graph."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from drupe.api import Context, Model, ModelError, Target, Unfit, UsageError, replace
from drupe_blockquant import Scheme, dequantize_rows, quantize_rows
from drupe_ep_cpu.provider import Cpu
from drupe_ep_cuda.provider import Cuda
from drupe_ep_dml.provider import Dml
from drupe_nbits import find_sites
from drupe_onnx import Array, Capabilities, OnnxPackage, Transpose, initializer, ir, write_package
from drupe_quant_rtn.configuration import QuantizeWeightsConfig
from drupe_quant_rtn.quantize_weights import QuantizeWeights
from drupe_quant_rtn.scheme_choice import scheme_for

ROWS, VOCABULARY = 48, 40


def target() -> Target:
    return Cpu().target()


def node(operator: str, inputs: list[ir.Value], domain: str = "", role: str = "", **attributes: int) -> ir.Node:
    marks = {"drupe.role": role} if role else {}
    found = ir.Node(domain, operator, inputs, [ir.AttrInt64(*each) for each in attributes.items()],
                    name=f"{operator}_{role}", metadata_props=marks)  # fmt: skip
    found.outputs[0].name, found.outputs[0].type = f"{operator}_{role}_out", ir.TensorType(ir.DataType.FLOAT)
    return found


def tied_model(width: int) -> tuple[OnnxPackage, np.ndarray, np.ndarray]:
    """ids -> embedding -> MatMul -> Gemm with a bias -> head tied to the embedding."""
    random = np.random.default_rng(width)
    table = random.standard_normal((VOCABULARY, width)).astype(np.float32)
    inner = random.standard_normal((ROWS, width)).astype(np.float32)
    outer = random.standard_normal((width, ROWS)).astype(np.float32)
    bias = random.standard_normal(width).astype(np.float32)
    ids = ir.Value(name="ids", type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape(["n"]))
    weights = {
        "table": Array(table),
        "inner": Transpose(Array(inner)),
        "outer": Array(outer),
        "bias": Array(bias),
    }
    values = {name: initializer(name, expression) for name, expression in weights.items()}
    embed = node("Gather", [values["table"], ids], role="embedding", axis=0)
    product = node("MatMul", [embed.outputs[0], values["inner"]])
    gemm = node("Gemm", [product.outputs[0], values["outer"], values["bias"]], transB=1)
    head = node("FusedMatMul", [gemm.outputs[0], values["table"]], "com.microsoft", "head", transB=1)
    graph = ir.Graph([ids], head.outputs, nodes=[embed, product, gemm, head], initializers=list(values.values()),
                     opset_imports={"": 21, "com.microsoft": 1}, name="tied")  # fmt: skip
    package = OnnxPackage({"model": ir.Model(graph, ir_version=10)}, {})
    everything = np.arange(VOCABULARY)
    expected = (table[everything] @ inner.T @ outer.T + bias) @ table.T
    return package, everything, expected


def run(package: OnnxPackage, folder: Path, ids: np.ndarray) -> np.ndarray:
    folder.mkdir(parents=True, exist_ok=True)
    write_package(package, folder, Context(target(), folder))
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    return session.run(None, {"ids": ids})[0]


def quantized(package: OnnxPackage, folder: Path, **config: object) -> OnnxPackage:
    model = Model.single("onnx", folder, {"weights": "float"}, package)
    return passed(model, QuantizeWeightsConfig(**config), Context(target(), folder)).payload


def passed(model: Model, config: QuantizeWeightsConfig, context: Context) -> Model:
    """The model after the pass, run as the engine does for a model of one part."""
    QuantizeWeights().refuse_whole(model, config, context)
    return QuantizeWeights().run(model, config, context)


@pytest.mark.parametrize("width", [32, 64, 72, 100, 161])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("head_bits", [4, 8])
def test_a_quantized_graph_computes_with_its_dequantized_weights(
    tmp_path: Path, width: int, symmetric: bool, head_bits: int
) -> None:
    package, ids, expected = tied_model(width)
    found = run(
        quantized(package, tmp_path, bits=8, head_bits=head_bits, symmetric=symmetric, accuracy_level=0),
        tmp_path / "out",
        ids,
    )
    error = np.abs(found - expected).max() / np.abs(expected).max()
    assert error < (0.02 if head_bits == 8 else 0.3)


def test_a_tied_embedding_and_head_share_their_bytes(tmp_path: Path) -> None:
    package, ids, _ = tied_model(64)
    run(quantized(package, tmp_path, head_bits=8), tmp_path / "out", ids)
    graph = ir.load(tmp_path / "out" / "model.onnx").graph
    shared = [graph.initializers[f"table_Q8A64_{name}"].const_value for name in ("weight", "rows")]
    assert len({(each.offset, each.length) for each in shared}) == 1


def test_the_written_weights_equal_those_of_quantize_rows(tmp_path: Path) -> None:
    package, ids, _ = tied_model(64)
    table = package.component.graph.initializers["table"].const_value.numpy()
    run(quantized(package, tmp_path, head_bits=4, block_size=32), tmp_path / "out", ids)
    written = {
        v.name: v.const_value.numpy() for v in ir.load(tmp_path / "out" / "model.onnx").graph.initializers.values()
    }
    scheme = Scheme(4, 32, False, "search")
    expected = quantize_rows(table, scheme)
    assert written["table_Q4A32_weight"].tobytes() == expected.packed.tobytes()
    assert written["table_Q4A32_scales"].tobytes() == expected.scales.tobytes()
    assert written["table_Q4A32_zero_points"].tobytes() == expected.zero_points.tobytes()
    assert np.abs(dequantize_rows(expected, scheme, 64) - table).max() < 0.5


def test_a_model_without_matrices_to_quantize_is_an_error(tmp_path: Path) -> None:
    x = ir.val("x", ir.DataType.FLOAT, [2, 3])
    node = ir.node("Relu", [x])
    graph = ir.Graph([x], node.outputs, nodes=[node], opset_imports={"": 21}, name="small")
    with pytest.raises(ModelError, match="no matrix of float weights"):
        quantized(OnnxPackage({"model": ir.Model(graph, ir_version=10)}), tmp_path)


def test_quantizing_again_changes_nothing(tmp_path: Path) -> None:
    package, _, _ = tied_model(32)
    once = quantized(package, tmp_path)
    before = [node.name for node in once.component.graph]
    again = quantized(once, tmp_path)
    assert [node.name for node in again.component.graph] == before


def test_the_error_for_weights_that_are_not_finite_names_the_tensor(tmp_path: Path) -> None:
    package, ids, _ = tied_model(32)
    broken = np.ones((ROWS, 32), np.float32)
    broken[7, 3] = np.nan
    graph = package.component.graph
    graph.initializers["inner"].const_value = initializer("inner", Transpose(Array(broken))).const_value
    with pytest.raises(ModelError, match=r"\[7, 3\]"):
        run(quantized(package, tmp_path), tmp_path / "out", ids)


def operators(package: OnnxPackage) -> list[str]:
    return [node.op_type for node in package.component.graph]


def quantized_for(made_for: Target, width: int, **config: object) -> OnnxPackage:
    """The tied model after the pass, for a target without a device. The rows of "outer" are 48 values long."""
    package, _, _ = tied_model(width)
    model, context = Model("onnx", Path("tied"), payload=package), Context(made_for, Path("unused"))
    return passed(model, QuantizeWeightsConfig(**config), context).payload


def left_in_float(package: OnnxPackage) -> list[str]:
    return json.loads(package.component.metadata_props.get("drupe.float_matrices", "[]"))


@pytest.mark.parametrize(
    ("width", "products", "left"), [(64, 3, ["table"]), (72, 1, ["table", "inner", "table"]), (48, 3, ["table"])]
)
def test_a_target_gets_only_operators_that_its_table_serves(width: int, products: int, left: list[str]) -> None:
    """DirectML has no GatherBlockQuantized, and no MatMulNBits for rows that do not fill whole blocks."""
    package = quantized_for(Dml().target(), width, symmetric=True)
    found = operators(package)
    assert "GatherBlockQuantized" not in found and "Gather" in found
    assert found.count("MatMulNBits") == products
    assert left_in_float(package) == left


def test_names_of_matrices_left_in_float_are_written_into_the_package(tmp_path: Path) -> None:
    package = quantized_for(Dml().target(), 72, symmetric=True)
    write_package(package, tmp_path, Context(Dml().target(), tmp_path))
    written = ir.load(tmp_path / "model.onnx").metadata_props["drupe.float_matrices"]
    assert json.loads(written) == ["table", "inner", "table"]


def test_a_package_without_float_matrices_does_not_list_them() -> None:
    assert "drupe.float_matrices" not in quantized_for(target(), 72).component.metadata_props


@pytest.mark.parametrize(
    ("provider", "width", "config", "what", "where", "cure"),
    [
        pytest.param(
            Cuda, 256, {"bits": 4, "block_size": 256},
            "'cuda' cannot multiply with the matrix 'inner' at 4 bits with zero points in blocks of 256; "
            "it can in blocks of 16 or 32 or 64 or 128, or at 8 bits",
            "block_size = 256, bits = 4", "--block-size 16 or 32 or 64 or 128 or --precision int8", id="cuda-block",
        ),
        pytest.param(
            Dml, 64, {"bits": 4, "symmetric": True, "block_size": 256},
            "'dml' cannot multiply with the matrix 'inner' at 4 bits without zero points in blocks of 256: "
            "its rows of 64 values are not whole blocks of 256; it can in blocks of 16 or 32 or 64",
            "block_size = 256", "--block-size 16 or 32 or 64", id="dml-block",
        ),
        pytest.param(
            Dml, 64, {"bits": 8, "symmetric": False},
            "'dml' cannot multiply with the matrix 'inner' at 8 bits with zero points; "
            "it can without zero points, or at 4 bits",
            "symmetric = False, bits = 8", "--symmetric or --precision int4", id="dml-int8-asymmetric",
        ),
        pytest.param(
            Dml, 64, {"bits": 4, "symmetric": False},
            "'dml' cannot multiply with the matrix 'table' at 8 bits with zero points; "
            "it can without zero points, or at 4 bits",
            "symmetric = False", "--symmetric or --head-bits 4", id="dml-asymmetric-head",
        ),
        pytest.param(
            Cuda, 256, {"bits": 8, "head_bits": 4, "block_size": 256},
            "'cuda' cannot multiply with the matrix 'table' at 4 bits with zero points in blocks of 256; "
            "it can in blocks of 16 or 32 or 64 or 128, or at 8 bits",
            "block_size = 256, head_bits = 4", "--block-size 16 or 32 or 64 or 128 or --head-bits 8", id="cuda-head",
        ),
        pytest.param(
            Dml, 64, {"bits": 8, "symmetric": False, "block_size": 128},
            "'dml' cannot multiply with the matrix 'inner' at 8 bits with zero points in blocks of 128: "
            "its rows of 64 values are not whole blocks of 128; it can without zero points in blocks of 16 or 32 or 64",
            "symmetric = False, block_size = 128", "--symmetric --block-size 16 or 32 or 64", id="dml-two-at-once",
        ),
    ],
)  # fmt: skip
def test_settings_that_leave_a_product_in_float_are_refused(
    provider: type[Cuda] | type[Dml], width: int, config: dict[str, object], what: str, where: str, cure: str
) -> None:
    with pytest.raises(UsageError) as raised:
        quantized_for(provider().target(), width, **config)
    assert (raised.value.what, raised.value.where, raised.value.cure) == (what, where, cure)


def limited(**limits: tuple[object, ...]) -> Target:
    """A target whose matrix products accept only these values of attributes."""
    served = target()
    capabilities = served.capabilities
    product = capabilities.operators["com.microsoft::MatMulNBits"]
    kernels = tuple(replace(each, attributes={**each.attributes, **limits}) for each in product.kernels)
    operators = {**capabilities.operators, "com.microsoft::MatMulNBits": replace(product, kernels=kernels)}
    return replace(served, capabilities=replace(capabilities, operators=operators))


def test_a_matrix_stays_in_float_if_its_default_scheme_is_not_served() -> None:
    """The user did not ask for the head's 8 bits, so there is no error that names another value."""
    assert left_in_float(quantized_for(limited(bits=(4,)), 64, bits=4)) == ["table"]


def test_a_target_that_serves_nothing_quantized_is_an_error() -> None:
    with pytest.raises(Unfit, match=r"'cpu' of \S+ \S+ supports no quantized matrix of the model; 'inner': .*bits"):
        made_for = limited(bits=())
        operators = dict(made_for.capabilities.operators)
        del operators["com.microsoft::GatherBlockQuantized"]
        quantized_for(replace(made_for, capabilities=replace(made_for.capabilities, operators=operators)), 64)


def blocks(capabilities: Capabilities, width: int, **config: object) -> set[int]:
    """The block sizes that are chosen for the matrices of a model."""
    sites = find_sites(tied_model(width)[0].component.graph)
    schemes = [scheme_for(site, QuantizeWeightsConfig(**config), capabilities) for site in sites]
    return {scheme.block_size for scheme in schemes if scheme}


def test_block_sizes_that_are_slow_on_the_target_are_used_only_if_no_other_fits() -> None:
    capabilities = limited(block_size=(16, 32, 128)).capabilities
    wanted_64 = 64 * 3
    assert blocks(target().capabilities, wanted_64) == {64}
    assert blocks(capabilities, wanted_64) == {32, 64}, "a look-up has its own operator"
    slow = replace(capabilities, traits={"matmul_nbits_block_sizes": [16]})
    assert blocks(slow, wanted_64) == {16}
    only_larger = limited(block_size=(256,)).capabilities
    assert 256 in blocks(only_larger, wanted_64)


def test_two_bits_are_used_if_the_user_asks_for_them(tmp_path: Path) -> None:
    package, ids, _ = tied_model(64)
    smaller = quantized(package, tmp_path, bits=2, head_bits=4)
    assert np.isfinite(run(smaller, tmp_path / "out", ids)).all()
    bits = [node.attributes["bits"].as_int() for node in smaller.component.graph if "bits" in node.attributes]
    assert sorted(bits) == [2, 2, 4, 4]


def test_a_matrix_stored_in_16_bits_before_a_cast_is_quantized(tmp_path: Path) -> None:
    package, ids, _ = tied_model(64)
    graph = package.component.graph
    matrix = graph.initializers["inner"]
    halves = initializer("inner_half", Transpose(Array(matrix.const_value.numpy().T.astype(np.float16))))
    graph.register_initializer(halves)
    cast = ir.Node("", "Cast", [halves], [ir.AttrInt64("to", int(ir.DataType.FLOAT))], name="cast")
    cast.outputs[0].name, cast.outputs[0].type = "inner_cast", ir.TensorType(ir.DataType.FLOAT)
    user = next(use.node for use in matrix.uses())
    graph.insert_before(user, cast)
    user.replace_input_with(1, cast.outputs[0])
    once = quantized(package, tmp_path)
    assert "Cast" not in operators(once)
    assert np.isfinite(run(once, tmp_path / "out", ids)).all()
