"""Measure the inner loops of quantization: weights a second on one and more threads, and the error of each scheme.

    python3 dev.py bench blockquant [--shape 4864 896] [--threads 2] [--repeats 7] [--ready]

bfloat16 rows in, packed bytes out, in memory. The error is the mean squared one, relative to round to nearest,
symmetric, block 32; GPTQ's is weighted by the Hessian of correlated inputs instead, against that of the same scheme's
search weighted by its diagonal. Speeds are compared with ONNX Runtime's own quantizer (float32 in, one thread).
--ready also times how long a new process takes until a kernel can run, with and without compiled kernels on disk.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from drupe_blockquant import Quantized, Scheme, backend, dequantize_rows, gptq_factor, gptq_rows, quantize_rows

SCHEMES = [
    Scheme(bits, block_size, symmetric, method)
    for bits, block_sizes in ((4, (32, 64, 128)), (8, (32, 128)), (2, (32,)))
    for block_size in block_sizes
    for symmetric in (True, False)
    for method in ("rtn", "search", "hqq")
]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shape", nargs=2, type=int, default=(4864, 896), metavar=("N", "K"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--ready", action="store_true")
    options = parser.parse_args()
    n, k = options.shape
    rows = (np.random.default_rng(0).standard_normal((n, k), np.float32) * 0.02).astype(ml_dtypes.bfloat16)
    exact = rows.astype(np.float32)
    print(f"[{n}, {k}] bfloat16, {backend()}, best of {options.repeats}, million weights a second\n")
    print(f"{'scheme':32}{'1 thread':>10}{f'{options.threads} threads':>12}{'bits':>8}{'error':>9}")
    reference = 0.0
    for scheme in SCHEMES:
        out = quantize_rows(rows, scheme)
        alone = n * k / fastest(functools.partial(quantize_rows, rows, scheme, out=out), options.repeats)
        together = n * k / fastest(in_threads(rows, scheme, out, options.threads), options.repeats)
        error = float(np.mean((dequantize_rows(out, scheme, k) - exact) ** 2))
        reference = reference or error
        bits = 8 * scheme.bytes_for(n, k, scale_bytes=4) / (n * k)
        print(f"{name(scheme):32}{alone / 1e6:10.0f}{together / 1e6:12.0f}{bits:8.2f}{error / reference:9.4f}")
    report_gptq(rows, exact, options.repeats)
    print(f"{'onnxruntime: 4 bit sym 32':32}{n * k / fastest(by_onnxruntime(exact), options.repeats) / 1e6:10.0f}")
    if options.ready:
        report_readiness()
    return 0


def report_gptq(rows: npt.NDArray[Any], exact: npt.NDArray[np.float32], repeats: int) -> None:
    """Speed and weighted error of GPTQ, and the seconds to compute the Hessian's factor, once for each input.

    numpy decides on the threads of its products, so there is only one figure for the factor.
    """
    n, k = rows.shape
    generator = np.random.default_rng(0)
    inputs = generator.standard_normal((2 * k, k)) @ (generator.standard_normal((k, k)) * np.linspace(1, 0.05, k))
    hessian = inputs.T @ inputs
    begin = time.perf_counter()
    factor = gptq_factor(hessian)
    seconds = time.perf_counter() - begin
    print(f"{f'factor of a Hessian [{k}, {k}]':32}{seconds:20.2f} s")
    for scheme in (Scheme(4, 32, True, "search"), Scheme(4, 128, False, "search")):
        ours = gptq_rows(rows, factor, scheme)
        searched = quantize_rows(rows, scheme, importance=np.diagonal(hessian).astype(np.float32))
        error, other = (weighted_error(dequantize_rows(q, scheme, k) - exact, hessian) for q in (ours, searched))
        rate = n * k / fastest(functools.partial(gptq_rows, rows, factor, scheme), repeats)
        bits = 8 * scheme.bytes_for(n, k, scale_bytes=4) / (n * k)
        label = name(scheme).replace("search", "gptq")
        print(f"{label:32}{'':10}{rate / 1e6:12.0f}{bits:8.2f}{error / other:9.4f}")


def weighted_error(error: npt.NDArray[np.float32], hessian: npt.NDArray[np.float64]) -> float:
    return float(np.sum((error @ hessian.astype(np.float32)) * error, dtype=np.float64))


def name(scheme: Scheme) -> str:
    symmetry = "sym" if scheme.symmetric else "asym"
    return f"{scheme.bits} bit {symmetry} {scheme.block_size} {scheme.method}"


def fastest(work: Callable[[], object], repeats: int) -> float:
    """Seconds of the fastest of several runs."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def in_threads(rows: npt.NDArray[Any], scheme: Scheme, out: Quantized, threads: int) -> Callable[[], object]:
    """Quantize row ranges on several threads, each into its part of the output."""
    bounds = [len(rows) * i // threads for i in range(threads + 1)]
    ranges = [slice(a, b) for a, b in itertools.pairwise(bounds)]
    pool = ThreadPoolExecutor(threads)

    def part(which: slice) -> Quantized:
        zero_points = None if out.zero_points is None else out.zero_points[which]
        into = Quantized(out.packed[which], out.scales[which], zero_points)
        return quantize_rows(rows[which], scheme, out=into)

    return lambda: list(pool.map(part, ranges))


def by_onnxruntime(rows: npt.NDArray[Any]) -> Callable[[], object]:
    from onnxruntime.capi._pybind_state import quantize_matmul_4bits

    n, k = rows.shape
    scheme = Scheme(4, 32, True)
    columns = np.ascontiguousarray(rows.T)
    packed = np.zeros((n, scheme.blocks(k), 16), np.uint8)
    scales = np.zeros((n, scheme.blocks(k)), np.float32)
    zeros = np.zeros((n, (scheme.blocks(k) + 1) // 2), np.uint8)
    return lambda: quantize_matmul_4bits(packed, columns, scales, zeros, 32, n, k, True)


def report_readiness() -> None:
    """Time `warm_up` in two new processes that share a folder of compiled kernels: the second one finds them there."""
    code = (
        "import time, numpy, drupe_blockquant as b; s = time.perf_counter();b.warm_up(); print(time.perf_counter() - s)"
    )
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "DRUPE_BLOCKQUANT_CACHE": folder}
        compiled, loaded = (
            float(subprocess.run([sys.executable, "-c", code], env=environment, stdout=-1, check=True).stdout)
            for _ in range(2)
        )
    print(f"\nseconds until a kernel can run: compiled {compiled:.2f}, from disk {loaded:.2f}")


if __name__ == "__main__":
    sys.exit(main())
