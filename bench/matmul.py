"""Measure how long onnxruntime takes to multiply one token with block-quantized weights, by bits and block size.

    python3 dev.py bench matmul [--shape 4864 896] [--layers 48] [--threads 1] [--repeats 20]

Each scheme gets a chain of layers whose shape alternates, so that the weights are read from memory as in a decoder's
body, not from the cache. --layers 1 with a shape that fits into the cache measures the kernels alone. Prints
picoseconds a weight: the trait `matmul_nbits_decode_times` of execution providers holds such numbers, for two threads
and weights from memory, since that is what a decoded token waits for.
"""

from __future__ import annotations

import argparse
import itertools
import time
from typing import Any

import numpy as np

SCHEMES = [(bits, block_size) for bits in (4, 8) for block_size in (16, 32, 64, 128, 256)]


def main() -> int:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(prog="bench matmul", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shape", nargs=2, type=int, default=(4864, 896), metavar=("N", "K"))
    parser.add_argument("--layers", type=int, default=48, help="(default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="(default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=20, help="(default: %(default)s)")
    options = parser.parse_args()
    print(f"picoseconds a weight, one token, {options.threads} threads\n")
    print(f"{'bits/block':>12}{'symmetric':>12}{'asymmetric':>12}")
    for bits, block_size in SCHEMES:
        found = [picoseconds(bits, block_size, symmetric, options) for symmetric in (True, False)]
        print(f"{f'{bits}/{block_size}':>12}{found[0]:12.1f}{found[1]:12.1f}", flush=True)
    return 0


def picoseconds(bits: int, block_size: int, symmetric: bool, options: argparse.Namespace) -> float:
    """The best of several runs over all layers, for each weight."""
    import onnxruntime as ort

    n, k = (int(size) for size in options.shape)
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = options.threads
    model = chain(bits, block_size, symmetric, (n, k), options.layers)
    session = ort.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    del model
    feed = {"x": np.random.default_rng(0).standard_normal((1, k), np.float32)}
    session.run(None, feed)
    seconds: list[float] = [once(session, feed) for _ in range(options.repeats)]
    return min(seconds) / (n * k * int(options.layers)) * 1e12


def once(session: Any, feed: dict[str, Any]) -> float:
    """Seconds for one token through all layers."""
    start = time.perf_counter()
    session.run(None, feed)
    return time.perf_counter() - start


def chain(bits: int, block_size: int, symmetric: bool, shape: tuple[int, int], layers: int) -> Any:
    """Layers [N, K] and [K, N] in turn, each multiplied with what comes out of the one before."""
    from onnx import TensorProto, helper, numpy_helper

    generator = np.random.default_rng(1)
    nodes, weights = [], []
    for layer, (n, k) in zip(range(layers), itertools.cycle((shape, shape[::-1])), strict=False):
        blocks = -(-k // block_size)
        arrays = {
            f"b{layer}": generator.integers(0, 256, (n, blocks, block_size * bits // 8), np.uint8),
            f"s{layer}": np.full((n, blocks), 1e-3, np.float32),
        }
        if not symmetric:
            arrays[f"z{layer}"] = generator.integers(0, 256, (n, -(-blocks * bits // 8)), np.uint8)
        weights += [numpy_helper.from_array(array, name) for name, array in arrays.items()]
        nodes.append(
            helper.make_node(
                "MatMulNBits",
                [f"y{layer - 1}" if layer else "x", *arrays],
                [f"y{layer}"],
                domain="com.microsoft",
                K=k,
                N=n,
                bits=bits,
                block_size=block_size,
                accuracy_level=4,
            )
        )
    first = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, shape[1]])
    last = helper.make_tensor_value_info(f"y{layers - 1}", TensorProto.FLOAT, [1, None])
    graph = helper.make_graph(nodes, "chain", [first], [last], weights)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


if __name__ == "__main__":
    raise SystemExit(main())
