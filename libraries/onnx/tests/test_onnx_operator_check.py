"""Whether a target runs each operator of a graph."""

from __future__ import annotations

import pytest

from drupe.api import Target
from drupe_onnx import Capabilities, KernelSupport, OnnxKind, Operator, ir
from drupe_onnx.operator_check import operator_uses

FLOAT = ir.DataType.FLOAT
KIND = OnnxKind()


def make_target(**operators: Operator) -> Target:
    return Target("test", "1.0", Capabilities(">=1", operators, ("float32",)))


def operator(*types: str, inputs: int = 2, **limits: object) -> Operator:
    support = KernelSupport({"T": frozenset(types)}, **limits)
    return Operator(("T",) * inputs, ("T",), (support,))


def test_a_model_that_the_target_can_run_has_no_problems(model):
    assert KIND.check(model, make_target(MatMul=operator("float32"), Add=operator("float32"))) == ()


def test_each_problem_is_one_sentence_that_names_operator_and_node(model):
    assert KIND.check(model, make_target(MatMul=operator("float16"))) == (
        "MatMul: input 0 is float32; supported: float16 (node 'product')",
        "no kernel for Add (node 'add' and 1 more)",
    )
    late = make_target(MatMul=operator("float32", since=22), Add=operator("float32"))
    assert KIND.check(model, late) == ("MatMul: opset version 21 is not supported (node 'product')",)


def test_attributes_omitted_inputs_and_inner_graphs_are_checked():
    x = ir.val("x", FLOAT, [2])
    inner = ir.node("Acme", [x, None], {"mode": "fast", "axes": [1, 2]}, domain="acme", outputs=[ir.val("o", FLOAT)])
    branch = ir.Graph([], inner.outputs, nodes=[inner], name="branch")
    condition = ir.val("c", ir.DataType.BOOL, [])
    outer = ir.node(
        "If", [condition], {"then_branch": branch, "else_branch": branch.clone(True)}, outputs=[ir.val("y")]
    )
    graph = ir.Graph([x, condition], outer.outputs, nodes=[outer], opset_imports={"": 21, "acme": 3}, name="g")
    uses = [use for _, use in operator_uses(ir.Model(graph, ir_version=10))]
    assert [use.key for use in uses].count("acme::Acme") == 2
    (acme, _) = (use for use in uses if use.name == "Acme")
    assert (acme.version, acme.inputs, acme.outputs) == (3, ("float32", ""), ("float32",))
    assert acme.attributes == {"mode": "fast", "axes": (1, 2)}
    (branching,) = (use for use in uses if use.name == "If")
    assert (branching.inputs, branching.outputs, branching.attributes) == (("bool",), (None,), {})


@pytest.mark.parametrize(
    ("dtype", "name"),
    [("FLOAT", "float32"), ("DOUBLE", "float64"), ("FLOAT16", "float16"), ("BFLOAT16", "bfloat16"), ("INT64", "int64"),
     ("UINT8", "uint8"), ("INT4", "int4"), ("BOOL", "bool"), ("STRING", "string"), ("FLOAT8E4M3FN", "float8e4m3fn")],
)  # fmt: skip
def test_element_types_have_the_names_of_capability_tables(dtype, name):
    node = ir.node("Identity", [ir.val("x", ir.DataType[dtype], [1])])
    graph = ir.Graph(list(node.inputs), node.outputs, nodes=[node], opset_imports={"": 21})
    ((_, use),) = operator_uses(ir.Model(graph, ir_version=10))
    assert use.inputs == (name,)
