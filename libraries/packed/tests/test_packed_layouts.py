"""Each layout gives the packed levels, scales, zero points and values back, for any range of rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from packed import Module, awq, gptq, pack_quantized, quantized

from drupe.api import ModelError
from drupe_blockquant import Scheme
from drupe_blockquant.layout import Quantized, dequantize_rows, unpack_levels
from drupe_onnx import Array, Concat, Files, from_json, ir, to_json
from drupe_packed import PackedMatrix, Packing, Repacked, Rule, matrices, parts_of
from drupe_packed.repacking import schemes_of

RANGES = [(0, 48), (0, 1), (5, 6), (7, 23), (40, 48)]


def matrix(n: int = 48, k: int = 128, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, k)).astype(np.float32)


def opened(parts: dict[str, np.ndarray], layout: str, rule: Rule) -> PackedMatrix:
    tensors = {f"m.{name}": Array(values) for name, values in parts.items()}
    found = matrices(tensors, Packing(layout, (rule,)))
    assert list(found) == ["m.weight"]
    packed = found["m.weight"]
    assert isinstance(packed, PackedMatrix)
    return packed


def made(layout: str, module: Module, rule: Rule) -> PackedMatrix:
    parts = {
        "gptq": lambda: gptq(module, rule.bits),
        "gptq_v2": lambda: gptq(module, rule.bits, less_one=False),
        "gptq_p": lambda: gptq(module, rule.bits, less_one=False, planar=True),
        "awq": lambda: awq(module, rule.bits),
        "pack-quantized": lambda: pack_quantized(module, rule.bits, rule.symmetric),
    }[layout]()
    return opened(parts, layout, rule)


CASES = [
    ("gptq", 4, False), ("gptq", 4, True), ("gptq", 8, False), ("gptq", 2, False), ("gptq_v2", 4, False),
    ("gptq_v2", 8, True), ("gptq_p", 4, False), ("gptq_p", 2, True), ("gptq_p", 8, False),
    ("awq", 4, False), ("pack-quantized", 4, False), ("pack-quantized", 4, True),
    ("pack-quantized", 8, False),
]  # fmt: skip


@pytest.mark.parametrize(("layout", "bits", "symmetric"), CASES)
def test_unpacking_gives_the_packed_values(layout: str, bits: int, symmetric: bool) -> None:
    module = quantized(matrix(), bits, 32, symmetric)
    found = made(layout, module, Rule(bits, 32, symmetric))
    assert found.shape == (48, 128)
    with Files() as files:
        for start, stop in RANGES:
            levels = unpack_levels(found.packed(start, stop, files), bits)
            np.testing.assert_array_equal(levels, module.levels[start:stop])
            np.testing.assert_array_equal(found.scales(start, stop, files), module.scales[start:stop])
            np.testing.assert_array_equal(found.zero_points(start, stop, files), module.zero_points[start:stop])
            np.testing.assert_array_equal(found.rows(start, stop, files), module.values[start:stop])


@pytest.mark.parametrize(
    ("layout", "bits"),
    [(layout, bits) for layout in ("gptq", "gptq_v2", "gptq_p") for bits in (3, 5, 6, 7)]
    + [("awq", bits) for bits in (5, 6, 7)],
)
@pytest.mark.parametrize("symmetric", [True, False])
def test_odd_widths_are_given_as_the_middle_levels_of_the_next_width(layout: str, bits: int, symmetric: bool) -> None:
    """A level may lie in two words. GPTQ subtracts the one from each zero point there, also from 0."""
    module = quantized(np.abs(matrix(96)) if not symmetric else matrix(96), bits, 32, symmetric)
    assert symmetric or (module.zero_points == 0).any()
    found = made(layout, module, Rule(bits, 32, symmetric))
    given = 4 if bits == 3 else 8
    middle = (1 << given - 1) - (1 << bits - 1)
    assert (found.bits, found.shape) == (given, (96, 128))
    with Files() as files:
        for start, stop in [*RANGES, (31, 65), (90, 96)]:
            levels = unpack_levels(found.packed(start, stop, files), given)
            np.testing.assert_array_equal(levels, module.levels[start:stop] + middle)
            zeros = found.zero_points(start, stop, files)
            np.testing.assert_array_equal(zeros, module.zero_points[start:stop] + middle)
            np.testing.assert_array_equal(found.rows(start, stop, files), module.values[start:stop])


@pytest.mark.parametrize(("layout", "bits", "symmetric"), CASES)
@pytest.mark.parametrize("group_size", [16, 64, 96, 192])
def test_a_repacked_matrix_has_the_same_values(layout: str, bits: int, symmetric: bool, group_size: int) -> None:
    """A group of 96 is divided into three blocks of 32, and a group of 192 is a whole row."""
    modules = [quantized(matrix(n, 192, seed=n) * n, bits, group_size, symmetric) for n in (48, 16, 8)]
    parts = tuple(made(layout, module, Rule(bits, group_size, symmetric)) for module in modules)
    assert parts_of(Concat(parts)) == parts
    for scheme in schemes_of(parts):
        producer = Repacked(parts, scheme, ir.DataType.FLOAT)
        with Files(reuse=True) as files:
            packed, scales, *zeros = producer.produce(0, 72, files)
            assert [each.shape for each in (packed, scales, *zeros)] == [spec.shape for spec in producer.outputs]
            values = dequantize_rows(Quantized(packed, scales, zeros[0] if zeros else None), scheme, 192)
            np.testing.assert_array_equal(values, np.concatenate([module.values for module in modules]))
            files.recycle()
            np.testing.assert_array_equal(producer.produce(45, 67, files)[0], packed[45:67])


def test_schemes_start_with_the_largest_block_that_divides_a_group() -> None:
    def sizes(group_size: int | None, k: int) -> list[int]:
        module = quantized(matrix(8, k), 4, group_size or k, True)
        return [each.block_size for each in schemes_of([made("pack-quantized", module, Rule(4, group_size, True))])]

    assert sizes(128, 256) == [128, 64, 32, 16]
    assert sizes(512, 1024) == [256, 128, 64, 32, 16]
    assert sizes(96, 192) == [32, 16]
    assert sizes(24, 48) == []
    assert sizes(None, 576) == [64, 32, 16]
    assert sizes(None, 1008) == [256, 128, 64, 32, 16]  # padding of less than 2 %


@pytest.mark.parametrize("layout", ["gptq", "gptq_v2", "pack-quantized"])
def test_columns_in_act_order_are_sorted_by_group(layout: str) -> None:
    order = np.random.default_rng(1).permutation(128)
    module = quantized(matrix(), 4, 32, False, order // 32)
    parts = pack_quantized(module, 4, False) if layout == "pack-quantized" else gptq(module, 4, layout == "gptq")
    parts["weight_g_idx" if layout == "pack-quantized" else "g_idx"] = module.group_of.astype(np.int32)
    found = opened(parts, layout, Rule(4, 32, False, reordered=True))
    assert found.order is not None
    (scheme, *_) = schemes_of((found,))
    with Files() as files:
        np.testing.assert_array_equal(found.rows(3, 30, files), module.values[3:30])
        packed, scales, zeros = Repacked((found,), scheme, ir.DataType.FLOAT).produce(0, 48, files)
    values = dequantize_rows(Quantized(packed, scales, zeros), scheme, 128)
    np.testing.assert_array_equal(values, module.values[:, found.order.values])


def test_gptq_zero_points_of_zero_are_read_despite_the_borrow_from_their_neighbours() -> None:
    module = quantized(np.abs(matrix()), 4, 32, False)
    assert (module.zero_points == 0).any()
    found = made("gptq", module, Rule(4, 32, False))
    with Files() as files:
        np.testing.assert_array_equal(found.zero_points(0, 48, files), module.zero_points)


def test_concatenated_matrices_of_different_kinds_are_not_repacked() -> None:
    four, eight = (made("gptq", quantized(matrix(), bits, 32, False), Rule(bits, 32, False)) for bits in (4, 8))
    assert parts_of(Concat((four, eight))) == ()
    assert parts_of(Concat((four, Array(matrix())))) == ()
    assert parts_of(four) == (four,)


def test_one_part_with_zero_points_makes_the_scheme_asymmetric() -> None:
    symmetric, other = (made("pack-quantized", quantized(matrix(), 4, 32, yes), Rule(4, 32, yes)) for yes in (1, 0))
    assert not schemes_of((symmetric, other))[0].symmetric
    assert schemes_of((symmetric, symmetric))[0] == Scheme(4, 32, symmetric=True)


def test_a_packed_matrix_from_json_is_equal() -> None:
    found = made("gptq", quantized(matrix(), 4, 32, False), Rule(4, 32, False))
    assert from_json(to_json(found)) == found


def test_zero_points_in_a_matrix_declared_symmetric_are_an_error() -> None:
    found = made("gptq", quantized(matrix(), 4, 32, False), Rule(4, 32, True))
    with Files() as files, pytest.raises(ModelError, match="says that the weights are symmetric"):
        Repacked((found,), Scheme(4, 32), ir.DataType.FLOAT).produce(0, 48, files)


def test_a_scale_too_large_for_float16_is_refused() -> None:
    module = quantized(matrix() * 1e3, 4, 32, True)
    module.scales = module.scales.astype(np.float32) * 1e5
    found = made("pack-quantized", module, Rule(4, 32, True))
    with Files() as files, pytest.raises(ModelError, match="the largest float16 is 65504"):
        Repacked((found,), Scheme(4, 32), ir.DataType.FLOAT16).produce(0, 48, files)


WRONG: list[tuple[str, str, Any, str]] = [
    ("gptq", "qweight", lambda held: held[:-1], "120 whole numbers"),
    ("gptq", "qweight", lambda held: held[:, :-1], "has the shape"),
    ("gptq", "qweight", lambda held: held.astype(np.int64), "must be a matrix of int32, but is int64"),
    ("gptq", "qweight", lambda held: held[0], "must be a matrix"),
    ("gptq", "qzeros", lambda held: held[:, :-1], "qzeros' has the shape"),
    ("gptq", "scales", lambda held: held[:-1], "scales' has the shape"),
    ("gptq", "scales", lambda held: held.astype(np.int32), "float16 or bfloat16 or float32"),
    ("gptq", "scales", None, "lacks the tensor 'scales'"),
    ("gptq", "g_idx", lambda held: held[:-1], "128 whole numbers"),
    ("gptq", "g_idx", lambda held: held[::-1].copy(), "config.json says that the checkpoint does not"),
    ("gptq", "g_idx", lambda held: held * 0, "does not put 32 columns into each group"),
    ("gptq", "g_idx", lambda held: held - 5, "does not put 32 columns into each group"),
    ("awq", "qweight", lambda held: held[:, :-1], "has the shape"),
    ("awq", "qzeros", lambda held: held[:-1], "has the shape"),
    ("pack-quantized", "weight_shape", lambda held: held * 2, "has the shape"),
    ("pack-quantized", "weight_shape", lambda held: held * 0, r"says \[0, 0\]"),
    ("pack-quantized", "weight_shape", lambda held: -held, r"says \[-48, -128\]"),
    ("pack-quantized", "weight_shape", lambda held: held[:1], "two whole numbers"),
    ("pack-quantized", "weight_shape", None, "lacks the tensor 'weight_shape'"),
    ("pack-quantized", "weight_scale", lambda held: held[:, :1], "has the shape"),
    ("pack-quantized", "weight_zero_point", None, "lacks the tensor 'weight_zero_point'"),
]


@pytest.mark.parametrize(("layout", "part", "change", "message"), WRONG)
def test_tensors_that_do_not_fit_together_are_refused(layout: str, part: str, change: Any, message: str) -> None:
    module = quantized(matrix(), 4, 32, False)
    parts = {"gptq": lambda: gptq(module, 4), "awq": lambda: awq(module),
             "pack-quantized": lambda: pack_quantized(module, 4, False)}[layout]()  # fmt: skip
    if change is None:
        del parts[part]
    else:
        parts[part] = change(parts[part])
    with pytest.raises(ModelError, match=message):
        opened(parts, layout, Rule(4, 32, False))


def test_rules_are_found_by_the_name_of_the_module() -> None:
    packing = Packing("gptq", (Rule(8, 32, True, targets=("re:.*down_proj",)), Rule(4, 64, True, targets=("a.b",))))
    assert packing.rule("model.layers.0.mlp.down_proj") == packing.rules[0]
    assert packing.rule("a.b") == packing.rules[1]
    assert packing.rule("a.c") is None
    with pytest.raises(ModelError, match="no quantization scheme for the module 'm'"):
        matrices({"m.qweight": Array(np.zeros((4, 8), np.int32))}, packing)
